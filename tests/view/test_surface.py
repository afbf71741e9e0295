"""Meshes of primitives: closed, convex, outward, and of the right size."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import ConvexHull

from physim.view._surface import surface_of

SIZES = {
    "sphere": ([0.3, 0, 0], 4 / 3 * np.pi * 0.3**3),
    "capsule": ([0.2, 0.5, 0], np.pi * 0.2**2 * 1.0 + 4 / 3 * np.pi * 0.2**3),
    "cylinder": ([0.2, 0.5, 0], np.pi * 0.2**2 * 1.0),
    "ellipsoid": ([0.1, 0.2, 0.4], 4 / 3 * np.pi * 0.1 * 0.2 * 0.4),
    "box": ([0.1, 0.2, 0.3], 8 * 0.1 * 0.2 * 0.3),
}


@pytest.mark.parametrize("kind", SIZES)
def test_volume_by_the_divergence_theorem(kind: str) -> None:
    size, volume = SIZES[kind]
    surface = surface_of(kind, np.array(size, dtype=float), segments=64)
    corners = surface.vertices[surface.faces]
    # Two triangles a face; the sign is positive only if every face looks outward.
    total = 0.0
    for b, c in ((1, 2), (2, 3)):
        pieces = np.einsum("fi,fi->f", corners[:, 0], np.cross(corners[:, b], corners[:, c]))
        assert pieces.min() > -1e-12
        total += pieces.sum() / 6.0
    assert total == pytest.approx(volume, rel=0.01)


@pytest.mark.parametrize("kind", SIZES)
def test_all_corners_lie_on_the_hull(kind: str) -> None:
    surface = surface_of(kind, np.array(SIZES[kind][0], dtype=float))
    hull = ConvexHull(surface.vertices)
    distance = surface.vertices @ hull.equations[:, :3].T + hull.equations[:, 3]
    assert np.abs(distance.max(axis=1)).max() < 1e-12


def test_planes_have_none() -> None:
    with pytest.raises(ValueError, match="plane"):
        surface_of("plane", np.ones(3))
