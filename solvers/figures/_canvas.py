"""The sheet: a figure with stacked axes, and the file it becomes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from solvers.core import SettingsError, check_output, require_extra, write_whole

__all__ = ["Axes", "Figure", "open_figure", "save_figure"]

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

    Axes: TypeAlias = matplotlib.axes.Axes
    Figure: TypeAlias = matplotlib.figure.Figure
else:
    Axes = Figure = Any

_ENDINGS = (".png", ".svg", ".pdf")


def open_figure(
    *, width: float = 10.0, heights: Sequence[float] = (4.0,), columns: int = 1
) -> tuple[Figure, list[Axes]]:
    """Make a figure with axes one above the other, or in columns.

    Args:
        width: Width of the figure [inch].
        heights: Height of each row of axes [inch], from the top.
        columns: Axes in a row.

    Returns:
        The figure and its axes, row by row.

    Raises:
        MissingExtraError: If matplotlib is not installed.
        SettingsError: If there are no axes or a size is not positive.

    Example:
        >>> figure, axes = open_figure(width=4, heights=[2, 1])
        >>> len(axes)
        2
    """
    if not heights or min(width, columns, *heights) <= 0:
        raise SettingsError(
            f"width is {width}, heights are {list(heights)} and columns {columns}, expected "
            "positive inches, at least one height and one column"
        )
    # Figure alone, without pyplot: pyplot keeps every figure alive and may look for a display.
    module = require_extra("matplotlib.figure", "viz")
    figure = module.Figure(figsize=(width, sum(heights)), layout="constrained")
    grid = figure.subplots(
        len(heights), columns, squeeze=False, gridspec_kw={"height_ratios": list(heights)}
    )
    return figure, list(grid.ravel())


def save_figure(figure: Figure, path: str | Path, *, dpi: float = 130.0) -> Path:
    """Write a figure to a file, whole or not at all.

    Args:
        figure: The figure.
        path: File that ends in ``.png``, ``.svg`` or ``.pdf``.
        dpi: Resolution of a PNG.

    Returns:
        The path.

    Raises:
        SettingsError: If the ending is not known or the folder does not exist.
    """
    target = check_output("path", path, _ENDINGS)
    with write_whole(target) as partial:
        figure.savefig(partial, dpi=dpi)
    return target
