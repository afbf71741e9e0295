"""Output files: refused before the work, then whole or not at all, and JSON that all can read."""

from __future__ import annotations

import json
import math
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from solvers.core._errors import SettingsError
from solvers.core._kinds import check_kind

__all__ = ["check_output", "to_json", "write_whole"]


def check_output(name: str, path: str | os.PathLike[str], endings: Sequence[str] = ()) -> Path:
    """Refuse a file that could not be written, before the work whose result it shall hold.

    Args:
        name: Name of the argument or option, for the message.
        path: The file; it may exist.
        endings: Endings that are allowed, with their dot and in lower case; any if empty. Capital
            letters in the path do not matter.

    Returns:
        The path.

    Raises:
        SettingsError: If the ending is not allowed, the folder does not exist or takes no files, or
            a folder has this name.

    Example:
        >>> check_output("path", "motion.npz", (".npz", ".h5")).name
        'motion.npz'
    """
    check_kind(name, path, (str, os.PathLike), "a path to a file")
    target = Path(path)
    if endings and target.suffix.lower() not in endings:
        raise SettingsError(
            f"{name}: {target} ends in {target.suffix!r}, expected "
            f"{'one of ' if len(endings) > 1 else ''}{', '.join(endings)}"
        )
    if not target.parent.is_dir():
        raise SettingsError(f"{name}: folder {target.parent} does not exist; create it first")
    if target.is_dir():
        raise SettingsError(f"{name}: {target} is a folder, expected a file")
    if target.is_file() or not target.exists():
        _check_folder(name, Path(os.path.realpath(target)).parent)
    return target


def _check_folder(name: str, folder: Path) -> None:
    """Refuse a folder in which no file can be made: rights alone do not tell, as on /proc."""
    try:
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SettingsError(
            f"{name}: no file can be made in folder {folder} ({error.strerror}); choose another"
        ) from error


@contextmanager
def write_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file so that it appears under its name only when every byte is on the disk.

    The body writes to the path it is given: a hidden one of its own in the same folder, with the
    same ending in lower case, because many writers choose their format by it. When the body ends,
    that file takes the place of an earlier one in one step. If the body raises, Ctrl-C included,
    the earlier file is untouched and nothing else is left; if the process is killed, the hidden
    file stays too. Of two processes that write the same file, the last one wins. A link is
    followed. A device or a pipe, such as ``/dev/null``, is written to directly.

    Args:
        path: The file; its folder must exist.

    Yields:
        The path to write to.

    Raises:
        FileNotFoundError: If the folder does not exist, or the body wrote no file.
        IsADirectoryError: If a folder has this name.
        OSError: If the disk is full or the folder is not writable.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     with write_whole(f"{folder}/note.txt") as partial:
        ...         _ = partial.write_text("whole")
        ...     [(file.name, file.read_text()) for file in Path(folder).iterdir()]
        [('note.txt', 'whole')]
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"folder {target.parent} does not exist; create it before writing {target.name}"
        )
    if target.is_dir():
        raise IsADirectoryError(f"{target} is a folder, expected a file")
    if target.exists() and not target.is_file():
        yield target
        return
    ending = target.suffix.lower()
    # In the same folder, because a rename is atomic only within one file system.
    target = Path(os.path.realpath(target))
    partial = target.with_name(f".{target.stem}.{secrets.token_hex(4)}.partial{ending}")
    try:
        yield partial
        _flush(partial)
        partial.replace(target)
        _flush(target.parent)
    finally:
        partial.unlink(missing_ok=True)


def to_json(record: Mapping[str, Any]) -> str:
    """Say a record in JSON that every program reads: NaN and infinity, which it lacks, are null.

    Args:
        record: Numbers, texts, None, lists, tuples and mappings; their keys become texts.

    Returns:
        The text, indented, with a line break at its end.

    Raises:
        TypeError: If there is something else in it, such as a tensor.

    Example:
        >>> print(to_json({"loss": [0.5, float("inf")]}), end="")
        {
          "loss": [
            0.5,
            null
          ]
        }
    """
    return json.dumps(_without_infinities(record), indent=2, allow_nan=False) + "\n"


def _without_infinities(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _without_infinities(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_infinities(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
