"""Every way through the solver gives the same motion: backends, slots, threads, memory, rollouts.

A heap of balls and a rod tumbles on a slope, so that the contacts of an item change on the way and
items differ in them.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import physim
from physim.dynamics import SolverSettings, _kernel_body, _records

BATCH, STEPS, TIMESTEP = 9, 30, 0.01

HEAP = """<mujoco><worldbody>
  <geom type="plane" size="1 1 1" euler="8 0 0" friction="0.5"/>
  <body pos="0 0 0.13"><freejoint/><geom size="0.1" mass="1"/></body>
  <body pos="0.185 0 0.14"><freejoint/><geom size="0.08" mass="0.5"/></body>
  <body pos="0.08 0.02 0.31"><freejoint/><geom size="0.09" mass="0.8"/></body>
  <body pos="-0.3 0 0.47"><freejoint/><geom type="capsule" fromto="-0.1 0 0 0.1 0 0" size="0.05"
      mass="1"/>
    <body pos="0.1 0 0"><joint axis="0 1 0" damping="0.01" range="-60 60"/>
      <geom type="capsule" fromto="0.1 0 0 0.25 0 0" size="0.05" mass="0.4"/></body></body>
</worldbody></mujoco>"""

Build = Callable[..., physim.Simulator]


def _start(sim: physim.Simulator) -> physim.State:
    generator = torch.Generator().manual_seed(5)
    v = 0.5 * torch.randn(BATCH, sim.model.nv, generator=generator, dtype=torch.float64)
    v[:, 2] -= 1.0
    return sim.initial_state(v=v, on_penetration="ignore")


def _roll(sim: physim.Simulator) -> physim.Trajectory:
    motion = sim.rollout(_start(sim), steps=STEPS)
    assert motion.report.all_converged
    assert float(motion.report.counts["min_gap"].min()) >= -1e-6
    return motion


@pytest.fixture(scope="module")
def tight() -> SolverSettings:
    """The last step shrinks the error by the bound of the gains: paths agree as far as this."""
    return SolverSettings(newton_tolerance=1e-9)


@pytest.fixture(scope="module")
def motion(tight: SolverSettings) -> physim.Trajectory:
    """The motion on the ordinary path."""
    return _roll(physim.Simulator(physim.load_model(HEAP), timestep=TIMESTEP, settings=tight))


def test_items_change_their_contacts_on_the_way(motion: physim.Trajectory) -> None:
    """What the other tests here rely on."""
    q = motion.q
    pairs = ((0, 7, 0.18), (0, 14, 0.19), (7, 14, 0.17))
    touching = torch.stack(
        [(q[..., i : i + 3] - q[..., j : j + 3]).norm(dim=-1) < r + 1e-6 for i, j, r in pairs]
    )
    counts = touching.sum(0)[1:]
    assert int(counts.max()) >= 2
    assert bool((counts.min(0).values < counts.max(0).values).any())
    assert any(len(set(row.tolist())) > 1 for row in counts)


def test_steps_one_by_one_have_the_bits_of_the_rollout(
    motion: physim.Trajectory, tight: SolverSettings
) -> None:
    sim = physim.Simulator(physim.load_model(HEAP), timestep=TIMESTEP, settings=tight)
    state = _start(sim)
    for step in range(STEPS):
        state, _ = sim.step(state)
        assert torch.equal(state.q, motion.q[step + 1])
        assert torch.equal(state.v, motion.v[step + 1])


def test_threads_have_the_bits_of_one(motion: physim.Trajectory, tight: SolverSettings) -> None:
    model = physim.load_model(HEAP)
    sim = physim.Simulator(model, timestep=TIMESTEP, settings=tight, threads=2)
    assert torch.equal(_roll(sim).q, motion.q)


def test_records_on_the_heap_give_the_motion_of_those_on_the_stack(
    motion: physim.Trajectory, tight: SolverSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_records, "STACK_MOST", 0)
    model = physim.load_model(HEAP)
    heaped = _roll(physim.Simulator(model, timestep=TIMESTEP, settings=tight))
    torch.testing.assert_close(heaped.q, motion.q, atol=1e-11, rtol=0)
    threaded = physim.Simulator(model, timestep=TIMESTEP, settings=tight, threads=2)
    assert torch.equal(_roll(threaded).q, heaped.q)


@pytest.mark.parametrize("slots", [1, 2])
def test_contacts_beyond_the_slots_are_not_dropped(
    motion: physim.Trajectory,
    tight: SolverSettings,
    monkeypatch: pytest.MonkeyPatch,
    slots: int,
) -> None:
    """They leave Newton to the interior point; friction that is not unique may then differ."""
    monkeypatch.setattr(_kernel_body, "SLOTS_MOST", slots)
    sim = physim.Simulator(physim.load_model(HEAP), timestep=TIMESTEP, settings=tight)
    rescues, errors = 0, []
    for step in range(STEPS):
        following, report = sim.step(motion.state(step))
        assert report.all_converged
        assert float(report.counts["min_gap"].min()) >= -1e-6
        rescues += int(report.counts["rescues"].sum())
        errors.append((following.q - motion.q[step + 1]).abs().amax(-1))
    assert rescues > int(motion.report.counts["rescues"].sum())
    error = torch.stack(errors)
    assert float(error.max()) < 1e-2
    assert float((error < 1e-6).double().mean()) > 0.95


def test_the_reference_gives_the_same_motion(
    motion: physim.Trajectory, tight: SolverSettings
) -> None:
    model = physim.load_model(HEAP)
    sim = physim.Simulator(model, timestep=TIMESTEP, settings=tight, backend="reference")
    for step in range(0, STEPS, 6):
        following, report = sim.step(motion.state(step))
        assert report.all_converged
        torch.testing.assert_close(following.q, motion.q[step + 1], atol=1e-7, rtol=0)
