"""A box cut into a grid of boxes, and what of a problem's conditions each of them has."""

from __future__ import annotations

import copy
import inspect
import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from solvers.core import SettingsError
from solvers.pde import (
    Box,
    Condition,
    Data,
    Dirichlet,
    Initial,
    Neumann,
    Periodic,
    Problem,
    Robin,
)
from solvers.pinn._arguments import check_problem

__all__ = ["check_divisible", "conditions_within", "cut", "state_at"]


def check_divisible(problem: Problem) -> Box:
    """The box of a problem that can be cut.

    Raises:
        SettingsError: If the domain is no box or coefficients are to be found.
    """
    check_problem(problem)
    if not isinstance(problem.domain, Box):
        raise SettingsError(
            f"problem: {problem.name} is on {problem.domain!r}, expected a box; use PINN"
        )
    if problem.unknown:
        raise SettingsError(
            f"problem: {problem.name} has the unknown coefficients {', '.join(problem.unknown)}, "
            "expected none, as each piece would find its own; use PINN"
        )
    return problem.domain


def cut(box: Box, counts: Mapping[str, int]) -> list[Box]:
    """Cut a box into equal ones, the last axis fastest.

    Args:
        box: The box.
        counts: Number of parts along the axes that are cut.

    Example:
        >>> cut(Box(x=(0, 1), t=(0, 2)), {"t": 2})
        [Box(x=(0, 1), t=(0, 1)), Box(x=(0, 1), t=(1, 2))]
    """
    lines = []
    for axis in box.axes:
        lower, upper = box.bounds[axis]
        ends = torch.linspace(lower, upper, counts.get(axis, 1) + 1, dtype=torch.float64).tolist()
        lines.append(list(itertools.pairwise(ends)))
    return [Box(**dict(zip(box.axes, bounds, strict=True))) for bounds in itertools.product(*lines)]


def conditions_within(problem: Problem, box: Box) -> list[Condition]:
    """Conditions of a problem on a part of its box; periodicity where the part has both ends.

    Raises:
        SettingsError: If a condition is of a kind that cannot be divided.
    """
    whole = problem.domain
    kept: list[Condition] = []
    for condition in problem.conditions:
        if isinstance(condition, Initial):
            if box.bounds["t"][0] == whole.bounds["t"][0]:
                kept.append(condition)
        elif isinstance(condition, Periodic):
            if box.bounds[condition.axis] == whole.bounds[condition.axis]:
                kept.append(condition)
        elif isinstance(condition, Dirichlet | Neumann | Robin) and condition.on is None:
            kept += _faces_within(problem, condition, box)
        elif type(condition) is Data:
            kept += _data_within(problem, condition, box)
        else:
            raise SettingsError(
                f"problem: {problem.name} has the condition {condition.label!r}, which cannot be "
                "divided among pieces; use PINN"
            )
    return kept


def _faces_within(
    problem: Problem, condition: Dirichlet | Neumann | Robin, box: Box
) -> list[Condition]:
    sides = ("lower", "upper") if condition.side == "both" else (condition.side,)
    kept: list[Condition] = []
    for axis in problem.domain.space if condition.axis is None else (condition.axis,):
        for place, side in enumerate(("lower", "upper")):
            if side in sides and box.bounds[axis][place] == problem.domain.bounds[axis][place]:
                face: Any = copy.copy(condition)
                face.axis, face.side = axis, side
                kept.append(face)
    return kept


def _data_within(problem: Problem, data: Data, box: Box) -> list[Condition]:
    where = problem.place_condition(data, 1)
    is_inside = box.contains(where.points)
    if not bool(is_inside.any()):
        return []
    values = {name: value[is_inside] for name, value in where.values.items()}
    return [Data(where.points[is_inside], scale=data.scale, **values)]


def state_at(problem: Problem, network: nn.Module, time: float) -> Initial:
    """What a network gives at a time, as an initial condition of the same fields and rates."""
    starts = [c for c in problem.conditions if isinstance(c, Initial)]
    given: dict[str, _Snapshot] = {}
    for start in starts:
        given |= {name: _Snapshot(problem, network, time, name, 0) for name in start.values}
        given |= {f"{name}_t": _Snapshot(problem, network, time, name, 1) for name in start.rates}
    if problem.domain.space:
        return Initial(**given)
    # Without space a state is numbers, which hold by construction.
    return Initial(**{name: float(snapshot.at(1, {})) for name, snapshot in given.items()})


class _Snapshot:
    """A field of a network at a time, or its rate, as a function of the coordinates in space."""

    def __init__(
        self, problem: Problem, network: nn.Module, time: float, field: str, rate: int
    ) -> None:
        self._axes, self._network, self._time = problem.domain.axes, network, time
        self._column, self._rate = problem.fields.index(field), rate
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        self.__signature__ = inspect.Signature(
            [inspect.Parameter(axis, kind) for axis in problem.domain.space]
        )

    def __call__(self, **coordinates: Tensor) -> Tensor:
        if not all(isinstance(value, Tensor) for value in coordinates.values()):
            # Says that it cannot be traced.
            raise TypeError("a network's state is known at tensors only")
        return self.at(len(next(iter(coordinates.values()))), coordinates)

    def at(self, count: int, coordinates: Mapping[str, Tensor]) -> Tensor:
        """Values at so many points."""
        with torch.enable_grad():
            time = torch.full((count,), self._time, dtype=torch.float64).requires_grad_()
            columns = [time if axis == "t" else coordinates[axis] for axis in self._axes]
            values: Tensor = self._network(torch.stack(columns, 1))[:, self._column]
            if self._rate:
                (values,) = torch.autograd.grad(values.sum(), time)
        return values.detach()
