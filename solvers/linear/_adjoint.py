"""Where the backward pass starts: the last adjoint solution, scaled to fit."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from solvers.core import Status

if TYPE_CHECKING:
    from solvers.linear._prepared import Outcome

__all__ = ["AdjointStart"]

_ALIKE = 0.5


class AdjointStart:
    r"""Keeps the adjoint solution of a backward pass as the first guess of the next.

    One for each place of a program that solves again and again while its data move slowly: a step
    of a rollout under optimisation, a layer in training. Give it to every solve of that place; it
    outlives operators and preparations.

    The guess is :math:`\alpha \lambda` with the last solution :math:`\lambda` of
    :math:`A^\top \lambda = g` and :math:`\alpha = \langle g, g' \rangle / |g|^2` for the new
    cotangent :math:`g'`: if :math:`A` has not moved, no multiple leaves less residual, whatever
    became of the scale of the loss. Where the cotangents have less than half their directions in
    common, after a failed solve, for another shape or in a vectorised call the solve starts from
    zero. It ends by the same true residual in any case: gradients depend on their history within
    the tolerance of the solver only. Threads may share one.

    Cost: two inner products and two vectors of memory, and about one step of the solver. It pays
    where steps are dear or many; multigrid that takes eight steps needs six from a guess that is
    good to 1e-3.
    Reference: Fischer 1998, "Projection techniques for iterative solution of Ax = b with successive
    right-hand sides" (of one direction).

    Example:
        >>> from solvers.linear import ConjugateGradient, PoissonOperator, linear_solve
        >>> A = PoissonOperator.from_cells(torch.zeros(16, 16), outside=2)
        >>> start, solver = AdjointStart(), ConjugateGradient()
        >>> for scale in (1.0, 0.5):
        ...     b = torch.full((16, 16), scale, dtype=torch.float64, requires_grad=True)
        ...     linear_solve(A, b, solver, adjoint=start).value.square().sum().backward()
        >>> start.iterations
        0
    """

    def __init__(self) -> None:
        self.iterations = 0
        """Iterations of the last backward pass, the largest of a batch."""

        self._last: tuple[Tensor, Tensor] | None = None
        self._lock = threading.Lock()

    def guess(self, cotangent: Tensor, axes: int) -> Tensor | None:
        """The first guess for a cotangent; None to start from zero.

        Args:
            cotangent: Right-hand sides of the adjoint problem, shape ``(..., *domain)``.
            axes: Axes of one vector.
        """
        with self._lock:
            last = self._last
        if last is None or last[0].shape != cotangent.shape:
            return None
        known, solution = (part.to(cotangent) for part in last)
        own = tuple(range(-axes, 0))
        along = (known * cotangent).sum(own, keepdim=True)
        size = torch.linalg.vector_norm(known, dim=own, keepdim=True)
        other = torch.linalg.vector_norm(cotangent, dim=own, keepdim=True)
        is_alike = along.abs() > _ALIKE * size * other
        if not bool(is_alike.any()):
            return None
        return torch.where(is_alike, along / size.square() * solution, 0.0)

    def keep(self, cotangent: Tensor, outcome: Outcome) -> None:
        """Remember a solution if every item converged.

        Args:
            cotangent: Right-hand sides of the adjoint problem.
            outcome: What its solve gave.
        """
        good = bool((outcome.status == Status.CONVERGED).all())
        last = (cotangent.detach().clone(), outcome.value.detach().clone()) if good else None
        with self._lock:
            self._last = last
            self.iterations = int(outcome.iterations.max()) if outcome.iterations.numel() else 0
