"""Bookkeeping of an iteration over a batch: who still runs, how far, and how each item ended."""

from __future__ import annotations

import torch
from torch import Tensor

from solvers.core import Status, full_status
from solvers.linear._prepared import Outcome
from solvers.linear.operators._operator import LinearOperator, NullSpace

__all__ = ["RATE_STEPS", "Items"]

RATE_STEPS = 16
"""Steps over which the rate of a solve is observed."""

_LOOK_EVERY = 10
_LEAST_GAIN = 0.5
_LARGEST_IMAGE = 1e-12
_TINY = 1e-300


class Items:
    """State of every item of a batch of solves.

    Success is only claimed for a true residual ``b - A x``. Where the iterated residual meets the
    tolerance and the true one does not, the method goes on from the true one; where even that gains
    less than half, the item has stalled. A failed item keeps its best iterate: the last one, the
    best of those looked at every ten iterations, its start, or zero.

    Right-hand sides and solutions are in units of ``scale``, the power of two nearest to the norm
    of the right-hand side, so that no square leaves the range of numbers.

    Args:
        operator: The operator, without gradients.
        b: Right-hand sides, shape ``(..., *codomain)``.
        rtol: Tolerance of the residual relative to ``b``.
        null_space: Of the operator, if it is known; right-hand sides outside of the range are
            solved as nearly as they can be and end ``INFEASIBLE``.
        patience: Limit of the iterations that the rate of the last steps foresees, see
            `ConjugateGradient`.
    """

    def __init__(
        self,
        operator: LinearOperator,
        b: Tensor,
        rtol: float,
        null_space: NullSpace | None = None,
        *,
        patience: int | None = None,
    ):
        self.operator = operator
        self.null_space = null_space
        self._axes = tuple(range(-len(operator.codomain), 0))
        b = operator.mask(b)
        size = b.abs().amax(self._axes).clamp(min=torch.finfo(b.dtype).tiny)
        exponent = torch.frexp(size * self.norm(b / self.spread(size))).exponent
        self.scale = self.spread(torch.ldexp(torch.ones_like(size), exponent.clamp(-1000, 1000)))
        b = b / self.scale
        self.b_norm = self.norm(b)
        self.limit = rtol * self.b_norm
        self.b = b if null_space is None else null_space.remove(b)
        self._outside = self.norm(b - self.b) if null_space is not None else self.b_norm * 0
        self.batch = tuple(self.b_norm.shape)
        device = b.device
        self.status = full_status(self.batch, Status.MAX_ITERATIONS, device=device)
        self.running = torch.ones(self.batch, dtype=torch.bool, device=device)
        self.iterations = torch.zeros(self.batch, dtype=torch.int64, device=device)
        self.refreshes = torch.zeros(self.batch, dtype=torch.int64, device=device)
        self._refreshed = torch.full_like(self.b_norm, torch.inf)
        self._best_norm = torch.full_like(self.b_norm, torch.inf)
        self._best: Tensor | None = None
        self._patience = patience
        self._least: list[Tensor] = []

    def start(self, x0: Tensor | None) -> Tensor:
        """The first iterate in units of ``scale``; zero for items without a right-hand side."""
        self.end(self.b_norm == 0, Status.CONVERGED)
        if x0 is None:
            return torch.zeros_like(self.b)
        x = self.operator.mask(x0.expand_as(self.b)) / self.scale
        x = torch.where(self.spread(self.running), x, 0.0)
        self._best = x.clone()
        return x

    def dot(self, u: Tensor, v: Tensor) -> Tensor:
        """Inner product of every item, shape ``(...)``."""
        total: Tensor = (u * v).sum(self._axes)
        return total

    def norm(self, u: Tensor) -> Tensor:
        """Euclidean norm of every item, shape ``(...)``."""
        length: Tensor = torch.linalg.vector_norm(u, dim=self._axes)
        return length

    def spread(self, a: Tensor) -> Tensor:
        """Give a number for each item the axes of a vector."""
        return a.reshape(*a.shape, *(1,) * len(self._axes))

    def end(self, which: Tensor, status: Status) -> None:
        """End the running items among ``which`` with a status."""
        which = which & self.running
        self.status = torch.where(which, int(status), self.status)
        self.running = self.running & ~which

    def demand_positive(self, product: Tensor) -> None:
        """End items for which a product that definiteness makes positive is not."""
        self.end(~torch.isfinite(product), Status.NON_FINITE)
        self.end(product <= 0, Status.BREAKDOWN)

    def accept(self, which: Tensor) -> None:
        """End items whose true residual in the range of the operator meets the tolerance."""
        self.end(which & (self._outside <= self.limit), Status.CONVERGED)
        self.end(which, Status.INFEASIBLE)

    def residual(self, x: Tensor) -> Tensor:
        """The true residual in the range of the operator."""
        return self.b - self.operator.apply(x)

    def observe(self, x: Tensor, r: Tensor, *, is_true: bool = False) -> tuple[Tensor, Tensor]:
        """Look at the iterates and end items.

        Args:
            x: Iterates.
            r: Their iterated residuals.
            is_true: Whether these are the true ones.

        Returns:
            The residuals to go on with, and which items must restart from them.
        """
        norm = self.norm(r)
        restart = torch.zeros_like(self.running)
        self.end(~torch.isfinite(norm), Status.NON_FINITE)
        met = self.running & (norm <= self.limit)
        if bool(met.any()):
            true = r if is_true else self.residual(x)
            true_norm = self.norm(true)
            good = met & (true_norm <= self.limit)
            self.accept(good)
            restart = met & self.running
            stuck = restart & (true_norm > _LEAST_GAIN * self._refreshed)
            self.end(stuck, Status.STALLED)
            restart = restart & self.running
            self._refreshed = torch.where(restart, true_norm, self._refreshed)
            self.refreshes = self.refreshes + restart
            r = torch.where(self.spread(met), true, r)
        if self._patience is not None:
            self._foresee(norm, self._patience)
        if self.iterations.numel() and int(self.iterations.max()) % _LOOK_EVERY == 0:
            self.keep_best(x, norm)
        return r, restart

    def _foresee(self, norm: Tensor, patience: int) -> None:
        """End items that the rate of the last steps does not bring to the tolerance in time."""
        least = torch.minimum(norm, self._least[-1]) if self._least else norm
        if len(self._least) > 2 * RATE_STEPS:
            # Natural logarithms: what was gained, and what is still to be gained.
            fall = torch.log(self._least[-RATE_STEPS] / least)
            rest = torch.log(least / self.limit)
            steps = self.iterations
            is_slow = steps * fall + RATE_STEPS * rest > patience * fall
            self.end(is_slow, Status.MAX_ITERATIONS)
        self._least = [*self._least[-2 * RATE_STEPS :], least]

    def keep_best(self, x: Tensor, norm: Tensor) -> None:
        """Keep the iterates whose residuals are less than those of all kept before."""
        better = norm < self._best_norm
        self._best_norm = torch.where(better, norm, self._best_norm)
        self._best = (
            x.clone() if self._best is None else torch.where(self.spread(better), x, self._best)
        )

    def finish(self, x: Tensor, r: Tensor | None = None) -> Outcome:
        """Compute true residuals, choose the best iterates and report.

        Args:
            x: The last iterates.
            r: Their true residuals, if they are at hand.
        """
        norm = self.norm(self.residual(x) if r is None else r)
        # An iteration may meet the tolerance with its last step.
        self.accept(norm <= self.limit)
        if self._best is not None:
            failed = self.status != Status.CONVERGED
            best_norm = self.norm(self.residual(self._best))
            better = failed & ((best_norm < norm) | ~torch.isfinite(norm))
            x = torch.where(self.spread(better), self._best, x)
            norm = torch.where(better, best_norm, norm)
        # Zero leaves all of the right-hand side.
        is_worse = (norm > self.b_norm) | (norm.isnan() & self.b_norm.isfinite())
        x = torch.where(self.spread(is_worse), 0.0, x)
        norm = torch.where(is_worse, self.norm(self.b), norm)
        self._look_for_contradiction(x, norm)
        if self.null_space is not None:
            x = self.null_space.remove(x)
        total = torch.hypot(norm, self._outside)
        return Outcome(
            value=self.operator.mask(x) * self.scale,
            status=self.status,
            iterations=self.iterations,
            residual=(total / torch.where(self.b_norm > 0, self.b_norm, 1.0)).double(),
            counts={"refreshes": self.refreshes},
        )

    def _look_for_contradiction(self, x: Tensor, norm: Tensor) -> None:
        """End failed items of which the residual is a null vector as ``INFEASIBLE``.

        With :math:`A r = 0` every residual is as long as its part along ``r``, which is ``r``.
        """
        failed = (self.status != Status.CONVERGED) & (self.status != Status.NON_FINITE)
        if self.null_space is not None or not self.operator.is_symmetric or not bool(failed.any()):
            return
        apply = self.operator.apply
        image = apply(self.residual(x))
        # Both are at most the norm of the operator; what is left of the residual is rough.
        sizes = [self.norm(apply(v)) / self.norm(v).clamp(min=_TINY) for v in (self.b, image)]
        least = _LARGEST_IMAGE * torch.maximum(*sizes) * norm
        is_null = (self.norm(image) <= least) & (norm > self.limit)
        self.status = torch.where(failed & is_null, int(Status.INFEASIBLE), self.status)
