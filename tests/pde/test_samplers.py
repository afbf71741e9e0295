"""Points are where they should be, as dense as they should be, and the same for the same seed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from solvers.core import SettingsError, ShapeError
from solvers.pde import (
    Ball,
    Box,
    Domain,
    Mesh,
    Polygon,
    adaptive_weights,
    refine,
    resample,
    sample,
    unit_points,
)


@pytest.mark.parametrize("sampler", ["uniform", "sobol", "latin"])
def test_points_are_inside_repeatable_and_even(sampler: str) -> None:
    domain = (Box(x=(-1, 1), y=(0, 3)) - Ball(0.5, x=0.0, y=1.5)) * Box(t=(0, 2))
    points = sample(domain, 4096, sampler=sampler, seed=3)
    assert points.shape == (4096, 3)
    assert bool(domain.contains(points).all())
    assert torch.equal(points, sample(domain, 4096, sampler=sampler, seed=3))
    assert not torch.equal(points, sample(domain, 4096, sampler=sampler, seed=4))
    # Density is even: the share of a sub-box is its share of the volume.
    in_corner = ((points[:, 0] > 0.5) & (points[:, 2] < 1)).double().mean()
    assert float(in_corner) == pytest.approx(0.5 * 3 / (6 - torch.pi / 4) / 2, abs=0.02)


def test_low_discrepancy_integrates_better_than_chance() -> None:
    def error(sampler: str) -> float:
        total = 0.0
        for seed in range(8):
            points = unit_points(sampler, 1024, 3, seed=seed)
            total += float((points.prod(1).mean() - 0.125).abs())
        return total

    assert error("sobol") < 0.2 * error("latin") < 0.2 * error("uniform")


def test_a_generator_goes_on() -> None:
    generator = torch.Generator().manual_seed(0)
    domain = Box(x=(0, 1))
    first, second = (sample(domain, 16, generator=generator) for _ in range(2))
    assert not torch.equal(first, second)


def test_thin_domains_are_refused_with_advice() -> None:
    thin = Box(x=(0, 1), y=(0, 1)) - Box(x=(-1, 2), y=(1e-6, 2))
    with pytest.raises(SettingsError, match="too little of its bounding box"):
        sample(thin, 20)


@given(st.lists(st.floats(-1e300, 1e300), min_size=2, max_size=30), st.floats(0, 4))
def test_weights_are_probabilities_that_follow_the_residual(
    residual: list[float], exponent: float
) -> None:
    r = torch.tensor(residual, dtype=torch.float64)
    weights = adaptive_weights(r, exponent=exponent, floor=0.5)
    assert float(weights.sum()) == pytest.approx(1.0)
    order = r.abs().argsort()
    assert bool((weights[order].diff() >= -1e-15).all())


def test_points_gather_where_the_residual_is_large() -> None:
    candidates = sample(Box(x=(0, 1)), 4096)
    residual = torch.exp(-(((candidates[:, 0] - 0.7) / 0.05) ** 2))
    generator = torch.Generator().manual_seed(0)
    drawn = resample(candidates, residual, 256, generator=generator)
    near = ((drawn[:, 0] - 0.7).abs() < 0.1).double().mean()
    # Half of the probability follows the residual, half is even over the domain.
    assert 0.5 < float(near) < 0.65
    assert len(drawn.unique(dim=0)) == 256
    added = refine(candidates[:10], candidates, residual, 50)
    assert added.shape == (60, 1)
    assert bool(((added[10:, 0] - 0.7).abs() < 0.02).all())


def test_a_polygon_with_a_notch() -> None:
    notch = Polygon([(0, 0), (2, 0), (2, 2), (1, 0.5), (0, 2)])
    assert notch.area == pytest.approx(4 - 1.5)
    points = sample(notch, 2048)
    unit = sample(Box(x=(0, 2), y=(0, 2)), 4096)
    assert float(notch.contains(unit).double().mean()) == pytest.approx(2.5 / 4, abs=0.01)
    assert not bool((points[:, 1] > 2 - 1.5 * (1 - (points[:, 0] - 1).abs()) + 1e-9).any())
    both = notch | Ball(0.5, x=1.0, y=1.0)
    assert bool(both.contains(torch.tensor([[1.0, 1.0]], dtype=torch.float64)))
    assert both.bounds["y"] == (0.0, 2.0)


@pytest.mark.parametrize("dimension", [2, 3])
def test_a_mesh_is_its_hull_where_it_is_convex(dimension: int) -> None:
    from scipy.spatial import Delaunay

    generator = torch.Generator().manual_seed(0)
    points = torch.randn(40, dimension, generator=generator, dtype=torch.float64)
    points /= points.norm(dim=1, keepdim=True)
    hull = Delaunay(points.numpy())
    mesh = Mesh(points, torch.as_tensor(hull.simplices))
    trial = unit_points("sobol", 2000, dimension) * 2 - 1
    expected = torch.as_tensor(hull.find_simplex(trial.numpy()) >= 0)
    assert torch.equal(mesh.contains(trial), expected)
    found = mesh.surface(unit_points("sobol", 4096, dimension))
    step = 1e-6 * found.normals
    assert bool(mesh.contains(found.points - step).all())
    assert not bool(mesh.contains(found.points + step).any())
    # Divergence theorem: the flux of the position is dimension times the volume.
    flux = mesh.surface_area * float((found.points * found.normals).sum(1).mean())
    assert flux == pytest.approx(dimension * mesh.volume, rel=0.01)


def box(*ends: float) -> Box:
    return Box(x=ends[:2], y=ends[2:])


DISC = Ball(1.0, x=0.0, y=0.0)
CORNER = Polygon([(0, 0), (1, 0), (1, 0.5), (0.5, 0.5), (0.5, 1), (0, 1)])


@pytest.mark.parametrize(
    ("region", "length", "area"),
    [
        (box(0, 1, 0, 1) - box(0, 0.5, 0, 0.5), 4.0, 0.75),
        (box(0, 0.5, 0, 1) | box(0.5, 1, 0, 1), 4.0, 1.0),
        (box(0, 1, 0, 1) & box(0, 0.5, 0, 1), 3.0, 0.5),
        (box(0, 1, 0, 1) | box(0.5, 2, 0, 1), 6.0, 2.0),
        (DISC & box(0, 1, -1, 1), 2 + torch.pi, torch.pi / 2),
        ((DISC & box(0, 1, -1, 1)) | (DISC & box(-1, 0, -1, 1)), 2 * torch.pi, torch.pi),
        (CORNER & box(0, 0.5, 0, 1), 3.0, 0.5),
    ],
    ids=["corner cut out", "side by side", "half", "overlap", "half disc", "two halves", "part"],
)
def test_boundaries_that_coincide_are_there_once_or_not_at_all(
    region: Domain, length: float, area: float
) -> None:
    unit = unit_points("sobol", 4096, 2)
    found = region.surface(unit)
    step = 1e-5 * found.normals
    assert bool(region.contains(found.points).all())
    assert bool(region.contains(found.points - step).all())
    assert not bool(region.contains(found.points + step).any())
    # What was dropped is as much as the area that counts it says, and the rest is even.
    kept = region.surface_area * len(found.points) / len(unit)
    assert kept == pytest.approx(length, rel=0.05)
    flux = length * float((found.points * found.normals).sum(1).mean())
    assert flux == pytest.approx(2 * area, rel=0.05)


def test_broken_meshes_are_refused() -> None:
    corners = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    with pytest.raises(SettingsError, match="number 1 is flat"):
        Mesh(corners, torch.tensor([[0, 1, 3], [0, 1, 2]]))
    with pytest.raises(SettingsError, match="name vertices"):
        Mesh(corners, torch.tensor([[0, 1, 9]]))
    with pytest.raises(ShapeError, match="triangles"):
        Mesh(corners, torch.tensor([[0, 1]]))
