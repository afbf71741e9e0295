"""Filled outlines in true proportions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.core import SettingsError, require_extra
from solvers.figures._canvas import Axes

__all__ = ["draw_polygons"]


def draw_polygons(
    axes: Axes,
    polygons: Sequence[NDArray[np.floating[Any]]],
    *,
    colors: Sequence[Sequence[float]],
) -> None:
    """Fill polygons in the given order, later ones over earlier ones.

    Args:
        axes: Where; its units become equal in both directions.
        polygons: Corners of each polygon, shape ``(n, 2)``.
        colors: Red, green, blue and opacity of each polygon, in [0, 1].

    Raises:
        SettingsError: If there are not as many colours as polygons.
    """
    if len(colors) != len(polygons):
        raise SettingsError(f"got {len(colors)} colors for {len(polygons)} polygons")
    collections = require_extra("matplotlib.collections", "viz")
    edges = [(0.4 * r, 0.4 * g, 0.4 * b, a) for r, g, b, a in colors]
    axes.add_collection(
        collections.PolyCollection(
            list(polygons), facecolors=list(colors), edgecolors=edges, linewidths=0.6
        )
    )
    axes.set_aspect("equal")
    axes.autoscale_view()
