"""Laws of the iterative and direct solvers, and how they end."""

from __future__ import annotations

import copy
import itertools
import pickle
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from solvers.core import (
    InfeasibleError,
    NonFiniteError,
    NotConvergedError,
    SettingsError,
    ShapeError,
    Status,
)
from solvers.linear import (
    GMRES,
    MINRES,
    AggregationMultigrid,
    CallableOperator,
    Chebyshev,
    Cholesky,
    ConjugateGradient,
    DenseOperator,
    Fallback,
    FastDiagonalization,
    Jacobi,
    LinearSolver,
    Multigrid,
    PoissonOperator,
    Preconditioner,
    PreparedPreconditioner,
    SparseLU,
    SparseOperator,
    choose_solver,
    linear_solve,
)


def matrix(n: int, *, seed: int = 0, low: float = 0.1, symmetric: bool = True) -> Tensor:
    """A matrix with eigenvalues (symmetric) or singular values between ``low`` and 10."""
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.normal(size=(n, n)))
    p = q if symmetric else np.linalg.qr(rng.normal(size=(n, n)))[0]
    product = (q * np.linspace(low, 10, n)) @ p.T
    return torch.from_numpy(0.5 * (product + product.T) if symmetric else product)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


DEFINITE: dict[str, LinearSolver] = {
    "cg": ConjugateGradient(),
    "jacobi": ConjugateGradient(preconditioner=Jacobi()),
    "chebyshev": ConjugateGradient(preconditioner=Chebyshev()),
    "flexible": ConjugateGradient(preconditioner=Jacobi(), is_flexible=True),
    "minres": MINRES(preconditioner=Jacobi()),
    "gmres": GMRES(),
    "gmres restarted": GMRES(restart=8, preconditioner=Jacobi()),
    "cholesky": Cholesky(),
    "lu": SparseLU(),
    "chosen": None,  # type: ignore[dict-item]
}


@pytest.mark.parametrize("name", DEFINITE)
def test_definite_systems(name: str) -> None:
    A = DenseOperator(matrix(30))
    b = randn(2, 3, 30)
    solution = linear_solve(A, b, DEFINITE[name])
    assert solution.all_converged
    assert solution.status.shape == (2, 3)
    expected = torch.linalg.solve(A.matrix, b.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(solution.value, expected, rtol=1e-6, atol=1e-7)
    residual = (b - A @ solution.value).norm(dim=-1) / b.norm(dim=-1)
    torch.testing.assert_close(solution.residual_norm, residual, rtol=1e-3, atol=1e-14)


@pytest.mark.parametrize("solver", [MINRES(), GMRES(), SparseLU()])
def test_indefinite_systems(solver: LinearSolver) -> None:
    A = DenseOperator(matrix(30, low=-5.0))
    b = randn(3, 30)
    solution = linear_solve(A, b, solver)
    torch.testing.assert_close(A @ solution.value, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("solver", [GMRES(restart=30), SparseLU(), None])
def test_unsymmetric_systems(solver: LinearSolver | None) -> None:
    A = DenseOperator(matrix(30, symmetric=False))
    b = randn(3, 30)
    torch.testing.assert_close(A @ linear_solve(A, b, solver).value, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("solver", [*DEFINITE.values()], ids=[*DEFINITE])
def test_a_batch_of_systems_is_the_loop_over_them(solver: LinearSolver | None) -> None:
    matrices = torch.stack([matrix(12, seed=seed, low=0.5) for seed in range(4)])
    b = randn(4, 12)
    together = linear_solve(DenseOperator(matrices), b, solver)
    for item in range(4):
        alone = linear_solve(DenseOperator(matrices[item]), b[item], solver)
        torch.testing.assert_close(together.value[item], alone.value, rtol=1e-6, atol=1e-7)
        assert abs(int(together.iterations[item]) - int(alone.iterations)) <= 1


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 25))
def test_error_in_the_energy_norm_never_grows(seed: int, n: int) -> None:
    A = DenseOperator(matrix(n, seed=seed, low=0.05))
    b = randn(n, seed=seed)
    exact = torch.linalg.solve(A.matrix, b)
    energies = []
    for steps in range(1, n + 1):
        solver = ConjugateGradient(preconditioner=Jacobi(), rtol=1e-12, max_iterations=steps)
        solution = linear_solve(A, b, solver, on_failure="mask")
        # A failed solve keeps its best iterate by residual; look at the last one.
        error = solution.value - exact
        energies.append(float(error @ A.matrix @ error))
    best = np.minimum.accumulate(energies)
    assert all(e <= 100 * m + 1e-18 for e, m in zip(energies, best, strict=True))
    assert energies[-1] <= 1e-10 * max(energies[0], 1e-12) or energies[-1] < 1e-14


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 15))
def test_gmres_residual_never_grows_with_its_steps(seed: int, n: int) -> None:
    A = DenseOperator(matrix(n, seed=seed, symmetric=False))
    b = randn(n, seed=seed)
    norms = [
        float(
            linear_solve(
                A, b, GMRES(max_iterations=steps, restart=n, rtol=1e-13), on_failure="mask"
            ).residual_norm
        )
        for steps in range(1, n + 1)
    ]
    assert all(b <= a * (1 + 1e-9) + 1e-13 for a, b in itertools.pairwise(norms))


@pytest.mark.parametrize("name", ["poisson", "elasticity"])
def test_agreement_with_scipy_on_gallery_problems(name: str) -> None:
    gallery = pytest.importorskip("pyamg.gallery")
    if name == "poisson":
        M = gallery.poisson((20, 20), format="csr")
    else:
        M = gallery.linear_elasticity((8, 8))[0].tocsr()
    b = np.random.default_rng(0).normal(size=M.shape[0])
    expected = scipy.sparse.linalg.spsolve(M.tocsc(), b)
    for solver in (
        None,
        SparseLU(),
        ConjugateGradient(preconditioner=Jacobi(), rtol=1e-12, max_iterations=5000),
        MINRES(preconditioner=Jacobi(), rtol=1e-11, max_iterations=5000),
    ):
        x = linear_solve(M, torch.from_numpy(b), solver).value.numpy()
        assert np.linalg.norm(x - expected) <= 1e-8 * np.linalg.norm(expected)


def test_algebraic_multigrid_is_independent_of_size() -> None:
    gallery = pytest.importorskip("pyamg.gallery")
    from solvers.linear import AlgebraicMultigrid

    for method in ("ruge-stuben", "smoothed-aggregation"):
        counts = []
        for n in (16, 32, 64):
            M = gallery.poisson((n, n), format="csr")
            solver = ConjugateGradient(preconditioner=AlgebraicMultigrid(method=method))  # type: ignore[arg-type]
            b = randn(n * n)
            counts.append(int(linear_solve(M, b, solver).iterations))
        assert max(counts) < 30
        assert counts[-1] <= counts[0] + 8


def test_one_bad_item_does_not_touch_the_others() -> None:
    A = DenseOperator(matrix(20))
    b = randn(3, 20)
    b[1, 4] = torch.nan
    for solver in (ConjugateGradient(), GMRES(), MINRES(), Cholesky(), SparseLU()):
        solution = linear_solve(A, b, solver, on_failure="mask")
        assert solution.status.tolist() == [0, int(Status.NON_FINITE), 0], solver
        for item in (0, 2):
            torch.testing.assert_close(A @ solution.value[item], b[item], rtol=1e-6, atol=1e-6)


def test_gradient_of_a_failed_item_is_zero() -> None:
    M = matrix(20).requires_grad_()
    b = randn(2, 20)
    b[1, 3] = torch.inf
    b.requires_grad_()
    linear_solve(DenseOperator(M), b, ConjugateGradient(), on_failure="mask").value.sum().backward()
    assert torch.isfinite(M.grad).all()
    assert b.grad[1].abs().max() == 0
    assert b.grad[0].abs().max() > 0


def test_an_indefinite_system_breaks_conjugate_gradients_down() -> None:
    A = DenseOperator(torch.diag(torch.tensor([1.0, -1.0, 2.0], dtype=torch.float64)))
    b = torch.tensor([0.1, 1.0, 0.1], dtype=torch.float64)
    with pytest.raises(NotConvergedError, match="BREAKDOWN"):
        linear_solve(A, b, ConjugateGradient())
    items = DenseOperator(torch.stack([torch.eye(3, dtype=torch.float64), A.matrix]))
    solution = linear_solve(items, b, Cholesky(), on_failure="mask")
    assert solution.status.tolist() == [0, int(Status.BREAKDOWN)]


def test_a_singular_matrix_is_named() -> None:
    A = SparseOperator.from_scipy(scipy.sparse.csr_array([[1.0, 1.0], [1.0, 1.0]]))
    b = torch.tensor([1.0, 2.0], dtype=torch.float64)
    assert linear_solve(A, b, SparseLU(), on_failure="mask").status == Status.INFEASIBLE
    solution = linear_solve(A, b, GMRES(), on_failure="mask")
    named = (Status.BREAKDOWN, Status.STALLED, Status.INFEASIBLE)
    assert int(solution.status) in (int(status) for status in named)


def test_a_stalled_solve_keeps_its_best_iterate() -> None:
    A = DenseOperator(matrix(40, low=1e-6))
    b = randn(40)
    solver = ConjugateGradient(rtol=1e-15, max_iterations=3000)
    with pytest.warns(match="did not converge"):
        solution = linear_solve(A, b, solver, on_failure="warn")
    assert int(solution.status) in (int(Status.STALLED), int(Status.MAX_ITERATIONS))
    assert float(solution.residual_norm) < 1e-8
    true = (b - A @ solution.value).norm() / b.norm()
    torch.testing.assert_close(solution.residual_norm, true, rtol=0.5, atol=0.0)


def test_the_iteration_limit_is_reported() -> None:
    A = DenseOperator(matrix(40, low=1e-3))
    for solver in (ConjugateGradient(max_iterations=3), GMRES(max_iterations=3)):
        solution = linear_solve(A, randn(40), solver, on_failure="mask")
        assert int(solution.status) == Status.MAX_ITERATIONS
        assert int(solution.iterations) == 3
        assert float(solution.residual_norm) < 1


def test_a_good_guess_saves_iterations_and_an_exact_one_all_of_them() -> None:
    A = DenseOperator(matrix(40))
    b = randn(40)
    for solver in (ConjugateGradient(), GMRES(), MINRES()):
        cold = linear_solve(A, b, solver)
        warm = linear_solve(A, b, solver, x0=cold.value + 1e-5 * randn(40, seed=1))
        assert int(warm.iterations) < int(cold.iterations)
        exact = linear_solve(A, b, solver, x0=torch.linalg.solve(A.matrix, b))
        assert int(exact.iterations) == 0


@pytest.mark.parametrize("solver", [*DEFINITE.values()], ids=[*DEFINITE])
def test_zero_right_hand_side(solver: LinearSolver | None) -> None:
    solution = linear_solve(DenseOperator(matrix(10)), torch.zeros(2, 10).double(), solver)
    assert solution.all_converged
    assert float(solution.value.abs().max()) == 0.0


@given(scale=st.floats(-200, 200), seed=st.integers(0, 100))
def test_solves_do_not_depend_on_units(scale: float, seed: int) -> None:
    A, b = matrix(12, seed=seed), randn(12, seed=seed)
    one = linear_solve(DenseOperator(A), b, ConjugateGradient())
    factor = 10.0 ** (scale / 4)
    other = linear_solve(DenseOperator(A), factor * b, ConjugateGradient())
    torch.testing.assert_close(other.value / factor, one.value, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("sides", [(1, 2), (2, 2), (2, 1), "periodic"])
def test_fast_diagonalization_of_boxes(sides: object) -> None:
    shape = (5, 8, 7)
    options = {"periodic": True, "mass": 0.3} if sides == "periodic" else {"outside": [sides] * 3}
    A = PoissonOperator.from_cells(
        torch.zeros(shape, dtype=torch.long), spacing=(1.0, 0.1, 3.0), **options
    )
    b = randn(2, *shape)
    x = linear_solve(A, b, FastDiagonalization())
    torch.testing.assert_close(A @ x.value, b, rtol=1e-9, atol=1e-9)
    y = linear_solve(A, b, SparseLU())
    torch.testing.assert_close(x.value, y.value, rtol=1e-8, atol=1e-8)


def test_fast_diagonalization_between_walls_gives_zero_mean() -> None:
    A = PoissonOperator.from_cells(torch.zeros(6, 6, dtype=torch.long))
    b = randn(6, 6)
    x = linear_solve(A, b - b.mean(), FastDiagonalization()).value
    assert abs(float(x.mean())) < 1e-12
    torch.testing.assert_close(A @ x, b - b.mean(), rtol=1e-9, atol=1e-9)
    with pytest.raises(InfeasibleError):
        linear_solve(A, b, FastDiagonalization())


def test_what_is_chosen() -> None:
    spd = matrix(8)
    assert isinstance(choose_solver(DenseOperator(spd)), Cholesky)
    indefinite = choose_solver(DenseOperator(matrix(8, low=-1.0)))
    assert isinstance(indefinite, Fallback)
    assert isinstance(indefinite.first, SparseLU)
    assert isinstance(indefinite.then, MINRES)
    grid = PoissonOperator.from_cells(torch.zeros(4, 4))
    chosen = choose_solver(grid)
    first = chosen.first if isinstance(chosen, Fallback) else chosen
    assert isinstance(first, ConjugateGradient)
    assert isinstance(first.preconditioner, Multigrid)
    large = SparseOperator.from_scipy(scipy.sparse.eye_array(30_000))
    chosen = choose_solver(large)
    first = chosen.first if isinstance(chosen, Fallback) else chosen
    assert isinstance(first, ConjugateGradient)
    free = CallableOperator(lambda x, c: c * x.roll(1, -1), (4,), {"c": torch.ones(1)})
    assert choose_solver(free) == GMRES()


def test_wrong_methods_are_refused() -> None:
    unsymmetric = DenseOperator(matrix(5, symmetric=False))
    for solver in (ConjugateGradient(), MINRES(), Cholesky()):
        with pytest.raises(SettingsError, match="not symmetric"):
            linear_solve(unsymmetric, randn(5), solver)
    with pytest.raises(SettingsError, match="PoissonOperator"):
        linear_solve(DenseOperator(matrix(5)), randn(5), _multigrid())
    with pytest.raises(SettingsError, match="box"):
        linear_solve(DenseOperator(matrix(5)), randn(5), FastDiagonalization())
    with pytest.raises(ValueError, match="square"):
        linear_solve(randn(3, 4), randn(3))
    with pytest.raises(SettingsError, match="scipy.sparse"):
        linear_solve("matrix", randn(3))
    for broken in ({"rtol": 0.0}, {"max_iterations": 0}):
        with pytest.raises(SettingsError):
            ConjugateGradient(**broken)  # type: ignore[arg-type]


def _multigrid() -> ConjugateGradient:
    preconditioner: Preconditioner = Multigrid()
    return ConjugateGradient(preconditioner=preconditioner)


def test_coefficients_that_are_not_finite_are_named() -> None:
    broken = matrix(5)
    broken[2, 2] = torch.nan
    for solver in (ConjugateGradient(), GMRES(), Cholesky(), SparseLU()):
        A = DenseOperator(broken, is_symmetric=True)
        with pytest.raises(NonFiniteError, match="matrix"):
            linear_solve(A, randn(5), solver)


def test_failed_items_are_handed_over_and_no_others() -> None:
    matrices = torch.stack([matrix(20), matrix(20, low=-5.0)])
    A, b = DenseOperator(matrices), randn(2, 20)
    solution = linear_solve(A, b, Fallback(ConjugateGradient(), MINRES()))
    assert solution.all_converged
    assert solution.report.counts["handed_over"].tolist() == [0, 1]
    torch.testing.assert_close(A @ solution.value, b, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_noise_of_contrast_a_million_is_solved() -> None:
    pytest.importorskip("pyamg")
    rng = np.random.default_rng(0)
    beta = torch.from_numpy(np.where(rng.random((24, 24, 24)) < 0.3, 1e6, 1.0))
    A = PoissonOperator.from_cells(torch.zeros(24, 24, 24), coefficient=beta, outside=2)
    b = randn(24, 24, 24)
    solution = linear_solve(A, b)
    assert float((A @ solution.value - b).norm() / b.norm()) <= 1e-8


def test_a_preconditioner_that_breaks_leaves_a_finite_iterate() -> None:
    class Broken(PreparedPreconditioner):
        def __init__(self) -> None:
            self.calls = 0

        def prepare(self, operator: object) -> PreparedPreconditioner:
            return self

        def apply(self, r: Tensor) -> Tensor:
            self.calls += 1
            return r if self.calls < 4 else torch.full_like(r, torch.nan)

    solver = ConjugateGradient(preconditioner=Broken())
    solution = linear_solve(DenseOperator(matrix(30)), randn(30), solver, on_failure="mask")
    assert int(solution.status) == Status.NON_FINITE
    assert torch.isfinite(solution.value).all()
    assert float(solution.residual_norm) < 1


@pytest.mark.parametrize("solver", [*DEFINITE.values()], ids=[*DEFINITE])
def test_a_batch_without_items_has_no_solutions(solver: LinearSolver | None) -> None:
    solution = linear_solve(DenseOperator(matrix(5)), randn(0, 5), solver)
    assert solution.value.shape == (0, 5)
    assert solution.status.shape == (0,)


def test_complex_sparse_matrices_are_refused() -> None:
    with pytest.raises(SettingsError, match="expected real numbers"):
        linear_solve(scipy.sparse.eye_array(3, dtype=complex), randn(3))


@pytest.mark.parametrize("take", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
@pytest.mark.parametrize(
    "solver",
    [
        ConjugateGradient(preconditioner=Multigrid()),
        ConjugateGradient(preconditioner=AggregationMultigrid()),
        SparseLU(),
        None,
    ],
)
def test_a_prepared_solver_can_be_copied(take: Any, solver: LinearSolver | None) -> None:
    A = PoissonOperator.from_cells(torch.zeros(6, 5), outside=2)
    prepared = (solver or choose_solver(A)).prepare(A)
    b = randn(6, 5)
    assert torch.equal(take(prepared).solve(b).value, prepared.solve(b).value)


def test_a_system_without_unknowns_is_refused() -> None:
    with pytest.raises(ShapeError, match="no unknowns"):
        linear_solve(torch.zeros(0, 0), torch.zeros(0))
