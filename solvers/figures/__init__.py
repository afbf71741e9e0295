"""Figures: the only room that draws with matplotlib, which it loads at the first figure.

Figures belong to their caller: no global state, no window, no style sheet that leaks.
"""

from __future__ import annotations

from solvers.figures._canvas import Axes, Figure, open_figure, save_figure
from solvers.figures._curves import draw_curves
from solvers.figures._points import draw_points
from solvers.figures._polygons import draw_polygons

__all__ = [
    "Axes",
    "Figure",
    "draw_curves",
    "draw_points",
    "draw_polygons",
    "open_figure",
    "save_figure",
]
