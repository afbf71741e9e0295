"""A step that had to be taken in parts differentiates through all of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import physim
from physim.dynamics import Attempt, SolverSettings

# One attempt and few iterations: some items fail whole but not in halves.
HASTY = SolverSettings(
    attempts=(Attempt(start=1e-2, slowest=1.0, fraction=0.99),), attempt_iterations=8
)
Build = Callable[..., physim.Simulator]


@pytest.fixture(scope="module")
def start(states: dict[str, physim.State]) -> physim.State:
    generator = torch.Generator().manual_seed(0)
    few = states["tumbler"]
    v = few.v.repeat(20, 1)
    noise = torch.randn(v.shape, generator=generator, dtype=torch.float64)
    return physim.State(q=few.q.repeat(20, 1), v=v + 2.0 * noise)


def weighted(state: physim.State) -> Tensor:
    """A loss that weighs every output differently."""
    out = torch.cat([state.q, state.v], dim=-1)
    return (out * torch.linspace(0.5, 1.5, out.shape[1], dtype=torch.float64)).sum()


@pytest.mark.parametrize("backend", ["reference", "kernel"])
def test_halved_step_equals_two_half_steps(
    simulator: Build, start: physim.State, controls: dict[str, Tensor], backend: str
) -> None:
    whole = simulator("tumbler", backend=backend, settings=HASTY)
    half = simulator("tumbler", backend=backend, settings=HASTY, timestep=0.005)
    _, report = whole.step(start, controls["tumbler"], on_failure="mask")
    # The solve for the gradient asks for more, so that whether an item is cut may depend on it.
    probe = physim.State(q=start.q, v=start.v.clone().requires_grad_())
    _, report = whole.step(probe, controls["tumbler"], on_failure="mask")
    cut = ((report.counts["parts"] == 2) & report.converged).nonzero()[:, 0]
    assert len(cut) > 0

    def leaves() -> list[Tensor]:
        values = start.q[cut], start.v[cut], controls["tumbler"].expand(len(cut), -1)
        mass = whole.parameters()["mass"]
        return [x.clone().requires_grad_() for x in (*values, mass)]

    def gradients(sim: physim.Simulator, count: int) -> tuple[physim.State, list[Tensor]]:
        q, v, u, mass = inputs = leaves()
        # The interval before this step was a whole one, whatever the simulator's own.
        past = torch.full((len(cut),), 0.01, dtype=torch.float64)
        now = physim.State(q=q, v=v, interval=past)
        # The force of an actuator is held over a step, cut or not.
        for _ in range(count):
            now, report = sim.step(now, u, parameters={"mass": mass})
            assert report.all_converged
        return now, list(torch.autograd.grad(weighted(now), inputs))

    one, from_one = gradients(whole, 1)
    two, from_two = gradients(half, 2)
    assert one.interval is not None
    torch.testing.assert_close(one.interval, torch.full_like(one.interval, 0.005))
    torch.testing.assert_close(one.q, two.q, rtol=0, atol=1e-9)
    torch.testing.assert_close(one.v, two.v, rtol=0, atol=1e-7)
    for a, b in zip(from_one, from_two, strict=True):
        assert float((a - b).abs().max()) < 1e-6 * float(b.abs().max())


def test_interval_carries_a_gradient_on(
    simulator: Build, start: physim.State, controls: dict[str, Tensor]
) -> None:
    """A cut item and a whole one go on together, each with its own past interval."""
    whole = simulator("tumbler", backend="kernel", settings=HASTY)
    v = start.v.clone().requires_grad_()
    now, report = whole.step(
        physim.State(q=start.q, v=v), controls["tumbler"], on_failure="mask"
    )
    parts = report.counts["parts"]
    assert set(parts.tolist()) >= {1, 2}
    assert now.interval is not None
    torch.testing.assert_close(now.interval, 0.01 / parts)
    following, _ = whole.step(now, controls["tumbler"], on_failure="mask")
    (gradient,) = torch.autograd.grad(weighted(following), v)
    assert bool(torch.isfinite(gradient).all())
    assert float(gradient.abs().amax(-1)[parts == 2].min()) > 0.0
