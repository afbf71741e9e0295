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
    newton_first=1,
    newton_iterations=1,
    attempts=(Attempt(start=1e-2, slowest=1.0, fraction=0.99),),
    attempt_iterations=10,
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


@pytest.mark.parametrize("backend", ["kernel", pytest.param("reference", marks=pytest.mark.slow)])
@pytest.mark.parametrize("parts", [2, 4])
def test_cut_step_equals_short_steps(
    simulator: Build, start: physim.State, controls: dict[str, Tensor], backend: str, parts: int
) -> None:
    same = {"backend": backend, "settings": HASTY, "smoothing": 1e-4, "gradient_smoothing": 1e-4}
    whole = simulator("tumbler", **same)
    short = simulator("tumbler", timestep=0.01 / parts, **same)
    _, report = whole.step(start, controls["tumbler"], on_failure="mask")
    cut = ((report.counts["parts"] == parts) & report.converged).nonzero()[:, 0]
    assert len(cut) > 0

    def gradients(sim: physim.Simulator, count: int) -> tuple[physim.State, list[Tensor]]:
        values = start.q[cut], start.v[cut], controls["tumbler"].expand(len(cut), -1)
        leaves = [x.clone().requires_grad_() for x in (*values, sim.parameters()["mass"])]
        q, v, u, mass = leaves
        # The interval before this step was a whole one, whatever the simulator's own.
        past = torch.full((len(cut),), 0.01, dtype=torch.float64)
        now = physim.State(q=q, v=v, interval=past)
        for _ in range(count):
            now, _ = sim.step(now, u, parameters={"mass": mass})
        return now, list(torch.autograd.grad(weighted(now), leaves))

    one, from_one = gradients(whole, 1)
    many, from_many = gradients(short, parts)
    assert one.interval is not None
    torch.testing.assert_close(one.interval, torch.full_like(one.interval, 0.01 / parts))
    torch.testing.assert_close(one.q, many.q, rtol=0, atol=1e-13)
    torch.testing.assert_close(one.v, many.v, rtol=0, atol=1e-11)
    for a, b in zip(from_one, from_many, strict=True):
        assert float((a - b).abs().max()) < 1e-9 * float(b.abs().max())


def test_mixed_batch_goes_on(
    simulator: Build, start: physim.State, controls: dict[str, Tensor]
) -> None:
    """Cut and whole items take the next step together, each with its own past interval."""
    sim = simulator("tumbler", backend="kernel", settings=HASTY)
    v = start.v.clone().requires_grad_()
    now, report = sim.step(physim.State(q=start.q, v=v), controls["tumbler"], on_failure="mask")
    parts = report.counts["parts"]
    assert set(parts.tolist()) >= {1, 2}
    assert now.interval is not None
    torch.testing.assert_close(now.interval, 0.01 / parts.double())
    following, after = sim.step(now, controls["tumbler"], on_failure="mask")
    good = report.converged & after.converged
    (gradient,) = torch.autograd.grad(weighted(following), v)
    assert bool(torch.isfinite(gradient).all())
    assert float(gradient.abs().amax(-1)[good].min()) > 0.0
