"""A fit: the training loop on an objective, with rows of numbers for a history."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from solvers.pinn._optimizers import Optimizer, make_schedule
from solvers.training import Objective, Record, Training, train

__all__ = ["Row", "fit", "row_of"]

Row = Mapping[str, float]

_RECORDS = 1.05
"""Factor between the times of two rows of a history."""


def fit(
    objective: Objective,
    *,
    optimizer: Optimizer,
    budget: float,
    tolerance: float | None,
    steps: int | None,
    cpu_budget: float | None,
    target: float | None,
    resample_every: int | None,
    reweight_every: int | None,
    checkpoint: str | os.PathLike[str] | None,
    checkpoint_every: float,
    settings: Mapping[str, Any],
    progress: bool | None,
    callback: Callable[[Row], object] | None,
    description: str,
) -> Training:
    """Train an objective; `PINN.fit` describes the arguments."""
    phases = make_schedule(optimizer)
    return train(
        objective,
        phases,
        steps=steps,
        budget=budget,
        cpu_budget=cpu_budget,
        tolerance=tolerance,
        targets=None if target is None else {"relative_l2": target},
        resample_every=resample_every,
        reweight_every=reweight_every,
        record_every=_RECORDS,
        checkpoint=checkpoint,
        checkpoint_every=checkpoint_every,
        settings={**settings, "optimizer": [phase.name for phase in phases]},
        callback=None if callback is None else lambda record: callback(row_of(record)),
        progress=progress,
        description=description,
        on_failure="mask",
    )


def row_of(record: Record) -> dict[str, float]:
    """A row of a history, numbers only."""
    assert record.held_out is not None
    return {
        "step": float(record.step),
        "seconds": record.seconds,
        "cpu_seconds": record.cpu_seconds,
        "loss": record.loss,
        "held_out": record.held_out,
        **record.measures,
    }
