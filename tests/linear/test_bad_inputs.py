"""Inputs that nobody can mean are named, with what was expected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch

from solvers.core import NonFiniteError, SettingsError, ShapeError
from solvers.dcdm import DeepConjugateDirection, RecycledConjugateGradient
from solvers.linear import (
    GMRES,
    MINRES,
    AdjointStart,
    AlgebraicMultigrid,
    Cholesky,
    ConjugateGradient,
    DenseOperator,
    FastDiagonalization,
    Jacobi,
    PoissonOperator,
    SparseLU,
    SparseOperator,
    linear_solve,
)

CELLS = torch.zeros(6, 6)
UNIT = torch.eye(3, dtype=torch.float64)
ONES = torch.ones(3, dtype=torch.float64)


def grid(**options: Any) -> PoissonOperator:
    return PoissonOperator.from_cells(CELLS, **{"outside": 2, **options})


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: PoissonOperator.from_cells(CELLS + 0.5), SettingsError, r"cells: got .*0\.5"),
        (lambda: grid(outside=(1, 2)), SettingsError, "a pair of these"),
        (lambda: grid(outside=((1, 2, 1), (1, 1))), SettingsError, "a pair of these"),
        (lambda: grid(spacing="wide"), SettingsError, "spacing: got 'wide'"),
        (lambda: grid(fluxes=[None]), ShapeError, "fluxes: got 1"),
        (lambda: grid(density=CELLS), SettingsError, r"density: got 0\.0 at index \(0, 0\)"),
        (
            lambda: linear_solve(
                torch.tensor([[1.0, 0.1, 0.0], [0.1, 0.0, 0.1], [0.0, 0.1, 1.0]]),
                ONES.float(),
                ConjugateGradient(preconditioner=AlgebraicMultigrid()),
            ),
            SettingsError,
            "0 on the diagonal of row 1",
        ),
        (lambda: grid(dtype=torch.int32), SettingsError, "dtype: got torch.int32"),
        (lambda: linear_solve(UNIT, ONES, ConjugateGradient), SettingsError, "solver: got"),
        (lambda: linear_solve(UNIT, ONES, "cg"), SettingsError, "solver: got 'cg'"),
        (
            lambda: linear_solve(UNIT, ONES, ConjugateGradient(preconditioner=Jacobi)),
            SettingsError,
            "preconditioner: got",
        ),
        (
            lambda: linear_solve(UNIT, ONES, GMRES(preconditioner="jacobi")),
            SettingsError,
            "preconditioner: got 'jacobi'",
        ),
        (lambda: linear_solve(UNIT, ONES, adjoint=ONES), SettingsError, "adjoint: got"),
        (lambda: linear_solve(UNIT, ONES, adjoint=AdjointStart), SettingsError, "adjoint: got"),
        (lambda: ConjugateGradient(max_iterations=2.5), SettingsError, "whole number"),
        (lambda: ConjugateGradient(patience=0.5), SettingsError, "patience"),
        (lambda: MINRES(max_iterations=0), SettingsError, "1 or more"),
        (lambda: GMRES(restart=1.5), SettingsError, "restart"),
        (lambda: RecycledConjugateGradient(steps=3.5), SettingsError, "steps"),
        (
            lambda: linear_solve(torch.stack([UNIT, UNIT]).to_sparse(), ONES),
            ShapeError,
            "two axes",
        ),
    ],
)  # fmt: skip
def test_they_are_named(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    "make",
    [
        Cholesky,
        ConjugateGradient,
        FastDiagonalization,
        GMRES,
        MINRES,
        SparseLU,
        RecycledConjugateGradient,
        DeepConjugateDirection,
    ],
)
@pytest.mark.parametrize("rtol", [1.0, 2.0, np.inf, np.nan, 0.0, -1e-8, "small", True])
def test_a_tolerance_asks_for_something(make: Any, rtol: Any) -> None:
    """Zero has a residual of one and would be a solution to a tolerance of one."""
    with pytest.raises(SettingsError, match="rtol: got"):
        make(rtol=rtol)


@pytest.mark.parametrize("solver", [None, ConjugateGradient(), Cholesky(), MINRES()])
def test_a_matrix_that_is_not_finite_is_not_called_unsymmetric(solver: Any) -> None:
    matrix = UNIT.clone()
    matrix[1, 1] = torch.nan
    for A in (DenseOperator(matrix), SparseOperator.from_torch(matrix.to_sparse())):
        with pytest.raises(NonFiniteError, match="is nan"):
            linear_solve(A, ONES, solver)


@pytest.mark.parametrize("is_chain", [True, False])
@pytest.mark.parametrize("is_sparse", [True, False])
def test_a_singular_matrix_is_solved_in_its_range_and_said_to_fail_elsewhere(
    is_sparse: bool, is_chain: bool
) -> None:
    """A graph without a fixed node, against NumPy's least squares."""
    rng = np.random.default_rng(0)
    ends = rng.integers(0, 40, size=(2, 160))
    if is_chain:
        ends = np.arange(160) % 39 + np.array([[0], [1]])
    incidence = np.zeros((160, 40))
    incidence[np.arange(160), ends[0]] += 1.0
    incidence[np.arange(160), ends[1]] -= 1.0
    matrix = incidence.T @ incidence
    A = scipy.sparse.csr_array(matrix) if is_sparse else torch.from_numpy(matrix)
    b = torch.from_numpy(rng.normal(size=40))
    b -= b.mean()
    solution = linear_solve(A, b)
    expected = np.linalg.lstsq(matrix, b.numpy(), rcond=None)[0]
    x = solution.value.numpy()
    assert np.allclose(x - x.mean(), expected - expected.mean(), atol=1e-6)
    assert not linear_solve(A, b + 1.0, on_failure="mask").all_converged


@pytest.mark.parametrize("half", [0.5, np.float32(0.5), np.array(0.5), torch.tensor(0.5)])
def test_numbers_of_any_library_are_numbers(half: Any) -> None:
    """Also beyond the sides, where a known value counts as well."""
    usual = grid(spacing=0.5, values=0.5, density=torch.full((6, 6), 0.5, dtype=torch.float64))
    other = grid(spacing=half, values=half, density=half, dtype=torch.float64)
    assert torch.equal(other.source, usual.source)
    assert torch.equal(other.couplings[1], usual.couplings[1])
    assert torch.equal(other.boundary, usual.boundary)


def test_a_known_value_beyond_the_sides_has_a_gradient() -> None:
    value = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    A = grid(values=value)
    x = linear_solve(A, A.source).value
    assert torch.allclose(x, torch.full_like(x, 2.0))
    x.sum().backward()
    assert value.grad is not None
    assert float(value.grad) == pytest.approx(36.0)


def test_cells_that_conduct_nothing_are_solid() -> None:
    cells = torch.zeros(6, 7, dtype=torch.long)
    wall = torch.ones(6, 7, dtype=torch.float64)
    wall[2:4, 1:5] = 0.0
    coefficient = wall.clone().requires_grad_()
    A = PoissonOperator.from_cells(cells, coefficient=coefficient, outside=2)
    other = PoissonOperator.from_cells((wall == 0).long(), outside=2)
    b = torch.from_numpy(np.random.default_rng(0).normal(size=(6, 7)))
    x = linear_solve(A, b).value
    assert torch.allclose(x, linear_solve(other, b).value, atol=1e-9)
    x.sum().backward()
    assert coefficient.grad is not None
    assert bool(coefficient.grad.isfinite().all())
