"""Solid bodies in a flow, by their signed distance; differentiable in where and how large."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from physim.fluid._grid import StaggeredGrid
from solvers.core import ShapeError, check_positive, is_mapped

__all__ = ["Box", "Obstacle", "Sphere", "open_fractions"]

_WIDTH = 2.0


@runtime_checkable
class Obstacle(Protocol):
    """Anything that knows how far away it is."""

    def distance(self, points: Tensor) -> Tensor:
        """Signed distance [m] of points ``(*any, axes)``, negative inside."""
        ...


@dataclass(frozen=True, slots=True)
class Sphere:
    """A ball, or a disc in two axes.

    Args:
        center: Centre [m], shape ``(axes,)``.
        radius: Radius [m], a number or a tensor without axes.

    Raises:
        SettingsError: If the radius is not positive.

    Example:
        >>> disc = Sphere(torch.tensor([1.0, 1.0]), 0.5)
        >>> float(disc.distance(torch.tensor([1.0, 3.0])))
        1.5
    """

    center: Tensor
    radius: float | Tensor

    def __post_init__(self) -> None:
        if not is_mapped(torch.as_tensor(self.radius)):
            check_positive("radius", torch.as_tensor(self.radius).detach())

    def distance(self, points: Tensor) -> Tensor:
        """Distance to the surface."""
        _check_axes("center", self.center, points)
        away: Tensor = torch.linalg.vector_norm(points - self.center, dim=-1)
        return away - self.radius


@dataclass(frozen=True, slots=True)
class Box:
    """A box along the axes.

    Args:
        center: Centre [m], shape ``(axes,)``.
        half_sizes: Half its sides [m], shape ``(axes,)``.

    Raises:
        SettingsError: If a side is not positive.
    """

    center: Tensor
    half_sizes: Tensor

    def __post_init__(self) -> None:
        if not is_mapped(self.half_sizes):
            check_positive("half_sizes", self.half_sizes.detach())

    def distance(self, points: Tensor) -> Tensor:
        """Distance to the surface; outside exact, inside that to the nearest side."""
        _check_axes("center", self.center, points)
        _check_axes("half_sizes", self.half_sizes, points)
        beyond = (points - self.center).abs() - self.half_sizes
        outside: Tensor = torch.linalg.vector_norm(beyond.clamp(min=0.0), dim=-1)
        return outside + beyond.amax(-1).clamp(max=0.0)


def _check_axes(name: str, place: Tensor, points: Tensor) -> None:
    if place.shape != points.shape[-1:]:
        raise ShapeError(
            f"{name}: got shape {tuple(place.shape)}, expected ({points.shape[-1]},), one number "
            "an axis of the grid"
        )


def open_fractions(
    grid: StaggeredGrid, obstacles: Sequence[Obstacle], sides: Sequence[tuple[bool, bool]]
) -> list[Tensor]:
    """Which part of every face fluid can cross: a smooth step two cells wide at each surface.

    Args:
        grid: The grid.
        obstacles: Bodies in it.
        sides: For each axis whether its first and last sides are open; else they are walls.

    Returns:
        For each axis numbers between 0 and 1 on its faces.
    """
    fractions = []
    for axis in range(grid.axes):
        points = grid.faces(axis)
        fraction = torch.ones(grid.face_shape(axis), dtype=points.dtype)
        for obstacle in obstacles:
            away = obstacle.distance(points) / (_WIDTH * grid.spacing) + 0.5
            part = away.clamp(0.0, 1.0)
            fraction = fraction * part**2 * (3.0 - 2.0 * part)
        closed = torch.ones_like(fraction)
        for side, is_open in zip((0, grid.shape[axis]), sides[axis], strict=True):
            if not is_open:
                closed.select(axis, side).zero_()
        fractions.append(fraction * closed)
    return fractions
