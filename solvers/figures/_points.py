"""Clouds of points in the plane."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.core import SettingsError, ShapeError
from solvers.figures._canvas import Axes

__all__ = ["draw_points"]


def draw_points(
    axes: Axes,
    clouds: Mapping[str, NDArray[np.floating[Any]]],
    *,
    title: str = "",
    size: float = 2.0,
) -> None:
    """Draw named clouds of points, later ones over earlier ones.

    Args:
        axes: Where; its units become equal in both directions.
        clouds: Points by name, shape ``(n, 2)`` each.
        title: Text above.
        size: Diameter of a point [typographic point].

    Raises:
        SettingsError: If there is no cloud.
        ShapeError: If the points of a cloud do not have two coordinates.
    """
    if not clouds:
        raise SettingsError("clouds is empty, expected at least one named cloud of points")
    for name, points in clouds.items():
        if np.ndim(points) != 2 or np.shape(points)[1] != 2:
            raise ShapeError(f"cloud {name!r} has shape {np.shape(points)}, expected (n, 2)")
        axes.scatter(points[:, 0], points[:, 1], s=size**2, linewidths=0, label=name, alpha=0.6)
    axes.set_aspect("equal")
    axes.set_title(title, fontsize="medium")
    if len(clouds) > 1:
        axes.legend(frameon=False, fontsize="small", markerscale=3)
