"""Lanczos, densities and traces against dense spectra."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from solvers.core import NonFiniteError, NotConvergedError, SettingsError, Status
from solvers.curvature import (
    SymmetricOperator,
    extreme_eigenpairs,
    hutchinson_trace,
    hutchpp_trace,
    lanczos,
    power_traces,
    spectral_density,
)


def symmetric(values: Tensor, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(len(values), len(values), generator=g, dtype=torch.float64)).Q
    return q @ torch.diag(values) @ q.T


@given(seed=st.integers(0, 1000), n=st.integers(2, 30), scale=st.floats(1e-6, 1e6))
def test_full_lanczos_is_a_similarity(seed: int, n: int, scale: float) -> None:
    g = torch.Generator().manual_seed(seed)
    values = scale * torch.randn(n, generator=g, dtype=torch.float64)
    matrix = symmetric(values, seed)
    form = lanczos(SymmetricOperator.of_matrix(matrix), steps=n, generator=g)
    eye = torch.eye(len(form.diagonal), dtype=torch.float64)
    assert float((form.basis @ form.basis.T - eye).abs().max()) < 1e-12
    projected = form.basis @ matrix @ form.basis.T
    assert float((projected - form.matrix()).abs().max()) < 1e-11 * scale * n
    found, expected = form.ritz()[0], values.sort().values
    assert float((found - expected).abs().max()) < 1e-10 * scale * n


def test_residuals_of_ritz_pairs_are_what_is_promised() -> None:
    matrix = symmetric(torch.linspace(-3, 10, 60, dtype=torch.float64) ** 3)
    operator = SymmetricOperator.of_matrix(matrix)
    form = lanczos(operator, steps=12)
    values, inner, residuals = form.ritz()
    vectors = inner.T @ form.basis
    true = torch.linalg.vector_norm(operator(vectors) - values[:, None] * vectors, dim=1)
    assert torch.allclose(true, residuals, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("which", ["largest", "smallest", "magnitude"])
def test_extreme_pairs_of_a_dense_matrix(which: str) -> None:
    values = torch.cat([torch.linspace(0, 1, 80), torch.tensor([-7.0, 5.0, 9.0])]).double()
    pairs = extreme_eigenpairs(SymmetricOperator.of_matrix(symmetric(values)), 2, which=which)
    expected = {"largest": [9.0, 5.0], "smallest": [-7.0, 0.0], "magnitude": [9.0, -7.0]}[which]
    assert pairs.values.tolist() == pytest.approx(expected, abs=1e-7)
    assert pairs.report.all_converged


def test_a_missed_tolerance_is_a_status() -> None:
    operator = SymmetricOperator.of_matrix(symmetric(torch.linspace(0, 1, 200).double()))
    with pytest.raises(NotConvergedError):
        extreme_eigenpairs(operator, 5, max_steps=12, tolerance=1e-12)
    pairs = extreme_eigenpairs(operator, 5, max_steps=12, tolerance=1e-12, on_failure="mask")
    assert int(pairs.report.status[-1]) == Status.MAX_ITERATIONS
    assert len(pairs.values) == 5


def test_density_has_the_moments_of_its_gauss_quadrature() -> None:
    values = torch.linspace(-1, 2, 50, dtype=torch.float64)
    matrix = symmetric(values)
    operator = SymmetricOperator.of_matrix(matrix)
    density = spectral_density(operator, probes=1, steps=5)
    g = torch.Generator().manual_seed(0)
    v = (2 * torch.randint(0, 2, (1, 50), generator=g) - 1).double()[0]
    for order in range(10):
        exact = float(v @ torch.linalg.matrix_power(matrix, order) @ v) / 50
        assert density.moment(order) == pytest.approx(exact, rel=1e-9, abs=1e-12)


def test_density_finds_shares_and_integrates_to_one() -> None:
    values = torch.cat([torch.full((90,), 0.1), torch.full((10,), 4.0)]).double()
    density = spectral_density(SymmetricOperator.of_matrix(symmetric(values)), probes=20)
    assert density.share(3, 5) == pytest.approx(0.1, abs=0.03)
    grid = torch.linspace(-5, 10, 4001, dtype=torch.float64)
    assert float(torch.trapezoid(density.evaluate(grid, width=0.1), grid)) == pytest.approx(1.0)


def test_traces_within_their_errors_and_hutchpp_wins_on_decaying_spectra() -> None:
    values = torch.arange(1.0, 201.0, dtype=torch.float64) ** -2
    operator = SymmetricOperator.of_matrix(symmetric(values, 5))
    exact = float(values.sum())
    plain, sharp = [], []
    for seed in range(20):
        g = torch.Generator().manual_seed(seed)
        first = hutchinson_trace(operator, probes=48, generator=g)
        second = hutchpp_trace(operator, products=48, generator=g)
        assert second.products == 48
        assert abs(first.value - exact) < 5 * first.standard_error
        assert abs(second.value - exact) < 6 * second.standard_error
        plain.append(abs(first.value - exact))
        sharp.append(abs(second.value - exact))
    assert sum(sharp) < 0.2 * sum(plain)


def test_hutchpp_is_exact_on_low_rank_and_when_it_spans_the_space() -> None:
    low = symmetric(torch.tensor([3.0, -1.0, 2.0] + 20 * [0.0]).double())
    assert hutchpp_trace(SymmetricOperator.of_matrix(low), products=15).value == pytest.approx(4.0)
    small = SymmetricOperator.of_matrix(symmetric(torch.tensor([1.0, 2.0]).double()))
    assert hutchpp_trace(small, products=30).value == pytest.approx(3.0)


def test_power_traces_estimate_the_exact_ones() -> None:
    values = torch.linspace(0.5, 1, 40, dtype=torch.float64)
    operator = SymmetricOperator.of_matrix(symmetric(values))
    exact = torch.stack([(values**k).sum() for k in range(1, 5)])
    assert torch.allclose(power_traces(operator, probes=40), exact, rtol=1e-12)
    assert torch.allclose(power_traces(operator, probes=39), exact, rtol=0.1)


def test_bad_input() -> None:
    operator = SymmetricOperator.of_matrix(torch.eye(3, dtype=torch.float64))
    with pytest.raises(SettingsError, match="zero vector"):
        lanczos(operator, steps=2, start=torch.zeros(3))
    with pytest.raises(SettingsError, match="count"):
        extreme_eigenpairs(operator, 4)
    broken = SymmetricOperator.of_matrix(torch.full((3, 3), torch.nan, dtype=torch.float64))
    with pytest.raises(NonFiniteError, match="step 0"):
        lanczos(broken, steps=2)


@pytest.mark.parametrize("count", [0, -1, 1.5])
def test_counts_are_whole_and_positive(count: Any) -> None:
    operator = SymmetricOperator.of_matrix(torch.eye(4, dtype=torch.float64))
    for estimate in (spectral_density, power_traces, hutchinson_trace):
        with pytest.raises(SettingsError, match="probes: got"):
            estimate(operator, probes=count)
    with pytest.raises(SettingsError, match="steps: got"):
        lanczos(operator, steps=count)
    with pytest.raises(SettingsError, match="products: got"):
        hutchpp_trace(operator, products=count)
