"""A failed item passes no gradient and leaves those of the others alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import physim
from physim.dynamics import Attempt, SolverSettings
from solvers.core import NonFiniteError, NotConvergedError

# Too few iterations for most landings, enough for most flights; no second try in halves.
HURRIED = SolverSettings(
    newton_first=2,
    newton_iterations=2,
    attempts=(Attempt(start=1e-2, slowest=1.0, fraction=0.99),),
    attempt_iterations=8,
    max_substeps=1,
)
Build = Callable[..., physim.Simulator]


@pytest.fixture(scope="module")
def start(states: dict[str, physim.State]) -> physim.State:
    generator = torch.Generator().manual_seed(0)
    few = states["tumbler"]
    v = few.v.repeat(20, 1)
    noise = torch.randn(v.shape, generator=generator, dtype=torch.float64)
    return physim.State(q=few.q.repeat(20, 1), v=v + 2.0 * noise)


def pull_back(
    sim: physim.Simulator, q: Tensor, v: Tensor, control: Tensor
) -> tuple[list[Tensor], physim.Report]:
    """Gradients with respect to q, v, control and per-item masses."""
    mass = sim.parameters()["mass"].expand(len(q), -1)
    leaves = [x.clone().requires_grad_() for x in (q, v, control.expand(len(q), -1), mass)]
    state = physim.State(q=leaves[0], v=leaves[1])
    following, report = sim.step(
        state, leaves[2], parameters={"mass": leaves[3]}, on_failure="mask"
    )
    loss = following.q.sum() + following.v.sum()
    return list(torch.autograd.grad(loss, leaves)), report


@pytest.mark.parametrize("backend", ["kernel", "reference"])
def test_failed_item_passes_zero(
    simulator: Build, start: physim.State, controls: dict[str, Tensor], backend: str
) -> None:
    sim = simulator("tumbler", backend=backend, settings=HURRIED)
    gradients, report = pull_back(sim, start.q, start.v, controls["tumbler"])
    failed = ~report.converged
    assert bool(failed.any())
    assert not bool(failed.all())
    for gradient in gradients:
        assert float(gradient[failed].abs().max()) == 0.0
        assert bool(torch.isfinite(gradient).all())
    assert float(gradients[1][~failed].abs().amax(-1).min()) > 0.0


def test_what_is_solved_but_has_no_gradient_is_counted(
    simulator: Build, start: physim.State, controls: dict[str, Tensor]
) -> None:
    """Softer problems solve the step here, but too few iterations reach the gradient's."""
    sim = simulator("tumbler", backend="kernel", settings=replace(HURRIED, newton_first=1))
    gradients, report = pull_back(sim, start.q, start.v, controls["tumbler"])
    flat = gradients[1].abs().amax(-1) == 0.0
    counted = report.counts["no_gradient"] == 1
    assert bool(counted.any())
    assert torch.equal(flat & report.converged, counted)


def test_others_are_bit_equal(
    simulator: Build, start: physim.State, controls: dict[str, Tensor]
) -> None:
    """Failed items replaced by a good one: the rest must not notice."""
    sim = simulator("tumbler", backend="kernel", settings=HURRIED)
    with_failed, report = pull_back(sim, start.q, start.v, controls["tumbler"])
    good = report.converged
    calm = int(good.nonzero()[0])
    q = torch.where(good[:, None], start.q, start.q[calm])
    v = torch.where(good[:, None], start.v, start.v[calm])
    without, all_good = pull_back(sim, q, v, controls["tumbler"])
    assert all_good.all_converged
    for a, b in zip(with_failed, without, strict=True):
        assert torch.equal(a[good], b[good])


def test_not_a_number_is_masked(
    simulator: Build, start: physim.State, controls: dict[str, Tensor]
) -> None:
    sim = simulator("tumbler")
    v = start.v[:6].clone()
    v[2, 4] = torch.nan
    gradients, report = pull_back(sim, start.q[:6], v, controls["tumbler"])
    assert report.converged.tolist() == [True, True, False, True, True, True]
    clean, _ = pull_back(sim, start.q[:6], start.v[:6], controls["tumbler"])
    for a, b in zip(gradients, clean, strict=True):
        assert float(a[2].abs().max()) == 0.0
        assert torch.equal(a[report.converged], b[report.converged])


def test_default_raises(simulator: Build, start: physim.State, controls: dict[str, Tensor]) -> None:
    sim = simulator("tumbler", backend="kernel", settings=HURRIED)
    with pytest.raises(NotConvergedError):
        sim.step(start, controls["tumbler"])
    bad = physim.State(q=start.q, v=start.v * torch.nan)
    with pytest.raises(NonFiniteError):
        sim.step(bad, controls["tumbler"])


def test_a_policy_that_all_items_share_is_not_spoilt() -> None:
    model = physim.load_model("""<mujoco><worldbody><body><joint name="x" type="slide"/>
      <geom size="0.1" mass="1"/></body></worldbody>
      <actuator><motor joint="x"/></actuator></mujoco>""")
    sim = physim.Simulator(model, timestep=0.01, backend="reference")

    def gradient(speeds: list[float]) -> Tensor:
        gain = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
        start = sim.initial_state(batch=len(speeds))
        start = replace(start, v=torch.tensor(speeds, dtype=torch.float64)[:, None])
        path = sim.rollout(start, lambda now, _: gain * now.v.sin(), steps=2, on_failure="mask")
        return torch.autograd.grad(path.v[1:].nan_to_num().sum(), gain)[0]

    torch.testing.assert_close(gradient([0.5, torch.nan, 0.2]), gradient([0.5, 0.2]))
