"""Between what a caller asks and sees and the numbers of a solve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from physim.dynamics._advance import REPORT, Advance, Smoothing
from physim.dynamics._assembly import StepData
from physim.dynamics._inputs import Parameters, finite_items
from physim.dynamics._state import State
from solvers.core import OnFailure, Report, Status, apply_on_failure

if TYPE_CHECKING:
    from physim.dynamics._simulator import Simulator


def step_smoothing(simulator: Simulator, state: float, *, with_gradient: bool) -> Smoothing:
    """Path parameters of a dimensionless smoothing, and of the gradient's if one is wanted."""
    gradient = simulator.gradient_smoothing if with_gradient else state
    known = simulator._smoothings.get((state, gradient))
    if known is None:
        scales, timestep = simulator.mechanism.scales, simulator.timestep
        known = Smoothing(
            state=scales.kappa(state, timestep),
            gradient=None if gradient == state else scales.kappa(gradient, timestep),
        )
        simulator._smoothings[state, gradient] = known
    return known


class StepReport(Report):
    """Report of steps that reads its numbers off the solver's rows when it is asked.

    Args:
        rows: `REPORT` of each item (..., 9).
    """

    __slots__ = ("_rows",)
    _rows: Tensor

    def __init__(self, rows: Tensor) -> None:
        object.__setattr__(self, "_rows", rows)

    def __reduce__(self) -> tuple[type[StepReport], tuple[Tensor]]:
        """Rows are all there is to copy or send."""
        return StepReport, (self._rows,)

    @classmethod
    def joined(cls, reports: Sequence[StepReport]) -> StepReport:
        """One report of consecutive steps."""
        return reports[0] if len(reports) == 1 else cls(torch.cat([r._rows for r in reports]))

    @property
    def status(self) -> Tensor:
        """`Status` of each item."""
        return self._whole("status")

    @property
    def iterations(self) -> Tensor:
        """Iterations of each item."""
        return self._whole("iterations")

    @property
    def residual(self) -> Tensor:
        """Final residual of each item."""
        return self._real("residual")

    @property
    def counts(self) -> dict[str, Tensor]:
        """What else was counted per item."""
        return {
            "parts": self._whole("parts"),
            "rescues": self._whole("rescues"),
            "min_gap": self._real("min_gap"),
            "kappa_error": self._real("kappa_error"),
            "unverified": self._whole("unverified"),
            "no_gradient": self._without_gradient(),
        }

    def _without_gradient(self) -> Tensor:
        """1 for what was solved, but not at the smoothing of its gradient, which is zero then."""
        solved = self._real("status") == Status.CONVERGED
        solved = solved & (self._real("parts") < 1.5)
        return (solved & (self._real("gradient_solved") < 0.5)).to(torch.int64)

    def _real(self, name: str) -> Tensor:
        return self._rows[..., REPORT.index(name)]

    def _whole(self, name: str) -> Tensor:
        return self._real(name).to(torch.int64)


def done_report(done: Advance, good: Tensor | None = None) -> StepReport:
    """Report of steps; its shape is that of the steps.

    Args:
        done: What the solver gave.
        good: Which items had finite inputs (B,); all if None.
    """
    rows = done.report
    if good is not None:
        status = REPORT.index("status")
        rows = rows.clone()
        rows[..., status] = torch.where(good, rows[..., status], float(Status.NON_FINITE))
    return StepReport(rows)


def ended(
    done: Advance,
    data: StepData,
    parameters: Parameters | None,
    *,
    keeps_interval: bool,
    on_failure: OnFailure,
) -> tuple[State, Report]:
    """State and report after one step, and what the caller wants of items that failed.

    Args:
        done: What the solver gave.
        data: The step's inputs.
        parameters: Those that were given.
        keeps_interval: Whether the state says how long its interval is even if no item was cut.
        on_failure: As in `Simulator.step`.
    """
    report, totals = done_report(done), done.totals()
    interval = None
    if keeps_interval or totals.parts != done.report.shape[0]:
        interval = data.timestep / done.column("parts")
    following = State(q=done.q, v=done.v, interval=interval, impulses=done.impulses)
    if totals.status:
        report = done_report(done, finite_items(data, on_failure, parameters))
        outcome = (following, report)
        apply_on_failure(report, on_failure, solution=outcome, what="Simulator.step", stacklevel=3)
    return following, report
