"""A training as a picture: the fields, where they are wrong, and how it got there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from solvers.core import check_kind
from solvers.figures import Axes, Figure, draw_curves, open_figure, save_figure
from solvers.pde import Box, Problem
from solvers.pinn._error import is_up_to_constant

__all__ = ["draw_result"]

_COUNTS = (161, 121)
"""Points along each axis of a field."""
_CURVE = 401
_MOST_FIELDS = 4


def draw_result(result: Any, path: str | os.PathLike[str]) -> Path:
    """Draw the fields, their errors against the reference, and the history.

    Args:
        result: Of either frame.
        path: File that ends in ``.png``, ``.svg`` or ``.pdf``.

    Returns:
        The path.
    """
    check_kind("path", path, (str, os.PathLike), "a path to a file")
    problem = result.problem
    fields = problem.fields[:_MOST_FIELDS]
    figure, axes = open_figure(width=13.0, heights=[_height(problem)] * len(fields), columns=3)
    points, is_inside = _points(problem)
    values = _values(result, points[is_inside])
    exact = problem.reference_values(points[is_inside]) if problem.reference else {}
    for row, name in enumerate(fields):
        panels = {name: values[name]}
        if exact:
            difference = values[name] - exact[name]
            if is_up_to_constant(problem, name):
                difference = difference - difference.mean()
            panels[f"error of {name}"] = difference.abs()
        places = axes[3 * row : 3 * row + 3]
        for place, (title, panel) in zip(places, panels.items(), strict=False):
            whole = torch.full((len(points),), torch.nan, dtype=torch.float64)
            whole[is_inside] = panel
            _draw_field(problem, points, whole, figure, place)
            place.set_title(title + _where(problem))
    _draw_history(result.history, axes[2])
    for place in axes:
        if not place.has_data():
            place.set_axis_off()
    return save_figure(figure, Path(path))


def _shown(problem: Problem) -> tuple[str, ...]:
    """Axes that are drawn: two of space, or one and time."""
    domain = problem.domain
    return domain.space[:2] if len(domain.space) > 1 else domain.axes


def _height(problem: Problem) -> float:
    """Height of a row, such that a field in true proportions fills its panel [inch]."""
    shown, bounds = _shown(problem), problem.domain.bounds
    if len(shown) < 2 or "t" in shown:
        return 4.0
    width, height = (bounds[axis][1] - bounds[axis][0] for axis in shown)
    return min(max(3.2 * height / width + 0.8, 2.2), 6.0)


def _fixed(problem: Problem) -> dict[str, float]:
    """Coordinates of the other axes: the end of time, the middle of space."""
    return {
        axis: ends[1] if axis == "t" else 0.5 * (ends[0] + ends[1])
        for axis, ends in problem.domain.bounds.items()
        if axis not in _shown(problem)
    }


def _where(problem: Problem) -> str:
    fixed = ", ".join(f"{axis} = {value:g}" for axis, value in _fixed(problem).items())
    return f" at {fixed}" if fixed else ""


def _points(problem: Problem) -> tuple[Tensor, Tensor]:
    """A grid over the axes that are drawn, and which of its points are in the domain."""
    shown, fixed = _shown(problem), _fixed(problem)
    counts = _COUNTS if len(shown) == 2 else (_CURVE,)
    grid = Box(**{axis: problem.domain.bounds[axis] for axis in shown}).grid(*counts)
    columns = [
        torch.full((len(grid),), fixed[axis], dtype=torch.float64)
        if axis in fixed
        else grid[:, shown.index(axis)]
        for axis in problem.domain.axes
    ]
    points = torch.stack(columns, 1)
    return points, problem.domain.contains(points)


def _values(result: Any, points: Tensor) -> Mapping[str, Tensor]:
    with torch.no_grad():
        values = result(*points.unbind(1))
    return values if isinstance(values, Mapping) else {result.problem.fields[0]: values}


def _draw_field(
    problem: Problem, points: Tensor, values: Tensor, figure: Figure, place: Axes
) -> None:
    shown = _shown(problem)
    columns = [points[:, problem.domain.axis(axis)] for axis in shown]
    place.set_xlabel(shown[0])
    if len(shown) == 1:
        place.plot(columns[0].numpy(), values.numpy(), linewidth=1.6)
        place.grid(visible=True, alpha=0.3)
        return
    grid = [column.reshape(_COUNTS).numpy() for column in columns]
    # Points outside the domain are no number, which smooth shading cannot leave out.
    shading: Any = "nearest" if bool(values.isnan().any()) else "gouraud"
    mesh = place.pcolormesh(
        *grid, values.reshape(_COUNTS).numpy(), shading=shading, rasterized=True
    )
    figure.colorbar(mesh, ax=place)
    place.set_ylabel(shown[1])
    if "t" not in shown:
        place.set_aspect("equal")


def _draw_history(rows: Any, place: Axes) -> None:
    if not rows:
        return
    known = [name for name in ("loss", "held_out", "relative_l2") if name in rows[0]]
    seconds = torch.tensor([float(row["seconds"]) for row in rows]).numpy()
    curves = {
        name.replace("_", " "): torch.tensor([float(row[name]) for row in rows]).numpy()
        for name in known
    }
    draw_curves(place, seconds, curves, x_label="time [s]", is_logarithmic=True)
