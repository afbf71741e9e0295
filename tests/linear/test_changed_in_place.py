"""Tensors of an operator that are written to in place: nothing may go on with the old numbers."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from solvers.core import SettingsError
from solvers.dcdm import RecycledConjugateGradient
from solvers.linear import (
    GMRES,
    MINRES,
    AggregationMultigrid,
    CallableOperator,
    Cholesky,
    ConjugateGradient,
    DenseOperator,
    FastDiagonalization,
    Jacobi,
    LinearOperator,
    LinearSolver,
    Multigrid,
    PoissonOperator,
    SparseLU,
    SparseOperator,
    choose_solver,
    linear_solve,
)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def box() -> LinearOperator:
    return PoissonOperator.from_cells(torch.zeros(9, 10, 11), outside=2)


def dense(size: int = 40) -> DenseOperator:
    part = randn(size, size, seed=1)
    return DenseOperator(part @ part.mT + size * torch.eye(size, dtype=torch.float64))


def sparse() -> LinearOperator:
    return SparseOperator.from_torch(dense().matrix.to_sparse_coo())


def product() -> LinearOperator:
    return 2.0 * dense()


METHODS: dict[str, tuple[Callable[[], LinearOperator], LinearSolver | None]] = {
    "grid": (box, None),
    "compiled": (box, ConjugateGradient(preconditioner=Multigrid())),
    "tensors": (box, ConjugateGradient(preconditioner=Multigrid(backend="reference"))),
    "aggregates": (box, ConjugateGradient(preconditioner=AggregationMultigrid())),
    "recycled": (box, RecycledConjugateGradient()),
    "box": (box, FastDiagonalization()),
    "lu of a grid": (box, SparseLU()),
    "cholesky": (dense, Cholesky()),
    "jacobi": (dense, ConjugateGradient(preconditioner=Jacobi())),
    "minres": (sparse, MINRES()),
    "gmres": (sparse, GMRES(preconditioner=Jacobi())),
    "lu": (sparse, SparseLU()),
    "scaled": (product, None),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_prepared_solver_follows_its_operator(name: str) -> None:
    """Against NumPy's solution of the matrix that the operator has become."""
    build, solver = METHODS[name]
    A = build()
    b = randn(*A.domain, seed=3)
    prepared = (solver or choose_solver(A)).prepare(A)
    prepared.solve(b)
    for factor in (2.0, 0.25):
        for tensor in A.coefficients.values():
            tensor.mul_(factor)
        solution = prepared.solve(b)
        expected = np.linalg.solve(A.to_scipy().toarray(), b.numpy().ravel())
        assert solution.all_converged
        assert np.allclose(solution.value.numpy().ravel(), expected, rtol=1e-6, atol=1e-7)


def test_nothing_is_made_anew_while_nothing_changes() -> None:
    """Reading, views and derivatives are no writes."""
    A = sparse()
    A.coefficients["values"].requires_grad_()
    prepared = SparseLU().prepare(A)
    b = randn(*A.domain)
    for _ in range(2):
        prepared.solve(b).value.sum().backward()
        (A @ b).sum().item()
        assert prepared._follow() is prepared


def test_a_view_and_a_detached_tensor_are_the_same_numbers() -> None:
    A = dense()
    prepared = Cholesky().prepare(A)
    b = randn(*A.domain)
    before = prepared.solve(b).value
    A.matrix.detach()[3, 3] += 50.0
    after = prepared.solve(b).value
    assert not torch.allclose(before, after, rtol=1e-3)
    assert torch.allclose(A.matrix @ after, b, rtol=1e-6, atol=1e-7)


def test_walls_that_open_and_close() -> None:
    """The unknowns and the closed regions are found anew."""
    A = PoissonOperator.from_cells(torch.zeros(8, 8))
    prepared = ConjugateGradient(preconditioner=Multigrid()).prepare(A)
    b = randn(8, 8)
    b -= b.mean()
    assert abs(float(prepared.solve(b).value.mean())) < 1e-12
    A.boundary[0] = 1.0
    assert torch.allclose(A @ prepared.solve(b + 1.0).value, b + 1.0, atol=1e-6)
    A.boundary.zero_()
    for axis, coupling in enumerate(A.couplings):
        coupling.narrow(axis, 2, 1).zero_()
        coupling.select(axis, 2).zero_()
    A.couplings[1][:3].zero_()
    A.couplings[0][:2].zero_()
    assert not A.active[0].any()
    free = A.null_space()
    assert free is not None
    assert not prepared.solve(free.remove(A.mask(b))).value[0].any()


def test_training_in_place_finds_the_values_of_a_matrix() -> None:
    A = SparseOperator.from_torch(dense(8).matrix.to_sparse_coo())
    wanted = A.coefficients["values"].clone()
    values = A.coefficients["values"].mul_(1.3).requires_grad_()
    prepared = SparseLU().prepare(A)
    right = torch.eye(8, dtype=torch.float64)
    matrix = A.with_coefficients({"values": wanted}).to_scipy().toarray()
    target = torch.from_numpy(np.linalg.inv(matrix))
    optimizer = torch.optim.LBFGS([values], max_iter=60, tolerance_grad=1e-12)

    def loss() -> Tensor:
        optimizer.zero_grad()
        error = 1e4 * (prepared.solve(right).value - target).square().sum()
        error.backward()
        return error.detach()

    first = float(loss())
    optimizer.step(loss)
    assert float(loss()) < 1e-6 * first


def test_a_backward_pass_across_a_write_is_refused() -> None:
    A = dense()
    A.matrix.requires_grad_()
    x = Cholesky().prepare(A).solve(randn(*A.domain)).value
    with torch.no_grad():
        A.matrix.mul_(2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        x.sum().backward()


def test_products_and_symmetry_are_those_of_the_present_numbers() -> None:
    A = sparse()
    x = randn(*A.domain)
    once = A @ x
    assert A.is_symmetric
    A.coefficients["values"].mul_(3.0)
    assert torch.allclose(A @ x, 3.0 * once)
    A.coefficients["values"][1] += 1.0
    assert not A.is_symmetric
    B = dense()
    assert B.is_symmetric
    prepared = ConjugateGradient().prepare(B)
    B.matrix[0, 5] += 1.0
    assert not B.is_symmetric
    with pytest.raises(SettingsError, match="not symmetric"):
        prepared.solve(randn(*B.domain))
    assert torch.allclose(B.matrix @ linear_solve(B, x).value, x, atol=1e-6)


def test_coefficients_of_a_function() -> None:
    scale = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    A = CallableOperator(lambda x, scale: scale * x, (3,), {"scale": scale})
    prepared = GMRES().prepare(A)
    prepared.solve(torch.ones(3, dtype=torch.float64))
    scale.mul_(2.0)
    assert torch.allclose(prepared.solve(scale).value, torch.ones(3, dtype=torch.float64))


@torch.inference_mode()
def test_tensors_without_a_count_of_writes() -> None:
    A = dense()
    prepared = Cholesky().prepare(A)
    b = randn(*A.domain)
    assert torch.allclose(A.matrix @ prepared.solve(b).value, b, atol=1e-6)
    assert prepared._follow() is prepared
    A.matrix.mul_(2.0)
    assert torch.allclose(A.matrix @ prepared.solve(b).value, b, atol=1e-6)


def test_a_copy_that_travelled_has_the_present_numbers() -> None:
    A = sparse()
    A @ randn(*A.domain)
    prepared = SparseLU().prepare(A)
    A.coefficients["values"].mul_(2.0)
    b = randn(*A.domain)
    again = pickle.loads(pickle.dumps(prepared))
    assert torch.equal(again.solve(b).value, prepared.solve(b).value)
