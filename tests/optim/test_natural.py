"""Natural gradient: invariance, Newton's method on exponential families, dense references."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from solvers.core import NonFiniteError, SettingsError, ShapeError
from solvers.curvature import (
    categorical_fisher,
    exponential_family_fisher,
    gaussian_fisher,
    regime,
)
from solvers.optim import NaturalGradient, natural_gradient


def ising_log_partition(eta: Tensor) -> Tensor:
    states = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=3)), dtype=torch.float64)
    pairs = torch.stack([states[:, i] * states[:, j] for i, j in ((0, 1), (1, 2), (0, 2))], 1)
    return torch.logsumexp(pairs @ eta, 0)


def test_step_of_a_likelihood_converges_quadratically() -> None:
    target = torch.tensor([0.5, -0.2, 0.3], dtype=torch.float64)
    mean = torch.func.grad(ising_log_partition)
    eta, errors = torch.zeros(3, dtype=torch.float64), []
    for _ in range(5):
        gradient = mean(eta) - mean(target)
        eta = eta - natural_gradient(exponential_family_fisher(ising_log_partition, eta), gradient)
        errors.append(float((eta - target).abs().max()))
    assert errors[-1] < 1e-10
    assert errors[2] < 10 * errors[1] ** 2


def problem(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(40, 3, generator=g, dtype=torch.float64)
    y = torch.randn(40, 2, generator=g, dtype=torch.float64)
    theta = 0.5 * torch.randn(6, generator=g, dtype=torch.float64)
    return x, y, theta


def test_step_is_invariant_under_linear_maps_of_the_parameters() -> None:
    x, y, theta = problem()
    g = torch.Generator().manual_seed(9)
    mixing = torch.randn(6, 6, generator=g, dtype=torch.float64) + 2 * torch.eye(6).double()

    def run(point: Tensor, to_theta: Tensor) -> Tensor:
        p = point.clone().requires_grad_()

        def closure() -> tuple[Tensor, Tensor]:
            outputs = torch.tanh(x @ (to_theta @ p).view(3, 2))
            return outputs, 0.5 * (outputs - y).square().sum(1).mean()

        optimizer = NaturalGradient([p], family="gaussian", lr=0.3, damping=0.0)
        for _ in range(3):
            optimizer.step(closure)
        return to_theta @ p.detach()

    plain = run(theta, torch.eye(6, dtype=torch.float64))
    mixed = run(torch.linalg.solve(mixing, theta), mixing)
    assert float((plain - mixed).abs().max()) < 1e-8


@pytest.mark.parametrize("family", ["gaussian", "categorical"])
@pytest.mark.parametrize("beta", [None, 0.7, "optimal"])
def test_step_equals_the_dense_formula(family: str, beta: float | str | None) -> None:
    x, y, theta = problem(1)
    labels = (y[:, 0] > 0).long()

    def outputs_of(p: Tensor) -> Tensor:
        return torch.tanh(x @ p.view(3, 2))

    def loss_of(p: Tensor) -> Tensor:
        if family == "gaussian":
            return 0.5 * (outputs_of(p) - y).square().sum(1).mean()
        return nn.functional.cross_entropy(outputs_of(p), labels)

    j = torch.func.jacfwd(outputs_of)(theta)
    exact = (
        gaussian_fisher(j, 0.5)
        if family == "gaussian"
        else categorical_fisher(j, outputs_of(theta))
    )
    eye = torch.eye(6, dtype=torch.float64)
    damped = exact + 1e-3 * eye
    expected = torch.linalg.solve(damped, torch.func.grad(loss_of)(theta))
    if beta is not None:
        weight = regime(damped).beta if isinstance(beta, str) else beta
        expected = torch.linalg.solve(damped + weight * eye, expected)
    p = theta.clone().requires_grad_()
    optimizer = NaturalGradient(
        [p], family=family, lr=1.0, damping=1e-3, std=0.5, regime_beta=beta  # type: ignore[arg-type]
    )  # fmt: skip
    optimizer.step(lambda: (outputs_of(p), loss_of(p)))
    assert torch.allclose(theta - p.detach(), expected, rtol=1e-9, atol=1e-11)


def test_sample_space_and_parameter_space_agree() -> None:
    torch.manual_seed(0)
    x = torch.randn(5, 3, dtype=torch.float64)
    ends = []
    for force_dense in (False, True):
        torch.manual_seed(1)
        net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)).double()
        optimizer = NaturalGradient(net.parameters(), family="gaussian", lr=0.5, damping=1e-3)

        def closure(net: nn.Module = net) -> tuple[Tensor, Tensor]:
            u = net(x)
            return u, 0.5 * (u - 1).square().mean()

        if force_dense:
            rows = optimizer._rows(closure()[0], 4)
            loss = closure()[1]
            gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, optimizer.params)])
            step = 0.5 * natural_gradient(rows.T @ rows, gradient, damping=1e-3)
            start = torch.cat([p.detach().flatten() for p in net.parameters()])
            ends.append(start - step)
        else:
            optimizer.step(closure)
            ends.append(torch.cat([p.detach().flatten() for p in net.parameters()]))
    assert torch.allclose(ends[0], ends[1], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("family", ["gaussian", "categorical"])
def test_products_take_the_step_of_the_matrix(family: str) -> None:
    x, y, theta = problem(2)
    ends = []
    for solver in ("dense", "cg"):
        p = theta.clone().requires_grad_()
        optimizer = NaturalGradient(
            [p], family=family, divergence=1e-3, damping=1e-3, std=0.7,  # type: ignore[arg-type]
            solver=solver, cg_tolerance=1e-13,  # type: ignore[arg-type]
        )  # fmt: skip

        def closure(p: Tensor = p) -> tuple[Tensor, Tensor]:
            outputs = torch.tanh(x @ p.view(3, 2))
            return outputs, 0.5 * (outputs - y).square().sum(1).mean()

        for _ in range(3):
            optimizer.step(closure)
        assert optimizer.report is not None
        assert optimizer.report.divergence == pytest.approx(1e-3)
        ends.append(p.detach())
    assert torch.allclose(ends[0], ends[1], rtol=1e-9, atol=1e-10)


def test_a_policy_learns_by_bounded_steps() -> None:
    # Three actions in four states, the reward is one for a different action in each.
    best = torch.tensor([0, 1, 2, 0])
    logits = torch.zeros(4, 3, dtype=torch.float64, requires_grad=True)
    optimizer = NaturalGradient([logits], family="categorical", divergence=0.01)
    rewards = []
    for _ in range(60):
        p = torch.softmax(logits.detach(), 1)
        rewards.append(float(p[torch.arange(4), best].mean()))

        def closure() -> tuple[Tensor, Tensor]:
            chosen = torch.softmax(logits, 1)[torch.arange(4), best]
            return logits * 1.0, -chosen.mean()

        optimizer.step(closure)
    assert rewards == sorted(rewards)
    assert rewards[-1] > 0.95


def test_divergence_sets_the_length() -> None:
    torch.manual_seed(0)
    net = nn.Linear(4, 3).double()
    x = torch.randn(50, 4, dtype=torch.float64)
    y = torch.randint(0, 3, (50,))
    optimizer = NaturalGradient(net.parameters(), family="categorical", divergence=1e-4)
    before = torch.log_softmax(net(x).detach(), 1)
    optimizer.step(lambda: (net(x), nn.functional.cross_entropy(net(x), y)))
    after = torch.log_softmax(net(x).detach(), 1)
    moved = float((before.exp() * (before - after)).sum(1).mean())
    assert optimizer.report is not None
    assert optimizer.report.divergence == pytest.approx(1e-4)
    assert moved == pytest.approx(1e-4, rel=0.05)


def test_bad_input() -> None:
    p = torch.ones(2, dtype=torch.float64, requires_grad=True)
    with pytest.raises(SettingsError, match="exactly one"):
        NaturalGradient([p], family="gaussian")
    optimizer = NaturalGradient([p], family="gaussian", lr=1.0)
    with pytest.raises(ShapeError, match="samples"):
        optimizer.step(lambda: (p * 1, p.sum()))
    with pytest.raises(NonFiniteError):
        optimizer.step(lambda: (p[None] * 1, p.sum() / 0))
    assert torch.equal(p.detach(), torch.ones(2, dtype=torch.float64))
    with pytest.raises(SettingsError, match="positive definite"):
        natural_gradient(torch.zeros(2, 2), torch.ones(2))
    with pytest.raises(SettingsError, match="closure"):
        optimizer.step()
