"""One call for every linear system, and the choice of a method that suits it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.util import find_spec

import torch
from jaxtyping import Float
from torch import Tensor

from solvers.core import OnFailure, SettingsError, ShapeError, Solution, is_mapped
from solvers.linear._adjoint import AdjointStart
from solvers.linear._direct import Cholesky, SparseLU
from solvers.linear._fallback import Fallback
from solvers.linear._implicit import implicit_solve
from solvers.linear._precision import widen
from solvers.linear._prepared import LinearSolver, Prepared
from solvers.linear.krylov._cg import ConjugateGradient
from solvers.linear.krylov._gmres import GMRES
from solvers.linear.krylov._minres import MINRES
from solvers.linear.operators._matrix import DenseOperator, SparseOperator
from solvers.linear.operators._operator import LinearOperator
from solvers.linear.operators._poisson import PoissonOperator
from solvers.linear.preconditioners._aggregation import AggregationMultigrid
from solvers.linear.preconditioners._algebraic import AlgebraicMultigrid
from solvers.linear.preconditioners._jacobi import Jacobi
from solvers.linear.preconditioners._multigrid import Multigrid
from solvers.linear.preconditioners._torn import is_torn

__all__ = ["as_operator", "choose_solver", "linear_solve"]

_DENSE_SIZE = 512
_DIRECT_SIZE = 20_000
# So many cycles cost less than set-up and solve on aggregates.
_PATIENCE = 200


def linear_solve(
    A: LinearOperator | Tensor | object,
    b: Float[Tensor, "..."],
    solver: LinearSolver | None = None,
    *,
    x0: Float[Tensor, "..."] | None = None,
    adjoint: AdjointStart | None = None,
    on_failure: OnFailure = "raise",
) -> Solution[Tensor]:
    r"""Solve ``A x = b``, differentiable in ``b`` and in every tensor of ``A``.

    Args:
        A: An operator, a dense tensor ``(..., n, n)``, a sparse torch tensor or a ``scipy.sparse``
            matrix.
        b: Right-hand sides, shape ``(..., *A.codomain)``; every leading index is an item of its
            own with its own stopping and status.
        solver: The method, for example ``ConjugateGradient(preconditioner=Multigrid())``. None
            takes `choose_solver`; ask that function what it picks.
        x0: First guess, shape of the solution; zero by default. It carries no gradient.
        adjoint: Keeps adjoint solutions from one backward pass to the next, see `AdjointStart`; by
            default every one starts from zero.
        on_failure: ``"raise"`` (default), ``"warn"`` or ``"mask"``, for items that fail.

    Returns:
        Solution with ``value``, ``status``, ``iterations`` and ``residual_norm``, the true relative
        residual :math:`\|b - A x\| / \|b\|` of each item. A failed item holds its best iterate.
        The work is done in float64; narrower numbers come back in their own type, rounded once.

    Raises:
        ShapeError: If shapes do not fit.
        SettingsError: If types do not fit, or the method does not suit the operator.
        NotConvergedError: If ``on_failure="raise"`` and an item fails.

    Gradients: implicit, by one more solve with the transposed operator; of any order; zero for
    items that failed.
    Cost: see the solvers.

    Example:
        >>> cells = torch.zeros(16, 16, dtype=torch.long)
        >>> A = PoissonOperator.from_cells(cells, outside=2)
        >>> b = torch.ones(16, 16, dtype=torch.float64, requires_grad=True)
        >>> solution = linear_solve(A, b)
        >>> solution.all_converged
        True
        >>> solution.value.sum().backward()
        >>> torch.allclose(b.grad, solution.value)
        True
    """
    operator = as_operator(A)
    if operator.domain != operator.codomain:
        raise ShapeError(
            f"A: got a map from {operator.domain} to {operator.codomain}, expected a square one; "
            "solve the normal equations with A.T @ A"
        )
    if operator.size == 0:
        raise ShapeError(f"A: {operator!r} has no unknowns, expected one at least")
    if solver is not None and (isinstance(solver, type) or not isinstance(solver, LinearSolver)):
        raise SettingsError(
            f"solver: got {solver!r}, expected settings such as ConjugateGradient(), or None to "
            "let choose_solver pick"
        )
    return implicit_solve(
        _choose(operator) if solver is None else solver,
        operator,
        b,
        x0=x0,
        adjoint=adjoint,
        on_failure=on_failure,
    )


@dataclass(frozen=True, slots=True)
class _Automatic:
    """`choose_solver`, which waits until it sees plain numbers."""

    def prepare(self, operator: LinearOperator) -> Prepared:
        return choose_solver(operator).prepare(operator)


def _choose(operator: LinearOperator) -> LinearSolver:
    """What to solve with; inside of a vectorised call the numbers cannot be looked at yet."""
    is_waiting = any(is_mapped(tensor) for tensor in operator.coefficients.values())
    return _Automatic() if is_waiting else choose_solver(operator)


def as_operator(A: LinearOperator | Tensor | object) -> LinearOperator:
    """Take a matrix of any kind as an operator.

    Args:
        A: An operator (given back as it is), a dense or sparse torch tensor, or a
            ``scipy.sparse`` matrix.

    Raises:
        SettingsError: If it is none of these.
    """
    if isinstance(A, LinearOperator):
        return A
    if isinstance(A, Tensor):
        is_dense = A.layout is torch.strided
        return DenseOperator(A) if is_dense else SparseOperator.from_torch(A)
    if hasattr(A, "tocsr") and hasattr(A, "shape"):
        return SparseOperator.from_scipy(A)
    raise SettingsError(
        f"A: got {type(A).__name__}, expected a LinearOperator, a torch tensor or a scipy.sparse "
        "matrix; wrap a function in CallableOperator"
    )


def choose_solver(
    operator: LinearOperator, *, rtol: float = 1e-8, direct_size: int = _DIRECT_SIZE
) -> LinearSolver:
    """Pick a method by the kind, symmetry and size of an operator.

    ========================================  =====================================================
    Operator                                  Method
    ========================================  =====================================================
    `PoissonOperator`                         `ConjugateGradient` with `Multigrid`; with
                                              `AggregationMultigrid` as soon as the observed rate
                                              foresees more than 200 steps (one system, on the CPU),
                                              or at once where couplings differ by more than 1e5 in
                                              more than 15 % of the rows; then, up to
                                              ``direct_size``, with `SparseLU`
    symmetric, positive diagonal, small       `Cholesky` (dense, up to 512 unknowns); as below if a
                                              sparse one turns out singular
    other matrix of moderate size             `SparseLU` (up to ``direct_size``, on the CPU); if it
                                              is symmetric and that fails, `MINRES`
    symmetric, positive diagonal, larger      `ConjugateGradient` with `AlgebraicMultigrid` if the
                                              extra is installed, as long as no more than 200 steps
                                              are foreseen; else with `Jacobi`
    anything else                             `GMRES`, with `Jacobi` if there is a full diagonal
    ========================================  =====================================================

    Args:
        operator: The operator.
        rtol: Relative tolerance of the residual.
        direct_size: Most unknowns for sparse direct factors.

    Returns:
        The settings; print them to see the choice.

    Example:
        >>> choose_solver(DenseOperator(torch.eye(3)))
        Cholesky(rtol=1e-08)
    """
    if isinstance(operator, PoissonOperator):
        return _choose_for_grid(operator, rtol, direct_size)
    try:
        diagonal = operator.diagonal().detach()
    except SettingsError:
        diagonal = torch.zeros(1)
    has_diagonal = bool((diagonal != 0).all())
    is_positive = operator.is_symmetric and bool((diagonal > 0).all())
    has_matrix = isinstance(operator, DenseOperator | SparseOperator)
    on_cpu = operator.device.type == "cpu"
    if is_positive and has_matrix and operator.size <= _DENSE_SIZE and _is_definite(operator):
        dense = Cholesky(rtol=rtol)
        if isinstance(operator, DenseOperator):
            return dense
        singular = Fallback(SparseLU(rtol=rtol), MINRES(rtol=rtol)) if on_cpu else MINRES(rtol=rtol)
        return Fallback(dense, singular)
    if has_matrix and on_cpu and operator.size <= direct_size:
        direct = SparseLU(rtol=rtol)
        return Fallback(direct, MINRES(rtol=rtol)) if operator.is_symmetric else direct
    if is_positive:
        simple = ConjugateGradient(preconditioner=Jacobi(), rtol=rtol, max_iterations=10_000)
        if not (has_matrix and on_cpu) or operator.batch or find_spec("pyamg") is None:
            return simple
        algebraic = ConjugateGradient(
            preconditioner=AlgebraicMultigrid(), rtol=rtol, patience=_PATIENCE
        )
        return Fallback(algebraic, simple)
    return GMRES(preconditioner=Jacobi() if has_diagonal else None, rtol=rtol)


def _choose_for_grid(operator: PoissonOperator, rtol: float, direct_size: int) -> LinearSolver:
    solver = ConjugateGradient(preconditioner=Multigrid(), rtol=rtol)
    on_cpu = operator.device.type == "cpu"
    if operator.batch or not on_cpu:
        return solver
    robust: LinearSolver = ConjugateGradient(preconditioner=AggregationMultigrid(), rtol=rtol)
    if operator.size <= direct_size:
        # Contrasts of 1e20 and more are beyond what single precision preconditions.
        robust = Fallback(robust, SparseLU(rtol=rtol))
    if is_torn(operator):
        return robust
    return Fallback(replace(solver, patience=_PATIENCE), robust)


def _is_definite(operator: LinearOperator) -> bool:
    if not isinstance(operator, DenseOperator):
        return not operator.batch
    wide = widen(operator.detach())
    assert isinstance(wide, DenseOperator)
    return bool((torch.linalg.cholesky_ex(wide.matrix)[1] == 0).all())
