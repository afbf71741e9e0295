"""What a field is at an interface: its value, and normal derivatives as far as they must agree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from solvers.pde import ConditionPoints, Data, Domain, FieldValues, MultiIndex

__all__ = ["Trace"]


class Trace(Data):
    """A field at the points of an interface; no term of a loss by itself.

    Args:
        points: On the interface, shape ``(n, d)``.
        axis: Axis across it.
        orders: How many of value, first, second ... derivative along the axis each field hands
            over.
        length: Unit of length along the axis; the k-th derivative is multiplied by its k-th power.
    """

    def __init__(
        self, points: Float[Tensor, "n d"], axis: str, orders: Mapping[str, int], length: float
    ) -> None:
        nothing: dict[str, Any] = {name: torch.zeros(len(points)) for name in orders}
        super().__init__(points, **nothing)
        self._axis, self._orders, self._length = axis, dict(orders), length

    def derivatives(self, domain: Domain) -> tuple[MultiIndex, ...]:
        """Value and derivatives along the axis."""
        return tuple(self._along(domain, order) for order in range(max(self._orders.values())))

    def residual_terms(
        self,
        domain: Domain,
        where: ConditionPoints,
        values: FieldValues,
        coefficients: Mapping[str, Any],
        partners: FieldValues | None = None,
    ) -> dict[str, Any]:
        """The values themselves, and derivatives in units of the length."""
        return {
            f"interface {name} {order}": self._length**order
            * values[name][self._along(domain, order)]
            for name, orders in self._orders.items()
            for order in range(orders)
        }

    def _along(self, domain: Domain, order: int) -> MultiIndex:
        return tuple(order if axis == self._axis else 0 for axis in domain.axes)
