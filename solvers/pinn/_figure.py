"""A training as a picture: the field, where it is wrong, and how it got there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from solvers.figures import Axes, Figure, draw_curves, open_figure, save_figure
from solvers.pde import evaluation_grid

__all__ = ["draw_result"]

_COUNTS = (161, 121)
"""Points along each axis of a field."""


def draw_result(result: Any, path: str | os.PathLike[str]) -> Path:
    """Draw the first field, its error against the reference, and the history.

    Args:
        result: Of either frame; a field is drawn over two axes, its error with a reference.
        path: File that ends in ``.png``, ``.svg`` or ``.pdf``.

    Returns:
        The path.
    """
    has_field = result.problem.domain.dimension == 2
    figure, axes = open_figure(width=13.0, heights=[4.0], columns=3 if has_field else 1)
    if has_field:
        _draw_field(result, figure, axes)
    rows = result.history
    if rows:
        known = [name for name in ("loss", "held_out", "relative_l2") if name in rows[0]]
        seconds = torch.tensor([float(row["seconds"]) for row in rows]).numpy()
        curves = {
            name.replace("_", " "): torch.tensor([float(row[name]) for row in rows]).numpy()
            for name in known
        }
        draw_curves(axes[-1], seconds, curves, x_label="time [s]", is_logarithmic=True)
    return save_figure(figure, Path(path))


def _draw_field(result: Any, figure: Figure, axes: list[Axes]) -> None:
    problem = result.problem
    points = evaluation_grid(problem, *_COUNTS)
    if len(points) != _COUNTS[0] * _COUNTS[1]:
        return
    columns = [points[:, k] for k in range(2)]
    with torch.no_grad():
        values = result(*columns)
    field = problem.fields[0]
    shown = (values[field] if isinstance(values, Mapping) else values).reshape(_COUNTS)
    panels = {field: shown}
    if problem.reference is not None:
        exact = problem.reference_values(points)[field].reshape(_COUNTS)
        panels[f"error of {field}"] = (shown - exact).abs()
    horizontal, vertical = problem.domain.axes
    grid = [column.reshape(_COUNTS).numpy() for column in columns]
    for place, (title, panel) in zip(axes, panels.items(), strict=False):
        mesh = place.pcolormesh(*grid, panel.numpy(), shading="gouraud", rasterized=True)
        figure.colorbar(mesh, ax=place)
        place.set_title(title)
        place.set_xlabel(horizontal)
        place.set_ylabel(vertical)
