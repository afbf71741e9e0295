"""Optimizers that take residuals, in the one loop."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from solvers.core import SettingsError
from solvers.optim import GNS
from solvers.training import LeastSquares, Objective, Phase, train


@pytest.mark.parametrize(
    ("residual", "words"),
    [
        (lambda x: x.detach() - 1.0, "residual: does not depend on the parameters.*graph.*detach"),
        (lambda x: (x - 1.0).tolist(), "residual: gave list, expected a tensor"),
        (lambda x: None, "residual: gave NoneType, expected a tensor"),
    ],
)
def test_least_squares_need_residuals_with_a_graph(
    residual: Callable[[Tensor], object], words: str
) -> None:
    x = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    objective = Objective(
        [x],
        lambda: {"bowl": 0.5 * (x - 1.0).square().sum()},
        residual=lambda: residual(x),  # type: ignore[arg-type,return-value]
    )
    phase = Phase(name="GNS", method=lambda o: LeastSquares(o, GNS))
    with pytest.raises(SettingsError, match=words):
        train(objective, phase, steps=3)


def test_residuals_are_not_differentiated_where_autograd_is_off() -> None:
    x = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    objective = Objective(
        [x],
        lambda: {"bowl": 0.5 * (x - 1.0).square().sum()},
        residual=lambda: x - 1.0,
    )
    phase = Phase(name="GNS", method=lambda o: LeastSquares(o, GNS))
    with torch.no_grad():
        found = train(objective, phase, steps=30, tolerance=1e-12)
    assert bool(found.converged)
