"""The gradient of a whole rollout, by one sweep, is that of the chain of its steps."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

import physim
from physim.dynamics import Attempt, LinearFeedback, SolverSettings

Build = Callable[..., physim.Simulator]
ROBOTS = ("hopper", "half_cheetah", "walker2d_v5", "ant")
SMOOTHINGS = {"default": {}, "exact": {"gradient_smoothing": 0.0}, "soft": {"smoothing": 1e-4}}
EXACT_ROUNDING = 1e-6
"""Gains of exact contact are capped at 1e8 and magnify rounding."""
# Some items fail whole but not in parts; with HURRIED some fail altogether.
HASTY = SolverSettings(
    newton_first=1,
    newton_iterations=1,
    attempts=(Attempt(start=1e-2, slowest=1.0, fraction=0.99),),
    attempt_iterations=10,
)
HURRIED = SolverSettings(
    newton_first=1,
    newton_iterations=2,
    attempts=(Attempt(start=1e-2, slowest=1.0, fraction=0.99),),
    attempt_iterations=8,
    max_substeps=1,
)


def _robot(name: str) -> Path:
    spec = importlib.util.find_spec("gymnasium")
    if spec is None or spec.origin is None:
        pytest.skip("the robots come with gymnasium")
    return Path(spec.origin).parent / "envs" / "mujoco" / "assets" / f"{name}.xml"


class Chain:
    """A rollout as one function, and the same by one call a step."""

    def __init__(self, sim: physim.Simulator, start: physim.State, controls: Tensor) -> None:
        self.sim, self.start = sim, start
        self.values = {
            "q": start.q,
            "v": start.v,
            "controls": controls,
            "mass": sim.parameters()["mass"],
            "timestep": sim.parameters()["timestep"],
        }
        generator = torch.Generator().manual_seed(0)
        shape = (len(controls) + 1, start.batch, sim.model.nq + sim.model.nv)
        self.weights = torch.randn(shape, generator=generator, dtype=torch.float64)

    def _loss(self, q: Tensor, v: Tensor, interval: Tensor) -> Tensor:
        x = torch.cat([q, v], dim=-1)
        # What is lost has no loss.
        x = torch.where(torch.isfinite(x).all(-1, keepdim=True), x, 0.0)
        return (x * self.weights).sum() + (interval * x[..., 0].detach()).sum()

    def gradients(
        self, *, is_sweep: bool, names: Sequence[str] = (), checkpoint_every: int | None = None
    ) -> tuple[dict[str, Tensor], physim.Report]:
        """Derivatives with respect to all inputs, or those named, and the report."""
        names = names or tuple(self.values)
        leaves = {
            name: x.detach().clone().requires_grad_(name in names)
            for name, x in self.values.items()
        }
        parameters = {name: leaves[name] for name in ("mass", "timestep") if name in names}
        now = physim.State(
            q=leaves["q"],
            v=leaves["v"],
            interval=torch.full((self.start.batch,), self.sim.timestep, dtype=torch.float64),
            impulses=self.start.impulses,
        )
        options = {"parameters": parameters, "on_failure": "mask"}
        if is_sweep:
            motion = self.sim.rollout(
                now, leaves["controls"], checkpoint_every=checkpoint_every, **options
            )
            q, v, interval, report = motion.q, motion.v, motion.interval, motion.report
        else:
            states, reports = [now], []
            for u in leaves["controls"]:
                now, one = self.sim.step(now, u, **options)
                states.append(now)
                reports.append(one)
            q, v, interval = (
                torch.stack([getattr(s, name) for s in states]) for name in ("q", "v", "interval")
            )
            report = physim.Report.stack(reports)
        chosen = [leaves[name] for name in names]
        found = torch.autograd.grad(self._loss(q, v, interval), chosen)
        return dict(zip(names, found, strict=True)), report


def assert_alike(fast: dict[str, Tensor], slow: dict[str, Tensor], tolerance: float) -> None:
    for name, expected in slow.items():
        scale = max(float(expected.abs().max()), 1.0)
        assert bool(torch.isfinite(fast[name]).all()), name
        error = float((fast[name] - expected).abs().max()) / scale
        assert error <= tolerance, (name, error)


@pytest.mark.slow
@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@pytest.mark.parametrize("robot", ROBOTS)
def test_robots_in_contact(simulator: Build, robot: str, smoothing: str) -> None:
    """Ten random items after half a second; one is lost, two are thrown."""
    sim = simulator(str(_robot(robot)), timestep=0.01, **SMOOTHINGS[smoothing])
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(70, 10, sim.model.nu, generator=generator, dtype=torch.float64).clamp(-1, 1)
    here = sim.rollout(sim.initial_state(batch=10, on_penetration="ignore"), u[:50])
    start = here.state(-1)
    v = start.v.clone()
    v[3] *= 5.0
    v[6] *= -20.0
    v[8, 2] = torch.nan
    start = physim.State(q=start.q, v=v, impulses=start.impulses)
    chain = Chain(sim, start, u[50:])
    (fast, report), (slow, _) = (chain.gradients(is_sweep=is_sweep) for is_sweep in (True, False))
    assert float(report.counts["min_gap"].nan_to_num(0.0).min()) < 1e-3
    assert not bool(report.converged[:, 8].any())
    assert_alike(fast, slow, EXACT_ROUNDING if smoothing == "exact" else 1e-9)


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_steps_in_parts(simulator: Build, states: dict[str, physim.State], smoothing: str) -> None:
    sim = simulator("tumbler", settings=HASTY, **SMOOTHINGS[smoothing])
    chain = Chain(sim, *_thrown(sim, states["tumbler"], steps=5))
    fast, report = chain.gradients(is_sweep=True)
    parts = report.counts["parts"][report.converged].unique().tolist()
    assert len(parts) >= 3, parts
    slow, _ = chain.gradients(is_sweep=False)
    assert_alike(fast, slow, EXACT_ROUNDING if smoothing == "exact" else 1e-8)
    again, _ = chain.gradients(is_sweep=True, checkpoint_every=2)
    for name, expected in fast.items():
        assert torch.equal(again[name], expected)


def test_failed_items(simulator: Build, states: dict[str, physim.State]) -> None:
    sim = simulator("tumbler", settings=HURRIED)
    chain = Chain(sim, *_thrown(sim, states["tumbler"], steps=4))
    fast, report = chain.gradients(is_sweep=True)
    ends = ~report.converged[0]
    assert bool(ends.any())
    assert not bool(ends.all())
    slow, _ = chain.gradients(is_sweep=False)
    assert_alike(fast, slow, 1e-9)
    # Nothing passes a failed first step: what is left is the loss's own view of the start.
    own = chain.weights[0, :, sim.model.nq :]
    torch.testing.assert_close(fast["v"][ends], own[ends], rtol=0, atol=0)


def test_states_and_controls_alone_need_no_numbers(
    simulator: Build, states: dict[str, physim.State]
) -> None:
    sim = simulator("tumbler")
    chain = Chain(sim, *_thrown(sim, states["tumbler"], steps=3))
    some, _ = chain.gradients(is_sweep=True, names=("q", "v", "controls"))
    every, _ = chain.gradients(is_sweep=True)
    assert_alike(some, {name: every[name] for name in some}, 1e-10)


def test_threads_change_no_bit(simulator: Build, states: dict[str, physim.State]) -> None:
    found = []
    for threads in (1, 2):
        sim = simulator("tumbler", threads=threads)
        chain = Chain(sim, *_thrown(sim, states["tumbler"], steps=3))
        found.append(chain.gradients(is_sweep=True)[0])
    for name, expected in found[0].items():
        assert torch.equal(found[1][name], expected)


@pytest.mark.parametrize("smoothing", [1e-3, 1e-2])
def test_gradcheck(simulator: Build, states: dict[str, physim.State], smoothing: float) -> None:
    tight = SolverSettings(newton_tolerance=1e-9, tolerance=1e-13, path_tolerance=1e-9)
    sim = simulator("puck", smoothing=smoothing, gradient_smoothing=smoothing, settings=tight)
    few = states["puck"]
    u = torch.full((4, few.batch, 2), 0.3, dtype=torch.float64)
    values = [few.q, few.v, u, sim.parameters()["mass"], sim.parameters()["friction"]]
    leaves = [x.clone().requires_grad_() for x in values]

    def motion(
        q: Tensor, v: Tensor, u: Tensor, mass: Tensor, friction: Tensor
    ) -> tuple[Tensor, ...]:
        numbers = {"mass": mass, "friction": friction}
        found = sim.rollout(physim.State(q=q, v=v), u, parameters=numbers)
        return found.q, found.v

    assert torch.autograd.gradcheck(motion, leaves, eps=1e-6, atol=2e-4, rtol=1e-4)


def test_state_gradients_see_quaternions_on_their_sphere(
    simulator: Build, states: dict[str, physim.State]
) -> None:
    sim, few, steps = simulator("tumbler"), states["tumbler"], 5
    v = few.v.clone().requires_grad_()
    motion = sim.rollout(physim.State(q=few.q, v=v), steps=steps)
    assert motion.state_gradients is not None
    by_q, by_v = motion.state_gradients(motion.q[-1].sum())
    for first in (0, 2, 4):
        leaves = [x[first].detach().requires_grad_() for x in (motion.q, motion.v)]
        rest = sim.rollout(physim.State(q=leaves[0], v=leaves[1]), steps=steps - first)
        expected = torch.autograd.grad(rest.q[-1].sum(), leaves)
        torch.testing.assert_close(by_q[first], expected[0], rtol=1e-8, atol=1e-9)
        torch.testing.assert_close(by_v[first], expected[1], rtol=1e-8, atol=1e-9)
    (direct,) = torch.autograd.grad(motion.q[-1].sum(), v)
    torch.testing.assert_close(by_v[0], direct, rtol=0, atol=0)


def test_second_derivatives_are_refused(simulator: Build, states: dict[str, physim.State]) -> None:
    sim = simulator("puck")
    v = states["puck"].v.clone().requires_grad_()
    motion = sim.rollout(physim.State(q=states["puck"].q, v=v), steps=2)
    (first,) = torch.autograd.grad(motion.q[-1].square().sum(), v, create_graph=True)
    with pytest.raises(RuntimeError, match="reference"):
        first.sum().backward()


def _thrown(sim: physim.Simulator, few: physim.State, *, steps: int) -> tuple[physim.State, Tensor]:
    """Sixty items at random speeds, and random controls."""
    generator = torch.Generator().manual_seed(0)
    v = few.v.repeat(20, 1)
    v = v + 2.0 * torch.randn(v.shape, generator=generator, dtype=torch.float64)
    u = torch.randn(steps, len(v), sim.model.nu, generator=generator, dtype=torch.float64)
    return physim.State(q=few.q.repeat(20, 1), v=v), 0.3 * u


def test_large_batches_are_rows_of_small_ones(
    simulator: Build, states: dict[str, physim.State]
) -> None:
    """More blocks than teams: a team goes through several, one after the other."""
    sim, few, batch = simulator("puck"), states["puck"], 300
    generator = torch.Generator().manual_seed(0)
    v = few.v.repeat(75, 1)
    v = v + torch.randn(v.shape, generator=generator, dtype=torch.float64)
    gain = torch.randn(1, batch, 2, 6, generator=generator, dtype=torch.float64)

    def gradients(items: slice) -> list[Tensor]:
        leaves = [v[items].clone().requires_grad_(), gain[:, items].clone().requires_grad_()]
        policy = LinearFeedback(sim.model, leaves[1])
        start = physim.State(q=few.q.repeat(75, 1)[items], v=leaves[0])
        motion = sim.rollout(start, policy, steps=4)
        return list(torch.autograd.grad(motion.q[-1].sum(), leaves))

    whole, part = gradients(slice(None)), gradients(slice(260, 300))
    assert torch.equal(whole[0][260:], part[0])
    assert torch.equal(whole[1][:, 260:], part[1])
    shared = gain[0, 0].clone().requires_grad_()
    start = physim.State(q=few.q.repeat(75, 1), v=v)
    motion = sim.rollout(start, LinearFeedback(sim.model, shared), steps=4)
    (total,) = torch.autograd.grad(motion.q[-1].sum(), shared)
    own = shared.detach().expand(1, batch, 2, 6).clone().requires_grad_()
    motion = sim.rollout(start, LinearFeedback(sim.model, own), steps=4)
    (each,) = torch.autograd.grad(motion.q[-1].sum(), own)
    torch.testing.assert_close(total, each.sum((0, 1)), rtol=1e-10, atol=1e-10)
