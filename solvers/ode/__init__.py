"""Ordinary differential equations for batches: a status, steps and an end for every item."""

from __future__ import annotations

from solvers.ode._compare import GradientCost, compare_gradients
from solvers.ode._fixed import FixedMethod, integrate_steps
from solvers.ode._integrate import Integral, integrate

__all__ = [
    "FixedMethod",
    "GradientCost",
    "Integral",
    "compare_gradients",
    "integrate",
    "integrate_steps",
]
