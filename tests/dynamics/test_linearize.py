"""All derivatives of a step at once against one pull-back per row, and what they mean together."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from physim import Simulator, State
from physim.dynamics import SolverSettings
from physim.dynamics._linearize import linearize_by_rows

# A free body with a ball joint, a hinge with everything and a slide behind it; two links may touch.
CHAIN = """<mujoco><compiler angle="radian"/><option gravity="0.5 0 -9.81"/><worldbody>
  <geom type="plane" size="1 1 1" friction="0.6"/>
  <body pos="0 0 0.3"><freejoint/>
    <geom type="sphere" size="0.1" mass="1"/>
    <geom type="capsule" size="0.05" fromto="0.05 0 0 0.2 0 0.05" mass="0.5"/>
    <body pos="0.2 0.02 0.1"><joint type="ball" damping="0.1" armature="0.01"/>
      <geom type="capsule" size="0.04" fromto="0 0 0 0.2 0.1 0" mass="0.3"/>
      <body pos="0.2 0.1 0"><joint name="hinge" axis="0.1 1 0" stiffness="2" damping="0.1"
          armature="0.01" frictionloss="0.02" range="-0.5 0.5" limited="true"/>
        <geom type="capsule" size="0.03" fromto="0 0 0 0.2 0 0.1" mass="0.3"/>
        <body pos="0.2 0 0.1"><joint name="slide" type="slide" axis="1 0 1" range="-0.1 0.1"
            limited="true" damping="0.2"/>
          <geom type="capsule" size="0.04" fromto="0 0 0 0.05 0 0" mass="0.2"/></body></body></body>
  </body>
  <body pos="0 0.15 0.4"><freejoint/>
    <geom type="capsule" size="0.05" fromto="-0.1 0 0 0.1 0 0" mass="1"/></body>
</worldbody><actuator><motor joint="hinge" gear="2"/><position joint="hinge" kp="1" kv="0.05"/>
  <motor joint="slide"/></actuator></mujoco>"""

HOPPER = """<mujoco><compiler angle="radian"/><worldbody>
  <geom type="plane" size="1 1 1" friction="0.8"/>
  <body pos="0 0 0.5"><joint type="slide" axis="1 0 0"/><joint type="slide" axis="0 0 1"/>
    <joint type="hinge" axis="0 1 0"/>
    <geom type="capsule" size="0.05" fromto="0 0 0.2 0 0 -0.2" mass="2"/>
    <body pos="0 0 -0.2"><joint name="knee" axis="0 1 0" range="-1 0.1" limited="true"/>
      <geom type="capsule" size="0.04" fromto="0 0 0 0.1 0 -0.25" mass="1"/></body></body>
</worldbody><actuator><motor joint="knee" gear="3"/></actuator></mujoco>"""

TIGHT = SolverSettings(newton_tolerance=1e-9, tolerance=1e-12, path_tolerance=1e-9)


def scene(sim: Simulator, batch: int = 12, steps: int = 50) -> tuple[State, Tensor]:
    """States along falls on the floor, and controls."""
    generator = torch.Generator().manual_seed(3)
    v = torch.randn(batch, sim.model.nv, generator=generator, dtype=torch.float64)
    start = sim.initial_state(batch=batch, v=0.5 * v[:1], on_penetration="ignore")
    state = sim.initial_state(q=start.q, v=0.5 * v, on_penetration="ignore")
    control = torch.rand(batch, sim.model.nu, generator=generator, dtype=torch.float64) - 0.5
    for _ in range(steps):
        state, report = sim.step(state, control)
    assert bool((report.counts["min_gap"] < 1e-3).any())
    return state, control


def deviation(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> float:
    return max(
        float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, expected, strict=True)
    )


@pytest.mark.parametrize("text", [CHAIN, HOPPER], ids=["chain", "planar"])
@pytest.mark.parametrize(
    ("smoothing", "bound"), [(1e-4, 1e-9), (0.0, 1e-5)], ids=["smooth", "exact"]
)
def test_columns_equal_rows(
    simulator: Callable[..., Simulator], text: str, smoothing: float, bound: float
) -> None:
    sim = simulator(text, timestep=0.01, gradient_smoothing=smoothing)
    state, control = scene(sim)
    rows = linearize_by_rows(sim, state, control, None, "raise")
    assert deviation(sim.linearize(state, control), rows) < bound


def test_columns_are_differences_of_exact_steps(simulator: Callable[..., Simulator]) -> None:
    """Where no mode switches, the exact law is smooth and differences see its derivative."""
    sim = simulator(CHAIN, timestep=0.01, gradient_smoothing=0.0, settings=TIGHT)
    state, control = scene(sim)
    matrix, gain = sim.linearize(state, control)
    nv, nu, size = sim.model.nv, sim.model.nu, 1e-6
    units = size * torch.eye(2 * nv + nu, dtype=torch.float64)
    agreed, largest = 0, matrix.abs().amax(dim=(1, 2))
    for unit, column in zip(units, torch.cat([matrix, gain], dim=-1).unbind(-1), strict=True):
        ends = []
        for sign in (1.0, -1.0):
            shift = (sign * unit).expand(state.batch, -1)
            moved = State(
                q=sim.retract(state.q, shift[:, :nv]),
                v=state.v + shift[:, nv : 2 * nv],
                interval=state.interval,
                impulses=state.impulses,
            )
            ends.append(sim.step(moved, control + shift[:, 2 * nv :])[0].v)
        slope = (ends[0] - ends[1]) / (2 * size)
        error = (slope - column[:, nv:]).norm(dim=-1) / largest
        agreed += int((error < 1e-5).sum())
    assert agreed >= 0.9 * state.batch * len(units)


def test_numbers_of_ones_own_are_seen(simulator: Callable[..., Simulator]) -> None:
    sim = simulator(HOPPER, timestep=0.01)
    state, control = scene(sim)
    heavy = {"mass": 1.3 * sim.parameters()["mass"], "damping": sim.parameters()["damping"] + 0.1}
    rows = linearize_by_rows(sim, state, control, heavy, "raise")
    found = sim.linearize(state, control, parameters=heavy)
    assert deviation(found, rows) < 1e-9
    assert deviation(sim.linearize(state, control), rows) > 1e-3


def cut_at_first(item: int, sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let an item of the first call count as cut; the sizes of all calls."""
    ordinary, seen = sim._solver.advance, []

    def cut(data, smoothing, **options):  # type: ignore[no-untyped-def]
        done = ordinary(data, smoothing, **options)
        seen.append(done.q.shape[0])
        if len(seen) == 1:
            done.report[item, 3] = 2.0
        return done

    monkeypatch.setattr(sim._solver, "advance", cut)
    return seen


def test_items_in_parts_do_not_keep_others_waiting(
    simulator: Callable[..., Simulator], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was cut is differentiated through all its parts, the rest in one call as ever."""
    sim = simulator(HOPPER, timestep=0.01)
    state, control = scene(sim)
    expected = sim.linearize(state, control)
    seen = cut_at_first(3, sim, monkeypatch)
    found = sim.linearize(state, control)
    assert seen == [12, 1]  # the one item alone, which then was not cut
    assert deviation(found, expected) < 1e-9


@pytest.mark.parametrize("parts", [False, True], ids=["whole", "parts"])
def test_as_many_numbers_as_items_are_still_numbers_of_all(
    simulator: Callable[..., Simulator], monkeypatch: pytest.MonkeyPatch, parts: bool
) -> None:
    """Two bodies' masses are not one for each of two items; a float is taken as by `step`."""
    sim = simulator(HOPPER, timestep=0.01)
    state, control = scene(sim)
    state, control = state[:2], control[:2]
    masses = 1.3 * sim.parameters()["mass"]
    expected = sim.linearize(state, control, parameters={"mass": masses.expand(2, -1)})
    if parts:
        cut_at_first(1, sim, monkeypatch)
    found = sim.linearize(state, control, parameters={"mass": masses, "timestep": 0.01})
    assert deviation(found, expected) < 1e-9


def test_a_failed_item_has_no_derivative(simulator: Callable[..., Simulator]) -> None:
    sim = simulator(HOPPER, timestep=0.01)
    state, control = scene(sim)
    control[5] = float("nan")
    matrix, gain = sim.linearize(state, control, on_failure="mask")
    assert not matrix[5].any()
    assert not gain[5].any()
    assert bool(torch.isfinite(matrix).all())
    assert bool(matrix[4].any())
