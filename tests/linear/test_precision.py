"""Numbers in single and half precision: solved in double, and rounded once."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import torch
from torch import Tensor

from solvers.core import Status
from solvers.dcdm import RecycledConjugateGradient
from solvers.linear import (
    GMRES,
    MINRES,
    AggregationMultigrid,
    CallableOperator,
    Cholesky,
    ConjugateGradient,
    DenseOperator,
    Fallback,
    FastDiagonalization,
    Jacobi,
    LinearOperator,
    LinearSolver,
    Multigrid,
    PoissonOperator,
    SparseLU,
    SparseOperator,
    linear_solve,
)

NARROW = [torch.float32, torch.float16, torch.bfloat16]


def randn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def grid(dtype: torch.dtype) -> LinearOperator:
    return PoissonOperator.from_cells(torch.zeros(6, 7, 8), outside=2, dtype=dtype)


def dense(dtype: torch.dtype) -> LinearOperator:
    part = randn(24, 24).double()
    return DenseOperator((part @ part.mT / 24 + torch.eye(24)).to(dtype))


def sparse(dtype: torch.dtype) -> LinearOperator:
    shift = torch.diag(torch.ones(23), 1)
    return SparseOperator.from_torch((3.0 * torch.eye(24) - shift).to(dtype).to_sparse_coo())


def expected(A: LinearOperator, b: Tensor) -> np.ndarray:
    """SciPy's solution of the same numbers in double precision."""
    matrix = scipy.sparse.csc_array(A.to(dtype=torch.float64).to_scipy())
    solution: np.ndarray = scipy.sparse.linalg.spsolve(matrix, b.double().numpy().ravel())
    return solution.reshape(b.shape)


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("build", [grid, dense, sparse])
def test_the_automatic_choice_gives_scipys_solution_rounded(
    build: type[LinearOperator], dtype: torch.dtype
) -> None:
    A = build(dtype)  # type: ignore[call-arg]
    b = randn(*A.domain, dtype=dtype)
    solution = linear_solve(A, b)
    assert solution.all_converged
    assert solution.value.dtype == dtype
    reference = expected(A, b)
    # Half a unit of the last place, and what the solve to 1e-8 leaves.
    bound = 0.51 * torch.finfo(dtype).eps * np.abs(reference) + 1e-7
    assert (np.abs(solution.value.double().numpy() - reference) <= bound).all()


@pytest.mark.parametrize(
    ("A", "solver"),
    [
        (grid, ConjugateGradient()),
        (grid, ConjugateGradient(preconditioner=Multigrid())),
        (grid, ConjugateGradient(preconditioner=Multigrid(backend="reference"))),
        (grid, ConjugateGradient(preconditioner=AggregationMultigrid())),
        (grid, RecycledConjugateGradient()),
        (grid, FastDiagonalization()),
        (dense, Cholesky()),
        (dense, MINRES()),
        (dense, Fallback(ConjugateGradient(max_iterations=2), GMRES())),
        (sparse, GMRES(preconditioner=Jacobi())),
        (sparse, SparseLU()),
    ],
)
def test_every_method_meets_its_default_tolerance(A: object, solver: LinearSolver) -> None:
    operator: LinearOperator = A(torch.float32)  # type: ignore[operator]
    b = randn(*operator.domain)
    prepared = solver.prepare(operator)
    first = prepared.solve(b)
    assert first.value.dtype == torch.float32
    reference = expected(operator, b)
    assert np.abs(first.value.numpy() - reference).max() <= 2e-7 * np.abs(reference).max()
    second = prepared.update(operator).solve(b, x0=first.value)
    assert int(second.iterations) <= int(first.iterations)


@pytest.mark.parametrize("dtype", NARROW)
def test_gradients_are_those_of_double_precision(dtype: torch.dtype) -> None:
    slopes = []
    for kind in (dtype, torch.float64):
        A = dense(dtype).to(dtype=kind)
        assert isinstance(A, DenseOperator)
        A.matrix.requires_grad_()
        b = randn(24, dtype=dtype).to(kind).requires_grad_()
        linear_solve(A, b).value.sum().backward()
        assert b.grad is not None
        assert A.matrix.grad is not None
        assert b.grad.dtype == A.matrix.grad.dtype == kind
        slopes.append((b.grad.double(), A.matrix.grad.double()))
    for narrow, wide in zip(*slopes, strict=True):
        assert float((narrow - wide).abs().max() / wide.abs().max()) < 4 * torch.finfo(dtype).eps


def test_a_large_grid_between_walls_with_a_mean_removed_in_single_precision() -> None:
    """What rounding leaves outside of the range is no contradiction."""
    A = PoissonOperator.from_cells(torch.zeros(30, 40), dtype=torch.float32)
    b = randn(30, 40) + 3.0
    b = b - b.mean()
    solution = linear_solve(A, b)
    assert solution.all_converged
    x = solution.value.double()
    assert float((A.to(dtype=torch.float64) @ x - b).norm() / b.norm()) < 1e-4
    assert int(linear_solve(A, b + 1e-3, on_failure="mask").status) == Status.INFEASIBLE


def test_a_solution_beyond_half_precision_is_not_called_one() -> None:
    A = DenseOperator(torch.full((1, 1), 1e-4, dtype=torch.float16))
    b = torch.tensor([10.0], dtype=torch.float16)
    assert int(linear_solve(A, b, on_failure="mask").status) == Status.NON_FINITE


def test_a_function_with_numbers_of_its_own_keeps_its_precision() -> None:
    matrix = torch.eye(5) * 2.0

    def function(x: Tensor, scale: Tensor) -> Tensor:
        return scale * (x @ matrix)

    A = CallableOperator(function, (5,), {"scale": torch.tensor(1.0)})
    solution = linear_solve(A, torch.ones(5), GMRES(rtol=1e-5))
    assert solution.value.dtype == torch.float32
    assert torch.allclose(solution.value, torch.full((5,), 0.5))
