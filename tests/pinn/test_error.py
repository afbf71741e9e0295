"""Errors leave out what a problem does not determine, and nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from solvers.pde import Box, Dirichlet, Initial, Neumann, Problem, problems
from solvers.pinn._error import ErrorMeter, is_up_to_constant

TAYLOR_GREEN = problems.TaylorGreen()


class Shifted(nn.Module):
    """The reference plus a shift of each field."""

    def __init__(self, shift: object) -> None:
        super().__init__()
        self.shift = shift

    def forward(self, points: Tensor) -> Tensor:
        values = TAYLOR_GREEN.reference_values(points)
        shifts = self.shift(points[:, 2])  # type: ignore[operator]
        return torch.stack([v + s for v, s in zip(values.values(), shifts, strict=True)], 1)


def test_a_pressure_may_drift_in_time_and_a_velocity_may_not() -> None:
    meter = ErrorMeter(TAYLOR_GREEN)
    assert meter(Shifted(lambda t: (0 * t, 0 * t, 3 + t))) < 1e-12
    assert meter(Shifted(lambda t: (0 * t, t, 0 * t))) > 0.1
    # A slope in space is an error of the pressure, too.
    assert meter(Shifted(lambda t: (0 * t, 0 * t, torch.linspace(0, 1, len(t))))) > 0.1


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ([Dirichlet(u=0.0), Neumann(p=0.0)], True),
        ([Dirichlet(u=0.0), Initial(u=0.0, p=1.0)], True),
        ([Dirichlet(u=0.0), Dirichlet(axis="x", side="lower", p=0.0)], False),
    ],
)
def test_values_on_the_boundary_fix_the_constant(
    conditions: list[Dirichlet | Neumann | Initial], expected: bool
) -> None:
    flow = Problem(
        "flow",
        domain=Box(x=(0, 1), t=(0, 1)),
        fields=("u", "p"),
        residual=lambda u, p: (u.t + p.x - u.xx, p.xx - u.x),
        conditions=[Initial(u=0.0), Neumann(axis="x", side="both", p=0.0), *conditions],
    )
    assert is_up_to_constant(flow, "p") is expected
    assert not is_up_to_constant(flow, "u")
