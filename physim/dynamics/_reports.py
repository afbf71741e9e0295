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
    scales, timestep = simulator.mechanism.scales, simulator.timestep
    gradient = simulator.gradient_smoothing
    return Smoothing(
        state=scales.kappa(state, timestep),
        gradient=scales.kappa(gradient, timestep) if with_gradient and gradient != state else None,
    )


def done_report(done: Advance, good: Tensor | None = None) -> Report:
    """Report of steps; its shape is that of the steps.

    Args:
        done: What the solver gave.
        good: Which items had finite inputs (B,); all if None.
    """
    numbers = done.report.detach()
    real = dict(zip(REPORT, numbers.unbind(-1), strict=True))
    whole = dict(zip(REPORT, numbers.to(torch.int64).unbind(-1), strict=True))
    status = whole["status"]
    if good is not None:
        status = torch.where(good, status, int(Status.NON_FINITE))
    return Report(
        status=status,
        iterations=whole["iterations"],
        residual=real["residual"],
        counts={
            "parts": whole["parts"],
            "rescues": whole["rescues"],
            "min_gap": real["min_gap"],
            "kappa_error": real["kappa_error"],
            "unverified": whole["unverified"],
        },
    )
