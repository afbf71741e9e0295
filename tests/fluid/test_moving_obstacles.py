"""Bodies that move: no divergence, their own velocity inside, symmetry, gradients of the motion."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from physim.fluid import Box, Moving, Obstacle, Smoke, SmokeState, Sphere, StaggeredGrid
from solvers.core import NonFiniteError, NotConvergedError, SettingsError, ShapeError, Status
from solvers.linear import ConjugateGradient, Multigrid

TIGHT = ConjugateGradient(preconditioner=Multigrid(), rtol=1e-12)
Sides = list[tuple[bool, bool]]
CLOSED: Sides = [(False, False)] * 2


def vector(*entries: float) -> Tensor:
    return torch.tensor(entries, dtype=torch.float64)


def along(
    start: Tensor, velocity: Tensor, radius: float, timestep: float = 1.0
) -> Callable[[int], list[Obstacle]]:
    def motion(step: int) -> list[Obstacle]:
        center = start + (step + 1) * timestep * velocity
        return [Moving(Sphere(center, radius), velocity)]

    return motion


@pytest.mark.parametrize(
    ("shape", "sides", "velocity"),
    [
        ((20, 16), CLOSED, (0.7, 0.2)),
        ((20, 16), None, (0.6, -0.3)),
        ((14, 12, 10), None, (0.5, 0.1, 0.2)),
    ],
)
def test_air_is_pushed_aside_without_divergence(
    shape: tuple[int, ...], sides: Sides | None, velocity: tuple[float, ...]
) -> None:
    grid = StaggeredGrid(shape, 0.5)
    start, speed = 0.2 * vector(*shape), vector(*velocity)
    motion = along(start, speed, 1.6, 0.5)
    scene = Smoke(grid, timestep=0.5, obstacles=motion(-1), sides=sides, solver=TIGHT)
    states = scene.run(scene.initial_state(), 5, motion=motion)
    for step, state in enumerate(states[1:]):
        assert float(grid.divergence(state.velocity).abs().max()) < 1e-9
        body = motion(step)[0]
        for axis, component in enumerate(state.velocity):
            inside = body.distance(grid.faces(axis)) < -grid.spacing
            assert inside.any()
            assert torch.allclose(component[inside], speed[axis], atol=1e-12)
            beyond = body.distance(grid.faces(axis)) > grid.spacing
            assert component[beyond].abs().max() > 0.01


def test_walls_let_nothing_through() -> None:
    grid = StaggeredGrid((16, 16))
    motion = along(vector(6.0, 8.0), vector(0.8, 0.0), 3.0)
    scene = Smoke(grid, timestep=1.0, obstacles=motion(-1), sides=CLOSED, solver=TIGHT)
    last = scene.run(scene.initial_state(), 4, motion=motion)[-1]
    for axis, component in enumerate(last.velocity):
        assert not component.select(axis, 0).any()
        assert not component.select(axis, grid.shape[axis]).any()
        # What goes one way through a plane of a closed box comes back.
        assert float(component.sum(1 - axis).abs().max()) < 1e-9


def test_a_body_that_rests_is_an_obstacle() -> None:
    grid = StaggeredGrid((16, 20))
    source = torch.zeros(grid.shape, dtype=torch.float64)
    source[6:10, 1:4] = 0.5
    ends = []
    for body in (
        Sphere(vector(8.3, 11.0), 3.0),
        Moving(Sphere(vector(8.3, 11.0), 3.0), vector(0, 0)),
    ):
        scene = Smoke(grid, timestep=1.0, source=source, obstacles=[body], solver=TIGHT)
        ends.append(scene.run(scene.initial_state(), 5)[-1])
        moved = scene.run(scene.initial_state(), 5, motion=lambda _, body=body: [body])[-1]
        assert torch.equal(moved.smoke, ends[-1].smoke)
    assert torch.allclose(ends[0].smoke, ends[1].smoke, atol=1e-12)
    for a, b in zip(ends[0].velocity, ends[1].velocity, strict=True):
        assert torch.allclose(a, b, atol=1e-12)


def test_a_mirrored_motion_gives_the_mirrored_flow() -> None:
    grid = StaggeredGrid((20, 14))
    smoke = torch.rand(14, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64).T
    lasts = []
    for sign in (1.0, -1.0):
        start = vector(10.0 - 4.0 * sign, 7.0)
        motion = along(start, vector(0.7 * sign, 0.1), 2.5)
        scene = Smoke(grid, timestep=1.0, obstacles=motion(-1), buoyancy=0.1, solver=TIGHT)
        state = scene.initial_state()
        carried = smoke if sign > 0 else smoke.flip(0)
        begin = SmokeState(velocity=state.velocity, smoke=carried, pressure=state.pressure)
        lasts.append(scene.run(begin, 4, motion=motion)[-1])
    assert torch.allclose(lasts[0].smoke, lasts[1].smoke.flip(0), atol=1e-9)
    assert torch.allclose(lasts[0].velocity[0], -lasts[1].velocity[0].flip(0), atol=1e-9)
    assert torch.allclose(lasts[0].velocity[1], lasts[1].velocity[1].flip(0), atol=1e-9)


def test_smoke_is_neither_made_nor_lost_by_a_passing_body() -> None:
    """A wide cloud in a closed box, to what advection keeps; the body leaves a hole in none."""
    grid = StaggeredGrid((32, 24))
    away = (grid.centers() - vector(16.0, 12.0)).norm(dim=-1)
    smoke = torch.exp(-((away / 6.0) ** 2))
    motion = along(vector(6.0, 12.0), vector(0.5, 0.0), 3.0)
    scene = Smoke(grid, timestep=1.0, obstacles=motion(-1), buoyancy=0.0, sides=CLOSED)
    state = scene.initial_state()
    begin = SmokeState(velocity=state.velocity, smoke=smoke, pressure=state.pressure)
    states = scene.run(begin, 20, motion=motion)
    total = float(smoke.sum())
    assert all(abs(float(s.smoke.sum()) - total) < 0.02 * total for s in states)
    assert all(0.0 <= float(s.smoke.min()) <= float(s.smoke.max()) <= 1.0 for s in states)


def test_gradients_of_start_and_velocity() -> None:
    """Through all steps and updates of the hierarchy, against central differences."""
    grid = StaggeredGrid((14, 12))
    weight = torch.randn(grid.shape, generator=torch.Generator().manual_seed(0)).double()
    source = torch.zeros(grid.shape, dtype=torch.float64)
    source[5:9, 2:9] = 0.5

    def outcome(start: Tensor, velocity: Tensor) -> Tensor:
        motion = along(start, velocity, 2.1)
        scene = Smoke(
            grid, timestep=1.0, source=source, obstacles=motion(-1), buoyancy=0.2,
            scheme="semi-lagrangian", solver=TIGHT,
        )  # fmt: skip
        last = scene.run(scene.initial_state(), 4, motion=motion)[-1]
        return (weight * last.smoke).sum() + last.velocity[1].square().sum()

    inputs = [vector(4.3, 5.2).requires_grad_(), vector(0.61, 0.13).requires_grad_()]
    slopes = torch.autograd.grad(outcome(*inputs), inputs)
    for number, slope in enumerate(slopes):
        for place in range(2):
            ends = []
            for sign in (1.0, -1.0):
                moved = [value.detach().clone() for value in inputs]
                moved[number][place] += sign * 1e-5
                ends.append(float(outcome(*moved)))
            measured = (ends[0] - ends[1]) / 2e-5
            assert float(slope[place]) == pytest.approx(measured, rel=1e-4, abs=1e-6)


def test_the_old_scene_still_steps_after_its_memory_went_over() -> None:
    grid = StaggeredGrid((16, 16))
    motion = along(vector(5.0, 8.0), vector(0.8, 0.0), 3.0)
    first = Smoke(grid, timestep=1.0, obstacles=motion(0))
    state, _ = first.step(first.initial_state())
    second = first.with_obstacles(motion(1))
    onward, _ = second.step(state)
    again, _ = first.step(first.initial_state())
    assert torch.equal(again.pressure, state.pressure)
    fresh, _ = Smoke(grid, timestep=1.0, obstacles=motion(1)).step(state)
    assert torch.equal(fresh.pressure, onward.pressure)
    copied, _ = pickle.loads(pickle.dumps(second)).step(state)
    assert torch.equal(copied.pressure, onward.pressure)


def test_a_piston_without_a_way_out_is_said() -> None:
    grid = StaggeredGrid((20, 8))
    piston = Moving(Box(vector(10.0, 4.0), vector(2.0, 8.0)), vector(0.5, 0.0))
    scene = Smoke(grid, timestep=1.0, obstacles=[piston], sides=CLOSED)
    with pytest.raises(NotConvergedError):
        scene.step(scene.initial_state())
    _, report = scene.step(scene.initial_state(), on_failure="mask")
    assert int(report.status) == Status.INFEASIBLE
    vented = Smoke(grid, timestep=1.0, obstacles=[piston], sides=[(True, True), (False, False)])
    state, _ = vented.step(vented.initial_state())
    assert torch.allclose(state.velocity[0][:, 3], vector(*[0.5] * 21), atol=1e-6)


@dataclass
class Wheel:
    """A disc that turns about its centre."""

    center: Tensor
    radius: float
    spin: float

    def distance(self, points: Tensor) -> Tensor:
        return Sphere(self.center, self.radius).distance(points)

    def velocity_at(self, points: Tensor) -> Tensor:
        x, y = (points - self.center).unbind(-1)
        return self.spin * torch.stack([-y, x], -1)


def test_own_bodies_may_turn_and_bodies_may_overlap() -> None:
    grid = StaggeredGrid((16, 16))
    wheel = Wheel(vector(8.0, 8.0), 4.0, 0.2)
    still = Box(vector(8.0, 1.0), vector(2.0, 2.0))
    for bodies in ([wheel], [wheel, still], [wheel, wheel]):
        scene = Smoke(grid, timestep=1.0, obstacles=bodies, sides=CLOSED, solver=TIGHT)
        state, _ = scene.step(scene.initial_state())
        assert float(grid.divergence(state.velocity).abs().max()) < 1e-9
        assert float(state.velocity[0][8, 5]) == pytest.approx(0.2 * 2.5)
        assert float(state.velocity[1][5, 8]) == pytest.approx(-0.2 * 2.5)


def test_bad_motions_are_named() -> None:
    grid = StaggeredGrid((8, 8))
    ball = Sphere(vector(4.0, 4.0), 2.0)
    with pytest.raises(ShapeError, match="velocity"):
        Smoke(grid, timestep=1.0, obstacles=[Moving(ball, vector(1.0))])
    with pytest.raises(NonFiniteError, match="velocity"):
        Smoke(grid, timestep=1.0, obstacles=[Moving(ball, vector(1.0, float("nan")))])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"obstacles": Sphere(vector(4.0, 4.0), 1.0)}, "a list of bodies"),
        ({"obstacles": ["stone"]}, "a list of bodies"),
        ({"sides": [True, False]}, "a pair of flags"),
        ({"source": np.zeros((8, 8))}, "torch.as_tensor"),
        ({"buoyancy": vector(1.0, 2.0, 3.0)}, r"buoyancy: got shape \(3,\), expected a number"),
        ({"buoyancy": "strong"}, "buoyancy: got"),
    ],
)
def test_bad_scenes_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises((SettingsError, ShapeError), match=message):
        Smoke(StaggeredGrid((8, 8)), timestep=1.0, **options)


def test_bodies_take_lists_and_states_are_in_double_precision() -> None:
    grid = StaggeredGrid((8, 8))
    ball = Moving(Sphere([4.0, 4.0], 1.5), [0.1, 0.0])  # type: ignore[arg-type]
    scene = Smoke(grid, timestep=1.0, obstacles=[ball])
    state, _ = scene.step(scene.initial_state())
    assert float(state.velocity[0][4, 3]) > 0
    single = SmokeState(velocity=state.velocity, smoke=state.smoke.float(), pressure=state.pressure)
    with pytest.raises(SettingsError, match="smoke: got torch.float32"):
        scene.step(single)
    mixed = SmokeState(
        velocity=(state.velocity[0], state.velocity[1].float()),
        smoke=state.smoke,
        pressure=state.pressure,
    )
    with pytest.raises(SettingsError, match=r"velocity\[1\]: got torch.float32"):
        scene.step(mixed)
    with pytest.raises(NonFiniteError, match="buoyancy"):
        Smoke(grid, timestep=1.0, buoyancy=float("nan"))
    with pytest.raises(ShapeError, match="shape: got 8"):
        StaggeredGrid(8)  # type: ignore[arg-type]
