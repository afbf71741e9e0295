"""The diagonal, and polynomials in the scaled operator."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from solvers.core import check_positive
from solvers.linear.operators._matrix import DenseOperator, SparseOperator
from solvers.linear.operators._operator import LinearOperator
from solvers.linear.preconditioners._preconditioner import PreparedPreconditioner

__all__ = ["Chebyshev", "Jacobi", "chebyshev_steps"]

_ROUNDING = 1e-14


@dataclass(frozen=True, slots=True)
class Jacobi:
    """Divide by the diagonal.

    Example:
        >>> from solvers.linear import DenseOperator
        >>> A = DenseOperator(torch.diag(torch.tensor([2.0, 4.0])))
        >>> Jacobi().prepare(A).apply(torch.ones(2)).tolist()
        [0.5, 0.25]
    """

    def prepare(self, operator: LinearOperator) -> PreparedPreconditioner:
        """Invert the diagonal; empty rows get zero.

        Where an entry of the diagonal of a matrix is zero but for rounding beside the others of
        its row, as with finite elements for convection, the largest of these takes its place.

        Args:
            operator: Operator that knows its diagonal.
        """
        return _PreparedJacobi(operator)


class _PreparedJacobi(PreparedPreconditioner):
    label = "Jacobi"

    def __init__(self, operator: LinearOperator):
        diagonal = operator.diagonal()
        if isinstance(operator, DenseOperator | SparseOperator):
            largest = operator.largest_of_rows()
            diagonal = torch.where(diagonal.abs() > _ROUNDING * largest, diagonal, largest)
        self.inverse = torch.where(diagonal != 0, 1.0 / diagonal, 0.0)

    def apply(self, r: Tensor) -> Tensor:
        return self.inverse * r


@dataclass(frozen=True, slots=True, kw_only=True)
class Chebyshev:
    r"""A polynomial of :math:`D^{-1} A` that is small on an interval of its spectrum.

    Args:
        degree: Products with ``A``, plus one.
        lowest: Lower end of the interval, as a part of the upper one.
        power_iterations: Products to estimate the upper end, the largest eigenvalue of
            :math:`D^{-1} A`.

    Reference: Adams, Brezina, Hu & Tuminaro 2003, "Parallel multigrid smoothing: polynomial versus
    Gauss-Seidel".
    """

    degree: int = 4
    lowest: float = 0.02
    power_iterations: int = 15

    def __post_init__(self) -> None:
        check_positive("degree", self.degree)
        check_positive("lowest", self.lowest)

    def prepare(self, operator: LinearOperator) -> PreparedPreconditioner:
        """Estimate the spectrum.

        Args:
            operator: Symmetric operator that knows its diagonal.
        """
        return _PreparedChebyshev(operator, self)


class _PreparedChebyshev(PreparedPreconditioner):
    label = "Chebyshev"

    def __init__(self, operator: LinearOperator, settings: Chebyshev):
        self._operator = operator
        self._jacobi = _PreparedJacobi(operator)
        axes = tuple(range(-len(operator.domain), 0))
        generator = torch.Generator().manual_seed(0)
        v = torch.randn(operator.domain, generator=generator, dtype=torch.float64)
        v = operator.mask(v.to(device=operator.device, dtype=operator.dtype))
        v = v.expand(*operator.batch, *operator.domain)
        largest = torch.ones(operator.batch, dtype=operator.dtype, device=operator.device)
        for _ in range(settings.power_iterations):
            v = self._jacobi.apply(operator.apply(v))
            largest = torch.linalg.vector_norm(v, dim=axes, keepdim=True)
            v = v / largest.clamp(min=torch.finfo(v.dtype).tiny)
        # The estimate comes from below.
        upper = 1.1 * largest
        self._steps = chebyshev_steps(settings.degree, settings.lowest, 1.0)
        self._upper = upper

    def apply(self, r: Tensor) -> Tensor:
        first, *rest = self._steps
        x = first / self._upper * self._jacobi.apply(r)
        for step in rest:
            x = x + step / self._upper * self._jacobi.apply(r - self._operator.apply(x))
        return x


def chebyshev_steps(degree: int, lowest: float, highest: float) -> list[float]:
    """Step lengths of the Richardson iteration whose error is a Chebyshev polynomial.

    Args:
        degree: Number of steps.
        lowest: Lower end of the interval on which the polynomial is small.
        highest: Upper end.

    Returns:
        Inverses of the roots, in increasing order.
    """
    middle, half = 0.5 * (highest + lowest), 0.5 * (highest - lowest)
    return [
        1.0 / (middle + half * math.cos(math.pi * (2 * k - 1) / (2 * degree)))
        for k in range(1, degree + 1)
    ]
