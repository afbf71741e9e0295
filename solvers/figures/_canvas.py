"""The sheet: a figure with stacked axes, and the file it becomes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from solvers.core import SettingsError, require_extra

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
    *, width: float = 10.0, heights: Sequence[float] = (4.0,)
) -> tuple[Figure, list[Axes]]:
    """Make a figure with axes one above the other.

    Args:
        width: Width of the figure [inch].
        heights: Height of each axes [inch], from the top.

    Returns:
        The figure and its axes.

    Raises:
        MissingExtraError: If matplotlib is not installed.
        SettingsError: If there are no axes or a size is not positive.

    Example:
        >>> figure, axes = open_figure(width=4, heights=[2, 1])
        >>> len(axes)
        2
    """
    if not heights or min(width, *heights) <= 0:
        raise SettingsError(
            f"width is {width} and heights are {list(heights)}, expected positive inches and at "
            "least one height"
        )
    # Figure alone, without pyplot: pyplot keeps every figure alive and may look for a display.
    module = require_extra("matplotlib.figure", "viz")
    figure = module.Figure(figsize=(width, sum(heights)), layout="constrained")
    grid = figure.subplots(
        len(heights), 1, squeeze=False, gridspec_kw={"height_ratios": list(heights)}
    )
    return figure, list(grid[:, 0])


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
    target = Path(path)
    if target.suffix.lower() not in _ENDINGS:
        raise SettingsError(
            f"path ends in {target.suffix!r}, expected one of {list(_ENDINGS)} ({target})"
        )
    if not target.parent.is_dir():
        raise SettingsError(f"folder {target.parent} does not exist; create it first")
    partial = target.with_name(f".{target.name}.partial{target.suffix}")
    try:
        figure.savefig(partial, dpi=dpi)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target
