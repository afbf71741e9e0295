"""Regions put together: unions, intersections, differences, and regions during a time."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from solvers.core import SettingsError, check_kind
from solvers.pde._domain import TIME, Box, Domain, SurfacePoints

__all__ = ["Combined", "During", "during", "surface_of_part"]


class Combined(Domain):
    """Two regions on the same axes, joined by and, or, minus.

    Args:
        first: One region.
        second: The other.
        how: ``"and"``, ``"or"`` or ``"minus"``.
    """

    def __init__(self, first: Domain, second: Domain, how: Literal["and", "or", "minus"]) -> None:
        check_kind("region", second, Domain, "a region, as in Ball(0.5, x=0, y=0)")
        if first.axes != second.axes:
            raise SettingsError(
                f"{first!r} and {second!r} have axes {', '.join(first.axes)} and "
                f"{', '.join(second.axes)}, expected the same; combine regions of space first and "
                "multiply by Box(t=...) last"
            )
        self.axes = first.axes
        self.first, self.second, self.how = first, second, how
        a, b = first.bounds, second.bounds
        if how == "minus":
            self.bounds = dict(a)
        elif how == "or":
            self.bounds = {x: (min(a[x][0], b[x][0]), max(a[x][1], b[x][1])) for x in self.axes}
        else:
            self.bounds = {x: (max(a[x][0], b[x][0]), min(a[x][1], b[x][1])) for x in self.axes}
            for axis, (lower, upper) in self.bounds.items():
                if lower >= upper:
                    raise SettingsError(
                        f"{first!r} & {second!r} is empty: they do not overlap along {axis}"
                    )

    def __repr__(self) -> str:
        sign = {"and": "&", "or": "|", "minus": "-"}[self.how]
        return f"({self.first!r} {sign} {self.second!r})"

    @property
    def surface_area(self) -> float:
        """Area of both boundaries, parts that are dropped included."""
        return self.first.surface_area + self.second.surface_area

    def contains(self, points: Float[Tensor, "n d"]) -> Bool[Tensor, " n"]:
        """Tell which points are inside or on the boundary."""
        first, second = self.first.contains(points), self.second.contains(points)
        if self.how == "and":
            return first & second
        if self.how == "or":
            return first | second
        return first & (~second | self._is_on_edge(points))

    def surface(self, unit: Float[Tensor, "n d"]) -> SurfacePoints:
        """Those points of both boundaries that are boundary of the whole."""
        self.check_points("unit", unit)
        share = self.first.surface_area / self.surface_area
        middle = round(share * len(unit))
        # Each part needs points that are spread over the whole unit cube.
        order = torch.randperm(len(unit), generator=torch.Generator().manual_seed(0))
        one = self.first.surface(unit[order[:middle]])
        two = self.second.surface(unit[order[middle:]])
        # Where the boundaries coincide, the points of the first stand for both.
        ahead, behind = _sides(self.first, two, _step(self))
        is_new = ahead == behind
        both = SurfacePoints(
            torch.cat([one.points, two.points[is_new]]),
            torch.cat([one.normals, two.normals[is_new]]),
        )
        return _facing_out(self, both, _step(self))

    def _is_on_edge(self, points: Tensor) -> Tensor:
        """Points of the closed second region without room around them."""
        size = float((self.second.upper - self.second.lower).max())
        inside = torch.ones(len(points), dtype=torch.bool, device=points.device)
        for k in range(self.dimension):
            for sign in (-1.0, 1.0):
                moved = points.clone()
                moved[:, k] += sign * 1e-9 * size
                inside &= self.second.contains(moved)
        return ~inside


def _step(region: Domain) -> float:
    """How far from a boundary its two sides are looked at."""
    return 1e-7 * max(region.bounds[axis][1] - region.bounds[axis][0] for axis in region.space)


def _sides(region: Domain, surface: SurfacePoints, step: float) -> tuple[Tensor, Tensor]:
    """Whether a region holds what lies ahead of boundary points, along the normal, and behind."""
    return (
        region.contains(surface.points + step * surface.normals),
        region.contains(surface.points - step * surface.normals),
    )


def _facing_out(region: Domain, surface: SurfacePoints, step: float) -> SurfacePoints:
    """Those points that have the region on one side only, with normals to the other one."""
    ahead, behind = _sides(region, surface, step)
    bounds = ahead ^ behind
    sign = torch.where(ahead, -1.0, 1.0).to(surface.normals)[bounds]
    return SurfacePoints(surface.points[bounds], surface.normals[bounds] * sign[:, None])


class During(Domain):
    """A region of space during a time.

    Args:
        region: Region of space.
        time: Box of the one axis ``t``.
    """

    def __init__(self, region: Domain, time: Box) -> None:
        self.region = region
        self.axes = (*region.axes, TIME)
        self.bounds = {**region.bounds, TIME: time.bounds[TIME]}

    def __repr__(self) -> str:
        lower, upper = self.bounds[TIME]
        return f"{self.region!r} * Box(t=({lower:g}, {upper:g}))"

    @property
    def surface_area(self) -> float:
        """Area of the boundary in space."""
        return self.region.surface_area

    def contains(self, points: Float[Tensor, "n d"]) -> Bool[Tensor, " n"]:
        """Tell which points are inside or on the boundary."""
        self.check_points("points", points)
        lower, upper = self.bounds[TIME]
        slack = 1e-12 * (upper - lower)
        during = (points[:, -1] >= lower - slack) & (points[:, -1] <= upper + slack)
        return self.region.contains(points[:, :-1]) & during

    def surface(self, unit: Float[Tensor, "n d"]) -> SurfacePoints:
        """Spread points over the boundary in space, at all times."""
        self.check_points("unit", unit)
        # Time is drawn apart from the points, whose regions may drop some of them.
        found = self.region.surface(unit[:, :-1])
        return with_time(found, self.bounds[TIME], unit[:, -1])


def with_time(
    found: SurfacePoints, bounds: tuple[float, float], unit: Float[Tensor, " n"]
) -> SurfacePoints:
    """Add times to boundary points in space."""
    times = bounds[0] + (bounds[1] - bounds[0]) * unit[: len(found.points)]
    zeros = torch.zeros_like(times)
    return SurfacePoints(
        torch.cat([found.points, times[:, None]], 1),
        torch.cat([found.normals, zeros[:, None]], 1),
    )


def during(region: Domain, time: Domain) -> Domain:
    """Extend a region of space over a time.

    Args:
        region: Region without time.
        time: Box of the one axis ``t``.

    Returns:
        A box for a box, else :class:`During`.
    """
    if region.has_time or not isinstance(time, Box) or time.axes != (TIME,):
        raise SettingsError(
            f"{region!r} * {time!r}: expected a region of space times Box(t=(start, end))"
        )
    if isinstance(region, Box):
        return Box(**region.bounds, **time.bounds)
    return During(region, time)


def surface_of_part(domain: Domain, part: Domain, unit: Float[Tensor, "n d"]) -> SurfacePoints:
    """Spread points over the boundary of a region where it bounds a domain.

    Args:
        domain: The domain, with or without time.
        part: A region of the domain's space.
        unit: Points of the unit cube, evenly spread.

    Returns:
        Points in the domain, with normals that point out of the domain.
    """
    space = unit[:, : len(part.axes)]
    found = part.surface(space)
    if domain.has_time:
        found = with_time(found, domain.bounds[TIME], unit[:, -1])
    return _facing_out(domain, found, _step(part))
