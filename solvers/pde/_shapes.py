"""Regions of space: balls and polygons."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from solvers.core import (
    SettingsError,
    ShapeError,
    check_finite,
    check_names,
    check_number,
    check_positive,
    check_shape,
)
from solvers.pde._domain import Domain, SurfacePoints, check_axis

__all__ = ["Ball", "Polygon"]


class Ball(Domain):
    """A disc or ball.

    Args:
        radius: Radius.
        **center: Axis name to coordinate of the centre; one, two or three axes.

    Example:
        >>> import torch
        >>> disc = Ball(radius=1.0, x=0.0, y=0.0)
        >>> disc.contains(torch.tensor([[0.5, 0.5], [0.9, 0.9]])).tolist()
        [True, False]
    """

    def __init__(self, radius: float, **center: float) -> None:
        self.radius = check_number("radius", radius)
        check_positive("radius", self.radius)
        if not 1 <= len(center) <= 3:
            raise SettingsError(f"Ball: got {len(center)} axes, expected one to three")
        for name in center:
            check_axis(name)
        self.axes = tuple(center)
        middle = {name: check_number(name, c) for name, c in center.items()}
        self.center = torch.tensor(list(middle.values()), dtype=torch.float64)
        self.bounds = {name: (c - self.radius, c + self.radius) for name, c in middle.items()}

    def __repr__(self) -> str:
        center = ", ".join(
            f"{axis}={c:g}" for axis, c in zip(self.axes, self.center.tolist(), strict=True)
        )
        return f"Ball({self.radius:g}, {center})"

    @property
    def surface_area(self) -> float:
        """Number of ends, circumference or area."""
        return (2.0, 2 * math.pi * self.radius, 4 * math.pi * self.radius**2)[self.dimension - 1]

    def contains(self, points: Float[Tensor, "n d"]) -> Bool[Tensor, " n"]:
        """Tell which points are inside or on the boundary, up to rounding."""
        self.check_points("points", points)
        distance = torch.linalg.vector_norm(points - self.center.to(points), dim=1)
        inside: Tensor = distance <= self.radius * (1 + 1e-12)
        return inside

    def surface(self, unit: Float[Tensor, "n d"]) -> SurfacePoints:
        """Spread points over the circle or sphere, evenly by area."""
        self.check_points("unit", unit)
        if self.dimension == 1:
            normals = torch.where(unit < 0.5, -1.0, 1.0).to(unit)
        elif self.dimension == 2:
            angle = 2 * math.pi * unit[:, 0]
            normals = torch.stack([angle.cos(), angle.sin()], -1)
        else:
            # Archimedes: height on a sphere is uniform.
            height, angle = 2 * unit[:, 0] - 1, 2 * math.pi * unit[:, 1]
            ring = (1 - height.square()).sqrt()
            normals = torch.stack([ring * angle.cos(), ring * angle.sin(), height], -1)
        return SurfacePoints(self.center.to(unit) + self.radius * normals, normals)


class Polygon(Domain):
    """A polygon whose edges do not cross.

    Args:
        vertices: Corners in order, either way round, shape ``(k, 2)``.
        axes: Names of the two axes.

    Raises:
        SettingsError: If there are fewer than three corners, or they enclose no area.

    Example:
        >>> import torch
        >>> triangle = Polygon([(0, 0), (1, 0), (0, 1)])
        >>> triangle.area
        0.5
        >>> triangle.contains(torch.tensor([[0.2, 0.2], [0.7, 0.7]])).tolist()
        [True, False]
    """

    def __init__(
        self,
        vertices: Sequence[tuple[float, float]] | Float[Tensor, "k 2"],
        axes: tuple[str, str] = ("x", "y"),
    ) -> None:
        try:
            corners = torch.as_tensor(vertices, dtype=torch.float64).clone()
        except (TypeError, ValueError, RuntimeError) as error:
            raise ShapeError(f"vertices: got {vertices!r}, expected numbers (k, 2)") from error
        check_shape("vertices", corners, "k 2")
        check_finite("vertices", corners)
        for name in check_names("axes", axes):
            check_axis(name)
        if len(axes) != 2:
            raise SettingsError(f"axes: got {len(axes)}, expected two, one for each column")
        signed = _signed_area(corners)
        if len(corners) < 3 or signed == 0:
            raise SettingsError(
                f"vertices: {len(corners)} corners enclose area {signed:g}, expected at least "
                "three corners in order around an area"
            )
        # Counterclockwise, so that outward normals lie to the right of the edges.
        self.vertices = corners if signed > 0 else corners.flip(0)
        self.area = abs(signed)
        self.axes = tuple(axes)
        lower, upper = corners.amin(0).tolist(), corners.amax(0).tolist()
        self.bounds = {name: (lower[k], upper[k]) for k, name in enumerate(axes)}

    def __repr__(self) -> str:
        return f"Polygon({len(self.vertices)} corners on {', '.join(self.axes)})"

    @property
    def surface_area(self) -> float:
        """Circumference."""
        edges = self.vertices.roll(-1, 0) - self.vertices
        return float(torch.linalg.vector_norm(edges, dim=1).sum())

    def contains(self, points: Float[Tensor, "n d"]) -> Bool[Tensor, " n"]:
        """Tell which points are inside or on the boundary, up to rounding."""
        self.check_points("points", points)
        start = self.vertices.to(points)
        edge = start.roll(-1, 0) - start
        offset = points[:, None] - start
        # A ray to the right crosses the edges that span the point's height and lie right of it.
        above = offset[..., 1] >= 0
        spans = above != (points[:, None, 1] >= (start + edge)[:, 1])
        cross = edge[:, 0] * offset[..., 1] - edge[:, 1] * offset[..., 0]
        is_right = torch.where(edge[:, 1] > 0, cross > 0, cross < 0)
        inside = (spans & is_right).sum(1) % 2 == 1
        along = ((offset * edge).sum(-1) / edge.square().sum(-1)).clamp(0, 1)
        gap = torch.linalg.vector_norm(offset - along[..., None] * edge, dim=-1).amin(1)
        closed: Tensor = inside | (gap <= 1e-12 * float((self.upper - self.lower).max()))
        return closed

    def surface(self, unit: Float[Tensor, "n d"]) -> SurfacePoints:
        """Spread points over the edges, evenly by length."""
        self.check_points("unit", unit)
        start = self.vertices.to(unit)
        edge = start.roll(-1, 0) - start
        length = torch.linalg.vector_norm(edge, dim=1)
        ends = length.cumsum(0)
        place = unit[:, 0] * ends[-1]
        which = torch.searchsorted(ends, place, right=True).clamp(max=len(edge) - 1)
        along = (place - (ends - length)[which]) / length[which]
        normals = torch.stack([edge[:, 1], -edge[:, 0]], -1) / length[:, None]
        return SurfacePoints(start[which] + along[:, None] * edge[which], normals[which])


def _signed_area(corners: Tensor) -> float:
    following = corners.roll(-1, 0)
    return float(0.5 * (corners[:, 0] * following[:, 1] - corners[:, 1] * following[:, 0]).sum())
