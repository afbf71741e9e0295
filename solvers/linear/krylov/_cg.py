r"""The conjugate gradient method, preconditioned, plain or flexible."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from solvers.core import SettingsError, check_count
from solvers.linear._prepared import Outcome, Prepared
from solvers.linear._tolerance import check_rtol
from solvers.linear.krylov._items import Items
from solvers.linear.krylov._prepared import PreparedKrylov
from solvers.linear.operators._operator import LinearOperator
from solvers.linear.preconditioners._preconditioner import Preconditioner

__all__ = ["ConjugateGradient"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConjugateGradient:
    r"""Conjugate gradients for symmetric positive (semi)definite operators.

    Each step minimises :math:`\|x - A^{-1} b\|_A` over the space built so far. The flexible form
    uses :math:`\beta = \langle z_{k+1}, r_{k+1} - r_k\rangle / \langle z_k, r_k\rangle` and allows
    a preconditioner that changes from step to step.

    Where the preconditioner has the whole iteration as one compiled call (`Multigrid` on a
    `PoissonOperator` on the CPU), that runs.

    Args:
        preconditioner: Approximate inverse; none by default.
        rtol: Stop at :math:`\|b - A x\| \le` ``rtol`` :math:`\|b\|`.
        max_iterations: Limit of the iterations.
        is_flexible: Use the flexible form.
        patience: End an item as ``MAX_ITERATIONS`` as soon as the rate of its last 16 steps
            foresees more than so many in all; looked at from the 32nd step on. None for no such
            limit. With `Fallback` another method goes on from there.

    Raises:
        SettingsError: If ``rtol``, ``max_iterations`` or ``patience`` is not positive.

    Cost: a step takes one product with ``A``, one preconditioning, two inner products.
    Reference: Hestenes & Stiefel 1952; Golub & Ye 1999, "Inexact preconditioned conjugate gradient
    method with inner-outer iteration" (the flexible form).

    Example:
        >>> from solvers.linear import DenseOperator, linear_solve
        >>> A = DenseOperator(torch.tensor([[4.0, 1.0], [1.0, 3.0]], dtype=torch.float64))
        >>> b = torch.tensor([1.0, 2.0], dtype=torch.float64)
        >>> solution = linear_solve(A, b, ConjugateGradient(rtol=1e-12))
        >>> int(solution.iterations), float((A @ solution.value - b).norm()) < 1e-11
        (2, True)
    """

    preconditioner: Preconditioner | None = None
    rtol: float = 1e-8
    max_iterations: int = 1000
    is_flexible: bool = False
    patience: int | None = None

    def __post_init__(self) -> None:
        check_rtol(self.rtol)
        check_count("max_iterations", self.max_iterations)
        if self.patience is not None:
            check_count("patience", self.patience)

    def prepare(self, operator: LinearOperator) -> Prepared:
        """Prepare the preconditioner and the null space.

        Args:
            operator: Symmetric, positive definite or semidefinite.

        Raises:
            SettingsError: If the operator is not symmetric.
        """
        if not operator.is_symmetric:
            raise SettingsError(
                f"ConjugateGradient: {operator!r} is not symmetric; use GMRES, or solve the normal "
                "equations with A.T @ A"
            )
        return _PreparedConjugateGradient(operator, self)


class _PreparedConjugateGradient(PreparedKrylov):
    def _solve(self, b: Tensor, x0: Tensor | None) -> Outcome:
        settings = self._settings
        if not settings.is_flexible:
            outcome = self.preconditioner.conjugate_gradient(
                b,
                x0,
                rtol=settings.rtol,
                max_iterations=settings.max_iterations,
                patience=settings.patience,
            )
            if outcome is not None:
                return outcome.no_worse_than_zero()
        self._check()
        with torch.no_grad():
            return self._iterate(b, x0)

    def _iterate(self, b: Tensor, x0: Tensor | None) -> Outcome:
        settings, precondition, A = self._settings, self.preconditioner.apply, self._plain
        items = Items(A, b, settings.rtol, A.null_space(), patience=settings.patience)
        dot, spread = items.dot, items.spread
        x = items.start(x0)
        r = items.b.clone() if x0 is None else items.residual(x)
        p = torch.zeros_like(r)
        rz = torch.ones_like(items.b_norm)
        r, restart = items.observe(x, r)
        restart = torch.ones_like(restart)
        previous = r
        for _ in range(settings.max_iterations):
            if not bool(items.running.any()):
                break
            items.iterations = items.iterations + items.running
            z = precondition(r)
            overlap = dot(z, r)
            items.demand_positive(overlap)
            new = overlap - dot(z, previous) if settings.is_flexible else overlap
            beta = torch.where(restart | ~items.running, 0.0, new / rz)
            p = torch.addcmul(z, spread(beta), p)
            rz = torch.where(items.running, overlap, 1.0)
            Ap = A.apply(p)
            curvature = dot(p, Ap)
            items.demand_positive(curvature)
            alpha = spread(torch.where(items.running, rz / curvature, 0.0))
            x = _advance(x, alpha, p)
            previous = r
            r = _advance(r, -alpha, Ap)
            r, restart = items.observe(x, r)
        return items.finish(x)


def _advance(x: Tensor, alpha: Tensor, p: Tensor) -> Tensor:
    """``x + alpha p``, untouched where ``alpha`` is zero even if ``p`` is not finite."""
    moved = torch.addcmul(x, alpha, p)
    return moved if bool((alpha != 0).all()) else torch.where(alpha == 0, x, moved)
