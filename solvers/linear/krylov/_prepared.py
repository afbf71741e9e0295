"""What the iterative methods share: a preconditioner that follows the operator."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, Protocol

from torch import Tensor

from solvers.core import SettingsError, Status
from solvers.linear._precision import runs_in_double, widen
from solvers.linear._prepared import LinearSolver, Outcome, Prepared
from solvers.linear.operators._operator import LinearOperator
from solvers.linear.preconditioners._preconditioner import (
    Identity,
    Preconditioner,
    PreparedPreconditioner,
)

__all__ = ["PreconditionedSolver", "PreparedKrylov"]

_SLOWER = 1.5


class PreconditionedSolver(LinearSolver, Protocol):
    """Settings of an iterative method."""

    @property
    def preconditioner(self) -> Preconditioner | None:
        """Approximate inverse; none by default."""
        ...


class Pace:
    """Steps that a digit takes, since a preconditioner was made and in the last solve.

    A preconditioner with parts of earlier ones wears out. It is time for a new one as soon as a
    digit takes 1.5 times the steps that it took at first.
    """

    def __init__(self) -> None:
        self._first = self._last = math.nan

    @property
    def is_slow(self) -> bool:
        """Whether a digit takes so many more steps; no without two solves to compare."""
        return self._last > _SLOWER * self._first

    def observe(self, outcome: Outcome) -> None:
        """Look at a solve that started from zero."""
        residual = outcome.residual.double().clamp(min=1e-300)
        there = (residual < 1) & (outcome.iterations > 0)
        if not bool(there.any()):
            return
        digits = -float(residual[there].log10().sum())
        self._last = float(outcome.iterations[there].sum()) / digits
        if math.isnan(self._first):
            self._first = self._last


class PreparedKrylov(Prepared):
    """An iterative method with its preconditioner.

    Args:
        operator: The operator, with gradients.
        solver: The settings.
        preconditioner: One for this operator; made from the settings by default.
        pace: What is known of earlier solves with it.
    """

    def __init__(
        self,
        operator: LinearOperator,
        solver: PreconditionedSolver,
        preconditioner: PreparedPreconditioner | None = None,
        pace: Pace | None = None,
    ):
        self._plain = widen(operator.detach())
        self._settings: Any = solver
        self.preconditioner = self._precondition() if preconditioner is None else preconditioner
        self._pace = Pace() if pace is None else pace
        self._is_checked = False
        inner = self.preconditioner.label
        name = type(solver).__name__
        super().__init__(operator, solver, f"{name} with {inner}" if inner else name)

    @runs_in_double
    def run(self, b: Tensor, x0: Tensor | None) -> Outcome:
        outcome = self._solve(b, x0)
        failed = outcome.status != Status.CONVERGED
        if self.preconditioner.is_worn and bool(failed.any()):
            self.preconditioner = self._precondition()
            self._pace = Pace()
            outcome = self._solve(b, x0)
        if x0 is None:
            self._pace.observe(outcome)
        return outcome

    def _precondition(self) -> PreparedPreconditioner:
        settings: Preconditioner | None = self._settings.preconditioner
        if isinstance(settings, type) or not isinstance(settings, Preconditioner | None):
            raise SettingsError(
                f"preconditioner: got {settings!r}, expected settings such as Jacobi(), or None"
            )
        return Identity() if settings is None else settings.prepare(self._plain)

    @abstractmethod
    def _solve(self, b: Tensor, x0: Tensor | None) -> Outcome:
        """Run the method."""

    def _check(self) -> None:
        """Check the numbers of the operator, once."""
        if not self._is_checked:
            self._plain.check()
            self._is_checked = True

    def update(self, operator: LinearOperator) -> Prepared:
        """Go on with the preconditioner, unless its solves have become slow.

        Where a solve fails with a worn preconditioner, a new one gets a try.
        """
        is_alike = (operator.domain, operator.is_symmetric) == (
            self.operator.domain,
            self.operator.is_symmetric,
        )
        if is_alike and not self._pace.is_slow:
            kept = self.preconditioner.update(widen(operator.detach()))
            if kept is not None:
                return type(self)(operator, self._settings, kept, self._pace)
        return self.solver.prepare(operator)
