"""Coefficients to be found may stand in the given values of conditions, and not in the equation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from solvers.core import SettingsError
from solvers.pde import Box, Condition, Data, Dirichlet, Initial, Neumann, Problem, Robin
from solvers.pinn import MLP, PINN

LOWER = Dirichlet(axis="x", side="lower", u=0.0)
MEASURED = Data({"x": torch.tensor([0.5])}, u=torch.tensor([1.0]))


def found(problem: Problem) -> float:
    solver = PINN(problem, MLP(width=6, depth=1), points=30, condition_points=10, backend="sweep")
    return solver.fit(60, steps=150).coefficients["k"]


def line(condition: Condition) -> Problem:
    """A line from zero through one in the middle: value and slope two at the end."""
    return Problem(
        name="line", domain=Box(x=(0, 1)), residual=lambda u, x: u.xx,
        coefficients={"k": 1.0}, unknown=("k",), conditions=[LOWER, condition, MEASURED],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (Dirichlet(axis="x", side="upper", u=lambda x, k: k * x), 2.0),
        (Neumann(axis="x", side="upper", u=lambda k: 4 * k), 0.5),
        (Robin(axis="x", side="upper", a=2.0, b=1.0, u=lambda k: k * k), math.sqrt(6.0)),
    ],
    ids=["dirichlet", "neumann", "robin"],
)
def test_a_value_on_the_boundary_is_found(condition: Condition, expected: float) -> None:
    assert found(line(condition)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("start", "measured"),
    [
        ({"u": lambda k: k, "u_t": 0.0}, 2.0 * math.cos(1.0)),
        ({"u": 0.0, "u_t": lambda k: 2 * k}, 2.0 * math.sin(1.0)),
    ],
    ids=["value", "rate"],
)
def test_a_start_is_found(start: dict[str, Any], measured: float) -> None:
    data = Data({"t": torch.tensor([0.5])}, u=torch.tensor([measured], dtype=torch.float64))
    spring = Problem(
        name="spring", domain=Box(t=(0, 1)), residual=lambda u, t: u.tt + 4 * u,
        coefficients={"k": 1.0}, unknown=("k",), conditions=[Initial(**start), data],
    )  # fmt: skip
    assert found(spring) == pytest.approx(2.0, rel=1e-3)


def in_numpy(k: Any) -> Any:
    return np.cosh(k)


def test_what_cannot_be_recorded_is_refused() -> None:
    problem = line(Neumann(axis="x", side="upper", u=in_numpy))
    with pytest.raises(SettingsError, match=r"'neumann x upper u' depends on k.*functions"):
        PINN(problem, MLP(width=6, depth=1), points=30, backend="sweep")
