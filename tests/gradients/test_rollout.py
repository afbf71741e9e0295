"""Gradients through many steps."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import physim

Build = Callable[..., physim.Simulator]


def loss_of(trajectory: physim.Trajectory) -> Tensor:
    return trajectory.q[-1].sum() + 0.1 * trajectory.v[1:].square().sum()


@pytest.mark.parametrize("every", [1, 3, 5, 100])
def test_checkpointing_changes_nothing(
    simulator: Build,
    states: dict[str, physim.State],
    generator: torch.Generator,
    every: int,
) -> None:
    sim = simulator("tumbler")
    noise = torch.randn(10, 1, sim.model.nu, generator=generator, dtype=torch.float64)

    def gradients(checkpoint_every: int | None) -> list[Tensor]:
        values = (states["tumbler"].q, states["tumbler"].v, 0.3 * noise)
        leaves = [x.clone().requires_grad_() for x in (*values, sim.parameters()["mass"])]
        trajectory = sim.rollout(
            physim.State(q=leaves[0], v=leaves[1]),
            leaves[2],
            parameters={"mass": leaves[3]},
            checkpoint_every=checkpoint_every,
        )
        return list(torch.autograd.grad(loss_of(trajectory), leaves))

    for plain, checkpointed in zip(gradients(None), gradients(every), strict=True):
        assert torch.equal(plain, checkpointed)


def test_rollout_is_a_chain_of_steps(
    simulator: Build, states: dict[str, physim.State], controls: dict[str, Tensor]
) -> None:
    sim = simulator("tumbler")
    found = []
    for is_rollout in (True, False):
        v = states["tumbler"].v.clone().requires_grad_()
        now = physim.State(q=states["tumbler"].q, v=v)
        if is_rollout:
            last = sim.rollout(now, controls["tumbler"].expand(6, -1)).state(-1)
        else:
            for _ in range(6):
                now, _ = sim.step(now, controls["tumbler"])
            last = now
        found.append(torch.autograd.grad(last.q.sum() + last.v.sum(), v)[0])
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-12)


def test_policy_carries_gradients(simulator: Build, states: dict[str, physim.State]) -> None:
    """A feedback gain through ten steps against a difference quotient."""
    sim = simulator("puck", smoothing=1e-4, gradient_smoothing=1e-4)

    def final(gain: Tensor) -> Tensor:
        def policy(now: physim.State, step: int) -> Tensor:
            del step
            return gain * now.v[:, [0, 2]]

        return sim.rollout(states["puck"], policy, steps=10).q[-1].sum()

    gain = torch.tensor(-2.0, dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(final(gain), gain)
    step = 1e-4
    with torch.no_grad():
        quotient = (final(gain + step) - final(gain - step)) / (2 * step)
    assert float(found) == pytest.approx(float(quotient), rel=1e-4)


def test_gradient_norms_are_those_of_the_states(
    simulator: Build, states: dict[str, physim.State]
) -> None:
    """Norms at each state against a rollout that starts there."""
    sim, steps = simulator("puck"), 8
    q, v = (x.clone().requires_grad_() for x in (states["puck"].q, states["puck"].v))
    trajectory = sim.rollout(physim.State(q=q, v=v), steps=steps)
    norms = trajectory.gradient_norms(trajectory.q[-1].sum())
    assert norms.shape == (steps + 1, 4)
    for first in (0, 3, 6):
        leaves = [x[first].detach().requires_grad_() for x in (trajectory.q, trajectory.v)]
        rest = sim.rollout(physim.State(q=leaves[0], v=leaves[1]), steps=steps - first)
        grads = torch.autograd.grad(rest.q[-1].sum(), leaves)
        expected = torch.cat(grads, dim=-1).norm(dim=-1)
        torch.testing.assert_close(norms[first], expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(
        norms[-1], torch.full((4,), math.sqrt(3.0), dtype=torch.float64), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("name", ["puck", "tumbler"])
def test_hundred_steps_in_contact_stay_finite(
    simulator: Build, states: dict[str, physim.State], controls: dict[str, Tensor], name: str
) -> None:
    sim = simulator(name)
    q, v = (x.clone().requires_grad_() for x in (states[name].q, states[name].v))
    u = (0.2 * controls[name]).expand(100, -1).clone().requires_grad_()
    trajectory = sim.rollout(physim.State(q=q, v=v), u)
    assert trajectory.report.all_converged
    assert float(trajectory.report.counts["min_gap"][-1].max()) < 1e-3
    gradients = torch.autograd.grad(trajectory.q[-1].sum(), [q, v, u])
    for gradient in gradients:
        assert bool(torch.isfinite(gradient).all())
    assert float(gradients[1].abs().max()) > 0.0
