"""What fails is never worse than where it started, nor than zero."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse
import torch

from solvers.core import Status
from solvers.linear import (
    GMRES,
    MINRES,
    ConjugateGradient,
    Fallback,
    LinearSolver,
    SparseLU,
    SparseOperator,
    linear_solve,
)

SOLVERS: list[LinearSolver | None] = [
    None,
    SparseLU(),
    MINRES(),
    GMRES(),
    ConjugateGradient(),
    Fallback(SparseLU(), MINRES()),
]


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
@pytest.mark.parametrize("size", [12, 14, 16, 20])
def test_hilbert_matrices_leave_at_most_the_right_hand_side(
    size: int, solver: LinearSolver | None
) -> None:
    """Condition numbers of 1e16 and more."""
    A = SparseOperator.from_scipy(scipy.sparse.csr_array(scipy.linalg.hilbert(size)))
    b = torch.randn(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    solution = linear_solve(A, b, solver, on_failure="mask")
    residual = float((b - A @ solution.value).norm() / b.norm())
    assert residual <= 1 + 1e-12
    assert residual == pytest.approx(float(solution.residual_norm), rel=1e-6)


def test_a_guess_is_kept_where_nothing_is_better() -> None:
    A = SparseOperator.from_scipy(scipy.sparse.csr_array(scipy.linalg.hilbert(16)))
    x0 = torch.ones(16, dtype=torch.float64)
    b = A @ x0 + 1e-5 * torch.arange(16, dtype=torch.float64).sin()
    start = float((b - A @ x0).norm() / b.norm())
    for solver in (MINRES(), GMRES(), ConjugateGradient(), Fallback(MINRES(), SparseLU())):
        solution = linear_solve(A, b, solver, x0=x0, on_failure="mask")
        assert float(solution.residual_norm) <= start * (1 + 1e-9), solver


def test_a_second_method_that_does_worse_gives_way() -> None:
    A = SparseOperator.from_scipy(scipy.sparse.csr_array(scipy.linalg.hilbert(12)))
    b = torch.randn(12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    first = linear_solve(A, b, SparseLU(), on_failure="mask")
    # With one step only it forgets where it started.
    short = GMRES(max_iterations=1)
    both = linear_solve(A, b, Fallback(SparseLU(), short), on_failure="mask")
    assert float(both.residual_norm) <= float(first.residual_norm)
    assert int(both.report.counts["handed_over"]) == 1


def test_minimal_residuals_of_a_contradiction_are_those_of_least_squares() -> None:
    """A graph between walls: rounding must not carry the solution away along constants."""
    ends = np.arange(60)
    chain = scipy.sparse.csr_array(
        (np.r_[np.ones(60), -np.ones(60)], (np.r_[ends, ends], np.r_[ends, (ends * 7 + 1) % 60])),
        shape=(60, 60),
    )
    matrix = scipy.sparse.csr_array(chain.T @ chain)
    A = SparseOperator.from_scipy(matrix)
    b = torch.from_numpy(np.random.default_rng(0).normal(size=60) + 0.3)
    nearest = np.linalg.lstsq(matrix.toarray(), b.numpy(), rcond=None)[0]
    least = np.linalg.norm(matrix @ nearest - b.numpy()) / np.linalg.norm(b.numpy())
    solution = linear_solve(A, b, MINRES(max_iterations=5000), on_failure="mask")
    assert int(solution.status) != Status.CONVERGED
    assert float(solution.residual_norm) == pytest.approx(least, rel=1e-4)
