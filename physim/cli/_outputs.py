"""Files that a command shall write are checked before it computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from solvers.core import SettingsError, check_output

__all__ = ["check_outputs"]


def check_outputs(
    files: Mapping[str, tuple[Path | None, Sequence[str]]],
    *,
    json: Path | None,
    reads: Mapping[str, str | Path] | None = None,
) -> None:
    """Refuse before the work what would fail after it.

    Args:
        files: File and allowed endings by the name of the option; None was not asked for, and no
            endings allow any.
        json: File of the record; ``-`` is standard output.
        reads: What the command reads, by the name of the option or argument; what is no file, such
            as the name of a model, is passed over.

    Raises:
        SettingsError: If a file has another ending, stands where it cannot be written, or would
            take the place of another file of the command.
    """
    taken = {Path(path).resolve(): name for name, path in (reads or {}).items()}
    for option, (path, endings) in {**files, "json": (json, ())}.items():
        if path is None or (option == "json" and str(path) == "-"):
            continue
        target = check_output(f"--{option}", path, endings)
        # Devices such as /dev/null take anything.
        if target.exists() and not target.is_file():
            continue
        other = taken.setdefault(target.resolve(), f"--{option}")
        if other != f"--{option}":
            raise SettingsError(
                f"--{option}: {path} is the file of {other} too, which would be lost; give another "
                "name"
            )
