"""A trained map with the state along it, seen from space: callable, comparable, savable."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from solvers.core import (
    InfeasibleError,
    NotConvergedError,
    OnFailure,
    Report,
    SettingsError,
    Solution,
    Status,
    apply_on_failure,
)
from solvers.pde import Problem, evaluation_grid
from solvers.pinn._characteristics import LabelDomain, label_domain
from solvers.pinn._labels import Transport
from solvers.pinn._lagrangian_inversion import (
    describe_failures,
    find_labels,
    map_and_jacobian,
    settle,
)
from solvers.pinn._outside import is_outside, warn_outside
from solvers.pinn._result import TrainedField, points_at

__all__ = ["LabelMeter", "LagrangianResult"]

_METER = {1: (128, 21), 2: (21, 21, 9)}
_GRID = {1: (256, 41), 2: (41, 41, 21)}
_JACOBIAN_GRID = {1: (512, 41), 2: (65, 65, 21)}


@dataclass(frozen=True, kw_only=True, eq=False)
class LagrangianResult(TrainedField):
    """What `LagrangianPINN.fit` found.

    Attributes:
        transport: Its speed, diffusivity and source.
        network: Labels and times ``(N, d + 1)`` to positions and states ``(N, d + 1)``.
        report: As `PINNResult.report`.
        history: As `PINNResult.history`.
    """

    transport: Transport

    def __call__(self, *coordinates: Tensor | float, **named: Tensor | float) -> Tensor:
        """Evaluate the field at places, by finding the labels that have come there.

        Args:
            *coordinates: Places along each axis, then times; shapes that broadcast.
            **named: The same by name.

        Returns:
            Values of the broadcast shape, float64; first derivatives by places, times and
            parameters are those of the field.

        Raises:
            InfeasibleError: If no label reaches a point.
            NotConvergedError: If labels have crossed, so that several are at one place.
            SettingsError: If not every axis has one coordinate.
        """
        return self.evaluate(*coordinates, on_failure="raise", **named).value

    def evaluate(
        self,
        *coordinates: Tensor | float,
        on_failure: OnFailure = "raise",
        **named: Tensor | float,
    ) -> Solution[Tensor]:
        """Evaluate the field and tell of each point how its label was found.

        Args:
            *coordinates: As when called.
            **named: The same by name.
            on_failure: What happens if a point has no label, or several.

        Returns:
            Values, NaN where there is no label, with a report of the broadcast shape.

        Raises:
            InfeasibleError: If ``on_failure="raise"`` and no label reaches a point.
            NotConvergedError: If ``on_failure="raise"`` and labels have crossed.
            SettingsError: If not every axis has one coordinate.

        Warns:
            NumericalWarning: If a time was not trained at.
        """
        points, shape = points_at(self.problem, coordinates, named)
        # Paths lead out of the domain and are trained there; times are not.
        inside = points.detach().clone()
        inside[:, :-1] = 0.5 * (self.problem.domain.lower + self.problem.domain.upper)[:-1]
        warn_outside(self.problem, points, is_outside(self.problem, inside), stacklevel=3)
        found = self._find(points)
        self._complain(found, points, on_failure)
        labels, times = found.value, points[:, -1]
        if torch.is_grad_enabled() and bool(found.converged.any()):
            good = found.converged
            settled = settle(self.network, labels[good], points[good, :-1], times[good])
            labels = labels.index_put((good.nonzero()[:, 0],), settled)
        values = self.network(torch.cat([labels, times[:, None]], 1))[:, -1]
        values = torch.where(found.converged, values, torch.nan)
        return Solution(value=values.reshape(shape), report=_reshaped(found.report, shape))

    def labels(
        self,
        *coordinates: Tensor | float,
        on_failure: OnFailure = "raise",
        **named: Tensor | float,
    ) -> Solution[Tensor]:
        """Find the labels at places.

        Args:
            *coordinates: As when called.
            **named: The same by name.
            on_failure: What happens if a point has no label, or several.

        Returns:
            Labels of the broadcast shape with one more axis of ``d``, and a report: ``INFEASIBLE``
            where no label reaches, ``BREAKDOWN`` where labels have crossed; residuals are distances
            over the size of the domain.

        Raises:
            InfeasibleError: If ``on_failure="raise"`` and no label reaches a point.
            NotConvergedError: If ``on_failure="raise"`` and labels have crossed.
            SettingsError: If not every axis has one coordinate.
        """
        points, shape = points_at(self.problem, coordinates, named)
        found = self._find(points)
        self._complain(found, points, on_failure)
        value = found.value.reshape(*shape, self.transport.dimension)
        return Solution(value=value, report=_reshaped(found.report, shape))

    def _find(self, points: Tensor) -> Solution[Tensor]:
        return find_labels(
            self.network, self.problem, self.label_domain, points[:, :-1], points[:, -1]
        )

    def _complain(self, found: Solution[Tensor], points: Tensor, on_failure: OnFailure) -> None:
        if on_failure == "raise" and not found.all_converged:
            text = describe_failures(found, self.problem.domain.axes, points)
            no_label = (found.status == Status.INFEASIBLE) | found.converged
            kind = InfeasibleError if bool(no_label.all()) else NotConvergedError
            raise kind(
                f"{self.problem.name}: {text}. Train longer, take formulation='viscous' where "
                "something diffuses, stop before characteristics cross, or give more labels with "
                "labels=...; evaluate(on_failure='mask') has NaN there",
                solution=found,
            )
        apply_on_failure(
            found.report, on_failure, solution=found, what="inversion of the map", stacklevel=3
        )

    @cached_property
    def label_domain(self) -> LabelDomain:
        """Range of the labels."""
        return label_domain(self.transport, self.settings.get("labels"), is_checked=True)

    @property
    def smallest_jacobian(self) -> float:
        """Least ``J`` on a grid of labels whose positions are in the domain.

        It tells how close labels have come, and is not positive if the map has folded.
        """
        grid = self.label_domain.box.grid(*_JACOBIAN_GRID[self.transport.dimension])
        positions, F = map_and_jacobian(self.network, grid[:, :-1], grid[:, -1])
        seen = _is_inside(self.problem, self.label_domain, positions)
        determinants = torch.linalg.det(F)
        return float((determinants[seen] if bool(seen.any()) else determinants).min())

    @property
    def relative_l2(self) -> float:
        """L2 error against the reference over that of its mean, on a regular grid in space.

        Infinite if some point has no label, or several: `evaluate` tells which.

        Raises:
            SettingsError: If the problem has no reference.
        """
        points = evaluation_grid(self.problem, *_GRID[self.transport.dimension])
        exact = self.problem.reference_values(points)[self.transport.field]
        with torch.no_grad():
            found = self.evaluate(*points.unbind(1), on_failure="mask")
        if not found.all_converged:
            return math.inf
        return float((found.value - exact).norm() / (exact - exact.mean()).norm())


def _reshaped(report: Report, shape: torch.Size) -> Report:
    return replace(
        report,
        status=report.status.reshape(shape),
        iterations=report.iterations.reshape(shape),
        residual=report.residual.reshape(shape),
    )


def _is_inside(problem: Problem, labels: LabelDomain, positions: Tensor) -> Tensor:
    lower, upper = problem.domain.lower[:-1], problem.domain.upper[:-1]
    inside = (positions >= lower) & (positions <= upper)
    return (inside | (torch.tensor(labels.periods) > 0)).all(1)


class LabelMeter:
    """Error at labels, weighted with the space that each stands for; nothing is inverted."""

    def __init__(self, transport: Transport, labels: LabelDomain) -> None:
        problem = transport.problem
        if problem.reference is None:
            raise SettingsError(f"{problem.name} has no reference solution")
        self._transport, self._labels = transport, labels
        self._points = labels.box.grid(*_METER[transport.dimension])

    def __call__(self, network: nn.Module) -> float:
        problem, points = self._transport.problem, self._points
        positions, F = map_and_jacobian(network, points[:, :-1], points[:, -1])
        with torch.no_grad():
            state = network(points)[:, -1]
        weight = torch.linalg.det(F).clamp(min=0.0) * _is_inside(problem, self._labels, positions)
        lower, upper = problem.domain.lower[:-1], problem.domain.upper[:-1]
        there = self._labels.wrap(positions, problem).maximum(lower).minimum(upper)
        exact = problem.reference_values(torch.cat([there, points[:, -1:]], 1))
        wanted = exact[self._transport.field]
        mean = (weight * wanted).sum() / weight.sum()
        total = (weight * (wanted - mean).square()).sum()
        return float(((weight * (state - wanted).square()).sum() / total).sqrt())
