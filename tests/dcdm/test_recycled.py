"""Directions recycled over sequences: what is learned, when, and that it only helps."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import torch
from torch import Tensor

from solvers.core import SettingsError
from solvers.dcdm import RecycledConjugateGradient
from solvers.dcdm._recycled import _choose_count
from solvers.linear import (
    ConjugateGradient,
    DenseOperator,
    Jacobi,
    Multigrid,
    PoissonOperator,
    SparseOperator,
    linear_solve,
)


def plates(n: int, seed: int = 0) -> PoissonOperator:
    """Oblique plates that conduct or insulate by a factor of 1e5."""
    rng = np.random.default_rng(seed)
    at = np.indices((n, n, n)).astype(float)
    beta = np.ones((n, n, n))
    for k in range(14):
        normal = rng.normal(size=3)
        normal /= np.linalg.norm(normal)
        gap = at - rng.uniform(0, n, 3)[:, None, None, None]
        height = np.tensordot(normal, gap, 1)
        beta[(abs(height) < 0.8) & ((gap**2).sum(0) < (0.35 * n) ** 2)] = 1e5 if k % 2 else 1e-5
    outside = ((1, 1), (1, 1), (1, 2))
    cells = np.zeros(beta.shape, dtype=int)
    return PoissonOperator.from_cells(cells, coefficient=torch.from_numpy(beta), outside=outside)


def moved(A: PoissonOperator, seed: int) -> PoissonOperator:
    """Every coupling times exp(0.3 n)."""
    generator = torch.Generator().manual_seed(seed)
    changed = {
        name: c * torch.exp(0.3 * torch.randn(c.shape, generator=generator, dtype=c.dtype))
        for name, c in A.coefficients.items()
    }
    return A.with_coefficients(changed)


def white(A: PoissonOperator, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return A.mask(torch.randn(A.domain, dtype=torch.float64, generator=generator))


def true_residual(A: PoissonOperator, x: Tensor, b: Tensor) -> float:
    r = b.numpy().ravel() - A.to_scipy() @ x.numpy().ravel()
    return float(np.linalg.norm(r) / np.linalg.norm(b.numpy()))


@pytest.mark.parametrize("backend", ["kernel", "reference"])
def test_later_solves_take_far_fewer_steps(backend: str) -> None:
    A = plates(24, seed=1)
    inner = Multigrid(backend=backend)  # type: ignore[arg-type]
    prepared = RecycledConjugateGradient(preconditioner=inner).prepare(A)
    first = prepared.solve(white(A, 0))
    assert int(first.report.counts["directions"]) == 0
    plain = int(linear_solve(A, white(A, 0), ConjugateGradient(preconditioner=inner)).iterations)
    assert int(first.iterations) == pytest.approx(plain, abs=2)
    for seed in range(1, 4):
        changed, b = moved(A, seed), white(A, seed)
        prepared = prepared.update(changed)
        solution = prepared.solve(b)
        assert int(solution.report.counts["directions"]) > 0
        plain = int(linear_solve(changed, b, ConjugateGradient(preconditioner=inner)).iterations)
        assert int(solution.iterations) < 0.6 * plain
        assert true_residual(changed, solution.value, b) <= 1.01e-8


@pytest.mark.parametrize("backend", ["kernel", "reference"])
def test_directions_outlive_moving_solids(backend: str) -> None:
    """A solid on its way through the plates: directions reach into it until they are cut."""
    A = plates(20, seed=1)
    inner = Multigrid(backend=backend)  # type: ignore[arg-type]
    prepared = RecycledConjugateGradient(preconditioner=inner).prepare(A)
    prepared.solve(white(A, 0))
    for step in range(3):
        solid = torch.zeros(A.domain, dtype=torch.bool)
        solid[6:10, 3 + 4 * step : 8 + 4 * step, 5:11] = True
        inside = {f"coupling{axis}": _between(~solid, axis) for axis in range(3)}
        inside["boundary"] = ~solid
        changed = A.with_coefficients({k: c * inside[k] for k, c in A.coefficients.items()})
        b = white(changed, step)
        prepared = prepared.update(changed)
        solution = prepared.solve(b)
        assert int(solution.report.counts["directions"]) > 0
        assert float(solution.value[solid].abs().max()) == 0.0
        assert true_residual(changed, solution.value, b) <= 1.01e-8
        plain = linear_solve(changed, b, ConjugateGradient(preconditioner=inner))
        assert int(solution.iterations) < 0.8 * int(plain.iterations)


def _between(fluid: Tensor, axis: int) -> Tensor:
    size = fluid.shape[axis] - 1
    return fluid.narrow(axis, 0, size) & fluid.narrow(axis, 1, size)


def test_threads_may_share_what_is_learned() -> None:
    from concurrent.futures import ThreadPoolExecutor

    A = plates(16, seed=1)
    prepared = RecycledConjugateGradient().prepare(A)
    right = [white(A, seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda b: prepared.solve(b).value, right))
    for b, x in zip(right, found, strict=True):
        assert true_residual(A, x, b) <= 1.01e-8


def test_the_unit_of_the_coefficients_does_not_matter() -> None:
    A = plates(20, seed=1)
    steps = []
    for factor in (1.0, 1e6):
        prepared = RecycledConjugateGradient().prepare(A)
        prepared.solve(white(A, 0))
        scaled = {name: factor * c for name, c in A.coefficients.items()}
        prepared = prepared.update(A.with_coefficients(scaled))
        steps.append(int(prepared.solve(white(A, 1)).iterations))
    assert abs(steps[0] - steps[1]) <= 1


def test_easy_systems_switch_it_off() -> None:
    A = PoissonOperator.from_cells(torch.zeros(24, 24, 24), outside=2)
    prepared = RecycledConjugateGradient().prepare(A)
    for seed in range(3):
        solution = prepared.solve(white(A, seed))
        assert int(solution.report.counts["directions"]) == 0
        prepared = prepared.update(moved(A, seed))


def test_many_slow_modes_switch_it_off() -> None:
    """Cells between crossing sheets: each has a slow mode, and no sixteen of them stand out."""
    rng = np.random.default_rng(0)
    beta = np.ones((32, 32, 32))
    first, second = (np.cumsum(rng.integers(3, top, 32)) for top in (8, 10))
    beta[first[first < 32]] = 1e-4
    beta[:, second[second < 32]] = 1e-4
    cells = np.zeros(beta.shape, dtype=int)
    outside = ((1, 1), (1, 1), (1, 2))
    A = PoissonOperator.from_cells(cells, coefficient=torch.from_numpy(beta), outside=outside)
    prepared = RecycledConjugateGradient().prepare(A)
    for seed in range(2):
        solution = prepared.solve(white(A, seed))
        assert int(solution.iterations) > 25
        assert int(solution.report.counts["directions"]) == 0


def test_a_lowest_value_that_has_not_settled_switches_it_off() -> None:
    """The trail ended long before the solve: what it calls the slowest direction is none."""
    values = np.array([2e-8, 1e-4, 3e-4, 6e-4, 1e-3, *np.linspace(0.1, 1.2, 40)])
    errors = np.full(len(values), 1e-3)
    assert _choose_count(values, errors, 16) >= 5
    errors[0] = 100.0
    assert _choose_count(values, errors, 16) == 0


def test_only_settled_values_are_kept() -> None:
    values = np.array([5e-4, 2e-3, *np.linspace(0.1, 1.2, 20)])
    errors = np.array([1e-6, 1e-6, *np.full(20, 0.3)])
    assert 1 <= _choose_count(values, errors, 16) <= 3


def test_directions_of_another_problem_are_dropped() -> None:
    A = plates(20, seed=1)
    prepared = RecycledConjugateGradient().prepare(A)
    prepared.solve(white(A, 0))
    other = plates(20, seed=3)
    prepared = prepared.update(other)
    counts = []
    for seed in range(3):
        solution = prepared.solve(white(other, seed))
        assert true_residual(other, solution.value, white(other, seed)) <= 1.01e-8
        counts.append(int(solution.report.counts["directions"]))
    plain = linear_solve(other, white(other, 2), ConjugateGradient(preconditioner=Multigrid()))
    # Either they help, or the last solve is the plain one.
    assert int(solution.iterations) <= int(plain.iterations) + 1
    assert counts[0] > 0


def test_ritz_values_are_those_of_the_preconditioned_matrix() -> None:
    rng = np.random.default_rng(0)
    eigenvalues = np.array([1e-4, 2e-3, *np.linspace(0.5, 1.5, 38)])
    Q = np.linalg.qr(rng.normal(size=(40, 40)))[0]
    A = DenseOperator(torch.from_numpy(Q * eigenvalues @ Q.T))
    prepared = RecycledConjugateGradient(preconditioner=Jacobi(), rtol=1e-12).prepare(A)
    _, trail = prepared._solve(torch.from_numpy(rng.normal(size=40)), None, None, 40)  # type: ignore[attr-defined]
    values = trail.ritz_values()[0]
    D = np.diag(1 / A.matrix.diagonal().numpy())
    exact = np.sort(np.linalg.eigvals(D @ A.matrix.numpy()).real)
    assert values[0] == pytest.approx(exact[0], rel=1e-4)
    assert values[-1] == pytest.approx(exact[-1], rel=1e-2)


def test_ritz_errors_bound_the_distance_to_an_eigenvalue() -> None:
    rng = np.random.default_rng(1)
    eigenvalues = np.array([1e-3, *np.geomspace(0.02, 1.5, 79)])
    Q = np.linalg.qr(rng.normal(size=(80, 80)))[0]
    A = DenseOperator(torch.from_numpy(Q * eigenvalues @ Q.T))
    prepared = RecycledConjugateGradient(preconditioner=Jacobi(), rtol=1e-12).prepare(A)
    _, trail = prepared._solve(torch.from_numpy(rng.normal(size=80)), None, None, 48)  # type: ignore[attr-defined]
    values, errors = trail.ritz_values()[0], trail.ritz_errors()
    D = np.diag(1 / A.matrix.diagonal().numpy())
    exact = np.linalg.eigvals(D @ A.matrix.numpy()).real
    distance = abs(values[:, None] - exact).min(1)
    # The next entry beside the diagonal is not known; its neighbour is of the same size.
    assert (distance <= 2.0 * errors * values + 1e-9).all()
    assert errors[0] < 0.1 < errors.max()


def test_the_gradient_is_implicit() -> None:
    A = moved(PoissonOperator.from_cells(torch.zeros(4, 4, 4), outside=2), 0)
    prepared = RecycledConjugateGradient(rtol=1e-12).prepare(A)
    b = white(A, 0).requires_grad_()
    assert torch.autograd.gradcheck(lambda right: prepared.solve(right).value, b, atol=1e-6)


def test_batches_are_solved_without_learning() -> None:
    A = plates(12)
    b = torch.stack([white(A, 0), white(A, 1)])
    prepared = RecycledConjugateGradient().prepare(A)
    both = prepared.solve(b).value
    for row, x in zip(b, both, strict=True):
        assert true_residual(A, x, row) <= 1.01e-8


def test_bad_input_is_named() -> None:
    with pytest.raises(SettingsError, match="directions"):
        RecycledConjugateGradient(directions=65)
    operator = SparseOperator.from_scipy(scipy.sparse.csr_array([[1.0, 2.0], [0.0, 1.0]]))
    with pytest.raises(SettingsError, match="symmetric"):
        RecycledConjugateGradient().prepare(operator)
