"""Regions of space given by a mesh of triangles or tetrahedra."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from solvers.core import SettingsError, ShapeError, check_finite, check_names, describe
from solvers.pde._domain import Domain, SurfacePoints, check_axis

__all__ = ["Mesh"]

_CHUNK = 2**22


class Mesh(Domain):
    """The union of simplices: triangles in two dimensions, tetrahedra in three.

    Args:
        vertices: Shape ``(v, d)``.
        cells: Vertices of each simplex, shape ``(c, d + 1)``.
        axes: Names of the axes; ``x, y`` or ``x, y, z`` by default.

    Raises:
        ShapeError: If shapes do not fit together.
        SettingsError: If a cell names a vertex that is not there, or has no volume.

    Cost: a test of a point against every cell.

    Example:
        >>> corners = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> square = Mesh(corners, torch.tensor([[0, 1, 2], [1, 3, 2]]))
        >>> square.surface_area, square.contains(torch.tensor([[0.9, 0.9], [1.1, 0.5]])).tolist()
        (4.0, [True, False])
    """

    def __init__(
        self,
        vertices: Float[Tensor, "v d"],
        cells: Int[Tensor, "c k"],
        axes: Sequence[str] | None = None,
    ) -> None:
        try:
            points = torch.as_tensor(vertices, dtype=torch.float64)
            simplices = torch.as_tensor(cells, dtype=torch.int64)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ShapeError(
                f"vertices, cells: got {describe(vertices)}, {describe(cells)}, expected numbers "
                "(v, d) and whole numbers (c, d + 1)"
            ) from error
        if points.ndim != 2 or points.shape[1] not in (2, 3):
            raise ShapeError(
                f"vertices: got shape {tuple(points.shape)}, expected (v, 2) or (v, 3)"
            )
        size = points.shape[1]
        if simplices.ndim != 2 or simplices.shape[1] != size + 1 or not len(simplices):
            raise ShapeError(
                f"cells: got shape {tuple(simplices.shape)}, expected (c, {size + 1}), "
                f"{'triangles' if size == 2 else 'tetrahedra'}"
            )
        check_finite("vertices", points)
        if not 0 <= int(simplices.min()) <= int(simplices.max()) < len(points):
            raise SettingsError(
                f"cells: name vertices {int(simplices.min())} to {int(simplices.max())}, expected "
                f"0 to {len(points) - 1}"
            )
        self.axes = check_names("axes", axes) if axes is not None else ("x", "y", "z")[:size]
        for name in self.axes:
            check_axis(name)
        if len(self.axes) != size:
            raise SettingsError(f"axes: got {len(self.axes)}, expected {size}, one per column")
        self.vertices, self.cells = points, simplices
        lower, upper = points[simplices].amin((0, 1)), points[simplices].amax((0, 1))
        self.bounds = {name: (float(lower[k]), float(upper[k])) for k, name in enumerate(self.axes)}
        self._origins = points[simplices[:, 0]]
        edges = points[simplices[:, 1:]] - self._origins[:, None]
        volumes = torch.linalg.det(edges).abs() / math.factorial(size)
        if not bool((volumes > 1e-14 * float((upper - lower).max()) ** size).all()):
            flat = int(volumes.argmin())
            raise SettingsError(f"cells: number {flat} is flat, expected cells with a volume")
        self.volume = float(volumes.sum())
        self._inverse = torch.linalg.inv(edges)
        self._facets, self._normals, self._areas = self._find_boundary()

    def __repr__(self) -> str:
        return f"Mesh({len(self.cells)} cells on {', '.join(self.axes)})"

    @property
    def surface_area(self) -> float:
        """Length or area of the boundary."""
        return float(self._areas.sum())

    def contains(self, points: Float[Tensor, "n d"]) -> Bool[Tensor, " n"]:
        """Tell which points are inside or on the boundary, up to rounding."""
        self.check_points("points", points)
        parts = []
        for chunk in points.split(max(1, _CHUNK // (len(self.cells) * self.dimension))):
            offset = chunk[:, None] - self._origins.to(points)
            share = torch.einsum("ncd,cde->nce", offset, self._inverse.to(points))
            inside = (share >= -1e-12).all(-1) & (share.sum(-1) <= 1 + 1e-12)
            parts.append(inside.any(1))
        return torch.cat(parts)

    def surface(self, unit: Float[Tensor, "n d"]) -> SurfacePoints:
        """Spread points over the boundary facets, evenly by area."""
        self.check_points("unit", unit)
        ends = self._areas.to(unit).cumsum(0)
        place = unit[:, 0] * ends[-1]
        which = torch.searchsorted(ends, place, right=True).clamp(max=len(ends) - 1)
        along = (place - (ends - self._areas.to(unit))[which]) / self._areas.to(unit)[which]
        corners = self.vertices.to(unit)[self._facets[which]]
        if self.dimension == 2:
            weights = torch.stack([1 - along, along], -1)
        else:
            # Uniform on a triangle: the square root evens out the narrowing towards a corner.
            root = along.clamp(0, 1).sqrt()
            weights = torch.stack([1 - root, root * (1 - unit[:, 1]), root * unit[:, 1]], -1)
        points = (weights[..., None] * corners).sum(1)
        return SurfacePoints(points, self._normals.to(unit)[which])

    def _find_boundary(self) -> tuple[Tensor, Tensor, Tensor]:
        """Facets that belong to one cell, with outward normals and areas."""
        size = self.dimension
        kept = [list(c) for c in combinations(range(size + 1), size)]
        facets = torch.cat([self.cells[:, c] for c in kept])
        opposite = torch.cat([self.cells[:, next(iter({*range(size + 1)} - {*c}))] for c in kept])
        _, group, count = torch.unique(
            facets.sort(1).values, dim=0, return_inverse=True, return_counts=True
        )
        is_boundary = count[group] == 1
        facets, opposite = facets[is_boundary], opposite[is_boundary]
        corners = self.vertices[facets]
        edge = corners[:, 1] - corners[:, 0]
        if size == 2:
            normals = torch.stack([edge[:, 1], -edge[:, 0]], -1)
            areas = torch.linalg.vector_norm(normals, dim=1)
        else:
            normals = torch.linalg.cross(edge, corners[:, 2] - corners[:, 0])
            areas = torch.linalg.vector_norm(normals, dim=1)
        inward = ((self.vertices[opposite] - corners[:, 0]) * normals).sum(1) > 0
        normals = torch.where(inward[:, None], -normals, normals) / areas[:, None]
        return facets, normals, areas if size == 2 else areas / 2
