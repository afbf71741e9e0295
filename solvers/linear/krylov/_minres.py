"""The minimal residual method for symmetric operators that are not definite."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from solvers.core import SettingsError, Status, check_count
from solvers.linear._prepared import Outcome, Prepared
from solvers.linear._tolerance import check_rtol
from solvers.linear.krylov._items import Items
from solvers.linear.krylov._prepared import PreparedKrylov
from solvers.linear.operators._operator import LinearOperator
from solvers.linear.preconditioners._preconditioner import Preconditioner

__all__ = ["MINRES"]

_LEAST_TRUST = 1e-4
_LEAST_SLOPE = 1e-9
# From here on the residual may be as small as it becomes.
_FLAT = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class MINRES:
    r"""MINRES for symmetric operators, indefinite ones included.

    Args:
        preconditioner: Symmetric positive definite approximate inverse; none by default.
        rtol: Stop at :math:`\|b - A x\| \le` ``rtol`` :math:`\|b\|`. The iteration estimates the
            norm of the residual that belongs to the preconditioner; where that is met the true one
            is computed.
        max_iterations: Limit of the iterations.

    Raises:
        SettingsError: If a number is not positive.

    Cost: a step takes one product with ``A``, one preconditioning, two inner products.
    Reference: Paige & Saunders 1975, "Solution of sparse indefinite systems of linear equations".

    Example:
        >>> from solvers.linear import DenseOperator, linear_solve
        >>> A = DenseOperator(torch.diag(torch.tensor([2.0, -1.0], dtype=torch.float64)))
        >>> b = torch.tensor([2.0, 3.0], dtype=torch.float64)
        >>> [round(v, 9) for v in linear_solve(A, b, MINRES()).value.tolist()]
        [1.0, -3.0]
    """

    preconditioner: Preconditioner | None = None
    rtol: float = 1e-8
    max_iterations: int = 1000

    def __post_init__(self) -> None:
        check_rtol(self.rtol)
        check_count("max_iterations", self.max_iterations)

    def prepare(self, operator: LinearOperator) -> Prepared:
        """Prepare the preconditioner.

        Args:
            operator: Symmetric operator.

        Raises:
            SettingsError: If it is not symmetric.
        """
        if not operator.is_symmetric:
            raise SettingsError(f"MINRES: {operator!r} is not symmetric; use GMRES")
        return _PreparedMINRES(operator, self)


class _PreparedMINRES(PreparedKrylov):
    @torch.no_grad()
    def _solve(self, b: Tensor, x0: Tensor | None) -> Outcome:
        self._check()
        A, precondition, settings = self._plain, self.preconditioner.apply, self._settings
        items = Items(A, b, settings.rtol, A.null_space())
        dot, spread = items.dot, items.spread
        x = items.start(x0)
        r = items.residual(x)
        start = items.norm(r)
        items.end(~torch.isfinite(start), Status.NON_FINITE)
        items.end(start <= items.limit, Status.CONVERGED)
        # Lanczos vectors v of the preconditioned operator and their images z.
        v_old, v, z = torch.zeros_like(r), r, precondition(r)
        square = dot(v, z)
        items.end(square <= 0, Status.BREAKDOWN)
        beta = _root(square)
        first = beta
        phi, beta_old = beta, torch.ones_like(beta)
        cosine, sine = -torch.ones_like(beta), torch.zeros_like(beta)
        delta, epsilon = torch.zeros_like(beta), torch.zeros_like(beta)
        w_old, w = torch.zeros_like(r), torch.zeros_like(r)
        trust, size = torch.ones_like(beta), torch.zeros_like(beta)
        least = torch.full_like(beta, _FLAT)
        for _ in range(settings.max_iterations):
            if not bool(items.running.any()):
                break
            items.iterations = items.iterations + items.running
            direction = z / spread(beta)
            product = A.apply(direction)
            v_new = product - spread(beta / beta_old) * v_old
            alpha = dot(direction, v_new)
            v_new = v_new - spread(alpha / beta) * v
            v_old, v, z = v, v_new, precondition(v_new)
            square = dot(v, z)
            items.end(square < -1e-14 * alpha.square(), Status.BREAKDOWN)
            beta_old, beta = beta, _root(square)
            # One Givens rotation turns the new column of the tridiagonal matrix.
            old_epsilon = epsilon
            gamma_bar = sine * delta - cosine * alpha
            turned = cosine * delta + sine * alpha
            epsilon, delta = sine * beta, -cosine * beta
            size = torch.maximum(size, torch.hypot(alpha, beta))
            # The residual is all but a null vector: no step makes it smaller.
            slope = torch.hypot(gamma_bar, delta) / size
            flatter = items.running & (slope < 0.1 * least)
            if bool(flatter.any()):
                # Where nothing solves the system, rounding takes the next steps far away.
                least = torch.where(flatter, slope, least)
                items.keep_best(x, items.norm(items.residual(x)))
            items.end(slope <= _LEAST_SLOPE, Status.STALLED)
            gamma = torch.hypot(gamma_bar, beta).clamp(min=torch.finfo(r.dtype).tiny)
            cosine, sine = gamma_bar / gamma, beta / gamma
            w_old, w = w, (direction - spread(old_epsilon) * w_old - spread(turned) * w)
            w = w / spread(gamma)
            x = torch.where(spread(items.running), x + spread(cosine * phi) * w, x)
            phi = sine * phi
            items.end(~torch.isfinite(phi), Status.NON_FINITE)
            met = items.running & (phi / first * start <= trust * items.limit)
            if bool(met.any()):
                norm = items.norm(items.residual(x))
                items.accept(met & (norm <= items.limit))
                trust = torch.where(met, 0.1 * trust, trust)
                items.end(trust < _LEAST_TRUST, Status.STALLED)
            beta = torch.where(items.running & (beta > 0), beta, 1.0)
        return items.finish(x)


def _root(square: Tensor) -> Tensor:
    return square.clamp(min=0).sqrt()
