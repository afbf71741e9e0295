"""Largest stable learning rates: exact operator, closed forms, and trainings that obey them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from physim.learn.landscape import (
    StabilityMonitor,
    balance_relu,
    largest_stable_rate,
    path_norm,
    relu_trace,
    sharpness,
    stability_threshold,
)
from solvers.core import NonFiniteError, SettingsError
from solvers.curvature import Objective, hessian


def unit_rows(m: int, n: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    a = torch.randn(m, n, generator=g, dtype=torch.float64)
    return a / a.norm(dim=1, keepdim=True)


def test_batch_one_and_rows_of_one_length_meet_the_trace_bound() -> None:
    rows = unit_rows(20, 50)
    h = rows.T @ rows / 20
    eta = stability_threshold(rows, 1)
    assert eta * float(torch.trace(h)) == pytest.approx(2.0, abs=1e-3)
    assert eta * float(torch.linalg.eigvalsh(h)[-1]) < 1.0


@settings(max_examples=5)
@given(seed=st.integers(0, 20), spread=st.floats(0.1, 1.0))
def test_bounds_hold_for_rows_of_any_length(seed: int, spread: float) -> None:
    g = torch.Generator().manual_seed(seed)
    lengths = torch.exp(spread * torch.randn(8, 1, generator=g, dtype=torch.float64))
    rows = unit_rows(8, 12, seed) * lengths
    h = rows.T @ rows / 8
    trace, top = float(torch.trace(h)), float(torch.linalg.eigvalsh(h)[-1])
    previous = 0.0
    for batch in (1, 3, 1000):
        eta = stability_threshold(rows, batch, iterations=200, halvings=16)
        assert eta * top <= 2.0 + 1e-4
        assert eta >= previous * (1 - 1e-3)
        previous = eta
        if batch == 1:
            assert eta * trace <= 2.0 + 1e-3


def test_formula_for_batches_is_a_close_lower_bound() -> None:
    rows = unit_rows(16, 64)
    h = rows.T @ rows / 16
    trace, top = float(torch.trace(h)), float(torch.linalg.eigvalsh(h)[-1])
    for batch in (1, 2, 4, 8, 16, 1000):
        exact = stability_threshold(rows, batch, halvings=26)
        estimate = 2 / (top + (trace - top) / batch)
        assert 0.8 * exact <= estimate <= exact * (1 + 2e-3)


def test_sgd_itself_grows_above_and_shrinks_below_the_threshold() -> None:
    rows = unit_rows(10, 20, 1)
    eta = stability_threshold(rows, 2)
    g = torch.Generator().manual_seed(0)
    ends = {}
    for factor in (0.8, 1.25):
        theta = torch.randn(20_000, 20, generator=g, dtype=torch.float64)
        theta = theta @ torch.linalg.pinv(rows) @ rows
        first = float(theta.square().sum(1).mean())
        for _ in range(12):
            chosen = rows[torch.randint(0, 10, (20_000, 2), generator=g)]
            error = torch.einsum("cbn,cn->cb", chosen, theta)
            theta = theta - factor * eta * torch.einsum("cb,cbn->cn", error, chosen) / 2
        ends[factor] = float(theta.square().sum(1).mean()) / first
    assert ends[0.8] < 0.9
    assert ends[1.25] > 1.5


def test_objective_and_rows_speak_of_the_same_loss() -> None:
    rows = unit_rows(12, 30)
    # Half the squared norm of this residual is the mean loss over the rows.
    objective = Objective.of_residual(
        lambda p: rows @ p / math.sqrt(12), torch.zeros(30, dtype=torch.float64)
    )
    for batch in (1, 4):
        direct = stability_threshold(rows, batch)
        assert largest_stable_rate(objective, batch=batch) == pytest.approx(direct, rel=1e-6)
    found = sharpness(objective)
    h = hessian(objective).dense()
    assert found.trace == pytest.approx(float(torch.trace(h)), rel=1e-6)
    assert found.largest == pytest.approx(float(torch.linalg.eigvalsh(h)[-1]), rel=1e-6)
    assert found.frobenius == pytest.approx(float(h.norm()), rel=1e-6)
    assert found.rate(10**9) == pytest.approx(2 / found.largest, rel=1e-6)
    assert found.loss == 0.0


def test_trace_of_a_relu_network_and_its_path_norm() -> None:
    g = torch.Generator().manual_seed(0)
    d, width = 10, 50
    outer = 0.3 * torch.randn(width, generator=g, dtype=torch.float64)
    inner = 0.4 * torch.randn(width, d, generator=g, dtype=torch.float64)
    x = torch.randn(200_000, d, generator=g, dtype=torch.float64)
    hidden = x @ inner.T
    active = (hidden > 0).double()
    slopes = hidden.clamp(min=0).square().sum(1) + (active @ outer.square()) * x.square().sum(1)
    assert relu_trace(inner, outer) == pytest.approx(float(slopes.mean()), rel=5e-3)
    assert relu_trace(inner, outer) > math.sqrt(d) * path_norm(inner, outer)
    balanced = balance_relu(inner, outer)
    assert relu_trace(*balanced) == pytest.approx(math.sqrt(d) * path_norm(*balanced), rel=1e-5)
    assert path_norm(*balanced) == pytest.approx(path_norm(inner, outer), rel=1e-12)
    same = torch.relu(x[:100] @ balanced[0].T) @ balanced[1]
    assert torch.allclose(same, torch.relu(x[:100] @ inner.T) @ outer, atol=1e-12)


def train_diagonal(eta: float, batch: int | None, steps: int) -> tuple[float, float]:
    """w = u^2 - v^2 on sparse regression; eta times trace and eta times largest at the end."""
    g = torch.Generator().manual_seed(0)
    d, n = 60, 25
    w = torch.zeros(d)
    w[:4] = torch.tensor([1.0, -1.0, 1.0, -1.0])
    x = torch.randn(n, d, generator=g)
    y = x @ w
    u, v = (0.5 + 0.02 * torch.randn(d, generator=g) for _ in range(2))
    for k in range(steps):
        rate = eta * min(1.0, (k + 1) / 2000)
        rows = slice(None) if batch is None else torch.randint(0, n, (batch,), generator=g)
        part = x[rows]
        slope = part.T @ (part @ (u * u - v * v) - y[rows]) / len(part)
        u, v = u - rate * 2 * u * slope, v + rate * 2 * v * slope
        if k % 500 == 0 and k > 2000 and float((x @ (u * u - v * v) - y).square().mean()) < 1e-8:
            break
    j = torch.cat([2 * x * u, -2 * x * v], 1)
    trace = float(j.square().sum() / n)
    return eta * trace, eta * float(torch.linalg.matrix_norm(j, 2)) ** 2 / n


@pytest.mark.slow
def test_sgd_ends_within_the_trace_bound_and_gradient_descent_does_not() -> None:
    for eta in (0.01, 0.02, 0.05):
        assert train_diagonal(eta, 1, 30_000)[0] <= 2.0
    trace, largest = train_diagonal(0.05, None, 4000)
    assert trace > 2.5
    assert largest < 2.0


def test_monitor_sees_gradient_descent_at_its_edge() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(1, 10), nn.Tanh(), nn.Linear(10, 1)).double()
    x = torch.linspace(-1, 1, 16, dtype=torch.float64)[:, None]
    objective = Objective.of_module(net, residual=lambda f: (f(x) - torch.sin(3 * x)) / 4)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.2)
    monitor = StabilityMonitor(optimizer, net, objective, every=100)
    for _ in range(400):
        optimizer.zero_grad()
        (0.5 * ((net(x) - torch.sin(3 * x)) / 4).square().sum()).backward()
        optimizer.step()
    assert [record["step"] for record in monitor.history] == [100, 200, 300, 400]
    losses = [record["loss"] for record in monitor.history]
    assert losses == sorted(losses, reverse=True)
    for record in monitor.history:
        assert 0 < record["rate_largest"] <= record["rate_trace"] * (1 + 1e-6)
    theta = objective.space.flatten({k: p.detach() for k, p in net.named_parameters()})
    expected = 0.2 * sharpness(objective, theta).largest
    assert monitor.history[-1]["rate_largest"] == pytest.approx(expected, rel=1e-6)
    monitor.stop()
    optimizer.step()
    assert len(monitor.history) == 4


def test_bad_input() -> None:
    with pytest.raises(SettingsError, match="sample of the rows"):
        stability_threshold(torch.ones(2001, 2), 1)
    with pytest.raises(SettingsError, match="batch"):
        stability_threshold(torch.ones(3, 2), 0)
    with pytest.raises(SettingsError, match="residual"):
        largest_stable_rate(Objective.of_loss(lambda p: p.sum(), torch.ones(2)), batch=1)


def test_dead_units_stay_dead_when_balanced() -> None:
    inner = torch.tensor([[0.0, 0.0], [1.0, 2.0], [3.0, 1.0]], dtype=torch.float64)
    outer = torch.tensor([1.0, 2.0, 0.0], dtype=torch.float64)
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    moved = balance_relu(inner, outer)
    torch.testing.assert_close(
        torch.relu(x @ moved[0].T) @ moved[1], torch.relu(x @ inner.T) @ outer
    )
    assert relu_trace(*moved) == pytest.approx(2**0.5 * path_norm(inner, outer), rel=1e-12)


@pytest.mark.parametrize(
    "rows", [torch.zeros(3, 2), torch.zeros(0, 2), torch.ones(2, 2) * math.nan]
)
def test_rows_without_a_direction_are_refused(rows: Tensor) -> None:
    with pytest.raises((SettingsError, NonFiniteError), match="rows"):
        stability_threshold(rows, 1)
