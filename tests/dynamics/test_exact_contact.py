"""Exact contact: no creep, no dependence on the company, the same in one call or in many."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import physim
from physim import Simulator, State
from physim.dynamics import SolverSettings

Build = Callable[..., Simulator]

SLOPE = """<mujoco><worldbody>
  <geom type="plane" size="5 5 1" friction="0.5" euler="0 {angle} 0"/>
  <body pos="0 0 {height}" euler="0 {angle} 0"><freejoint/>
    <geom type="box" size="0.1 0.1 0.1" mass="1" friction="0.5"/></body>
</worldbody></mujoco>"""


def controls(sim: Simulator, steps: int, batch: int, share: float, seed: int = 0) -> torch.Tensor:
    """Uniform controls, held for five steps, in a share of their range."""
    generator = torch.Generator().manual_seed(seed)
    p = sim.parameters()
    low, high = p["control_lower"].clamp(min=-1), p["control_upper"].clamp(max=1)
    draws = torch.rand(-(-steps // 5), batch, sim.model.nu, generator=generator).double()
    return (share * (low + draws * (high - low))).repeat_interleave(5, 0)[:steps]


@pytest.mark.parametrize("angle", [0, 10, 20, 26])
def test_a_box_does_not_creep_below_the_friction_angle(simulator: Build, angle: int) -> None:
    height = 0.1 / math.cos(math.radians(angle))
    sim = simulator(SLOPE.format(angle=angle, height=height), timestep=0.01)
    motion = sim.rollout(sim.initial_state(), steps=1000)
    # 10 s, so 1e-9 m/s at most.
    assert (motion.q[-1, 0, :3] - motion.q[10, 0, :3]).norm() <= 1e-8
    assert motion.v[-1].abs().max() <= 1e-9


def test_a_box_slides_above_the_friction_angle(simulator: Build) -> None:
    height = 0.1 / math.cos(math.radians(30))
    sim = simulator(SLOPE.format(angle=30, height=height), timestep=0.01)
    motion = sim.rollout(sim.initial_state(), steps=100)
    pull = 9.81 * (math.sin(math.radians(30)) - 0.5 * math.cos(math.radians(30)))
    assert float(motion.v[-1, 0, :3].norm()) == pytest.approx(pull * 1.0, rel=1e-6)


@pytest.mark.parametrize("parts", [(60,), (1,) * 60, (7, 53)])
def test_a_rollout_has_the_bits_of_its_steps(
    simulator: Build, locomotion_file: Path, parts: tuple[int, ...]
) -> None:
    if locomotion_file.stem in ("humanoid", "walker2d") and len(parts) != 1:
        pytest.skip("two robots in all ways, the rest in one")
    sim = simulator(locomotion_file, timestep=0.01)
    start = sim.initial_state(batch=11, on_penetration="ignore")
    u = controls(sim, 60, 11, 1.0)
    whole = sim.rollout(start, u)
    now, at = start, 0
    for count in parts:
        if count == 1:
            now, _ = sim.step(now, u[at])
        else:
            now = sim.rollout(now, u[at : at + count]).state(-1)
        at += count
    assert torch.equal(now.q, whole.q[-1])
    assert torch.equal(now.v, whole.v[-1])
    assert torch.equal(now.impulses, whole.impulses[-1])


def test_threads_and_company_leave_no_trace(simulator: Build, locomotion_file: Path) -> None:
    """Through contacts, rescues and candidates that come and go."""
    sim = simulator(locomotion_file, timestep=0.02)
    many = simulator(locomotion_file, timestep=0.02, threads=3)
    generator = torch.Generator().manual_seed(1)
    v = torch.randn(150, sim.model.nv, generator=generator, dtype=torch.float64)
    start = sim.initial_state(v=v, on_penetration="ignore")
    u = controls(sim, 60, 150, 1.0, seed=2)
    alone = sim.rollout(start, u)
    assert torch.equal(many.rollout(start, u).q, alone.q)
    order = torch.randperm(150, generator=generator)
    shuffled = sim.rollout(start[order], u[:, order])
    assert torch.equal(shuffled.q, alone.q[:, order])
    assert float(alone.report.counts["min_gap"].min()) < 1e-9


def test_impulses_only_start_the_solve(simulator: Build) -> None:
    """A state without them goes on to the same place where the solution is unique."""
    ball = """<mujoco><worldbody><geom type="plane" size="5 5 1"/>
      <body pos="0 0 0.5"><freejoint/><geom size="0.1" mass="1"/></body></worldbody></mujoco>"""
    sim = simulator(ball, timestep=0.01)
    state = sim.initial_state(v=[1.0, 0.0, 0.0, 0.0, 3.0, 0.0])
    for _ in range(60):
        warm, _ = sim.step(state)
        cold, _ = sim.step(State(q=state.q, v=state.v, interval=state.interval))
        torch.testing.assert_close(warm.q, cold.q, rtol=0, atol=1e-10)
        state = warm
    assert float(sim.contact_gaps(state).min()) < 1e-6


@pytest.mark.slow
def test_friction_of_any_size(simulator: Build) -> None:
    """Tosses of a box with coefficients from 0 to 10: nothing fails, nothing is not a number."""
    for mu in (0.0, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0):
        text = f"""<mujoco><worldbody><geom type="plane" size="1 1 1" friction="{mu}"/>
          <body pos="0 0 1"><freejoint/><geom type="box" size="0.25 0.25 0.25" mass="1"
            friction="{mu}"/></body></worldbody></mujoco>"""
        sim = simulator(text, timestep=0.02)
        generator = torch.Generator().manual_seed(3)
        q = torch.randn(200, 7, generator=generator, dtype=torch.float64)
        q[:, :3] = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
        v = 2.0 * torch.randn(200, 6, generator=generator, dtype=torch.float64)
        motion = sim.rollout(sim.initial_state(q=q, v=v), steps=150, on_failure="mask")
        print(mu, motion.summary())
        assert bool(torch.isfinite(motion.q).all())
        failed = int((~motion.report.converged).sum())
        assert failed <= 1e-3 * motion.report.status.numel()
        assert float(motion.report.counts["min_gap"].min()) >= -1e-6


@pytest.mark.slow
def test_random_contact_states(simulator: Build, locomotion_file: Path) -> None:
    """2000 states of each robot under full torques: all solved, all gradients finite.

    In a few of each ten batches the gradient of the smoothed step is compared with differences.
    """
    sim = simulator(locomotion_file, timestep=0.01, gradient_smoothing=1e-4)
    batch = 200
    generator = torch.Generator().manual_seed(4)
    v = torch.randn(batch, sim.model.nv, generator=generator, dtype=torch.float64)
    state = sim.initial_state(v=v, on_penetration="ignore")
    state = sim.rollout(state, controls(sim, 100, batch, 1.0), on_failure="mask").state(-1)
    failures, errors = 0, []
    for step in range(10):
        u = controls(sim, 1, batch, 1.0, seed=10 + step)[0].requires_grad_()
        v = state.v.clone().requires_grad_()
        start = State(q=state.q, v=v, interval=state.interval, impulses=state.impulses)
        following, report = sim.step(start, u, on_failure="mask")
        gradients = torch.autograd.grad(following.q.sum() + following.v.sum(), [v, u])
        for gradient in gradients:
            assert bool(torch.isfinite(gradient).all())
        failures += int((~report.converged).sum())
        errors.append(_slope_error(sim, state, u.detach(), generator))
        ahead = controls(sim, 10, batch, 1.0, seed=100 + step)
        state = sim.rollout(following.detach(), ahead, on_failure="mask").state(-1)
    assert failures == 0
    error = torch.cat(errors)
    assert error.numel() >= 70
    assert float(error.median()) < 1e-6
    assert float(error.max()) < 1e-3


def _slope_error(
    sim: Simulator, state: State, control: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """Relative error of the gradient of a smoothed step along random directions, per item."""
    count, change = 8, 1e-6
    directions = [
        torch.randn(count, width, generator=generator, dtype=torch.float64)
        for width in (sim.model.nv, sim.model.nu)
    ]

    def step(v: torch.Tensor, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        start = State(q=state.q[:count], v=v, interval=state.interval[:count])
        following, report = sim.step(start, u, smoothing=1e-4, on_failure="mask")
        return following.v.sum(-1), report.converged & (report.counts["parts"] == 1)

    at = [x[:count].clone().requires_grad_() for x in (state.v, control)]
    total, usable = step(*at)
    pairs = list(zip(torch.autograd.grad(total.sum(), at), directions, strict=True))
    slope = torch.stack([(g * d).sum(-1) for g, d in pairs]).sum(0)
    size = torch.stack([(g * d).abs().sum(-1) for g, d in pairs]).sum(0)
    ends = []
    for sign in (1.0, -1.0):
        moved = [x.detach() + sign * change * d for x, d in zip(at, directions, strict=True)]
        end, is_usable = step(*moved)
        ends.append(end)
        usable = usable & is_usable
    difference = (ends[0] - ends[1]) / (2.0 * change)
    return ((slope - difference).abs() / (1e-6 + size))[usable]


def chain(joints: int) -> str:
    """A free chain of capsules on a floor, joined by hinges about three axes in turn."""
    opened = "".join(
        f'<body pos="0.1 0 0"><joint axis="{("0 1 0", "0 0 1", "1 0 0")[i % 3]}" range="-60 60" '
        'damping="0.002"/><geom type="capsule" fromto="0 0 0 0.1 0 0" size="0.02" contype="0" '
        'conaffinity="1"/>'
        for i in range(joints)
    )
    return (
        '<mujoco><worldbody><geom type="plane" size="9 9 1" contype="1" conaffinity="0"/>'
        '<body pos="0 0 0.05"><freejoint/><geom size="0.03" contype="0" conaffinity="1"/>'
        f"{opened}{'</body>' * joints}</body></worldbody></mujoco>"
    )


@pytest.mark.slow
def test_growing_gains_find_which_contacts_let_go() -> None:
    """More contacts than can stick creep until one slides; waiting for that costs rescues."""
    model = physim.load_model(chain(8))
    v = 0.3 * torch.randn(32, model.nv, generator=torch.Generator().manual_seed(0)).double()
    counts = {}
    for growth in (1.0, SolverSettings().gain_growth):
        sim = Simulator(model, timestep=0.01, settings=SolverSettings(gain_growth=growth))
        start = sim.initial_state(v=v, on_penetration="ignore")
        report = sim.rollout(start, steps=150).report
        assert report.all_converged
        counts[growth] = float(report.counts["rescues"][100:].sum())
    assert counts[SolverSettings().gain_growth] < 0.5 * counts[1.0]
