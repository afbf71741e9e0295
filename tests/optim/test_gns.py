"""Gradient-normalized smoothness: its own inequality, iteration counts, solvers, rejection."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from solvers.core import NonFiniteError, NotConvergedError, SettingsError, ShapeError, Status
from solvers.curvature import Objective
from solvers.optim import GNS, minimize_gns


class LogSumExp:
    """mu log sum exp((a_i x - b_i) / mu), centred so that its minimum is at zero."""

    def __init__(self, n: int = 100, m: int = 200, mu: float = 0.5) -> None:
        torch.manual_seed(0)
        a = 2 * torch.rand(m, n, dtype=torch.float64) - 1
        b = 2 * torch.rand(m, dtype=torch.float64) - 1
        self.mu, self.b = mu, b
        self.a = a - torch.softmax(-b / mu, 0) @ a
        self.metric = self.a.T @ self.a
        self.lowest = float(self.value(torch.zeros(n, dtype=torch.float64)))
        self.start = torch.ones(n, dtype=torch.float64)

    def value(self, x: Tensor) -> Tensor:
        return self.mu * torch.logsumexp((self.a @ x - self.b) / self.mu, 0)

    def weighted(self, x: Tensor) -> Tensor:
        p = torch.softmax((self.a @ x - self.b) / self.mu, 0)
        return (self.a.T * p) @ self.a / self.mu

    def iterations(self, hessian_of: Any, damping: Any = "progress") -> int:
        objective = Objective.of_loss(self.value, self.start)
        found = minimize_gns(
            objective, hessian_of=hessian_of, metric=self.metric, damping=damping,
            iterations=300, tolerance=0.0, target=self.lowest + 1e-8,
        )  # fmt: skip
        return int(found.iterations)


def test_better_hessians_need_fewer_steps() -> None:
    problem = LogSumExp()
    zero = torch.zeros(100, 100, dtype=torch.float64)
    exact = problem.iterations("exact")
    weighted = problem.iterations(problem.weighted)
    gradient = problem.iterations(lambda x: zero)
    assert exact <= 25
    assert weighted <= 60
    assert gradient <= 110
    assert exact < weighted < gradient


def power_of_rosenbrock(p: int) -> Objective:
    start = torch.tensor([-2.0, 2.0], dtype=torch.float64)

    def outputs(x: Tensor) -> Tensor:
        return torch.stack([1 - x[0], 10 * (x[1] - x[0] ** 2)])

    return Objective.of_outputs(outputs, lambda u: (u @ u) ** (p / 2) / p, start)


@pytest.mark.parametrize(("p", "expected"), [(2, 49), (3, 50), (4, 55), (5, 57)])
def test_rosenbrock_as_equations_in_powers(p: int, expected: int) -> None:
    found = minimize_gns(
        power_of_rosenbrock(p), damping="progress", tolerance=0.0, target=1e-8, iterations=500
    )
    assert int(found.iterations) == pytest.approx(expected, rel=0.1)


def test_progress_holds_for_a_cubic_with_its_own_radius() -> None:
    # f = |x|^3 / 3 has a Hessian of Lipschitz constant 2, so gamma = sqrt(2 |g| / 2).
    g = torch.Generator().manual_seed(0)
    for _ in range(200):
        scale = 10 ** float(5 * torch.rand(1, generator=g) - 3)
        x = scale * torch.randn(8, generator=g, dtype=torch.float64)
        objective = Objective.of_loss(lambda y: torch.linalg.vector_norm(y) ** 3 / 3, x)
        gamma = float(x.norm())
        found = minimize_gns(
            objective, hessian_of="exact", damping="progress", gamma=gamma, iterations=1,
            on_failure="mask",
        )  # fmt: skip
        assert found.steps[0].tries == 1
        assert float((found.value - x).norm()) <= gamma * (1 + 1e-12)


class Poisson:
    """-u'' = pi^2 sin pi x, u(0) = u(1) = 0, network 1-16-16-1."""

    def __init__(self, seed: int) -> None:
        g = torch.Generator().manual_seed(seed)
        self.x = torch.linspace(0, 1, 40, dtype=torch.float64)
        w = 16
        self.net = nn.Sequential(
            nn.Linear(1, w), nn.Tanh(), nn.Linear(w, w), nn.Tanh(), nn.Linear(w, 1)
        ).double()
        for p in self.net.parameters():
            nn.init.normal_(p, std=0.25 if p.shape == (w, w) else 0.5, generator=g)

    def residual(self) -> Tensor:
        x = self.x[:, None].clone().requires_grad_()
        u = self.net(x)
        (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(slope.sum(), x, create_graph=True)
        inner = (second + math.pi**2 * torch.sin(math.pi * x))[:, 0] / math.sqrt(len(x))
        return torch.cat([inner, 10 * torch.stack([u[0, 0], u[-1, 0]])])

    def train(self, iterations: int, **options: Any) -> list[float]:
        optimizer = GNS(self.net.parameters(), **options)
        return [optimizer.step(self.residual) for _ in range(iterations)]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_gain_ratio_trains_where_the_progress_test_stalls(seed: int) -> None:
    gain = Poisson(seed).train(120)
    progress = Poisson(seed).train(120, damping="progress")
    marquardt = Poisson(seed).train(120, damping="nielsen", gamma=1e2)
    assert gain[-1] < 1e-6
    assert progress[-1] > 10 * gain[-1]
    assert all(b <= a for a, b in pairwise(gain))
    assert marquardt[-1] < 1e-5


@pytest.mark.parametrize("metric", [None, "diagonal", "dense"])
def test_solvers_take_the_same_step(metric: Any) -> None:
    ends = []
    for solver in ("cholesky", "woodbury", "cg"):
        if solver == "cg" and metric == "diagonal":
            continue
        problem = Poisson(0)
        n = sum(p.numel() for p in problem.net.parameters())
        chosen = torch.eye(n).double() + 0.1 if metric == "dense" else metric
        problem.train(
            2, solver=solver, metric=chosen, cg_tolerance=1e-13, cg_iterations=3000, gamma=0.1
        )
        ends.append(torch.cat([p.detach().flatten() for p in problem.net.parameters()]))
    for end in ends[1:]:
        assert float((end - ends[0]).abs().max()) < 1e-6


def test_fisher_step_equals_the_dense_formula() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(30, 4, generator=g, dtype=torch.float64)
    y = torch.randint(0, 2, (30,), generator=g).double()
    theta = torch.zeros(4, dtype=torch.float64, requires_grad=True)

    def losses() -> Tensor:
        return nn.functional.binary_cross_entropy_with_logits(x @ theta, y, reduction="none")

    scores = (torch.sigmoid(x @ theta) - y)[:, None].detach() * x
    gradient = scores.mean(0)
    damping = float(gradient.norm()) / 0.7
    expected = -torch.linalg.solve(
        scores.T @ scores / 30 + damping * torch.eye(4, dtype=torch.float64), gradient
    )
    for solver in ("cholesky", "woodbury", "cg"):
        with torch.no_grad():
            theta.zero_()
        optimizer = GNS([theta], hessian="fisher", gamma=0.7, solver=solver, cg_tolerance=1e-14)
        optimizer.step(losses)
        assert optimizer.report is not None
        assert optimizer.report.is_accepted
        assert torch.allclose(theta.detach(), expected, atol=1e-10)


def test_exact_hessian_of_a_quadratic_ends_in_few_steps() -> None:
    x = torch.tensor([3.0, -2.0], dtype=torch.float64, requires_grad=True)
    matrix = torch.tensor([[4.0, 1.0], [1.0, 3.0]], dtype=torch.float64)
    optimizer = GNS([x], hessian="exact", gamma=1e3)
    for _ in range(4):
        optimizer.step(lambda: 0.5 * x @ matrix @ x)
    assert float(x.detach().abs().max()) < 1e-12


def test_indefinite_hessians_are_damped_until_they_descend() -> None:
    x = torch.tensor([0.1, 0.1], dtype=torch.float64, requires_grad=True)
    optimizer = GNS([x], hessian="exact", gamma=1e3)
    saddle: Callable[[], Tensor] = lambda: x[0] ** 4 - x[0] ** 2 + x[1] ** 2  # noqa: E731
    losses = [optimizer.step(saddle) for _ in range(30)]
    assert losses == sorted(losses, reverse=True)
    assert float(x.detach()[0].abs()) == pytest.approx(math.sqrt(0.5), abs=1e-6)


def test_steps_stay_within_gamma() -> None:
    problem = Poisson(0)
    for gamma in (1e-3, 0.1, 10.0):
        optimizer = GNS(problem.net.parameters(), gamma=gamma)
        before = torch.cat([p.detach().flatten() for p in problem.net.parameters()])
        optimizer.step(problem.residual)
        after = torch.cat([p.detach().flatten() for p in problem.net.parameters()])
        assert float((after - before).norm()) <= gamma * (1 + 1e-9)


def test_a_failed_step_leaves_the_parameters_bit_for_bit() -> None:
    x = torch.tensor([0.3, 1e-17], dtype=torch.float64, requires_grad=True)
    before, calls = x.detach().clone(), []

    def closure() -> Tensor:
        calls.append(0)
        return x + 1 if len(calls) == 1 else x * torch.nan

    optimizer = GNS([x], max_tries=5)
    optimizer.step(closure)
    assert optimizer.report is not None
    assert optimizer.report.is_stalled
    assert optimizer.report.tries == 5
    assert torch.equal(x.detach(), before)


def test_a_gradient_that_is_not_finite_moves_nothing() -> None:
    x = torch.tensor([0.0, 2.0], dtype=torch.float64, requires_grad=True)
    optimizer = GNS([x])
    optimizer.step(lambda: torch.sqrt(x))
    assert optimizer.report is not None
    assert optimizer.report.is_stalled
    assert x.tolist() == [0.0, 2.0]


def test_singular_gauss_newton_matrices_are_no_obstacle() -> None:
    x = torch.tensor([2.0, 5.0, -1.0], dtype=torch.float64, requires_grad=True)
    for solver in ("cholesky", "woodbury", "cg"):
        with torch.no_grad():
            x.copy_(torch.tensor([2.0, 5.0, -1.0]))
        optimizer = GNS([x], gamma=1e8, solver=solver)
        for _ in range(5):
            loss = optimizer.step(lambda: (x[0] + x[1])[None] * torch.ones(2).double())
        assert loss < 1e-12
        assert float(x.detach()[2]) == -1.0


def test_zero_gradient_is_no_stall() -> None:
    x = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = GNS([x])
    assert optimizer.step(lambda: x * 1.0) == 0.0
    assert optimizer.report is not None
    assert not optimizer.report.is_stalled


def test_failure_of_the_search_is_a_status() -> None:
    objective = power_of_rosenbrock(2)
    with pytest.raises(NotConvergedError):
        minimize_gns(objective, iterations=2)
    found = minimize_gns(objective, iterations=2, on_failure="mask")
    assert int(found.status) == Status.MAX_ITERATIONS
    assert len(found.steps) == 2


def test_bad_input() -> None:
    x = torch.ones(2, dtype=torch.float64, requires_grad=True)
    with pytest.raises(SettingsError, match="closure"):
        GNS([x]).step()
    with pytest.raises(SettingsError, match="does not depend"):
        GNS([x]).step(x.detach)
    with pytest.raises(SettingsError, match="scalar"):
        GNS([x], hessian="exact").step(lambda: x * 1)
    with pytest.raises(NonFiniteError, match="before the step"):
        GNS([x]).step(lambda: x / 0)
    wide = torch.ones(2001, dtype=torch.float64, requires_grad=True)
    with pytest.raises(SettingsError, match="diagonal"):
        GNS([wide], metric="diagonal").step(lambda: wide * 1)
    with pytest.raises(SettingsError, match="woodbury"):
        GNS([x], hessian="exact", solver="woodbury")
    with pytest.raises(ShapeError, match="metric"):
        GNS([x], metric=torch.eye(3).double()).step(lambda: x * 1)
    with pytest.raises(SettingsError, match="positive definite"):
        GNS([x], metric=-torch.eye(2).double()).step(lambda: x * 1)
    with pytest.raises(SettingsError, match="one"):
        GNS([{"params": [x]}, {"params": [x.detach().clone().requires_grad_()]}])  # type: ignore[list-item]
    with pytest.raises(SettingsError, match="damping"):
        GNS([x], damping="gian")  # type: ignore[arg-type]
