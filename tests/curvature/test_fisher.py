"""Closed forms of Fisher matrices and of the regime parameter."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from torch import Tensor

from solvers.core import SettingsError
from solvers.curvature import (
    SymmetricOperator,
    categorical_fisher,
    convergence_time,
    deviation_ratio,
    deviation_tensor,
    directional_regime,
    exponential_family_fisher,
    fisher,
    gaussian_fisher,
    regime,
    sampled_fisher,
)

Edge = tuple[int, int]


def spins(n: int, edges: Sequence[Edge]) -> Tensor:
    """Products of neighbouring spins in all states, shape (2^n, edges)."""
    states = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=n)), dtype=torch.float64)
    return torch.stack([states[:, i] * states[:, j] for i, j in edges], 1)


def ising(n: int, edges: Sequence[Edge]) -> Callable[[Tensor], Tensor]:
    statistics = spins(n, edges)
    return lambda eta: torch.logsumexp(statistics @ eta, 0)


def complete(n: int) -> list[Edge]:
    return list(itertools.combinations(range(n), 2))


def cycle(n: int) -> list[Edge]:
    return [(i, (i + 1) % n) for i in range(n)]


def uniform(n: int, edges: Sequence[Edge]) -> Tensor:
    eta = torch.full((len(edges),), 0.5, dtype=torch.float64)
    return exponential_family_fisher(ising(n, edges), eta)


def test_fisher_of_an_ising_model_is_the_covariance_of_its_statistics() -> None:
    g = torch.Generator().manual_seed(0)
    edges = complete(4)
    eta = 0.3 * torch.randn(6, generator=g, dtype=torch.float64)
    statistics = spins(4, edges)
    p = torch.softmax(statistics @ eta, 0)
    mean = p @ statistics
    covariance = (statistics - mean).T @ (p[:, None] * (statistics - mean))
    ours = exponential_family_fisher(ising(4, edges), eta)
    assert float((ours - covariance).abs().max()) < 1e-10


def test_pull_back_of_the_metric_on_means_is_the_mass_tensor() -> None:
    edges = complete(4)
    eta = torch.linspace(-0.4, 0.6, 6, dtype=torch.float64)
    mean = torch.func.grad(ising(4, edges))
    j = torch.func.jacfwd(mean)(eta)
    matrix = exponential_family_fisher(ising(4, edges), eta)
    assert float((j.T @ j - matrix @ matrix).abs().max()) < 1e-10


@given(seed=st.integers(0, 10_000), n=st.integers(2, 7))
def test_trees_have_a_diagonal_fisher_matrix(seed: int, n: int) -> None:
    g = torch.Generator().manual_seed(seed)
    edges = [(int(torch.randint(0, i, (1,), generator=g)), i) for i in range(1, n)]
    eta = torch.randn(n - 1, generator=g, dtype=torch.float64)
    matrix = exponential_family_fisher(ising(n, edges), eta)
    assert float((matrix - torch.diag(torch.cosh(eta) ** -2)).abs().max()) < 1e-10


@pytest.mark.parametrize(
    ("n", "edges", "spectrum", "condition", "alpha"),
    [
        (3, complete(3), {0.3850: 2, 1.0954: 1}, 2.845, 0.4304),
        (4, complete(4), {0.1168: 2, 0.3176: 3, 1.137: 1}, 9.732, 0.6006),
        (5, complete(5), {0.0355: 5, 0.2058: 4, 0.7596: 1}, 21.38, 0.5541),
        (4, cycle(4), {0.5915: 3, 1.0748: 1}, 1.817, 0.0),
        (6, cycle(6), {0.7433: 5, 0.9093: 1}, 0.9093 / 0.7433, 0.0),
    ],
)
def test_regime_of_uniform_ising_models(
    n: int, edges: list[Edge], spectrum: dict[float, int], condition: float, alpha: float
) -> None:
    found = regime(uniform(n, edges))
    expected = [value for value, count in spectrum.items() for _ in range(count)]
    assert found.eigenvalues.tolist() == pytest.approx(expected, abs=6e-5 * max(1, expected[-1]))
    assert found.condition == pytest.approx(condition, rel=5e-4)
    assert found.alpha == pytest.approx(alpha, abs=1e-4)
    assert "another model of convergence" in str(found)


def test_triangle_by_hand() -> None:
    # One pair's correlation on a triangle at coupling J is (t + t^2) / (1 + t^3), t = tanh J.
    t = math.tanh(0.5)
    c = (t + t * t) / (1 + t**3)
    # The product of two edges is the third, so covariances are c - c^2.
    expected = torch.tensor([1 - c, 1 - c, 1 - c * c + 2 * (c - c * c)], dtype=torch.float64)
    found = regime(uniform(3, complete(3)))
    assert float((found.eigenvalues - expected).abs().max()) < 1e-10
    assert found.beta == pytest.approx(float(expected[2] - 2 * expected[0]), abs=1e-10)


@given(low=st.floats(0.01, 2.0), ratio=st.floats(1.05, 50.0))
def test_optimum_agrees_with_a_search(low: float, ratio: float) -> None:
    values = torch.tensor([low, low * math.sqrt(ratio), low * ratio], dtype=torch.float64)
    found = regime(torch.diag(values))
    upper = 4 * low * ratio
    search = minimize_scalar(
        lambda beta: convergence_time(values, beta), bounds=(0, upper), method="bounded",
        options={"xatol": 1e-10 * upper},
    )  # fmt: skip
    assert convergence_time(values, found.beta) <= search.fun * (1 + 1e-9)
    assert found.beta == pytest.approx(search.x, abs=1e-3 * upper)
    assert found.alpha**2 == pytest.approx(found.beta * (1 - found.alpha), abs=1e-10)


def test_widest_spread_of_directional_regimes_is_at_the_geometric_mean() -> None:
    low, high = 0.2, 1.8
    operator = SymmetricOperator.of_matrix(
        torch.diag(torch.tensor([low, high], dtype=torch.float64))
    )
    eye = torch.eye(2, dtype=torch.float64)

    def spread(beta: float) -> float:
        first, second = directional_regime(operator, eye, beta=beta)
        return float(second - first)

    best = math.sqrt(low * high)
    root = math.sqrt(high / low)
    assert spread(best) == pytest.approx((root - 1) / (root + 1), abs=1e-10)
    assert spread(best) > max(spread(0.9 * best), spread(1.1 * best))
    assert spread(1e-9) < 1e-6


def test_deviation_is_trace_free_and_sees_isotropy() -> None:
    matrix = uniform(4, complete(4))
    deviation = deviation_tensor(matrix)
    values = torch.linalg.eigvalsh(matrix)
    mean = (values**2).sum() / values.sum()
    assert abs(float(torch.trace(deviation))) < 1e-10
    expected = (values * (values - mean)).sort().values
    assert float((torch.linalg.eigvalsh(deviation) - expected).abs().max()) < 1e-10
    operator = SymmetricOperator.of_matrix(matrix)
    exact = float(deviation.norm() / (matrix @ matrix).norm())
    assert deviation_ratio(operator) == pytest.approx(exact, abs=1e-10)
    assert regime(matrix).deviation == pytest.approx(exact, abs=1e-10)
    isotropic = SymmetricOperator.of_matrix(3 * torch.eye(5, dtype=torch.float64))
    assert deviation_ratio(isotropic) < 1e-7


def features(seed: int = 0) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(20, 4, generator=g, dtype=torch.float64)
    theta = 0.5 * torch.randn(12, generator=g, dtype=torch.float64)
    return lambda t: torch.tanh(x @ t.view(4, 3)), theta


def test_network_fisher_products_equal_their_closed_forms() -> None:
    outputs, theta = features()
    j = torch.func.jacfwd(outputs)(theta)
    std = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    ours = fisher(outputs, theta, family="gaussian", std=std).dense()
    assert float((ours - gaussian_fisher(j, std)).abs().max()) < 1e-10
    ours = fisher(outputs, theta, family="categorical").dense()
    assert float((ours - categorical_fisher(j, outputs(theta))).abs().max()) < 1e-10


def test_gaussian_fisher_is_the_curvature_of_the_divergence() -> None:
    # KL(N(mu, s) || N(mu', s')) has the Fisher matrix as its Hessian at equal arguments.
    outputs, theta = features(1)
    j = torch.func.jacfwd(outputs)(theta)
    log_std = torch.tensor([-0.3, 0.1, 0.4], dtype=torch.float64)
    mean = outputs(theta)

    def divergence(p: Tensor) -> Tensor:
        mu, s = outputs(p[:12]), torch.exp(p[12:])
        first = torch.exp(2 * log_std) + (mean - mu).square()
        return (torch.log(s) - log_std + 0.5 * first / s**2 - 0.5).sum(-1).mean()

    at = torch.cat([theta, log_std])
    expected = torch.func.hessian(divergence)(at)
    ours = gaussian_fisher(j, torch.exp(log_std), has_log_std=True)
    assert float((ours - expected).abs().max()) < 1e-10


def test_sampled_fisher_tends_to_the_closed_form() -> None:
    eta = torch.tensor([0.2, -0.5, 0.4], dtype=torch.float64)
    log_partition = ising(3, complete(3))
    statistics = spins(3, complete(3))
    g = torch.Generator().manual_seed(0)
    chosen = torch.multinomial(torch.softmax(statistics @ eta, 0), 20_000, True, generator=g)
    ours = sampled_fisher(
        lambda e, t: t @ e - log_partition(e), eta, statistics[chosen], chunk=5000
    )
    exact = exponential_family_fisher(log_partition, eta)
    assert float((ours - exact).abs().max()) < 0.03


def test_singular_matrices_are_refused() -> None:
    with pytest.raises(SettingsError, match="positive definite"):
        regime(torch.diag(torch.tensor([0.0, 1.0], dtype=torch.float64)))
