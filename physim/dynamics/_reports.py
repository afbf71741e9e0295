"""Between what a caller asks and sees and the numbers of a solve."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from physim.dynamics._advance import REPORT, Advance, Smoothing
from solvers.core import Report, Status

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
        }

    def _real(self, name: str) -> Tensor:
        return self._rows[..., REPORT.index(name)]

    def _whole(self, name: str) -> Tensor:
        return self._real(name).to(torch.int64)


def done_report(done: Advance, good: Tensor | None = None) -> Report:
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
