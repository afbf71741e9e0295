"""Where a problem lives: boxes in space and time, and regions cut out of space.

Axes have names, and points are tensors ``(n, d)`` with one column per axis, in the order in which
the axes were given. The axis named ``t`` is time, in seconds or without unit as the problem is.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from solvers.core import (
    SettingsError,
    ShapeError,
    check_choice,
    check_count,
    check_number,
    check_same_kind,
    check_shape,
    describe,
)

__all__ = ["TIME", "Box", "Domain", "SurfacePoints"]

TIME = "t"
_RESERVED = {"derivative", "index", "operation", "tape", "unary", "value", "where"}


@dataclass(frozen=True, slots=True, eq=False)
class SurfacePoints:
    """Points on a boundary.

    Attributes:
        points: Shape ``(n, d)``.
        normals: Outward unit normals, shape ``(n, d)``; zero along time.
    """

    points: Float[Tensor, "n d"]
    normals: Float[Tensor, "n d"]


class Domain(ABC):
    """A set of points with named axes and a bounding box.

    ``a & b`` is the intersection, ``a | b`` the union, ``a - b`` the difference of regions on the
    same axes; ``region * Box(t=(0, 1))`` is the region during a time.

    Attributes:
        axes: Names of the axes.
        bounds: Axis to lower and upper bound.
    """

    axes: tuple[str, ...]
    bounds: Mapping[str, tuple[float, float]]

    @abstractmethod
    def contains(self, points: Float[Tensor, "n d"]) -> Bool[Tensor, " n"]:
        """Tell which points are inside or on the boundary.

        Args:
            points: One point per row.

        Returns:
            One truth value per point.
        """

    @abstractmethod
    def surface(self, unit: Float[Tensor, "n d"]) -> SurfacePoints:
        """Spread points over the boundary in space, evenly by area, at all times.

        Args:
            unit: Points of the unit cube, evenly spread.

        Returns:
            Points on the boundary; regions that were combined give fewer than asked for.
        """

    @property
    @abstractmethod
    def surface_area(self) -> float:
        """Area (length, number of ends) of the boundary in space."""

    @property
    def dimension(self) -> int:
        """Number of axes, time included."""
        return len(self.axes)

    @property
    def has_time(self) -> bool:
        """Whether one axis is time."""
        return TIME in self.axes

    @property
    def space(self) -> tuple[str, ...]:
        """Axes other than time."""
        return tuple(axis for axis in self.axes if axis != TIME)

    @property
    def lower(self) -> Float[Tensor, " d"]:
        """Lower corner of the bounding box."""
        return torch.tensor([self.bounds[axis][0] for axis in self.axes], dtype=torch.float64)

    @property
    def upper(self) -> Float[Tensor, " d"]:
        """Upper corner of the bounding box."""
        return torch.tensor([self.bounds[axis][1] for axis in self.axes], dtype=torch.float64)

    def axis(self, name: str) -> int:
        """Find the column of an axis.

        Args:
            name: Name of the axis.

        Returns:
            Its place among the axes.

        Raises:
            SettingsError: If there is no such axis.
        """
        if name not in self.axes:
            raise SettingsError(
                f"axis: got {name!r}, expected one of {', '.join(self.axes)}, the axes of the "
                "domain"
            )
        return self.axes.index(name)

    def split(self, points: Float[Tensor, "... d"]) -> dict[str, Float[Tensor, "..."]]:
        """Take points apart into coordinates.

        Args:
            points: Last axis of the domain's dimension.

        Returns:
            Axis name to coordinate.

        Raises:
            ShapeError: If the last axis has another size.
        """
        shape = points.shape if isinstance(points, Tensor) else ()
        if shape[-1:] != (self.dimension,):
            got = f"shape {tuple(shape)}" if isinstance(points, Tensor) else describe(points)
            raise ShapeError(
                f"points: got {got}, expected (..., {self.dimension}) with "
                f"one column for each of {', '.join(self.axes)}"
            )
        return dict(zip(self.axes, points.unbind(-1), strict=True))

    def scale(self, unit: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Stretch points of the unit cube over the bounding box."""
        self.check_points("unit", unit)
        lower, upper = self.lower.to(unit), self.upper.to(unit)
        return lower + (upper - lower) * unit

    def check_points(self, name: str, points: Float[Tensor, "n d"]) -> None:
        """Refuse what are no points with one column per axis.

        Args:
            name: Name of the argument.
            points: One point per row.

        Raises:
            ShapeError: If the shape is another one.
            SettingsError: If the numbers are not real.
        """
        check_shape(name, points, f"n {self.dimension}")
        check_same_kind(**{name: points})

    def __and__(self, other: Domain) -> Domain:
        from solvers.pde._combined import Combined

        return Combined(self, other, "and")

    def __or__(self, other: Domain) -> Domain:
        from solvers.pde._combined import Combined

        return Combined(self, other, "or")

    def __sub__(self, other: Domain) -> Domain:
        from solvers.pde._combined import Combined

        return Combined(self, other, "minus")

    def __mul__(self, other: Domain) -> Domain:
        from solvers.pde._combined import during

        return during(self, other)


class Box(Domain):
    """Intervals on named axes: ``Box(x=(-1, 1), t=(0, 1))``.

    Args:
        **bounds: Axis name to lower and upper bound. An axis named ``t`` is time.

    Raises:
        SettingsError: If there is no axis, a name is reserved, or bounds are not finite and
            increasing.

    Example:
        >>> box = Box(x=(-1, 1), t=(0, 2))
        >>> box.axes, box.space, box.has_time
        (('x', 't'), ('x',), True)
        >>> box.grid(3, 2).shape
        torch.Size([6, 2])
    """

    def __init__(self, **bounds: tuple[float, float]) -> None:
        if not bounds:
            raise SettingsError("Box: got no axis, expected at least one, as in Box(x=(0, 1))")
        for name, ends in bounds.items():
            check_axis(name)
            if not (isinstance(ends, Sequence) and len(ends) == 2):
                raise SettingsError(f"Box: {name} is {ends!r}, expected two numbers (lower, upper)")
            lower, upper = (check_number(f"Box: {name}", end) for end in ends)
            if not lower < upper:
                raise SettingsError(
                    f"Box: {name} is ({lower:g}, {upper:g}), expected finite bounds with the lower "
                    "one first"
                )
        self.axes = tuple(bounds)
        self.bounds = {name: (float(a), float(b)) for name, (a, b) in bounds.items()}

    def __repr__(self) -> str:
        ranges = ", ".join(f"{axis}=({a:g}, {b:g})" for axis, (a, b) in self.bounds.items())
        return f"Box({ranges})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Box) and (self.axes, self.bounds) == (other.axes, other.bounds)

    def __hash__(self) -> int:
        return hash((self.axes, tuple(self.bounds.values())))

    def contains(self, points: Float[Tensor, "n d"]) -> Bool[Tensor, " n"]:
        """Tell which points are inside or on the boundary, up to rounding."""
        self.check_points("points", points)
        lower, upper = self.lower.to(points), self.upper.to(points)
        slack = 1e-12 * (upper - lower)
        return ((points >= lower - slack) & (points <= upper + slack)).all(-1)

    @property
    def surface_area(self) -> float:
        """Area (length, number of ends) of the boundary in space."""
        lengths = {axis: self.bounds[axis][1] - self.bounds[axis][0] for axis in self.space}
        return 2 * sum(math.prod(lengths.values()) / length for length in lengths.values())

    def grid(self, *counts: int) -> Float[Tensor, "n d"]:
        """Make a regular grid with both ends, the last axis fastest.

        Args:
            *counts: Number of points along each axis, or one number for all.

        Returns:
            One point per row.
        """
        for count in counts:
            check_count("counts", count)
        each = counts * self.dimension if len(counts) == 1 else counts
        if len(each) != self.dimension:
            raise SettingsError(
                f"counts: got {counts}, expected one positive number or {self.dimension}, one for "
                f"each of {', '.join(self.axes)}"
            )
        lines = [
            torch.linspace(*self.bounds[axis], count, dtype=torch.float64)
            for axis, count in zip(self.axes, each, strict=True)
        ]
        return torch.stack([g.reshape(-1) for g in torch.meshgrid(*lines, indexing="ij")], -1)

    def surface(self, unit: Float[Tensor, "n d"]) -> SurfacePoints:
        """Spread points over the faces in space, each by its area."""
        self.check_points("unit", unit)
        lengths = (self.upper - self.lower).to(unit)
        columns = [self.axis(name) for name in self.space]
        if not columns:
            raise SettingsError(f"{self!r} has no axis in space, hence no boundary there")
        areas = torch.stack([lengths[columns].prod() / lengths[c] for c in columns])
        edges = torch.cat([areas.new_zeros(1), areas.cumsum(0) / areas.sum()])
        points, normals = self.scale(unit), torch.zeros_like(unit)
        # The coordinate across a face is free, so it chooses the face and its side.
        for k, column in enumerate(columns):
            choice = unit[:, columns[0]]
            rows = (choice >= edges[k]) & (choice < edges[k + 1])
            local = (choice - edges[k]) / (edges[k + 1] - edges[k])
            is_upper = local >= 0.5
            ends = unit.new_tensor(self.bounds[self.axes[column]])
            if column != columns[0]:
                first = self.bounds[self.axes[columns[0]]]
                spread = first[0] + (first[1] - first[0]) * (2 * local % 1)
                points[rows, columns[0]] = spread[rows]
            points[rows, column] = torch.where(is_upper, ends[1], ends[0])[rows]
            normals[rows, column] = torch.where(is_upper, 1.0, -1.0).to(unit)[rows]
        return SurfacePoints(points, normals)

    def face(self, axis: str, side: str, unit: Float[Tensor, "n d"]) -> SurfacePoints:
        """Spread points over one face or two opposite ones.

        Args:
            axis: Axis across the face.
            side: ``"lower"``, ``"upper"`` or ``"both"`` by turns.
            unit: Points of the unit cube, evenly spread.

        Returns:
            One point on a face for each given point.
        """
        check_choice("side", side, ("lower", "upper", "both"))
        column = self.axis(axis)
        points, normals = self.scale(unit), torch.zeros_like(unit)
        is_upper = torch.full((len(unit),), side == "upper", device=unit.device)
        if side == "both":
            is_upper[1::2] = True
        ends = unit.new_tensor(self.bounds[axis])
        points[:, column] = torch.where(is_upper, ends[1], ends[0])
        normals[:, column] = torch.where(is_upper, 1.0, -1.0).to(unit)
        return SurfacePoints(points, normals)


def check_axis(name: str) -> None:
    """Check that an axis may have this name."""
    is_name = isinstance(name, str) and name.isidentifier() and not name.startswith("_")
    if not is_name or name in _RESERVED:
        raise SettingsError(
            f"axis: got {name!r}, expected a short name such as x, y, z or t "
            f"(not one of {', '.join(sorted(_RESERVED))})"
        )
