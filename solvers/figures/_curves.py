"""Curves over one abscissa."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.core import SettingsError, ShapeError
from solvers.figures._canvas import Axes

__all__ = ["draw_curves"]


def draw_curves(
    axes: Axes,
    x: NDArray[np.floating[Any]],
    curves: Mapping[str, NDArray[np.floating[Any]]],
    *,
    x_label: str = "",
    y_label: str = "",
    is_logarithmic: bool = False,
) -> None:
    """Draw named curves with a legend.

    Args:
        axes: Where.
        x: Abscissa, shape ``(n,)``.
        curves: Ordinates by name, shape ``(n,)`` each.
        x_label: Text of the horizontal axis, with its unit.
        y_label: Text of the vertical axis, with its unit.
        is_logarithmic: Whether the vertical axis is logarithmic.

    Raises:
        SettingsError: If there is no curve.
        ShapeError: If a curve has another length than ``x``.
    """
    if not curves:
        raise SettingsError("curves is empty, expected at least one named curve")
    for name, y in curves.items():
        if np.shape(y) != np.shape(x):
            raise ShapeError(
                f"curve {name!r} has shape {np.shape(y)}, expected {np.shape(x)} like x"
            )
        axes.plot(x, y, label=name, linewidth=1.6)
    if is_logarithmic:
        axes.set_yscale("log")
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.margins(x=0.0)
    axes.grid(visible=True, alpha=0.3)
    if len(curves) > 1:
        axes.legend(frameon=False, fontsize="small")
