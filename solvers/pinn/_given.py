"""Values that conditions give, as functions of coordinates."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from solvers.pde import Dirichlet, Problem

__all__ = ["Function", "faces_of", "function_of", "is_sought"]

Function: TypeAlias = Callable[[Sequence[Any]], Any]
"""Coordinates as generic scalars to a generic scalar."""


def function_of(
    problem: Problem, value: Any, coefficients: Mapping[str, Any] | None = None
) -> Function:
    """Turn a given value into a function of all coordinates.

    Args:
        problem: The problem.
        value: A number, or a function of coordinates and coefficients by name.
        coefficients: Values that replace those of the problem.
    """
    if not callable(value):
        return lambda x: float(value)
    wanted = _arguments(value)

    def evaluate(x: Sequence[Any]) -> Any:
        known = {
            **problem.coefficients,
            **(coefficients or {}),
            **dict(zip(problem.domain.axes, x, strict=True)),
        }
        return value(**{name: known[name] for name in wanted})

    return evaluate


def faces_of(problem: Problem, condition: Dirichlet) -> list[tuple[str, str]]:
    """Axis and side of every face of a box on which a condition gives values."""
    axes = problem.domain.space if condition.axis is None else (condition.axis,)
    sides = ("lower", "upper") if condition.side == "both" else (condition.side,)
    return [(axis, side) for axis in axes for side in sides]


def is_sought(problem: Problem, value: Any) -> bool:
    """Whether a given value depends on a coefficient that is to be found."""
    return callable(value) and not set(_arguments(value)).isdisjoint(problem.unknown)


def _arguments(value: Callable[..., Any]) -> list[str]:
    parameters = inspect.signature(value).parameters.values()
    return [p.name for p in parameters if p.default is p.empty]
