r"""Fields that satisfy conditions by construction.

A field is :math:`u = G + D\,N` with the network's output :math:`N`: :math:`G` takes the given
values, :math:`D` vanishes where they are given. :math:`G` starts as the initial state and is
corrected axis by axis on the faces of the box (transfinite interpolation, Gordon and Hall 1973).
In a ball, :math:`G` is the number that is given on its surface and :math:`D = 1 - |x - c|^2 / R^2`.
Periodic axes enter the network as sine and cosine.

Where data contradict each other (a hot bar between cold ends, a lid that slides past walls), a
correction spoils an earlier one, and an initial state that does not close over a period would
keep its kink for all times. So every :math:`G` is compared with its data, and what it does not
satisfy is left to the loss, the initial state first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from solvers.core import SettingsError, check_choice
from solvers.kernels import Tape, scalar
from solvers.pde import Ball, Box, Condition, Dirichlet, Initial, Periodic, Problem
from solvers.pinn._contradictions import contradicted
from solvers.pinn._given import Function, faces_of, function_of, is_sought

__all__ = ["Ansatz", "Exact", "make_ansatz"]

Exact: TypeAlias = Literal["all", "boundary", "periodic"]
"""Conditions that hold by construction: all that can, all but the initial ones, or none but
periodicity."""

_TIME = "t"


@dataclass(frozen=True)
class Ansatz:
    """How network outputs become fields.

    Attributes:
        embedding: Coordinates to inputs of the network.
        transform: Coordinates and network outputs to fields.
        inputs: Number of inputs.
        rest: Conditions that do not hold by construction.
    """

    embedding: Function
    transform: Callable[[Sequence[Any], Sequence[Any]], Sequence[Any]]
    inputs: int
    rest: tuple[Condition, ...]


def make_ansatz(
    problem: Problem,
    exact: Exact = "all",
    *,
    frequencies: Sequence[Sequence[float]] = (),
) -> Ansatz:
    """Build the fields of a problem.

    Args:
        problem: The problem.
        exact: Which conditions hold by construction.
        frequencies: Rows of wave numbers per embedded coordinate; their sines and cosines are
            further inputs (Fourier features).

    Returns:
        The ansatz; conditions that it cannot take on are listed in it.
    """
    check_choice("exact", exact, ("all", "boundary", "periodic"))
    taken: set[Condition] = set()
    left: set[Condition] = set()
    periodic = _periodic_axes(problem, taken)
    parts = [_field_parts(problem, name, exact, taken, left) for name in problem.fields]
    taken -= left
    count = problem.domain.dimension

    def embedding(x: Sequence[Any]) -> list[Any]:
        return _embed(problem, periodic, frequencies, x[:count])

    def transform(x: Sequence[Any], outputs: Sequence[Any]) -> list[Any]:
        return [
            scalar.add(given(x[:count]), scalar.multiply(factor(x[:count]), output))
            for (given, factor), output in zip(parts, outputs, strict=True)
        ]

    inputs = len(embedding([0.5] * count))
    return Ansatz(
        embedding, transform, inputs, tuple(c for c in problem.conditions if c not in taken)
    )


def _periodic_axes(problem: Problem, taken: set[Condition]) -> set[str]:
    axes = set()
    for condition in problem.conditions:
        if isinstance(condition, Periodic):
            if set(condition.bound_fields(problem.fields)) != set(problem.fields):
                raise SettingsError(
                    f"Periodic({condition.axis!r}) binds {', '.join(condition.fields)} only, "
                    "expected all fields: the network has one set of inputs"
                )
            axes.add(condition.axis)
            taken.add(condition)
    return axes


def _embed(
    problem: Problem, periodic: set[str], frequencies: Sequence[Sequence[float]], x: Sequence[Any]
) -> list[Any]:
    inputs: list[Any] = []
    for axis, value in zip(problem.domain.axes, x, strict=True):
        lower, upper = problem.domain.bounds[axis]
        if axis in periodic:
            angle = scalar.multiply(2 * math.pi / (upper - lower), scalar.subtract(value, lower))
            inputs += [scalar.cos(angle), scalar.sin(angle)]
        else:
            middle = scalar.subtract(value, 0.5 * (lower + upper))
            inputs.append(scalar.multiply(2.0 / (upper - lower), middle))
    waves: list[Any] = []
    for row in frequencies:
        phase: Any = 0.0
        for number, value in zip(row, inputs, strict=True):
            phase = scalar.add(phase, scalar.multiply(number, value))
        waves += [scalar.sin(phase), scalar.cos(phase)]
    return [*inputs, *waves]


def _field_parts(
    problem: Problem, name: str, exact: Exact, taken: set[Condition], left: set[Condition]
) -> tuple[Function, Function]:
    """The part that takes the given values and the factor that vanishes there.

    Conditions that hold by construction are added to ``taken``, those that could not to ``left``.
    """
    ball = _in_a_ball(problem, name, exact)
    if ball is not None:
        taken.add(ball[0])
        return ball[1:]
    held = _candidates(problem, name, exact)
    while True:
        given, factor = _constant(0.0), _constant(1.0)
        for condition in held:
            if isinstance(condition, Initial):
                given, factor = _from_start(problem, condition, name)
        for axis, faces in _faces(problem, name, held).items():
            given, factor = _corrected(problem, axis, faces, given, factor)
        broken = contradicted(problem, name, held, given)
        if not broken:
            taken.update(held)
            return given, factor
        left.add(broken[0])
        held = [condition for condition in held if condition is not broken[0]]


def _candidates(problem: Problem, name: str, exact: Exact) -> list[Condition]:
    """Conditions of one field whose values can be recorded, the initial state first."""
    if not isinstance(problem.domain, Box) or exact == "periodic":
        return []
    starts: list[Condition] = []
    faces: list[Condition] = []
    for condition in problem.conditions:
        if isinstance(condition, Initial) and name in condition.fields:
            values = [*condition.values.values(), *condition.rates.values()]
            if exact == "all" and _can_be_exact(problem, values):
                starts.append(condition)
        elif isinstance(condition, Dirichlet) and name in condition.values:
            if condition.on is None and _can_be_exact(problem, condition.values.values()):
                faces.append(condition)
    return [*starts, *faces]


def _in_a_ball(
    problem: Problem, name: str, exact: Exact
) -> tuple[Dirichlet, Function, Function] | None:
    """The one condition of a field in a ball, if it gives numbers on the whole surface.

    Functions of a place on the surface need not be smooth inside, and stay terms of the loss.
    """
    if not isinstance(problem.domain, Ball) or exact == "periodic":
        return None
    found = [c for c in problem.conditions if isinstance(c, Dirichlet) and name in c.values]
    if len(found) != 1 or found[0].axis is not None or found[0].on is not None:
        return None
    value = found[0].values[name]
    if callable(value) or any(callable(other) for other in found[0].values.values()):
        return None
    return found[0], _constant(float(value)), _inside(problem.domain)


def _inside(ball: Ball) -> Function:
    """Factor that is one in the centre and vanishes on the surface."""

    def inside(x: Sequence[Any]) -> Any:
        share: Any = 1.0
        for value, middle in zip(x, ball.center.tolist(), strict=False):
            part = scalar.multiply(1.0 / ball.radius, scalar.subtract(value, middle))
            share = scalar.subtract(share, scalar.square(part))
        return share

    return inside


def _constant(value: float) -> Function:
    def constant(x: Sequence[Any]) -> Any:
        return value

    return constant


def _from_start(problem: Problem, condition: Initial, name: str) -> tuple[Function, Function]:
    place = problem.domain.axis(_TIME)
    begin, end = problem.domain.bounds[_TIME]
    value = function_of(problem, condition.values.get(name, 0.0))
    rate = function_of(problem, condition.rates.get(name, 0.0))
    power = 2 if name in condition.rates else 1

    def given(x: Sequence[Any]) -> Any:
        passed = scalar.subtract(x[place], begin)
        return scalar.add(value(x), scalar.multiply(passed, rate(x)))

    def factor(x: Sequence[Any]) -> Any:
        share = scalar.multiply(1.0 / (end - begin), scalar.subtract(x[place], begin))
        return share if power == 1 else scalar.square(share)

    return given, factor


def _faces(
    problem: Problem, name: str, held: Sequence[Condition]
) -> dict[str, dict[str, Function]]:
    """Given values of one field by axis and side."""
    faces: dict[str, dict[str, Function]] = {}
    for condition in held:
        if isinstance(condition, Dirichlet):
            value = function_of(problem, condition.values[name])
            for axis, side in faces_of(problem, condition):
                faces.setdefault(axis, {})[side] = value
    return faces


def _corrected(
    problem: Problem,
    axis: str,
    faces: Mapping[str, Function],
    given: Function,
    factor: Function,
) -> tuple[Function, Function]:
    place = problem.domain.axis(axis)
    lower, upper = problem.domain.bounds[axis]
    ends = {"lower": lower, "upper": upper}

    def shares(x: Sequence[Any]) -> dict[str, Any]:
        up = scalar.multiply(1.0 / (upper - lower), scalar.subtract(x[place], lower))
        return {"lower": scalar.subtract(1.0, up), "upper": up}

    def corrected(x: Sequence[Any]) -> Any:
        total = given(x)
        for side, value in faces.items():
            there = [*x[:place], ends[side], *x[place + 1 :]]
            missing = scalar.subtract(value(there), given(there))
            share = shares(x)[side] if len(faces) == 2 else 1.0
            total = scalar.add(total, scalar.multiply(share, missing))
        return total

    def vanishing(x: Sequence[Any]) -> Any:
        share = shares(x)
        if len(faces) == 2:
            hat = scalar.multiply(4.0, scalar.multiply(share["lower"], share["upper"]))
        else:
            (side,) = faces
            hat = share["upper" if side == "lower" else "lower"]
        return scalar.multiply(factor(x), hat)

    return corrected, vanishing


def _can_be_exact(problem: Problem, values: Iterable[Any]) -> bool:
    """Whether given values can be traced and do not depend on what is to be found."""
    for value in values:
        if not callable(value):
            continue
        if is_sought(problem, value):
            return False
        try:
            function_of(problem, value)(Tape().inputs("x", problem.domain.dimension))
        except (TypeError, ValueError, AttributeError):
            return False
    return True
