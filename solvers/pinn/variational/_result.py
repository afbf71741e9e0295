"""What a variational solver found: fields, their energy, and errors with their own error bars."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from solvers.pde import Ball, Box, Domain, Problem
from solvers.pinn._result import TrainedField
from solvers.pinn.variational._quadrature import (
    Estimate,
    Quadrature,
    gauss_legendre,
    quasi_monte_carlo,
    replicate_mean,
)

__all__ = ["RitzResult", "measuring_rule", "relative_l2"]

_COUNTS = {1: 200, 2: 48, 3: 20}
"""Gauss points along each axis for errors, by number of axes."""

_SOBOL_POINTS, _REPLICATES, _CONCENTRATION = 2**15, 8, 0.8


def measuring_rule(domain: Domain, points: int = _SOBOL_POINTS) -> Quadrature:
    """Points to measure at, which no training saw; ``points`` of them where they are sampled."""
    if isinstance(domain, Box | Ball) and domain.dimension in _COUNTS:
        return gauss_legendre(domain, _COUNTS[domain.dimension])
    return quasi_monte_carlo(
        domain, points, replicates=_REPLICATES, concentration=_CONCENTRATION,
        generator=torch.Generator().manual_seed(2**31 - 1),
    )  # fmt: skip


def relative_l2(
    rule: Quadrature, fields: Float[Tensor, "N F"], reference: Float[Tensor, "N F"]
) -> Estimate:
    """Relative L2 error on a rule, its standard error from the independent parts."""

    def squares(values: Tensor) -> Tensor:
        weighted = rule.weights * values.square().sum(1)
        return weighted.view(rule.replicates, -1).sum(1)

    above, below = squares(fields - reference), squares(reference)
    value = float((above.sum() / below.sum()).sqrt())
    return Estimate(value, replicate_mean((above / below).sqrt()).error)


@dataclass(frozen=True, kw_only=True, eq=False)
class RitzResult(TrainedField):
    """What `DeepRitz.fit` found.

    Attributes:
        network: Fields as a module: points ``(N, D)`` to ``(N, fields)``.
        energy: Least energy, on points that were not trained on.
        report: Status, iterations, and as residual the root mean square of the Euler-Lagrange
            equations over that of a network that is zero, where nothing was trained; counts hold
            ``evaluations``.
        history: Rows of ``step``, ``seconds``, ``cpu_seconds``, ``energy`` (on the points of
            now), ``held_out`` (the residual) and, where it was asked for, ``relative_l2``.
    """

    energy: Estimate

    @property
    def relative_l2(self) -> Estimate:
        """Relative L2 error against the problem's reference, with its standard error.

        Raises:
            SettingsError: If the problem has no reference.
        """
        rule = measuring_rule(self.problem.domain)
        with torch.no_grad():
            fields = self.network(rule.points)
        return relative_l2(rule, fields, reference_fields(self.problem, rule.points))


def reference_fields(problem: Problem, points: Float[Tensor, "N d"]) -> Float[Tensor, "N F"]:
    """The reference solution, a column for each field."""
    values = problem.reference_values(points)
    return torch.stack([values[name] for name in problem.fields], dim=1)
