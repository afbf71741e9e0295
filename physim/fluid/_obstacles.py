"""Solid bodies in a flow, by their signed distance; differentiable in place, size and motion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from physim.fluid._grid import StaggeredGrid
from solvers.core import ShapeError, check_positive, is_mapped

__all__ = ["Box", "Moving", "MovingObstacle", "Obstacle", "Sphere", "open_fractions", "solid_flux"]

_WIDTH = 2.0


@runtime_checkable
class Obstacle(Protocol):
    """Anything that knows how far away it is."""

    def distance(self, points: Tensor) -> Tensor:
        """Signed distance [m] of points ``(*any, axes)``, negative inside."""
        ...


@runtime_checkable
class MovingObstacle(Obstacle, Protocol):
    """A body that also knows how fast its points move."""

    def velocity_at(self, points: Tensor) -> Tensor:
        """Velocity [m/s] of the body at points, shape ``(*any, axes)``."""
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
        object.__setattr__(self, "center", _vector(self.center))
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
        for name in ("center", "half_sizes"):
            object.__setattr__(self, name, _vector(getattr(self, name)))
        if not is_mapped(self.half_sizes):
            check_positive("half_sizes", self.half_sizes.detach())

    def distance(self, points: Tensor) -> Tensor:
        """Distance to the surface; outside exact, inside that to the nearest side."""
        _check_axes("center", self.center, points)
        _check_axes("half_sizes", self.half_sizes, points)
        beyond = (points - self.center).abs() - self.half_sizes
        outside: Tensor = torch.linalg.vector_norm(beyond.clamp(min=0.0), dim=-1)
        return outside + beyond.amax(-1).clamp(max=0.0)


@dataclass(frozen=True, slots=True)
class Moving:
    """A body that moves along, at one moment: where it is, and how fast.

    Args:
        shape: The body where it is now.
        velocity: Its velocity [m/s], shape ``(axes,)``.

    Example:
        >>> ball = Moving(Sphere(torch.tensor([4.0, 4.0]), 1.0), torch.tensor([0.5, 0.0]))
        >>> ball.velocity_at(torch.zeros(3, 2)).shape
        torch.Size([3, 2])
    """

    shape: Obstacle
    velocity: Tensor

    def __post_init__(self) -> None:
        object.__setattr__(self, "velocity", _vector(self.velocity))

    def distance(self, points: Tensor) -> Tensor:
        """Distance to the surface."""
        return self.shape.distance(points)

    def velocity_at(self, points: Tensor) -> Tensor:
        """The same everywhere."""
        _check_axes("velocity", self.velocity, points)
        return self.velocity.to(points).expand(points.shape)


def _vector(numbers: Any) -> Tensor:
    """Numbers of a list as a tensor; tensors stay as they are."""
    return numbers if isinstance(numbers, Tensor) else torch.tensor(numbers, dtype=torch.float64)


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
            fraction = fraction * _open_part(grid, obstacle, points)
        fractions.append(fraction * _inside_walls(grid, axis, sides[axis]))
    return fractions


def solid_flux(
    grid: StaggeredGrid, obstacles: Sequence[Obstacle], sides: Sequence[tuple[bool, bool]]
) -> list[Tensor] | None:
    """What moving bodies carry through every face: the covered part times their velocity.

    Where bodies overlap, the velocity is their mean, weighted by what each one covers.

    Args:
        grid: The grid.
        obstacles: Bodies in it, moving or not.
        sides: For each axis whether its first and last sides are open.

    Returns:
        For each axis numbers on its faces [m/s], zero on walls; None if no body moves.
    """
    if not any(isinstance(obstacle, MovingObstacle) for obstacle in obstacles):
        return None
    fluxes = []
    for axis in range(grid.axes):
        points = grid.faces(axis)
        fraction = torch.ones(grid.face_shape(axis), dtype=points.dtype)
        covered, moved = torch.zeros_like(fraction), torch.zeros_like(fraction)
        for obstacle in obstacles:
            part = _open_part(grid, obstacle, points)
            fraction, covered = fraction * part, covered + (1.0 - part)
            if isinstance(obstacle, MovingObstacle):
                moved = moved + (1.0 - part) * obstacle.velocity_at(points)[..., axis]
        velocity = moved / torch.where(covered > 0, covered, 1.0)
        fluxes.append((1.0 - fraction) * velocity * _inside_walls(grid, axis, sides[axis]))
    return fluxes


def _open_part(grid: StaggeredGrid, obstacle: Obstacle, points: Tensor) -> Tensor:
    away = obstacle.distance(points) / (_WIDTH * grid.spacing) + 0.5
    part = away.clamp(0.0, 1.0)
    return part**2 * (3.0 - 2.0 * part)


def _inside_walls(grid: StaggeredGrid, axis: int, sides: tuple[bool, bool]) -> Tensor:
    """One on the faces across an axis, zero on those that are walls."""
    inside = torch.ones(grid.face_shape(axis), dtype=torch.float64)
    for side, is_open in zip((0, grid.shape[axis]), sides, strict=True):
        if not is_open:
            inside.select(axis, side).zero_()
    return inside
