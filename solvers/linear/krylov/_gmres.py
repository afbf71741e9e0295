"""The generalised minimal residual method, restarted, preconditioned from the right."""

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

__all__ = ["GMRES"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GMRES:
    r"""GMRES for any square operator; the residual never grows.

    Args:
        preconditioner: Approximate inverse, applied from the right so that the residual minimised
            is the true one; it may change from step to step. None by default.
        rtol: Stop at :math:`\|b - A x\| \le` ``rtol`` :math:`\|b\|`.
        max_iterations: Limit of the steps, over all restarts.
        restart: Steps between restarts.

    Raises:
        SettingsError: If a number is not positive.

    Cost: a step takes one product with ``A``, one preconditioning and inner products with all
    vectors since the restart, ``2 restart`` of which are stored.
    Reference: Saad & Schultz 1986; Saad 1993, "A flexible inner-outer preconditioned GMRES
    algorithm".

    Example:
        >>> from solvers.linear import DenseOperator, linear_solve
        >>> A = DenseOperator(torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64))
        >>> b = torch.tensor([1.0, 2.0], dtype=torch.float64)
        >>> [round(v, 9) for v in linear_solve(A, b, GMRES()).value.tolist()]
        [-2.0, 1.0]
    """

    preconditioner: Preconditioner | None = None
    rtol: float = 1e-8
    max_iterations: int = 1000
    restart: int = 40

    def __post_init__(self) -> None:
        check_rtol(self.rtol)
        for name in ("max_iterations", "restart"):
            check_count(name, getattr(self, name))

    def prepare(self, operator: LinearOperator) -> Prepared:
        """Prepare the preconditioner.

        Args:
            operator: Any square operator.

        Raises:
            SettingsError: If it is not square.
        """
        if operator.domain != operator.codomain:
            raise SettingsError(f"GMRES: {operator!r} is not square")
        return _PreparedGMRES(operator, self)


class _PreparedGMRES(PreparedKrylov):
    @torch.no_grad()
    def _solve(self, b: Tensor, x0: Tensor | None) -> Outcome:
        self._check()
        A, settings = self._plain, self._settings
        items = Items(A, b, settings.rtol, A.null_space())
        x = items.start(x0)
        r = items.residual(x)
        last = torch.full_like(items.b_norm, torch.inf)
        steps = 0
        while bool(items.running.any()) and steps < settings.max_iterations:
            norm = items.norm(r)
            items.end(~torch.isfinite(norm), Status.NON_FINITE)
            items.accept(norm <= items.limit)
            items.end(norm > (1 - 1e-12) * last, Status.STALLED)
            if not bool(items.running.any()):
                break
            last = norm
            cycle = min(settings.restart, settings.max_iterations - steps)
            step, taken = self._cycle(items, r, norm, cycle)
            steps += taken
            x = torch.where(items.spread(items.running), x + step, x)
            r = items.residual(x)
        return items.finish(x)

    def _cycle(self, items: Items, r: Tensor, norm: Tensor, limit: int) -> tuple[Tensor, int]:
        """One Arnoldi cycle: the step that minimises the residual, and the products it took."""
        spread, dot = items.spread, items.dot
        tiny = torch.finfo(r.dtype).tiny
        basis = [r / spread(norm.clamp(min=tiny))]
        directions: list[Tensor] = []
        hessenberg = r.new_zeros(*items.batch, limit + 1, limit)
        right = r.new_zeros(*items.batch, limit + 1)
        right[..., 0] = norm
        coefficients = right[..., :0]
        met = torch.zeros_like(items.running)
        for k in range(limit):
            direction = self.preconditioner.apply(basis[k])
            w = self._plain.apply(direction)
            scale = items.norm(w)
            directions.append(direction)
            # Twice is enough to keep the basis orthogonal to rounding.
            for _ in range(2):
                for j, v in enumerate(basis):
                    overlap = dot(v, w)
                    hessenberg[..., j, k] += overlap
                    w = w - spread(overlap) * v
            height = items.norm(w)
            height = torch.where(height > 1e-14 * scale, height, 0.0)
            hessenberg[..., k + 1, k] = height
            basis.append(torch.where(spread(height > 0), w / spread(height.clamp(min=tiny)), 0.0))
            items.iterations = items.iterations + (items.running & ~met)
            inner = torch.where(
                items.running[..., None, None], hessenberg[..., : k + 2, : k + 1], 0.0
            )
            coefficients = torch.linalg.pinv(inner) @ right[..., : k + 2, None]
            rest = right[..., : k + 2, None] - inner @ coefficients
            rest_norm = torch.linalg.vector_norm(rest, dim=(-2, -1))
            met = met | (height == 0) | (rest_norm <= 0.5 * items.limit)
            if bool((met | ~items.running).all()):
                break
        step = torch.zeros_like(r)
        for k, direction in enumerate(directions):
            step = step + spread(coefficients[..., k, 0]) * direction
        return step, len(directions)
