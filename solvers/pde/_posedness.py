"""Whether a declared problem can have one solution: enough conditions, no backward diffusion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from solvers.core import SettingsError
from solvers.pde._boundaries import Dirichlet, Neumann, Periodic, Robin
from solvers.pde._conditions import Condition, Initial
from solvers.pde._data import Data
from solvers.pde._domain import TIME, Box
from solvers.pde._jet import MultiIndex
from solvers.pde._samplers import sample

if TYPE_CHECKING:
    from solvers.pde._problem import Problem

__all__ = ["check_conditions", "check_evolution"]

_PROBES = 16


def check_conditions(problem: Problem) -> None:
    """Refuse a problem that lacks a condition; data on a field stand for any.

    Args:
        problem: The problem.

    Raises:
        SettingsError: With the condition to add.
    """
    for name in problem.fields:
        bound = [c for c in problem.conditions if name in c.bound_fields(problem.fields)]
        if any(isinstance(c, Data) for c in bound):
            continue
        _check_start(problem, name, bound)
        _check_boundary(problem, name, bound)


def _check_start(problem: Problem, name: str, bound: list[Condition]) -> None:
    order = problem.time_order(name)
    starts = [c for c in bound if isinstance(c, Initial)]
    if order >= 1 and not any(name in c.values for c in starts):
        raise SettingsError(
            f"{problem.name}: {name} has a time derivative and no initial condition; add "
            f"Initial({name}=...)"
        )
    if order >= 2 and not any(name in c.rates for c in starts):
        raise SettingsError(
            f"{problem.name}: {name} has a second time derivative and no initial rate; add "
            f"Initial({name}=..., {name}_t=...)"
        )


def _check_boundary(problem: Problem, name: str, bound: list[Condition]) -> None:
    kinds = (Dirichlet, Neumann, Robin)
    walls = [c for c in bound if isinstance(c, kinds)]
    rings = [c.axis for c in bound if isinstance(c, Periodic)]
    whole = any(c.axis is None and c.on is None for c in walls)
    if whole:
        return
    axes = problem.domain.axes
    for axis in problem.domain.space:
        column = axes.index(axis)
        order = max(index[column] for index in problem.derivatives[name])
        if order == 0 or axis in rings or (order == 1 and not problem.time_order(name)):
            continue
        if not isinstance(problem.domain, Box):
            if not walls:
                raise SettingsError(
                    f"{problem.name}: {name} has no boundary condition; add Dirichlet({name}=...)"
                )
            continue
        sides = {
            side
            for c in walls
            if c.axis == axis
            for side in (("lower", "upper") if c.side == "both" else (c.side,))
        }
        missing = {"lower", "upper"} - sides
        if (order >= 2 and missing) or (order == 1 and len(missing) == 2):
            side = "both" if len(missing) == 2 else missing.pop()
            raise SettingsError(
                f"{problem.name}: {name} is differentiated along {axis} and has no condition at "
                f"{'its ends' if side == 'both' else f'the {side} end'}; add "
                f'Dirichlet(axis="{axis}", side="{side}", {name}=...) or Periodic("{axis}")'
            )


def check_evolution(problem: Problem) -> None:
    r"""Refuse coefficients for which small waves grow without bound.

    In :math:`a\,\partial_t^m u + \sum b_{ij}\, u_{x_i x_j} + \ldots` with m = 1 or 2 the matrix
    :math:`-b/a` must not have a negative eigenvalue: the heat equation would run backward, or a
    wave equation would be elliptic in time. Fields with space derivatives above the second are not
    judged. Nonlinear coefficients are judged at random values, and refused only if all are bad.

    Args:
        problem: The problem.

    Raises:
        SettingsError: With the coefficients.
    """
    for name in problem.fields:
        worst = _growth(problem, name, problem.coefficients)
        if worst is None:
            continue
        guilty = [
            key
            for key, value in problem.coefficients.items()
            if value < 0 and _growth(problem, name, {**problem.coefficients, key: -value}) is None
        ]
        which = ", ".join(f"{key}={problem.coefficients[key]:g}" for key in guilty)
        raise SettingsError(
            f"{problem.name}: {which or 'the residual'} makes the problem ill-posed: {name} has "
            f"the coefficient {worst:.3g} before its second derivative in space, expected zero or "
            "more where the time derivative stands on the other side; change the sign"
            + (f", or look at {', '.join(problem.coefficients)}" if not guilty else "")
        )


def _growth(problem: Problem, name: str, coefficients: Mapping[str, float]) -> float | None:
    """Largest of the negative eigenvalues if there is one at every probe, else None."""
    order = problem.time_order(name)
    axes, space = problem.domain.axes, problem.domain.space
    columns = [axes.index(axis) for axis in space]
    indices = problem.derivatives[name]
    top = tuple(order if axis == TIME else 0 for axis in axes)
    highest = max(sum(index[c] for c in columns) for index in indices)
    if not 1 <= order <= 2 or highest != 2 or top not in indices:
        return None
    values = _draw(problem)
    terms = problem.residual_terms(values, problem.domain.split(_points(problem)), coefficients)
    for term in terms:
        if not term.requires_grad:
            continue
        leading = _slope(term, values[name][top])
        if not bool((leading != 0).all()):
            continue
        matrix = torch.zeros(_PROBES, len(space), len(space), dtype=torch.float64)
        for index in indices:
            place = [columns.index(c) for c in columns for _ in range(index[c])]
            if len(place) != 2 or sum(index) != 2:
                continue
            slope = -_slope(term, values[name][index]) / leading
            i, j = place
            matrix[:, i, j] += slope / 2
            matrix[:, j, i] += slope / 2
        lowest = torch.linalg.eigvalsh(matrix)[:, 0]
        if bool((lowest < -1e-12 * matrix.abs().amax((1, 2))).all()) and bool(matrix.any()):
            return float(lowest.max())
    return None


def _points(problem: Problem) -> Tensor:
    return sample(problem.domain, _PROBES)


def _draw(problem: Problem) -> dict[str, dict[MultiIndex, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return {
        name: {
            index: torch.randn(_PROBES, generator=generator, dtype=torch.float64).requires_grad_()
            for index in indices
        }
        for name, indices in problem.derivatives.items()
    }


def _slope(term: Any, value: Tensor) -> Tensor:
    (slope,) = torch.autograd.grad(term.sum(), value, retain_graph=True, materialize_grads=True)
    return slope
