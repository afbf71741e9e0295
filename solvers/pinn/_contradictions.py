"""Conditions that a field does not satisfy although it was built for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from solvers.kernels import Symbol, Tape, evaluate, reverse, scalar
from solvers.pde import Condition, Dirichlet, Initial, Periodic, Problem
from solvers.pinn._given import Function, faces_of, function_of

__all__ = ["contradicted"]

_POINTS = 128
_AGREES = 1e-6
"""Largest share of the field's size by which data may differ where they meet."""
_TIME = "t"


def contradicted(
    problem: Problem,
    name: str,
    held: Sequence[Condition],
    given: Function,
) -> list[Condition]:
    """Compare a field with the data that it was built from.

    Args:
        problem: The problem, on a box.
        name: Name of the field.
        held: Initial states and given faces that the field was built for.
        given: The field without the network's part.

    Returns:
        Conditions that it misses, those to give up first in front; an initial state also where
        the field does not close over a period.
    """
    field = _Sampled(problem, given)
    starts = [condition for condition in held if isinstance(condition, Initial)]
    faces = [condition for condition in held if isinstance(condition, Dirichlet)]
    broken: list[Condition] = []
    for start in starts:
        wanted = function_of(problem, start.values.get(name, 0.0))
        is_met = field.takes(wanted, _TIME, "lower")
        if name in start.rates:
            rate = function_of(problem, start.rates[name])
            is_met = is_met and field.takes(rate, _TIME, "lower", along=_TIME)
        if not is_met:
            broken.append(start)
    periods = [
        condition
        for condition in problem.conditions
        if isinstance(condition, Periodic) and name in condition.bound_fields(problem.fields)
    ]
    if not all(field.closes(at.axis, at.order, at.rise.get(name, 0.0)) for at in periods):
        broken += [*starts, *faces]
    for face in faces:
        wanted = function_of(problem, face.values[name])
        if not all(field.takes(wanted, axis, side) for axis, side in faces_of(problem, face)):
            broken.append(face)
    return broken


class _Sampled:
    """A recorded field at points of a box and of its faces."""

    def __init__(self, problem: Problem, given: Function) -> None:
        domain = problem.domain
        self._domain = domain
        self._x = Tape().inputs("x", domain.dimension)
        self._field = given(self._x)
        unit = torch.quasirandom.SobolEngine(domain.dimension).draw(_POINTS + 1)[1:].double()
        bounds = torch.tensor([domain.bounds[axis] for axis in domain.axes], dtype=torch.float64)
        self._points = bounds[:, 0] + unit * (bounds[:, 1] - bounds[:, 0])

    def takes(self, wanted: Function, axis: str, side: str, along: str | None = None) -> bool:
        """Whether the field, or its slope along an axis, has given values on a face."""
        field = self._field if along is None else self._slope(self._field, along)
        points = self._face(axis, side)
        data = self._at(wanted(self._x), points)
        size = max(float(self._at(field, self._points).abs().max()), float(data.abs().max()))
        return float((self._at(field, points) - data).abs().max()) <= _AGREES * size

    def closes(self, axis: str, order: int, rise: float) -> bool:
        """Whether the field, but for its rise, and its derivatives are equal at both ends."""
        field = self._field
        for degree in range(order + 1):
            if degree:
                field = self._slope(field, axis)
            ends = [self._at(field, self._face(axis, side)) for side in ("lower", "upper")]
            size = float(self._at(field, self._points).abs().max())
            gap = ends[0] - ends[1] + (0.0 if degree else rise)
            if not float(gap.abs().max()) <= _AGREES * size:
                return False
        return True

    def _slope(self, field: Any, axis: str) -> Any:
        if not isinstance(field, Symbol):
            return 0.0
        (slope,) = reverse([(field, 1.0)], [self._x[self._domain.axis(axis)]])
        return slope

    def _face(self, axis: str, side: str) -> Tensor:
        points = self._points.clone()
        points[:, self._domain.axis(axis)] = self._domain.bounds[axis][side == "upper"]
        return points

    def _at(self, field: Any, points: Tensor) -> Tensor:
        (values,) = evaluate([scalar.add(field, 0.0)], {"x": list(points.unbind(1))})
        return torch.as_tensor(values, dtype=torch.float64).expand(len(points))
