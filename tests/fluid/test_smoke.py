"""Projection and smoke: no divergence, energy, symmetry, gradients through time."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from physim.fluid import Box, PressureProjection, Smoke, SmokeState, Sphere, StaggeredGrid
from physim.fluid._advection import Scheme
from physim.fluid._obstacles import open_fractions
from solvers.core import NotConvergedError, ShapeError, Status
from solvers.linear import ConjugateGradient, Multigrid

TIGHT = ConjugateGradient(preconditioner=Multigrid(backend="reference"), rtol=1e-12)
SCENES: list[dict[str, Any]] = [
    {"shape": (12, 17), "sides": [(False, False), (False, True)]},
    {"shape": (13, 11), "sides": [(False, False), (False, False)]},
    {"shape": (9, 10, 14), "sides": [(False, False), (True, False), (True, True)]},
]


def prepared(scene: dict[str, Any]) -> PressureProjection:
    grid = StaggeredGrid(scene["shape"], 0.5)
    middle = torch.tensor(grid.shape, dtype=torch.float64) * 0.25
    fractions = open_fractions(grid, [Sphere(middle, 1.3)], scene["sides"])
    return PressureProjection(grid, fractions, solver=TIGHT)


@pytest.mark.parametrize("scene", SCENES, ids=str)
def test_the_projected_flux_has_no_divergence(scene: dict[str, Any], draw: Any) -> None:
    projection = prepared(scene)
    flux, _, report = projection(draw(projection.grid))
    assert report.all_converged
    assert float(projection.grid.divergence(flux).abs().max()) < 1e-9
    for w, part in zip(projection.fractions, flux, strict=True):
        assert not part[w == 0].any()


@pytest.mark.parametrize("scene", SCENES, ids=str)
def test_projecting_takes_energy_and_projects_once(scene: dict[str, Any], draw: Any) -> None:
    """With u = flux / w the projection is orthogonal in the norm of kinetic energy."""
    projection = prepared(scene)
    wild = draw(projection.grid)
    flux, _, _ = projection(wild)
    open_faces = [w > 0 for w in projection.fractions]
    calm = [
        torch.where(is_open, part / w.clamp(min=1e-300), 0.0)
        for part, w, is_open in zip(flux, projection.fractions, open_faces, strict=True)
    ]

    def energy(u: list[Tensor], v: list[Tensor]) -> float:
        return float(
            sum((w * a * b).sum() for w, a, b in zip(projection.fractions, u, v, strict=True))
        )

    removed = [(a - b) * (w > 0) for a, b, w in zip(wild, calm, projection.fractions, strict=True)]
    assert energy(calm, calm) <= energy(wild, wild)
    assert abs(energy(calm, removed)) < 1e-8 * energy(wild, wild)
    again, pressure, _ = projection(calm)
    assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(again, flux, strict=True))
    assert float(pressure.abs().max()) < 1e-8


def test_projection_gradients(draw: Any) -> None:
    grid = StaggeredGrid((5, 6))
    sides = [(False, False), (False, True)]
    center = torch.tensor([2.3, 2.9], dtype=torch.float64, requires_grad=True)
    velocity = [u.requires_grad_() for u in draw(grid)]

    def flux(center: Tensor, *velocity: Tensor) -> tuple[Tensor, ...]:
        fractions = open_fractions(grid, [Sphere(center, 1.1)], sides)
        return PressureProjection(grid, fractions, solver=TIGHT)(velocity)[0]

    assert torch.autograd.gradcheck(flux, (center, *velocity), atol=1e-5, rtol=1e-4)


def plume(grid: StaggeredGrid, rate: float = 0.5) -> Tensor:
    source = torch.zeros(grid.shape, dtype=torch.float64)
    inner = [slice(size // 2 - 2, size // 2 + 2) for size in grid.shape[:-1]]
    source[(*inner, slice(1, 4))] = rate
    return source


def test_smoke_rises_and_stays_a_flow() -> None:
    grid = StaggeredGrid((16, 24))
    scene = Smoke(grid, timestep=1.0, source=plume(grid), buoyancy=0.2)
    states = scene.run(scene.initial_state(), steps=15)
    height = grid.centers()[..., 1]
    means = [float((s.smoke * height).sum() / s.smoke.sum()) for s in states[1:]]
    assert means[-1] > means[0] + 3.0
    for state in states[1:]:
        assert float(grid.divergence(state.velocity).abs().max()) < 1e-6
        assert float(state.smoke.min()) >= 0.0


@pytest.mark.parametrize("shape", [(16, 20), (12, 12, 16)])
@pytest.mark.parametrize("scheme", ["maccormack", "semi-lagrangian"])
def test_a_symmetric_scene_stays_symmetric(shape: tuple[int, ...], scheme: Scheme) -> None:
    grid = StaggeredGrid(shape)
    middle = torch.tensor([*(size / 2 for size in shape[:-1]), 9.0], dtype=torch.float64)
    sizes = torch.full((grid.axes,), 2.0, dtype=torch.float64)
    scene = Smoke(
        grid, timestep=1.0, source=plume(grid), obstacles=[Box(middle, sizes)], buoyancy=0.2,
        scheme=scheme, solver=TIGHT,
    )  # fmt: skip
    last = scene.run(scene.initial_state(), steps=6)[-1]
    for axis in range(grid.axes - 1):
        assert torch.allclose(last.smoke, last.smoke.flip(axis), atol=1e-7)
        assert torch.allclose(last.velocity[-1], last.velocity[-1].flip(axis), atol=1e-7)
        assert torch.allclose(last.velocity[axis], -last.velocity[axis].flip(axis), atol=1e-7)


def test_without_smoke_nothing_moves() -> None:
    scene = Smoke(StaggeredGrid((8, 10)), timestep=1.0)
    last = scene.run(scene.initial_state(), steps=3)[-1]
    assert not any(u.any() for u in last.velocity)


def test_units_do_not_matter() -> None:
    """Twice as large cells and twice the acceleration give twice the speeds."""
    lasts = []
    for unit in (1.0, 2.0):
        grid = StaggeredGrid((12, 16), unit)
        scene = Smoke(grid, timestep=1.0, source=plume(grid), buoyancy=0.2 * unit, solver=TIGHT)
        lasts.append(scene.run(scene.initial_state(), steps=5)[-1])
    assert torch.allclose(lasts[1].smoke, lasts[0].smoke, atol=1e-9)
    for slow, fast in zip(lasts[0].velocity, lasts[1].velocity, strict=True):
        assert torch.allclose(fast, 2.0 * slow, atol=1e-9)


@pytest.mark.parametrize("scheme", ["maccormack", "semi-lagrangian"])
def test_gradients_through_time(scheme: Scheme) -> None:
    """Of obstacle, radius, buoyancy and source, against central differences."""
    grid = StaggeredGrid((12, 16))
    weight = torch.randn(grid.shape, generator=torch.Generator().manual_seed(0)).double()
    inputs = {
        "center": torch.tensor([5.3, 8.2], dtype=torch.float64),
        "radius": torch.tensor(2.4, dtype=torch.float64),
        "buoyancy": torch.tensor(0.21, dtype=torch.float64),
        "rate": torch.tensor(0.47, dtype=torch.float64),
    }

    def outcome(center: Tensor, radius: Tensor, buoyancy: Tensor, rate: Tensor) -> Tensor:
        scene = Smoke(
            grid, timestep=1.0, source=rate * plume(grid, 1.0), obstacles=[Sphere(center, radius)],
            buoyancy=buoyancy, scheme=scheme, solver=TIGHT,
        )  # fmt: skip
        last = scene.run(scene.initial_state(), steps=6)[-1]
        return (weight * last.smoke).sum() + last.velocity[1].square().sum()

    leaves = {name: value.clone().requires_grad_() for name, value in inputs.items()}
    slopes = torch.autograd.grad(outcome(**leaves), list(leaves.values()))
    for (name, value), slope in zip(inputs.items(), slopes, strict=True):
        for place in range(value.numel()):
            step = torch.zeros_like(value)
            step.view(-1)[place] = 1e-5
            ends = [float(outcome(**{**inputs, name: value + k * step})) for k in (1.0, -1.0)]
            measured = (ends[0] - ends[1]) / 2e-5
            assert float(slope.view(-1)[place]) == pytest.approx(measured, rel=1e-4, abs=1e-6)


def test_a_solve_that_fails_is_said() -> None:
    grid = StaggeredGrid((24, 30))
    weak = ConjugateGradient(max_iterations=2)
    scene = Smoke(grid, timestep=1.0, source=plume(grid), solver=weak)
    with pytest.raises(NotConvergedError):
        scene.run(scene.initial_state(), steps=2)
    _, report = scene.step(scene.initial_state(), on_failure="mask")
    assert int(report.status) == Status.MAX_ITERATIONS


def test_a_state_of_another_grid_is_refused() -> None:
    scene = Smoke(StaggeredGrid((8, 10)), timestep=1.0)
    other = Smoke(StaggeredGrid((8, 11)), timestep=1.0).initial_state()
    with pytest.raises(ShapeError, match=r"velocity\[0\]: got shape \(9, 11\)"):
        scene.step(other)
    good = scene.initial_state()
    mixed = SmokeState(velocity=good.velocity, smoke=other.smoke, pressure=good.pressure)
    with pytest.raises(ShapeError, match="smoke"):
        scene.step(mixed)


@pytest.mark.parametrize("carry", [lambda x: pickle.loads(pickle.dumps(x)), copy.deepcopy])
def test_a_scene_that_travelled_gives_the_same_bits(carry: Callable[[Smoke], Smoke]) -> None:
    grid = StaggeredGrid((8, 10))
    source = torch.zeros(grid.shape, dtype=torch.float64)
    source[3:5, 1:3] = 1.0
    stone = Sphere(torch.tensor([4.2, 6.1], dtype=torch.float64), 1.3)
    own = Smoke(grid, timestep=0.5, source=source, obstacles=[stone], buoyancy=0.7)
    ends = [scene.run(scene.initial_state(), steps=3)[-1] for scene in (own, carry(own))]
    assert torch.equal(ends[0].smoke, ends[1].smoke)
    assert torch.equal(ends[0].pressure, ends[1].pressure)
