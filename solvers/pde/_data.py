"""Measured values as a condition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from solvers.core import (
    SettingsError,
    ShapeError,
    check_finite,
    check_number,
    check_positive,
    describe,
)
from solvers.pde._conditions import Condition, ConditionPoints
from solvers.pde._domain import Domain
from solvers.pde._jet import FieldValues, MultiIndex

__all__ = ["Data"]


class Data(Condition):
    """Measured values at points.

    Args:
        points: Shape ``(n, d)``, or coordinates ``(n,)`` by axis name.
        scale: Size of the noise; terms are divided by it.
        **values: By field name, shape ``(n,)``.

    Raises:
        NonFiniteError: If a point or value is not finite.
        ShapeError: If there are not as many values as points.
    """

    def __init__(
        self,
        points: Float[Tensor, "n d"] | Mapping[str, Float[Tensor, " n"]],
        *,
        scale: float = 1.0,
        **values: Float[Tensor, " n"],
    ) -> None:
        if not values:
            raise SettingsError("Data: got no field, expected one, as in Data(points, u=values)")
        self.scale = check_number("Data: scale", scale)
        check_positive("Data: scale", self.scale)
        self._given = points
        self.values = {name: _numbers(name, value) for name, value in values.items()}
        self.fields = tuple(values)
        columns = points if isinstance(points, Mapping) else {"points": points}
        for name, column in columns.items():
            check_finite(f"Data: {name}", _numbers(name, column))
        for name, value in self.values.items():
            check_finite(f"Data: {name}", value)

    def check(self, domain: Domain, fields: Sequence[str]) -> None:
        """Refuse unknown fields, missing axes, points off the domain and other shapes."""
        self._check_fields(fields)
        points = self._points(domain)
        for name, value in self.values.items():
            if value.shape != points.shape[:1]:
                raise ShapeError(
                    f"Data: {name} has shape {tuple(value.shape)}, expected ({len(points)},), one "
                    "value per point"
                )
        is_outside = ~domain.contains(points)
        if bool(is_outside.any()):
            first = int(is_outside.nonzero()[0])
            raise SettingsError(
                f"Data: point {first} is {points[first].tolist()}, off the domain {domain!r} "
                f"({int(is_outside.sum())} of {len(points)} are); enlarge the domain or drop them"
            )

    def derivatives(self, domain: Domain) -> tuple[MultiIndex, ...]:
        """The value."""
        return ((0,) * domain.dimension,)

    def place(self, domain: Domain, unit: Float[Tensor, "n d"]) -> ConditionPoints:
        """The measured points."""
        return ConditionPoints(points=self._points(domain), values=self.values)

    def residual_terms(
        self,
        domain: Domain,
        where: ConditionPoints,
        values: FieldValues,
        coefficients: Mapping[str, Any],
        partners: FieldValues | None = None,
    ) -> dict[str, Any]:
        """Differences from the measured values, in units of their noise."""
        zero = (0,) * domain.dimension
        return {
            f"data {name}": (values[name][zero] - where.values[name]) / self.scale
            for name in self.fields
        }

    def _points(self, domain: Domain) -> Tensor:
        if not isinstance(self._given, Mapping):
            points = _numbers("points", self._given)
            if points.ndim != 2 or points.shape[1] != domain.dimension:
                raise ShapeError(
                    f"Data: points have shape {tuple(points.shape)}, expected "
                    f"(n, {domain.dimension}) with a column for each of {', '.join(domain.axes)}"
                )
            return points
        if set(self._given) != set(domain.axes):
            raise SettingsError(
                f"Data: got coordinates {', '.join(map(str, self._given))}, expected "
                f"{', '.join(domain.axes)}"
            )
        columns = [_numbers(axis, self._given[axis]).reshape(-1) for axis in domain.axes]
        if len({len(column) for column in columns}) != 1:
            lengths = {axis: len(c) for axis, c in zip(domain.axes, columns, strict=True)}
            raise ShapeError(f"Data: coordinates have lengths {lengths}, expected equal ones")
        return torch.stack(columns, -1)


def _numbers(name: str, given: Any) -> Tensor:
    try:
        return torch.as_tensor(given, dtype=torch.float64).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ShapeError(
            f"Data: {name}: got {describe(given)}, expected a tensor of numbers, one per point"
        ) from error
