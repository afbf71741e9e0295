"""A step has one meaning, however its inputs lie in memory and whoever watches them."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from physim import Simulator, State
from solvers.core import Report, ShapeError

MODEL = """<mujoco><worldbody><geom type="plane" size="1 1 1"/>
  <body pos="0 0 0.2"><freejoint/><geom type="capsule" size="0.1 0.1" mass="1"/>
    <body pos="0 0 0.2"><joint name="arm" axis="0 1 0" damping="0.1"/>
      <geom type="sphere" size="0.05" mass="0.2"/></body></body>
</worldbody><actuator><motor joint="arm"/></actuator></mujoco>"""


@pytest.fixture(scope="module")
def case(simulator: Callable[..., Simulator]) -> tuple[Simulator, State, torch.Tensor]:
    sim = simulator(MODEL, timestep=0.01)
    v = torch.randn(5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    state = sim.initial_state(v=v)
    control = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
    for _ in range(40):
        state, _ = sim.step(state, control)
    return sim, state, control


def test_own_numbers_may_be_given(case: tuple[Simulator, State, torch.Tensor]) -> None:
    sim, state, control = case
    usual, report = sim.step(state, control)
    given, other = sim.step(state, control, parameters=sim.parameters())
    assert torch.equal(usual.q, given.q)
    assert torch.equal(usual.v, given.v)
    assert torch.equal(report.iterations, other.iterations)


def test_a_graph_changes_nothing(case: tuple[Simulator, State, torch.Tensor]) -> None:
    sim, state, control = case
    usual, _ = sim.step(state, control)
    watched, _ = sim.step(replace(state, v=state.v.clone().requires_grad_()), control)
    assert watched.q.requires_grad
    assert watched.v.requires_grad
    assert torch.equal(usual.q, watched.q)
    assert torch.equal(usual.v, watched.v)


def test_any_layout_of_memory(case: tuple[Simulator, State, torch.Tensor]) -> None:
    sim, state, control = case
    usual, _ = sim.step(state, control)
    columns = replace(state, q=state.q.T.contiguous().T, v=state.v.T.contiguous().T)
    wide = torch.cat([control, control], dim=1)[:, :1]
    odd, _ = sim.step(columns, wide)
    assert torch.equal(usual.q, odd.q)
    assert torch.equal(usual.v, odd.v)
    one = state[2].repeat(5)
    shared = State(q=one.q[:1].expand(5, -1), v=one.v[:1].expand(5, -1), impulses=one.impulses)
    a, b = sim.step(one, control[2])[0], sim.step(shared, control[2])[0]
    assert torch.equal(a.q, b.q)
    assert torch.equal(a.v, b.v)


def test_kept_arguments_do_not_outlive_their_step(
    case: tuple[Simulator, State, torch.Tensor],
) -> None:
    """Batches, smoothings and controls in turn give what each gives alone."""
    sim, state, control = case
    fresh = Simulator(sim.model, timestep=0.01)
    for _ in range(3):
        for items, options in ((slice(0, 5), {}), (slice(1, 3), {}), (2, {"smoothing": 1e-3})):
            part = state[items]
            rows = control[items if isinstance(items, slice) else slice(2, 3)]
            ours, theirs = sim.step(part, rows, **options)[0], fresh.step(part, rows, **options)[0]
            assert torch.equal(ours.q, theirs.q)
        none, zero = sim.step(state)[0], sim.step(state, torch.zeros_like(control))[0]
        assert torch.equal(none.q, zero.q)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"interval": torch.ones(4, dtype=torch.float64)}, "state.interval"),
        ({"impulses": torch.zeros(5, 2, dtype=torch.float64)}, "impulses"),
        ({"impulses": torch.zeros(4, 6, dtype=torch.float64)}, "impulses"),
    ],
)
def test_what_rides_along_is_checked(
    case: tuple[Simulator, State, torch.Tensor], change: dict[str, torch.Tensor], word: str
) -> None:
    sim, state, control = case
    with pytest.raises(ShapeError, match=word):
        sim.step(replace(state, **change), control)


def test_the_gradient_of_a_long_quaternion(case: tuple[Simulator, State, torch.Tensor]) -> None:
    """A step depends on a quaternion's direction alone."""
    sim, state, control = case
    gradients = []
    for length in (1.0, 2.0):
        q = state.q.clone()
        q[:, 3:7] *= length
        q.requires_grad_()
        after, _ = sim.step(replace(state, q=q), control)
        (g,) = torch.autograd.grad(after.v.sum() + after.q.sum(), q)
        assert float((g[:, 3:7] * q[:, 3:7]).sum(-1).abs().max()) < 1e-9
        gradients.append(g[:, 3:7] * length)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-8, atol=1e-9)


def test_reports_travel(case: tuple[Simulator, State, torch.Tensor]) -> None:
    sim, state, control = case
    _, report = sim.step(state, control)
    for other in (pickle.loads(pickle.dumps(report)), copy.deepcopy(report)):
        assert isinstance(other, Report)
        assert torch.equal(other.residual, report.residual)
        assert other.summary() == report.summary()
    assert report.status.dtype == torch.int64
    assert report.shape == (5,)
