"""Between what a caller asks and sees and the numbers of a solve."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from physim.dynamics._advance import Advance, Smoothing
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


def done_report(done: Advance, good: Tensor | None) -> Report:
    """Report of steps; its shape is that of the steps.

    Args:
        done: What the solver gave.
        good: Which items had finite inputs (B,); all if None.
    """
    whole = {name: done.column(name).detach() for name in ("parts", "rescues")}
    counts = {name: x.to(torch.int64) for name, x in whole.items()}
    counts["min_gap"] = done.column("min_gap").detach()
    counts["kappa_error"] = done.column("kappa_error").detach()
    unverified = (done.column("is_exact") < 0.5) & (done.column("solved") > 0.5)
    counts["unverified"] = unverified.detach().to(torch.int64)
    status = done.status().detach()
    if good is not None:
        status = torch.where(good, status, int(Status.NON_FINITE))
    return Report(
        status=status,
        iterations=done.column("iterations").detach().to(torch.int64),
        residual=done.column("residual").detach(),
        counts=counts,
    )
