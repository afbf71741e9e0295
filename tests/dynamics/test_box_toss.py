"""Tossed boxes come to rest: no penetration, no creep, few iterations, the asked path."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from physim import Simulator, Trajectory

BOX = """<mujoco><worldbody><geom name="floor" type="plane" size="1 1 1"/>
  <body pos="0 0 1"><freejoint/>
    <geom name="box" type="box" size="0.25 0.25 0.25" mass="1" friction="0.5"/></body>
</worldbody></mujoco>"""
TIMESTEPS = (0.1, 0.05, 0.01, 0.005)


@pytest.fixture(scope="module", params=TIMESTEPS, ids=[f"h={h}" for h in TIMESTEPS])
def toss(
    simulator: Callable[..., Simulator], request: pytest.FixtureRequest
) -> tuple[Simulator, Trajectory]:
    """Eight tosses of 5 s with all kinds of spin."""
    timestep: float = request.param
    sim = simulator(BOX, timestep=timestep)
    random = torch.Generator().manual_seed(0)
    q = torch.randn(8, 7, generator=random, dtype=torch.float64)
    q[:, :3] = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    v = torch.randn(8, 6, generator=random, dtype=torch.float64)
    v[:, 3:] *= 2.0
    return sim, sim.rollout(sim.initial_state(q=q, v=v), steps=round(5 / timestep))


def test_box_never_penetrates(toss: tuple[Simulator, Trajectory]) -> None:
    assert toss[1].report.counts["min_gap"].min() >= -1e-9


def test_box_comes_to_rest_at_its_half_height(toss: tuple[Simulator, Trajectory]) -> None:
    end = toss[1].state(-1)
    assert (end.q[:, 2] - 0.25).abs().max() <= 1e-4
    assert end.v.abs().max() <= 1e-8


def test_no_solve_fails(toss: tuple[Simulator, Trajectory]) -> None:
    report = toss[1].report
    assert bool(report.converged.all())
    assert bool((report.counts["parts"] == 1).all())


def test_iterations_are_few(toss: tuple[Simulator, Trajectory]) -> None:
    iterations = toss[1].report.iterations.double()
    print(f"mean {float(iterations.mean()):.2f}, max {int(iterations.max())}")
    assert iterations.mean() <= 3
    # Newton, a softer problem and Newton again, one attempt of the interior point.
    settings = toss[0].settings
    softer = 2 * (settings.newton_iterations - settings.newton_first)
    assert iterations.max() <= settings.newton_iterations + softer + settings.attempt_iterations


def test_path_parameter_is_the_one_asked(toss: tuple[Simulator, Trajectory]) -> None:
    assert toss[1].report.counts["kappa_error"].max() <= 0.01


@pytest.mark.parametrize("smoothing", [1e-1, 1e-3, 1e-5, 1e-9])
def test_path_parameter_is_the_one_asked_at_any_smoothing(
    simulator: Callable[..., Simulator], smoothing: float
) -> None:
    """By the hovering height of a box: with 1 of 4 corners' load each, gamma gap / h = kappa."""
    sim = simulator(BOX, timestep=0.01)
    state = sim.initial_state(q=[0.0, 0.0, 0.25, 1.0, 0.0, 0.0, 0.0])
    for _ in range(40):
        state, report = sim.step(state, smoothing=smoothing)
        assert report.counts["kappa_error"].max() <= 0.01
    size = 0.25 * 3**0.5
    kappa = smoothing * 9.81 * 0.01 * (9.81 * size) ** 0.5
    load = 9.81 * 0.01 / 4
    gap = float(sim.contact_gaps(state).min())
    if smoothing <= 1e-3:
        assert gap == pytest.approx(kappa / load * 0.01, rel=0.02)


CUBES = [(0.001, 0.02), (0.01, 0.05), (0.1, 0.1), (1.0, 0.5), (1000.0, 1.0)]


@pytest.mark.parametrize(("mass", "edge"), CUBES, ids=[f"{m:g}kg-{e:g}m" for m, e in CUBES])
def test_cubes_of_all_sizes_rest_alike(
    simulator: Callable[..., Simulator], mass: float, edge: float
) -> None:
    half = edge / 2
    text = BOX.replace("0.25 0.25 0.25", f"{half} {half} {half}").replace(
        'mass="1"', f'mass="{mass}"'
    )
    sim = simulator(text, timestep=0.01)
    start = sim.initial_state(q=[0.0, 0.0, 1.5 * half, 1.0, 0.0, 0.0, 0.0])
    trajectory = sim.rollout(start, steps=150)
    assert bool(trajectory.report.converged.all())
    assert trajectory.report.counts["min_gap"].min() >= -1e-9 * edge
    assert (trajectory.q[-50:, 0, 2] - half).abs().max() <= 1e-4 * edge
