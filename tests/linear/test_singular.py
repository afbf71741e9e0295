"""Singular matrices: solved where there is a solution, and said to have none where it is proved."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse
import torch

from solvers.core import Status
from solvers.core.testing import check_gradients
from solvers.linear import (
    MINRES,
    CallableOperator,
    DenseOperator,
    SparseLU,
    SparseOperator,
    linear_solve,
)


def generator_matrix(size: int, seed: int) -> np.ndarray:
    """Rates of a Markov chain: rows add up to zero, and no symmetry."""
    rng = np.random.default_rng(seed)
    rates = rng.random((size, size)) * (rng.random((size, size)) < 0.2)
    rates += np.diag(np.ones(size - 1), 1)
    rates[-1, 0] = 1.0
    np.fill_diagonal(rates, 0.0)
    return rates - np.diag(rates.sum(1))


def group_inverse(matrix: np.ndarray) -> np.ndarray:
    """By null vectors of both sides, an independent route."""
    right = scipy.linalg.null_space(matrix)
    left = scipy.linalg.null_space(matrix.T)
    projector = right @ np.linalg.solve(left.T @ right, left.T)
    return np.linalg.inv(matrix + projector) - projector


@pytest.mark.parametrize("is_sparse", [True, False])
@pytest.mark.parametrize("pieces", [1, 2])
def test_markov_chains(is_sparse: bool, pieces: int) -> None:
    matrix = scipy.linalg.block_diag(*(generator_matrix(30, seed) for seed in range(pieces)))
    A = (
        SparseOperator.from_scipy(scipy.sparse.csr_array(matrix))
        if is_sparse
        else DenseOperator(torch.from_numpy(matrix))
    )
    b = torch.from_numpy(matrix @ np.random.default_rng(9).normal(size=len(matrix)))
    solution = linear_solve(A, b)
    assert solution.all_converged
    expected = group_inverse(matrix) @ b.numpy()
    assert np.allclose(solution.value.numpy(), expected, rtol=1e-6, atol=1e-6)
    wrong = linear_solve(A, b + 1.0, on_failure="mask")
    assert wrong.status == Status.INFEASIBLE
    left = scipy.linalg.null_space(matrix.T)
    least = np.linalg.norm(left.T @ (b.numpy() + 1.0))
    assert float(wrong.residual_norm) * float((b + 1.0).norm()) >= least * (1 - 1e-9)


def test_gradients_of_what_the_null_space_does_not_move() -> None:
    matrix = torch.from_numpy(generator_matrix(12, 3))
    inverse = torch.from_numpy(group_inverse(matrix.numpy()))

    def differences(x: torch.Tensor) -> torch.Tensor:
        return linear_solve(matrix, matrix @ x).value.diff()

    check_gradients(differences, {"x": torch.arange(12.0, dtype=torch.float64).sin()})
    b = (matrix @ torch.ones(12, dtype=torch.float64).cumsum(0)).requires_grad_()
    weight = torch.arange(12.0, dtype=torch.float64)
    (slope,) = torch.autograd.grad((linear_solve(matrix, b).value * weight).sum(), b)
    torch.testing.assert_close(slope, inverse.T @ weight, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["dense", "sparse", "function"])
def test_symmetric_contradictions_are_proved(kind: str) -> None:
    """A path of springs that nothing holds, pulled to one side."""
    size = 40
    matrix = np.diag(np.full(size, 2.0)) - np.eye(size, k=1) - np.eye(size, k=-1)
    matrix[0, 0] = matrix[-1, -1] = 1.0
    dense = torch.from_numpy(matrix)
    A = {
        "dense": DenseOperator(dense),
        "sparse": SparseOperator.from_scipy(scipy.sparse.csr_array(matrix)),
        "function": CallableOperator(lambda v, m: v @ m, (size,), {"m": dense}, is_symmetric=True),
    }[kind]
    b = torch.linspace(-1.0, 2.0, size, dtype=torch.float64)
    solver = MINRES() if kind == "function" else None
    solution = linear_solve(A, b, solver, on_failure="mask")
    assert solution.status == Status.INFEASIBLE
    assert float(solution.residual_norm) >= float(b.sum()) / size**0.5 / float(b.norm()) - 1e-9
    assert linear_solve(A, b - b.mean(), solver).all_converged


@pytest.mark.parametrize("largest", [1e6, 1e10])
def test_a_regular_matrix_is_never_contradicted(largest: float) -> None:
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.normal(size=(30, 30)))[0] for _ in range(2))
    matrix = torch.from_numpy(left * np.geomspace(1.0, 1.0 / largest, 30) @ right)
    b = torch.from_numpy(rng.normal(size=(4, 30)))
    symmetric = torch.from_numpy(left * np.geomspace(-1.0, -1.0 / largest, 30) @ left.T)
    symmetric = (symmetric + symmetric.T) / 2
    for A, solver in ((matrix, None), (matrix, SparseLU()), (symmetric, MINRES())):
        status = linear_solve(A, b, solver, on_failure="mask").status
        assert not bool((status == Status.INFEASIBLE).any())


def test_what_neither_has_a_solution_by_factors_nor_a_proof_says_that_it_is_singular() -> None:
    nilpotent = torch.diag(torch.ones(3, dtype=torch.float64), 1)
    nilpotent[0, 0] = nilpotent[1, 0] = 1.0
    b = torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=torch.float64)
    solution = linear_solve(nilpotent, b, on_failure="mask")
    assert solution.all_converged or solution.status in (Status.BREAKDOWN, Status.STALLED)
    impossible = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    assert linear_solve(nilpotent, impossible, on_failure="mask").status == Status.INFEASIBLE


def test_items_of_a_singular_matrix_end_on_their_own() -> None:
    matrix = generator_matrix(20, 1)
    good = torch.from_numpy(matrix @ np.arange(20.0))
    ones = torch.ones(20, dtype=torch.float64)
    b = torch.stack([good, ones, 0 * ones, torch.nan * ones])
    status = linear_solve(torch.from_numpy(matrix), b, on_failure="mask").status
    assert status.tolist() == [0, int(Status.INFEASIBLE), 0, int(Status.NON_FINITE)]


def test_a_matrix_without_entries() -> None:
    empty = scipy.sparse.csr_array((5, 5))
    b = torch.ones(2, 5, dtype=torch.float64)
    b[1] = 0.0
    solution = linear_solve(empty, b, on_failure="mask")
    assert solution.status.tolist() == [int(Status.INFEASIBLE), 0]
