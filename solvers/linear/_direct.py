"""Direct solvers: factor once, solve any number of right-hand sides."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solvers.core import SettingsError, Status
from solvers.linear._precision import runs_in_double, widen
from solvers.linear._prepared import Outcome, Prepared
from solvers.linear._singular import SingularMatrix
from solvers.linear._tolerance import check_rtol
from solvers.linear.krylov._items import Items
from solvers.linear.operators._operator import LinearOperator

__all__ = ["Cholesky", "PreparedDirect", "SparseLU"]

_WAY_OUT = "for the nearest solution try linear_solve(A.T @ A, A.T @ b, MINRES())"

# Of the largest one: beneath it rounding may stand for a pivot of zero.
_LEAST_PIVOT = 1e-12

Array = np.ndarray[Any, Any]


class PreparedDirect(Prepared):
    """A direct method with its factors; what it gives is judged by the true residual.

    Args:
        operator: The operator, with gradients.
        solver: The settings, which have an ``rtol``.
    """

    def __init__(self, operator: LinearOperator, solver: Any):
        super().__init__(operator, solver, type(solver).__name__)
        self._plain = widen(operator.detach())
        self._plain.check()
        self._rtol = solver.rtol
        self._null_space = self._plain.null_space()
        self._factor()

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy factors anew: factors of SuperLU do not travel."""
        return type(self), (self.operator, self.solver)

    @abstractmethod
    def _factor(self) -> None:
        """Do everything that does not depend on the right-hand side."""

    @abstractmethod
    def _solve(self, items: Items) -> Tensor:
        """Solve for ``items.b``, and end items that have no solution."""

    @runs_in_double
    @torch.no_grad()
    def run(self, b: Tensor, x0: Tensor | None) -> Outcome:
        items = Items(self._plain, b, self._rtol, self._null_space)
        x = torch.where(items.spread(items.b_norm == 0), 0.0, self._solve(items))
        norm = items.norm(items.residual(x))
        items.end(~torch.isfinite(norm), Status.NON_FINITE)
        items.iterations = items.iterations + items.running
        items.accept(norm <= items.limit)
        items.end(norm > items.limit, Status.STALLED)
        return items.finish(x)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cholesky:
    """Dense Cholesky factors, for small symmetric positive definite systems and batches of them.

    A system that is not positive definite ends as ``BREAKDOWN``; the others of a batch are not
    touched.

    Args:
        rtol: An item whose relative residual is larger ends as ``STALLED``.

    Cost: n^3 / 3 operations and n^2 numbers a system.
    """

    rtol: float = 1e-8

    def __post_init__(self) -> None:
        check_rtol(self.rtol)

    def prepare(self, operator: LinearOperator) -> Prepared:
        """Form the matrix and factor it.

        Args:
            operator: Symmetric operator.

        Raises:
            SettingsError: If it is not symmetric.
        """
        if not operator.is_symmetric:
            raise SettingsError(f"Cholesky: {operator!r} is not symmetric; use SparseLU or GMRES")
        return _PreparedCholesky(operator, self)


class _PreparedCholesky(PreparedDirect):
    def _factor(self) -> None:
        matrix = _dense(self._plain)
        # Empty rows are no unknowns; one on their diagonal keeps them apart.
        empty = (matrix == 0).all(-1)
        matrix = matrix + torch.diag_embed(empty.to(matrix.dtype))
        self._lower, self._info = torch.linalg.cholesky_ex(matrix)

    def _solve(self, items: Items) -> Tensor:
        items.end(self._info.expand(items.batch) != 0, Status.BREAKDOWN)
        flat = items.b.reshape(*items.batch, self._plain.size, 1)
        x = torch.cholesky_solve(flat, self._lower).reshape(items.b.shape)
        return torch.where(items.spread(items.running), x, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseLU:
    """Sparse LU factors with pivoting, by SuperLU; any square matrix on the CPU.

    Rows and columns without entries (cells that are no unknowns) are left out, and each region in
    which the solution is free by a constant is held at one unknown. A matrix that turns out
    singular is solved by factors of one beside it, for what it can be solved for: the solution is
    the one of the group inverse. An item ends ``INFEASIBLE`` where a vector of the other null space
    proves that it has none, and ``BREAKDOWN`` where neither is found.

    Args:
        rtol: An item whose relative residual is larger ends as ``STALLED``.

    Cost: fill-in; about n^1.5 operations on planar meshes, n^2 in space, where iterative methods
    soon win.
    Reference: Demmel, Eisenstat, Gilbert, Li & Liu 1999, "A supernodal approach to sparse partial
    pivoting".

    Example:
        >>> import scipy.sparse
        >>> from solvers.linear import SparseOperator, linear_solve
        >>> A = SparseOperator.from_scipy(scipy.sparse.csr_array([[0.0, 2.0], [1.0, 0.0]]))
        >>> b = torch.tensor([2.0, 3.0], dtype=torch.float64)
        >>> linear_solve(A, b, SparseLU()).value.tolist()
        [3.0, 1.0]
    """

    rtol: float = 1e-8

    def __post_init__(self) -> None:
        check_rtol(self.rtol)

    def prepare(self, operator: LinearOperator) -> Prepared:
        """Form the matrix and factor it.

        Args:
            operator: Square operator.

        Raises:
            SettingsError: If it is not square.
        """
        if operator.domain != operator.codomain:
            raise SettingsError(
                f"SparseLU: {operator!r} is not square; solve a least-squares problem instead"
            )
        return _PreparedLU(operator, self)


class _PreparedLU(PreparedDirect):
    def _factor(self) -> None:
        flat = _items_of(self._plain)
        self._factors = [_FactoredItem(item, self._null_space) for item in flat]

    def _solve(self, items: Items) -> Tensor:
        flat = items.b.reshape(-1, self._plain.size).cpu().double().numpy()
        index = torch.arange(len(self._factors)).reshape(self._plain.batch)
        which = index.expand(items.batch).flatten().tolist()
        solved = [
            self._factors[i].solve(row, self._rtol) for i, row in zip(which, flat, strict=True)
        ]
        ends = torch.tensor([end for _, end in solved]).reshape(items.batch).to(items.b.device)
        for end in (Status.BREAKDOWN, Status.INFEASIBLE):
            items.end(ends == end, end)
        if any(factor.is_singular for factor in self._factors):
            self.label = f"SparseLU (the matrix is singular; {_WAY_OUT})"
        values = np.array([x for x, _ in solved]).reshape(flat.shape)
        return torch.from_numpy(values).to(items.b).reshape(items.b.shape)


class _FactoredItem:
    """One matrix without its empty rows, factored; with other factors where it is singular."""

    def __init__(self, operator: LinearOperator, null_space: Any):
        import scipy.sparse.linalg

        matrix = operator.to_scipy().tocsc().astype(np.float64)
        self.size = matrix.shape[0]
        filled = (np.diff(matrix.indptr) > 0) & (np.diff(matrix.tocsr().indptr) > 0)
        if null_space is not None:
            labels = null_space.labels.reshape(-1, self.size).cpu().numpy().max(0)
            _, held = np.unique(labels, return_index=True)
            filled[held[labels[held] > 0]] = False
        self.kept = np.flatnonzero(filled)
        self._matrix = matrix
        self._singular: SingularMatrix | None = None
        self.is_singular = False
        self._is_suspect = False
        inner = matrix[self.kept][:, self.kept]
        try:
            self._factors = scipy.sparse.linalg.splu(inner) if self.kept.size else None
        except RuntimeError:
            self._factors = None
            self.is_singular = True
        if self._factors is not None and null_space is None:
            pivots = np.abs(self._factors.U.diagonal())
            self._is_suspect = bool(pivots.min() <= _LEAST_PIVOT * pivots.max())

    def solve(self, b: Array, rtol: float) -> tuple[Array, Status]:
        """The solution, and how the matrix took it; `CONVERGED` leaves that to the residual."""
        if not np.isfinite(b).all():
            return np.full(self.size, np.nan), Status.CONVERGED
        limit = rtol * float(np.linalg.norm(b))
        x = np.zeros(self.size)
        if self._factors is not None:
            x[self.kept] = self._factors.solve(b[self.kept])
        is_good = not self.is_singular and not self._leaves(x, b) > limit
        if is_good and not self._is_suspect:
            return x, Status.CONVERGED
        if self._singular is None:
            self._singular = SingularMatrix(self._matrix)
        nearest = self._singular.solve(b)
        if nearest is not None and self._leaves(nearest, b) <= limit:
            return nearest, Status.CONVERGED
        if not is_good and self._singular.is_contradicted(b, rtol):
            self.is_singular = True
            return x if nearest is None else nearest, Status.INFEASIBLE
        return x, Status.BREAKDOWN if self.is_singular else Status.CONVERGED

    def _leaves(self, x: Array, b: Array) -> float:
        return float(np.linalg.norm(b - self._matrix @ x))


def _dense(operator: LinearOperator) -> Tensor:
    """The matrix of every system, shape ``(*batch, n, n)``."""
    size = operator.size
    unit = torch.eye(size, dtype=operator.dtype, device=operator.device)
    unit = unit.reshape(size, *(1,) * len(operator.batch), *operator.domain)
    with torch.no_grad():
        columns = operator.apply(unit).expand(size, *operator.batch, *operator.domain)
    return columns.reshape(size, *operator.batch, size).movedim(0, -1)


def _items_of(operator: LinearOperator) -> list[LinearOperator]:
    """The systems of a batch one by one."""
    if not operator.batch:
        return [operator]
    axes = {name: t.ndim for name, t in operator.coefficients.items()}
    count = len(operator.batch)
    least = min(axes.values())
    return [
        operator.with_coefficients(
            {
                name: tensor.expand(*operator.batch, *tensor.shape[-(tensor.ndim - count) :])[index]
                if tensor.ndim >= least
                else tensor
                for name, tensor in operator.coefficients.items()
            }
        )
        for index in np.ndindex(*operator.batch)
    ]
