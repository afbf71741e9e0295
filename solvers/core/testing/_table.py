"""Small text tables for assertion messages."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["SHOWN_ROWS", "text_table"]

SHOWN_ROWS = 8


def text_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Align rows in columns.

    Args:
        header: Titles of the columns.
        rows: Cells; floats are shown with six digits.

    Returns:
        Lines, indented by two blanks.
    """
    cells = [list(header), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    return "\n".join(
        "  " + "  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True))
        for row in cells
    )


def _cell(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
