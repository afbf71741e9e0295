r"""Boxes with separable coefficients, solved exactly axis by axis."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from solvers.core import SettingsError
from solvers.linear._direct import PreparedDirect
from solvers.linear._prepared import Prepared
from solvers.linear._tolerance import check_rtol
from solvers.linear.krylov._items import Items
from solvers.linear.operators._operator import LinearOperator
from solvers.linear.operators._poisson import PoissonOperator

__all__ = ["FastDiagonalization", "is_separable"]

_SAME = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class FastDiagonalization:
    r"""A direct solver for boxes: walls, open air or periodic sides, any size, any spacing.

    Where couplings depend on their own axis only, the operator is a sum
    :math:`A_x \otimes I \otimes I + I \otimes A_y \otimes I + I \otimes I \otimes A_z + m I`
    and the eigenvectors of the small matrices diagonalise it. With equal spacing these
    eigenvectors are the sines and cosines of the fast transforms; as products of matrices they
    serve stretched grids and mixed sides as well. Works on every device, in float32 and float64.

    Args:
        rtol: An item whose relative residual is larger ends as ``STALLED``.

    Cost: for :math:`n` cells along each of 3 axes :math:`12 n^4` operations in products of matrices
    a solve, :math:`3 n^2` numbers of memory.
    Reference: Lynch, Rice & Thomas 1964, "Direct solution of partial difference equations by tensor
    product methods".

    Example:
        >>> from solvers.linear import linear_solve
        >>> A = PoissonOperator.from_cells(torch.zeros(8, 8, dtype=torch.long), outside=2)
        >>> b = torch.ones(8, 8, dtype=torch.float64)
        >>> solution = linear_solve(A, b, FastDiagonalization())
        >>> bool((A @ solution.value - b).norm() < 1e-12)
        True
    """

    rtol: float = 1e-8

    def __post_init__(self) -> None:
        check_rtol(self.rtol)

    def prepare(self, operator: LinearOperator) -> Prepared:
        """Diagonalise every axis.

        Args:
            operator: `PoissonOperator` of a box without solids, one system.

        Raises:
            SettingsError: If its coefficients are not separable.
        """
        if not isinstance(operator, PoissonOperator) or not is_separable(operator):
            raise SettingsError(
                f"FastDiagonalization: {operator!r} is no box whose couplings depend on their own "
                "axis only; use ConjugateGradient(preconditioner=Multigrid())"
            )
        return _PreparedFast(operator, self)


class _PreparedFast(PreparedDirect):
    def _factor(self) -> None:
        assert isinstance(self._plain, PoissonOperator)
        parts = _separate(self._plain)
        assert parts is not None
        profiles, excesses, constant = parts
        self._bases = []
        total = constant
        for axis, (profile, excess) in enumerate(zip(profiles, excesses, strict=True)):
            values, vectors = torch.linalg.eigh(_axis_matrix(profile, excess))
            self._bases.append(vectors)
            total = total + values.reshape(-1, *(1,) * (len(profiles) - 1 - axis))
        floor = 1e-13 * total.max()
        self._inverse = torch.where(total > floor, 1.0 / total, 0.0)

    def _solve(self, items: Items) -> Tensor:
        x = self._invert(items.b)
        # One refinement gains the digits that large grids lose.
        return x + self._invert(items.residual(x))

    def _invert(self, b: Tensor) -> Tensor:
        axes = len(self._bases)
        for axis, basis in enumerate(self._bases):
            b = torch.tensordot(b, basis, dims=([b.ndim - axes + axis], [0])).movedim(
                -1, b.ndim - axes + axis
            )
        b = b * self._inverse
        for axis, basis in enumerate(self._bases):
            b = torch.tensordot(b, basis, dims=([b.ndim - axes + axis], [1])).movedim(
                -1, b.ndim - axes + axis
            )
        return b


def is_separable(operator: PoissonOperator) -> bool:
    """Whether every coupling depends on its own axis only, and the excess is a sum over axes.

    Args:
        operator: A grid operator.
    """
    return _separate(operator.detach()) is not None


def _separate(operator: PoissonOperator) -> tuple[list[Tensor], list[Tensor], Tensor] | None:
    """Couplings and excess of every axis and what is left as a constant; None if it has solids."""
    if operator.batch:
        return None
    axes = len(operator.domain)
    largest = max(
        float(t.abs().max()) if t.numel() else 0.0 for t in operator.coefficients.values()
    )
    profiles = []
    for axis, coupling in enumerate(operator.couplings):
        others = [other for other in range(axes) if other != axis]
        profile = coupling
        for other in reversed(others):
            profile = profile.select(other, 0) if profile.shape[other] else profile.sum(other)
        shape = [1] * axes
        shape[axis] = -1
        if bool(((coupling - profile.reshape(shape)).abs() > _SAME * largest).any()):
            return None
        if bool((profile <= 0).any()):
            return None
        profiles.append(profile)
    excess = operator.excess
    middle = excess[tuple(size // 2 for size in operator.domain)]
    lines, total = [], middle
    for axis in range(axes):
        index: list[int | slice] = [size // 2 for size in operator.domain]
        index[axis] = slice(None)
        line = excess[tuple(index)] - middle
        lines.append(line)
        shape = [1] * axes
        shape[axis] = -1
        total = total + line.reshape(shape)
    if bool(((excess - total).abs() > _SAME * largest).any()):
        return None
    return profiles, lines, middle


def _axis_matrix(coupling: Tensor, excess: Tensor) -> Tensor:
    size = excess.numel()
    matrix = torch.diag(excess)
    low = torch.arange(coupling.numel(), device=coupling.device)
    high = (low + 1) % size
    for rows, columns, sign in ((low, low, 1), (high, high, 1), (low, high, -1), (high, low, -1)):
        matrix = matrix.index_put((rows, columns), sign * coupling, accumulate=True)
    return matrix
