"""A partial differential equation with everything that makes it solvable, declared as it reads."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import partial
from types import NoneType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from solvers.core import (
    NonFiniteError,
    SettingsError,
    ShapeError,
    check_callable,
    check_choice,
    check_finite,
    check_kind,
    check_names,
)
from solvers.kernels import Symbol, Tape
from solvers.pde._arguments import argument_names, call_by_name, check_known, point_values
from solvers.pde._boundaries import Periodic
from solvers.pde._conditions import Condition, ConditionPoints
from solvers.pde._domain import TIME, Box, Domain
from solvers.pde._jet import FieldValues, MultiIndex, derivative_name, jet
from solvers.pde._posedness import check_conditions, check_evolution
from solvers.pde._samplers import Sampler, sample, unit_points

__all__ = ["Problem"]

_PROBES = 7


@dataclass(frozen=True, eq=False)
class Problem:
    r"""An equation on a domain with its conditions.

    The residual is a function of fields, coordinates and coefficients, matched by argument name.
    Inside it ``u`` is the value, ``u.x``, ``u.xx``, ``u.xt`` are derivatives. It returns one
    residual, a tuple of them, or a dict with their names. Written with operators and
    :mod:`solvers.pde.functions` it runs on tensors and is traced into compiled kernels.

    Args:
        name: Name of the problem.
        domain: Where it lives.
        fields: Names of the unknown fields.
        residual: What vanishes inside the domain.
        coefficients: Numbers of the equation by name.
        unknown: Coefficients to be found, starting from their value in ``coefficients``.
        conditions: What holds at the start, on the boundary and at measured points.
        energy: Density of an energy whose minimum is the solution, called like ``residual``, if
            there is one.
        reference: Function of coordinates and coefficients, by name, that gives the solution:
            values of the broadcast shape for one field, a tuple in the order of the fields for
            several.

    Attributes:
        derivatives: Field name to the multi-indices that the residual uses, the value first.
        term_names: One name per residual.

    Raises:
        SettingsError: If a name is unknown, a condition is missing or off the domain, or the
            coefficients make the problem ill-posed.
        ShapeError: If residuals or data do not have one number per point.
        NonFiniteError: If a coefficient or datum is not finite.

    Example:
        >>> from solvers.pde import Box, Dirichlet, Initial, Problem
        >>> from solvers.pde.functions import pi, sin
        >>> burgers = Problem(
        ...     "Burgers",
        ...     domain=Box(x=(-1, 1), t=(0, 1)),
        ...     residual=lambda u, x, t, nu: u.t + u * u.x - nu * u.xx,
        ...     coefficients={"nu": 0.01 / pi},
        ...     conditions=[
        ...         Initial(u=lambda x: -sin(pi * x)),
        ...         Dirichlet(axis="x", side="both", u=0.0),
        ...     ],
        ... )
        >>> burgers.derivatives
        {'u': ((0, 0), (0, 1), (1, 0), (2, 0))}
    """

    name: str
    _: KW_ONLY
    domain: Domain
    residual: Callable[..., Any]
    fields: tuple[str, ...] = ("u",)
    coefficients: Mapping[str, float] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    conditions: Sequence[Condition] = ()
    energy: Callable[..., Any] | None = None
    reference: Callable[..., Any] | None = None
    derivatives: Mapping[str, tuple[MultiIndex, ...]] = field(init=False)
    term_names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        set_field = object.__setattr__
        check_kind("domain", self.domain, Domain, "a solvers.pde domain, as Box(x=(0, 1))")
        check_callable("residual", self.residual, "a function, as in lambda u, x: u.xx + 1")
        for name in ("energy", "reference"):
            if getattr(self, name) is not None:
                check_callable(name, getattr(self, name), "a function of coordinates, or None")
        set_field(self, "fields", check_names("fields", self.fields))
        set_field(self, "unknown", check_names("unknown", self.unknown))
        set_field(self, "conditions", _conditions(self.conditions))
        set_field(self, "coefficients", _coefficients(self.coefficients))
        _check_distinct(self)
        check_known(
            argument_names(self.residual),
            (*self.fields, *self.domain.axes, *self.coefficients),
            what=f"{self.name}: residual",
        )
        for name in self.unknown:
            if name not in self.coefficients:
                raise SettingsError(
                    f"unknown: {name!r} is no coefficient, expected among "
                    f"{', '.join(self.coefficients) or 'none'}; give its first guess in "
                    "coefficients"
                )
        used, names = _probe(self)
        set_field(self, "derivatives", used)
        set_field(self, "term_names", names)
        for condition in self.conditions:
            condition.check(self.domain, self.fields)
            _check_values(self, condition)
        check_conditions(self)
        check_evolution(self)

    @property
    def is_traceable(self) -> bool:
        """Whether the residual runs on symbols, hence compiles into a kernel."""
        tape = Tape()
        values = {
            name: {
                index: tape.input(f"{name}_{derivative_name(index, self.domain.axes)}", 0)
                for index in indices
            }
            for name, indices in self.derivatives.items()
        }
        try:
            terms = self.residual_terms(
                values,
                {axis: tape.input(axis, 0) for axis in self.domain.axes},
                {name: tape.input(name, 0) for name in self.coefficients},
            )
        except (TypeError, ValueError, AttributeError):
            return False
        return all(isinstance(term, (Symbol, float, int)) for term in terms)

    def residual_terms(
        self,
        field_values: FieldValues,
        coordinates: Mapping[str, Any],
        coefficients: Mapping[str, Any] | None = None,
    ) -> tuple[Any, ...]:
        """Evaluate the residuals.

        Args:
            field_values: Field name to multi-index to values; those of :attr:`derivatives`.
            coordinates: Axis name to coordinate.
            coefficients: Values that replace those of the problem.

        Returns:
            One residual per name of :attr:`term_names`.

        Raises:
            SettingsError: If a derivative is asked for that ``field_values`` does not hold.
        """
        return tuple(self._terms(self.residual, field_values, coordinates, coefficients).values())

    def energy_density(
        self,
        field_values: FieldValues,
        coordinates: Mapping[str, Any],
        coefficients: Mapping[str, Any] | None = None,
    ) -> Any:
        """Evaluate the density of the energy.

        Args:
            field_values: Values and first derivatives of the fields.
            coordinates: Axis name to coordinate.
            coefficients: Values that replace those of the problem.

        Returns:
            The density at each point.

        Raises:
            SettingsError: If the problem has no energy.
        """
        if self.energy is None:
            raise SettingsError(
                f"{self.name} has no energy; give its density as energy=lambda u, x: ..."
            )
        (density,) = self._terms(self.energy, field_values, coordinates, coefficients).values()
        return density

    def condition_terms(
        self,
        condition: Condition,
        where: ConditionPoints,
        field_values: FieldValues,
        coefficients: Mapping[str, Any] | None = None,
        partners: FieldValues | None = None,
    ) -> dict[str, Any]:
        """Evaluate what one condition makes zero.

        Args:
            condition: One of the problem's conditions.
            where: Points from :meth:`place_condition`.
            field_values: Values of the fields there, for the condition's derivatives.
            coefficients: Values that replace those of the problem.
            partners: The same at ``where.partners``.

        Returns:
            Terms by name, shape ``(n,)`` each.
        """
        known = {**self.coefficients, **(coefficients or {})}
        return condition.residual_terms(self.domain, where, field_values, known, partners)

    def place_condition(
        self,
        condition: Condition,
        count: int,
        *,
        sampler: Sampler = "sobol",
        seed: int = 0,
        generator: torch.Generator | None = None,
    ) -> ConditionPoints:
        """Spread points over the place of a condition.

        Args:
            condition: One of the problem's conditions.
            count: Number of points; data give all of theirs.
            sampler: See :func:`unit_points`.
            seed: Seed, if there is no generator.
            generator: Source of random numbers.

        Returns:
            Points with normals, partners or measured values.
        """
        check_kind("condition", condition, Condition, "one of problem.conditions")
        unit = unit_points(sampler, count, self.domain.dimension, seed=seed, generator=generator)
        return condition.place(self.domain, unit)

    def with_coefficients(self, **values: float) -> Problem:
        """Change coefficients.

        Args:
            **values: New values by name.

        Returns:
            The changed problem. A reference that does not take all of the changed coefficients is
            made for the old ones and is dropped.
        """
        check_known(values, self.coefficients, what=f"{self.name}: coefficients")
        follows = self.reference is not None and set(values) <= set(argument_names(self.reference))
        return replace(
            self,
            coefficients={**self.coefficients, **values},
            reference=self.reference if follows else None,
        )

    def reference_values(self, points: Float[Tensor, "n d"]) -> dict[str, Float[Tensor, " n"]]:
        """Evaluate the reference solution.

        Args:
            points: One point per row.

        Returns:
            Field name to values, float64.

        Raises:
            SettingsError: If the problem has no reference.
            NonFiniteError: If the reference is not finite somewhere.
        """
        if self.reference is None:
            raise SettingsError(
                f"{self.name} has no reference solution; give one as reference=lambda x, t: ..."
            )
        check_kind("points", points, Tensor, "a tensor (n, d), one point per row")
        coordinates = self.domain.split(points.detach().to("cpu", torch.float64))
        result = call_by_name(
            self.reference, {**self.coefficients, **coordinates}, what=f"{self.name}: reference"
        )
        parts = result if isinstance(result, tuple) else (result,)
        if len(parts) != len(self.fields):
            raise ShapeError(
                f"reference: gave {len(parts)} fields, expected {len(self.fields)}: "
                f"{', '.join(self.fields)}"
            )
        values = {}
        for name, part in zip(self.fields, parts, strict=True):
            values[name] = point_values(f"{self.name}: reference {name}", part, len(points))
            check_finite(f"reference {name}", values[name])
        return values

    def periodic_axes(self, name: str) -> tuple[str, ...]:
        """Axes along which a field is periodic.

        Args:
            name: Name of the field.
        """
        check_choice("name", name, self.fields)
        return tuple(
            c.axis
            for c in self.conditions
            if isinstance(c, Periodic) and name in c.bound_fields(self.fields)
        )

    def time_order(self, name: str) -> int:
        """Highest time derivative of a field in the residual.

        Args:
            name: Name of the field.
        """
        check_choice("name", name, self.fields)
        if not self.domain.has_time:
            return 0
        place = self.domain.axis(TIME)
        return max(index[place] for index in self.derivatives[name])

    def __str__(self) -> str:
        numbers = ", ".join(
            f"{name}={value:g}{' (unknown)' if name in self.unknown else ''}"
            for name, value in self.coefficients.items()
        )
        return f"{self.name}({numbers}) for {', '.join(self.fields)} on {self.domain!r}"

    def _terms(
        self,
        function: Callable[..., Any],
        field_values: FieldValues,
        coordinates: Mapping[str, Any],
        coefficients: Mapping[str, Any] | None,
        record: Callable[[str, MultiIndex], None] | None = None,
    ) -> dict[str, Any]:
        axes = self.domain.axes
        zero = (0,) * len(axes)
        for what, given in (("field_values", field_values), ("coordinates", coordinates)):
            check_kind(what, given, Mapping, "values by name")
        check_kind("coefficients", coefficients, (Mapping, NoneType), "numbers by name or None")

        def look_up(name: str, index: MultiIndex) -> Any:
            if record is not None:
                record(name, index)
            try:
                return field_values[name][index]
            except (KeyError, TypeError, IndexError):
                raise SettingsError(
                    f"field_values: {name} lacks its derivative "
                    f"{derivative_name(index, axes) or 'of order zero'}, multi-index {index}; "
                    f"expected all of problem.derivatives[{name!r}]"
                ) from None

        fields = {
            name: jet(look_up(name, zero), axes, name, partial(look_up, name))
            for name in self.fields
        }
        known = {**self.coefficients, **(coefficients or {}), **coordinates, **fields}
        result = call_by_name(function, known, what=f"{self.name}: residual")
        if isinstance(result, Mapping):
            return dict(result)
        terms = result if isinstance(result, (tuple, list)) else (result,)
        if len(terms) == 1:
            return {"equation": terms[0]}
        return {f"equation {k + 1}": term for k, term in enumerate(terms)}


class _Draws(dict[MultiIndex, Tensor]):
    """Random derivatives of one field, drawn when they are asked for."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self._generator = generator

    def __missing__(self, index: MultiIndex) -> Tensor:
        value = torch.randn(_PROBES, generator=self._generator, dtype=torch.float64)
        self[index] = value
        return value


def _probe(problem: Problem) -> tuple[dict[str, tuple[MultiIndex, ...]], tuple[str, ...]]:
    """Call the residual once to see which derivatives it takes and what it gives."""
    generator = torch.Generator().manual_seed(0)
    points = sample(problem.domain, _PROBES)
    values = {name: _Draws(generator) for name in problem.fields}
    zero = (0,) * problem.domain.dimension
    used: dict[str, set[MultiIndex]] = {name: {zero} for name in problem.fields}
    terms = problem._terms(
        problem.residual,
        values,
        problem.domain.split(points),
        {name: torch.tensor(v, dtype=torch.float64) for name, v in problem.coefficients.items()},
        lambda name, index: used[name].add(index),
    )
    if not terms:
        raise ShapeError(f"{problem.name}: residual gave nothing, expected at least one term")
    for name, term in terms.items():
        shape = tuple(term.shape) if isinstance(term, Tensor) else None
        if shape != (_PROBES,):
            got = f"shape {shape}" if shape is not None else type(term).__name__
            raise ShapeError(
                f"{problem.name}: residual {name} gave {got} for {_PROBES} points, expected one "
                f"number per point, shape ({_PROBES},); is a field left out?"
            )
    ordered = {
        name: tuple(sorted(found, key=lambda index: (sum(index), index)))
        for name, found in used.items()
    }
    return ordered, tuple(terms)


def _check_values(problem: Problem, condition: Condition) -> None:
    """Evaluate the given values of a condition at a few of its points."""
    where = problem.place_condition(condition, _PROBES)
    zeros = torch.zeros(len(where.points), dtype=torch.float64)
    values = {
        name: dict.fromkeys(condition.derivatives(problem.domain), zeros) for name in problem.fields
    }
    terms = problem.condition_terms(condition, where, values, partners=values)
    for name, term in terms.items():
        if term.shape != zeros.shape:
            raise ShapeError(
                f"{problem.name}: condition {name} gave shape {tuple(term.shape)} for "
                f"{len(zeros)} points, expected one number per point"
            )
        check_finite(f"{problem.name}: condition {name}", term)


def _conditions(given: Any) -> tuple[Condition, ...]:
    expected = 'a list of conditions of solvers.pde, such as Dirichlet(axis="x", u=0.0)'
    check_kind("conditions", given, Iterable, expected)
    for condition in (conditions := tuple(given)):
        check_kind("conditions", condition, Condition, expected)
    return conditions


def _coefficients(given: Mapping[str, float]) -> dict[str, float]:
    check_kind("coefficients", given, Mapping, "numbers by name, as in {'nu': 0.1}")
    check_names("coefficients", given)
    return {name: _coefficient(name, value) for name, value in given.items()}


def _coefficient(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise SettingsError(
            f"coefficient {name}: got {type(value).__name__}, expected a number; what varies in "
            "space or time is written into the residual"
        ) from error
    if not math.isfinite(number):
        raise NonFiniteError(
            f"coefficient {name}: got {number}, expected a finite number", name=name
        )
    return number


def _check_distinct(problem: Problem) -> None:
    names = [*problem.fields, *problem.domain.axes, *problem.coefficients]
    if not problem.fields:
        raise SettingsError("fields: got none, expected at least one name")
    for name in names:
        if names.count(name) > 1:
            raise SettingsError(
                f"{problem.name}: {name!r} names two of fields, axes and coefficients, expected "
                "different names"
            )


def evaluation_grid(problem: Problem, *counts: int) -> Float[Tensor, "n d"]:
    """Make a regular grid of those of its points that are in the domain.

    Args:
        problem: The problem.
        *counts: Number of points along each axis, or one for all.

    Returns:
        One point per row.
    """
    check_kind("problem", problem, Problem, "a solvers.pde.Problem")
    box = Box(**{axis: problem.domain.bounds[axis] for axis in problem.domain.axes})
    points = box.grid(*counts)
    return points[problem.domain.contains(points)]
