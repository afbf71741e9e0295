"""A sign that coefficients come from noise: fields nearer to measurements than these are good."""

from __future__ import annotations

import warnings

import torch

from solvers.core import NumericalWarning
from solvers.pde import Data, Problem
from solvers.pinn._result import FieldNetwork

__all__ = ["warn_of_followed_noise"]

_FEWEST = 20
"""Measurements from which the mean square of their misfits says something."""

_FOLLOWED = 0.25
"""Mean square of misfits, in units of the noise, below which a network follows it."""


def warn_of_followed_noise(problem: Problem, fields: FieldNetwork) -> None:
    """Warn where a network of an inverse problem passes through its measurements.

    With the right coefficients misfits are as large as the noise, but for as many of them as there
    are free parameters. A network that follows the noise bends the equation, and the coefficients
    with it, whatever the loss is.

    Args:
        problem: The problem; looked at if coefficients are sought.
        fields: What was found.
    """
    if not problem.unknown:
        return
    for condition in problem.conditions:
        if not isinstance(condition, Data) or condition.scale == 1.0:
            continue
        points = problem.place_condition(condition, 1).points
        if len(points) < _FEWEST:
            continue
        with torch.no_grad():
            found = fields(points)
        for name, given in condition.values.items():
            misfit = (found[:, problem.fields.index(name)] - given) / condition.scale
            share = float(misfit.square().mean())
            if share < _FOLLOWED:
                warnings.warn(
                    f"{problem.name}: the field follows the noise of the data of {name}, with "
                    f"misfits of {share**0.5:.2g} times their scale of {condition.scale:g}, and "
                    f"{', '.join(problem.unknown)} may be far off; take "
                    f"condition_weight={condition.scale**2:.0e} or less, and more points",
                    NumericalWarning,
                    stacklevel=4,
                )
