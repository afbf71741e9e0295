"""What a training meets at its last step, where no record was due."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from solvers.core import Status
from solvers.training import FirstOrder, Objective, Phase, train


@pytest.mark.parametrize("end", ["flat", "through"])
@pytest.mark.parametrize("asked", ["tolerance", "target"])
def test_what_is_met_at_the_last_step_is_met(end: str, asked: str) -> None:
    x = torch.full((2,), 3.0, dtype=torch.float64, requires_grad=True)
    objective = Objective(
        [x], lambda: {"bowl": 0.5 * x.square().sum()}, measures={"norm": lambda: float(x.norm())}
    )
    phase = Phase(
        name="SGD", patience=20, steps=30 if end == "through" else None,
        method=lambda o: FirstOrder(o, lambda p: torch.optim.SGD(p, lr=0.9)),
    )  # fmt: skip
    limits: dict[str, Any] = (
        {"tolerance": 1e-3} if asked == "tolerance" else {"targets": {"norm": 1e-3}}
    )
    # No record is due before the end, which is where the number is seen to be met.
    result = train(objective, phase, steps=10_000, record_every=9_999, **limits)
    assert int(result.iterations) < 9_999
    assert int(result.status) == Status.CONVERGED
