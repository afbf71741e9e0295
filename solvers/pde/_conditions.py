r"""What holds besides the equation: at the start, on the boundary, at measured points.

Each condition is a set of points together with linear terms
:math:`\sum_k a_k\, \partial^{\alpha_k} u - g` that vanish there. Given values are numbers or
functions of coordinates and coefficients, matched by argument name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from jaxtyping import Float
from torch import Tensor

from solvers.core import SettingsError, check_number
from solvers.pde._arguments import call_by_name, point_values
from solvers.pde._domain import TIME, Domain
from solvers.pde._jet import FieldValues, MultiIndex

__all__ = [
    "Condition",
    "ConditionPoints",
    "Initial",
    "Value",
    "along",
    "evaluate_value",
    "given_values",
]

Value: TypeAlias = float | Callable[..., Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ConditionPoints:
    """Where a condition is enforced.

    Attributes:
        points: Shape ``(n, d)``.
        normals: Outward unit normals ``(n, d)`` on boundaries, else None.
        partners: The points that periodicity identifies with ``points``, else None.
        values: Measured values by field, shape ``(n,)``, for :class:`Data`, else empty.
    """

    points: Float[Tensor, "n d"]
    normals: Float[Tensor, "n d"] | None = None
    partners: Float[Tensor, "n d"] | None = None
    values: Mapping[str, Float[Tensor, " n"]]


class Condition(ABC):
    """One condition on some fields.

    Attributes:
        fields: Names of the fields that it binds; empty means all.
        label: Short name for loss terms.
    """

    fields: tuple[str, ...]

    @property
    def label(self) -> str:
        """Short name for loss terms."""
        return type(self).__name__.lower()

    @abstractmethod
    def check(self, domain: Domain, fields: Sequence[str]) -> None:
        """Refuse a condition that does not fit the domain.

        Args:
            domain: The problem's domain.
            fields: The problem's fields.

        Raises:
            SettingsError: If a field or axis is unknown, or the place is off the domain.
        """

    @abstractmethod
    def derivatives(self, domain: Domain) -> tuple[MultiIndex, ...]:
        """Derivatives that the terms need, the value itself first."""

    @abstractmethod
    def place(self, domain: Domain, unit: Float[Tensor, "n d"]) -> ConditionPoints:
        """Spread points over the place of the condition.

        Args:
            domain: The problem's domain.
            unit: Points of the unit cube, evenly spread.

        Returns:
            Points on the place; measured data ignore ``unit`` and give their own.
        """

    @abstractmethod
    def residual_terms(
        self,
        domain: Domain,
        where: ConditionPoints,
        values: FieldValues,
        coefficients: Mapping[str, Any],
        partners: FieldValues | None = None,
    ) -> dict[str, Any]:
        """Evaluate the terms that the condition makes zero.

        Args:
            domain: The problem's domain.
            where: From :meth:`place`.
            values: Fields and the derivatives of :meth:`derivatives` there, shape ``(n,)`` each.
            coefficients: Coefficients of the problem.
            partners: The same at ``where.partners``.

        Returns:
            Terms by name, shape ``(n,)`` each.
        """

    def bound_fields(self, fields: Sequence[str]) -> tuple[str, ...]:
        """Fields that the condition binds.

        Args:
            fields: The problem's fields.
        """
        return self.fields or tuple(fields)

    def _check_fields(self, fields: Sequence[str]) -> None:
        for name in self.fields:
            if name not in fields:
                raise SettingsError(
                    f"{type(self).__name__}: field {name!r} is unknown, expected one of "
                    f"{', '.join(fields)}, the fields of the problem"
                )


def evaluate_value(
    value: Value, coordinates: Mapping[str, Any], coefficients: Mapping[str, Any], what: str
) -> Any:
    """Evaluate a number or a function of coordinates and coefficients."""
    if not callable(value):
        return value
    result = call_by_name(value, {**coefficients, **coordinates}, what=what)
    points = [c for c in coordinates.values() if isinstance(c, Tensor)]
    return point_values(what, result, len(points[0])) if points else result


def given_values(kind: str, values: Mapping[str, Any]) -> dict[str, Value]:
    """Given values by field, functions as they are and everything else as a number.

    Raises:
        SettingsError: If there is none, or one is neither.
    """
    if not values:
        raise SettingsError(f"{kind}: got no field, expected one by its name, as in u=0.0")
    return {
        name: value if callable(value) else check_number(f"{kind}: {name}", value)
        for name, value in values.items()
    }


class Initial(Condition):
    """Values at the lower end of time.

    Args:
        **values: By field name, a number or function of the space coordinates; with ``_t`` after
            the name, the rate of change at the start.

    Example:
        >>> Initial(u=lambda x: -x, u_t=0.0).fields
        ('u',)
    """

    def __init__(self, **values: Value) -> None:
        given = given_values("Initial", values)
        self.values = {k: v for k, v in given.items() if not k.endswith("_t")}
        self.rates = {k.removesuffix("_t"): v for k, v in given.items() if k.endswith("_t")}
        self.fields = tuple({**self.values, **self.rates})

    def check(self, domain: Domain, fields: Sequence[str]) -> None:
        """Refuse unknown fields and domains without time."""
        self._check_fields(fields)
        if not domain.has_time:
            raise SettingsError(
                f"Initial: the domain has axes {', '.join(domain.axes)} and no time; add t=(0, 1) "
                "to the domain, or use Dirichlet"
            )

    def derivatives(self, domain: Domain) -> tuple[MultiIndex, ...]:
        """The value, and the rate where one is given."""
        zero = (0,) * domain.dimension
        return (zero, along(domain, TIME)) if self.rates else (zero,)

    def place(self, domain: Domain, unit: Float[Tensor, "n d"]) -> ConditionPoints:
        """Points of the domain at the start."""
        points = domain.scale(unit)
        points[:, domain.axis(TIME)] = domain.bounds[TIME][0]
        return ConditionPoints(points=points[domain.contains(points)], values={})

    def residual_terms(
        self,
        domain: Domain,
        where: ConditionPoints,
        values: FieldValues,
        coefficients: Mapping[str, Any],
        partners: FieldValues | None = None,
    ) -> dict[str, Any]:
        """Differences of values, and of rates, at the start."""
        coordinates = domain.split(where.points)
        zero, rate = (0,) * domain.dimension, along(domain, TIME)
        terms = {
            f"initial {name}": values[name][zero]
            - evaluate_value(value, coordinates, coefficients, f"Initial({name}=...)")
            for name, value in self.values.items()
        }
        for name, value in self.rates.items():
            given = evaluate_value(value, coordinates, coefficients, f"Initial({name}_t=...)")
            terms[f"initial {name}_t"] = values[name][rate] - given
        return terms


def along(domain: Domain, axis: str) -> MultiIndex:
    """Multi-index of the first derivative along an axis."""
    return tuple(int(name == axis) for name in domain.axes)
