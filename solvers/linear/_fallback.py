"""A second method for the items that a first one fails."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from solvers.core import Status
from solvers.linear._prepared import LinearSolver, Outcome, Prepared, expand_right_hand_side
from solvers.linear.operators._operator import LinearOperator

__all__ = ["Fallback"]

_CURABLE = (Status.MAX_ITERATIONS, Status.STALLED, Status.BREAKDOWN)


@dataclass(frozen=True, slots=True)
class Fallback:
    """Solve with ``first``; hand the items that it fails over to ``then``.

    An item that is handed over starts from the best iterate of the first method. The second method
    is prepared when it is needed for the first time. ``counts["handed_over"]`` of the report says
    for which items that was.

    Args:
        first: A fast method with a limit on its iterations.
        then: A robust one.

    Example:
        >>> from solvers.linear import ConjugateGradient, DenseOperator, MINRES, linear_solve
        >>> A = DenseOperator(torch.diag(torch.tensor([1.0, -1.0], dtype=torch.float64)))
        >>> b = torch.tensor([1.0, 2.0], dtype=torch.float64)
        >>> solution = linear_solve(A, b, Fallback(ConjugateGradient(), MINRES()))
        >>> solution.all_converged, int(solution.report.counts["handed_over"])
        (True, 1)
    """

    first: LinearSolver
    then: LinearSolver

    def prepare(self, operator: LinearOperator) -> Prepared:
        """Prepare the first method.

        Args:
            operator: An operator that suits both.
        """
        return _PreparedFallback(operator, self, self.first.prepare(operator))


class _PreparedFallback(Prepared):
    def __init__(
        self,
        operator: LinearOperator,
        solver: Fallback,
        first: Prepared,
        then: Prepared | None = None,
    ):
        self._first = first
        self._then = then
        self._settings = solver
        super().__init__(operator, solver, first.label)

    def update(self, operator: LinearOperator) -> Prepared:
        """Update what is prepared."""
        then = None if self._then is None else self._then.update(operator)
        return _PreparedFallback(operator, self._settings, self._first.update(operator), then)

    def run(self, b: Tensor, x0: Tensor | None) -> Outcome:
        outcome = self._first.run(b, x0)
        # What is not finite though the right-hand side is comes from the method.
        axes = tuple(range(-len(self.operator.codomain), 0))
        failed = (outcome.status == Status.NON_FINITE) & b.isfinite().all(dim=axes)
        for status in _CURABLE:
            failed = failed | (outcome.status == status)
        counts = {"handed_over": failed.to(torch.int64)}
        if not bool(failed.any()):
            return Outcome(
                value=outcome.value,
                status=outcome.status,
                iterations=outcome.iterations,
                residual=outcome.residual,
                counts=counts,
            )
        if self._then is None:
            self._then = self._settings.then.prepare(self.operator)
        # Items without a right-hand side end at once.
        where = failed.reshape(*failed.shape, *(1,) * len(self.operator.domain))
        b = torch.where(where, expand_right_hand_side(self.operator, b), 0.0)
        second = self._then.run(b, torch.where(where, outcome.value.nan_to_num(), 0.0))
        self.label = f"{self._first.label}, then {self._then.label}"
        # Where both fail, the better iterate stays.
        is_lost = (second.status != Status.CONVERGED) & (outcome.residual < second.residual)
        taken = failed & ~is_lost
        spread = taken.reshape(where.shape)
        return Outcome(
            value=torch.where(spread, second.value, outcome.value),
            status=torch.where(failed, second.status, outcome.status),
            iterations=outcome.iterations + torch.where(failed, second.iterations, 0),
            residual=torch.where(taken, second.residual, outcome.residual),
            counts=counts,
        )

    def transpose(self) -> Prepared:
        """Itself if the operator is symmetric."""
        if self.operator.is_symmetric:
            return self
        return self._settings.prepare(self.operator.transpose())
