"""Conditions on boundaries: values, normal derivatives, mixtures, and periodicity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor

from solvers.core import (
    SettingsError,
    check_choice,
    check_count,
    check_kind,
    check_names,
    check_number,
)
from solvers.pde._combined import surface_of_part
from solvers.pde._conditions import (
    Condition,
    ConditionPoints,
    Value,
    along,
    evaluate_value,
    given_values,
)
from solvers.pde._domain import TIME, Box, Domain
from solvers.pde._jet import FieldValues, MultiIndex
from solvers.pde._samplers import unit_points

__all__ = ["Dirichlet", "Neumann", "Periodic", "Robin", "Side"]

Side = Literal["lower", "upper", "both"]


class _Boundary(Condition):
    """A condition on a face of a box, or on the boundary of any domain.

    Args:
        axis: Axis across the face; None for the whole boundary in space.
        side: ``"lower"``, ``"upper"`` or ``"both"``.
        on: A region whose own boundary is meant, for example the hole of a domain.
        **values: By field name, a number or function of coordinates.
    """

    def __init__(
        self,
        axis: str | None = None,
        side: Side = "both",
        *,
        on: Domain | None = None,
        **values: Value,
    ) -> None:
        check_choice("side", side, ("lower", "upper", "both"))
        kind = type(self).__name__
        if axis is not None and on is not None:
            raise SettingsError(f"{kind}: got axis and on, expected at most one of them")
        if axis == TIME:
            raise SettingsError(f"{kind}: axis is time, expected an axis in space; use Initial")
        if on is not None:
            check_kind(f"{kind}: on", on, Domain, "a region, as in Ball(0.5, x=0, y=0)")
        self.axis, self.side, self.on = axis, side, on
        self.values = given_values(kind, values)
        self.fields = tuple(values)

    @property
    def label(self) -> str:
        """Kind and place."""
        if self.on is not None:
            return f"{super().label} {self.on!r}"
        place = "boundary" if self.axis is None else f"{self.axis} {self.side}"
        return f"{super().label} {place}"

    def check(self, domain: Domain, fields: Sequence[str]) -> None:
        """Refuse unknown fields and axes, and places off the domain."""
        kind = type(self).__name__
        self._check_fields(fields)
        if self.axis is not None:
            domain.axis(self.axis)
            if not isinstance(domain, Box):
                raise SettingsError(
                    f"{kind}: axis is {self.axis!r} on a domain that is no box; leave axis out for "
                    "the whole boundary, or name a part of it with on=region"
                )
        if self.on is not None:
            if self.on.axes != domain.space:
                raise SettingsError(
                    f"{kind}: on has axes {', '.join(self.on.axes)}, expected the axes in space of "
                    f"the domain, {', '.join(domain.space)}"
                )
            unit = unit_points("sobol", 64, domain.dimension)
            if not len(self.place(domain, unit).points):
                raise SettingsError(
                    f"{kind}: no point of the boundary of on={self.on!r} is in the domain; move "
                    "the region or leave the condition out"
                )

    def derivatives(self, domain: Domain) -> tuple[MultiIndex, ...]:
        """The value and all first derivatives in space."""
        return ((0,) * domain.dimension, *(along(domain, axis) for axis in domain.space))

    def place(self, domain: Domain, unit: Float[Tensor, "n d"]) -> ConditionPoints:
        """Points on the face, or on the boundary, at all times."""
        if self.axis is not None:
            assert isinstance(domain, Box)
            found = domain.face(self.axis, self.side, unit)
        elif self.on is None:
            found = domain.surface(unit)
        else:
            found = surface_of_part(domain, self.on, unit)
        return ConditionPoints(points=found.points, normals=found.normals, values={})

    def _given(
        self, domain: Domain, where: ConditionPoints, coefficients: Mapping[str, Any]
    ) -> dict[str, Any]:
        coordinates = domain.split(where.points)
        what = type(self).__name__
        return {
            name: evaluate_value(value, coordinates, coefficients, f"{what}({name}=...)")
            for name, value in self.values.items()
        }


class Dirichlet(_Boundary):
    """Values on the boundary.

    Args:
        axis: Axis across the face; None for the whole boundary in space.
        side: ``"lower"``, ``"upper"`` or ``"both"``.
        on: A region whose own boundary is meant, for example the hole of a domain.
        **values: By field name, a number or function of coordinates.

    Example:
        >>> Dirichlet(axis="x", side="both", u=0.0).label
        'dirichlet x both'
    """

    def derivatives(self, domain: Domain) -> tuple[MultiIndex, ...]:
        """The value."""
        return ((0,) * domain.dimension,)

    def residual_terms(
        self,
        domain: Domain,
        where: ConditionPoints,
        values: FieldValues,
        coefficients: Mapping[str, Any],
        partners: FieldValues | None = None,
    ) -> dict[str, Any]:
        """Differences of values."""
        zero = (0,) * domain.dimension
        given = self._given(domain, where, coefficients)
        return {f"{self.label} {name}": values[name][zero] - g for name, g in given.items()}


class Neumann(_Boundary):
    """Derivatives along the outward normal.

    Args:
        axis: Axis across the face; None for the whole boundary in space.
        side: ``"lower"``, ``"upper"`` or ``"both"``.
        on: A region whose own boundary is meant, for example the hole of a domain.
        **values: By field name, a number or function of coordinates. At the lower side the outward
            normal points down the axis.
    """

    def residual_terms(
        self,
        domain: Domain,
        where: ConditionPoints,
        values: FieldValues,
        coefficients: Mapping[str, Any],
        partners: FieldValues | None = None,
    ) -> dict[str, Any]:
        """Differences of normal derivatives."""
        given = self._given(domain, where, coefficients)
        return {
            f"{self.label} {name}": _normal_derivative(domain, where, values[name]) - g
            for name, g in given.items()
        }


class Robin(_Boundary):
    r"""A mixture :math:`a\,u + b\,\partial u/\partial n = g` on the boundary.

    Args:
        axis: Axis across the face; None for the whole boundary in space.
        side: ``"lower"``, ``"upper"`` or ``"both"``.
        a: Factor of the value.
        b: Factor of the derivative along the outward normal.
        on: A region whose own boundary is meant, for example the hole of a domain.
        **values: ``g`` by field name, a number or function of coordinates.
    """

    def __init__(
        self,
        axis: str | None = None,
        side: Side = "both",
        *,
        a: float = 1.0,
        b: float = 1.0,
        on: Domain | None = None,
        **values: Value,
    ) -> None:
        super().__init__(axis, side, on=on, **values)
        self.a, self.b = check_number("Robin: a", a), check_number("Robin: b", b)
        if not self.b:
            raise SettingsError("Robin: b is 0, expected another number; use Dirichlet")

    def residual_terms(
        self,
        domain: Domain,
        where: ConditionPoints,
        values: FieldValues,
        coefficients: Mapping[str, Any],
        partners: FieldValues | None = None,
    ) -> dict[str, Any]:
        """Differences of mixtures."""
        zero = (0,) * domain.dimension
        given = self._given(domain, where, coefficients)
        return {
            f"{self.label} {name}": self.a * values[name][zero]
            + self.b * _normal_derivative(domain, where, values[name])
            - g
            for name, g in given.items()
        }


class Periodic(Condition):
    """The same values, and the same derivatives, at both ends of an axis.

    Args:
        axis: Axis in space.
        fields: Fields that are periodic; all by default.
        order: Highest derivative along the axis that is equal at the ends.
        rise: By name, what fields gain over the axis, such as a full turn or the places of labels;
            nothing by default.
    """

    def __init__(
        self,
        axis: str,
        *,
        fields: Sequence[str] = (),
        order: int = 1,
        rise: Mapping[str, float] | None = None,
    ) -> None:
        if axis == TIME:
            raise SettingsError("Periodic: axis is time, expected an axis in space")
        check_count("Periodic: order", order, least=0)
        self.axis, self.order = axis, order
        self.fields = check_names("Periodic: fields", fields)
        self.rise = {
            name: check_number(f"Periodic: rise of {name}", gain)
            for name, gain in (rise or {}).items()
        }

    @property
    def label(self) -> str:
        """Kind and axis."""
        return f"periodic {self.axis}"

    def check(self, domain: Domain, fields: Sequence[str]) -> None:
        """Refuse unknown fields and axes, and domains that are no box."""
        self._check_fields(fields)
        for name in self.rise:
            check_choice("Periodic: rise", name, self.bound_fields(tuple(fields)))
        domain.axis(self.axis)
        if not isinstance(domain, Box):
            raise SettingsError("Periodic: the domain is no box, expected one")

    def derivatives(self, domain: Domain) -> tuple[MultiIndex, ...]:
        """The value and derivatives along the axis."""
        place = domain.axis(self.axis)
        return tuple(
            tuple(k if column == place else 0 for column in range(domain.dimension))
            for k in range(self.order + 1)
        )

    def place(self, domain: Domain, unit: Float[Tensor, "n d"]) -> ConditionPoints:
        """Points on the lower face with their partners on the upper one."""
        assert isinstance(domain, Box)
        lower = domain.face(self.axis, "lower", unit)
        upper = domain.face(self.axis, "upper", unit)
        return ConditionPoints(
            points=lower.points, normals=lower.normals, partners=upper.points, values={}
        )

    def residual_terms(
        self,
        domain: Domain,
        where: ConditionPoints,
        values: FieldValues,
        coefficients: Mapping[str, Any],
        partners: FieldValues | None = None,
    ) -> dict[str, Any]:
        """Differences between the two ends."""
        if partners is None:
            raise SettingsError("partners: got None, expected the fields at where.partners")
        return {
            f"{self.label} {name}{self.axis * k}": values[name][index]
            - partners[name][index]
            + (0.0 if k else self.rise.get(name, 0.0))
            for name in self.bound_fields(tuple(values))
            for k, index in enumerate(self.derivatives(domain))
        }


def _normal_derivative(
    domain: Domain, where: ConditionPoints, values: Mapping[MultiIndex, Any]
) -> Any:
    assert where.normals is not None
    normals = domain.split(where.normals)
    return sum(values[along(domain, axis)] * normals[axis] for axis in domain.space)
