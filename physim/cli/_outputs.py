"""Files that a command shall write are checked before it computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from solvers.core import check_output

__all__ = ["check_outputs"]


def check_outputs(
    files: Mapping[str, tuple[Path | None, Sequence[str]]], *, json: Path | None
) -> None:
    """Refuse before the work what would fail after it.

    Args:
        files: File and allowed endings by the name of the option; None was not asked for, and no
            endings allow any.
        json: File of the record; ``-`` is standard output.

    Raises:
        SettingsError: If a file has another ending, or stands where it cannot be written.
    """
    for option, (path, endings) in files.items():
        if path is not None:
            check_output(f"--{option}", path, endings)
    if json is not None and str(json) != "-":
        check_output("--json", json)
