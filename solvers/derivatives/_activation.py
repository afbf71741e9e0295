r"""Activations and their derivatives, on generic scalars.

With :math:`t = \tanh z` and :math:`s = 1 - t^2`, :math:`\tanh^{(m)} z = s\, q_m(t)`, where
:math:`q_1 = 1` and :math:`q_{m+1} = (1 - t^2)\, q_m' - 2 t\, q_m`.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final, Literal, TypeAlias, get_args

from numpy.polynomial import Polynomial

from solvers.kernels import scalar

__all__ = ["ACTIVATIONS", "Activation", "slopes_from_values", "values_of"]

Activation: TypeAlias = Literal["tanh", "sin"]
"""Activations with derivatives of every order."""

ACTIVATIONS: Final[tuple[str, ...]] = get_args(Activation)


def values_of(activation: str, z: Any) -> tuple[Any, ...]:
    """What all derivatives are made of: ``(tanh z,)`` or ``(sin z, cos z)``; the value first."""
    if activation == "tanh":
        return (scalar.tanh(z),)
    sine, cosine = scalar.sin_cos(z)
    return sine, cosine


def slopes_from_values(activation: str, values: tuple[Any, ...], order: int) -> list[Any]:
    """Derivatives 1, 2, ... ``order`` of an activation from `values_of` its argument."""
    if activation == "sin":
        sine, cosine = values
        cycle = [cosine, scalar.negative(sine), scalar.negative(cosine), sine]
        return [cycle[m % 4] for m in range(order)]
    (t,) = values
    s = scalar.subtract(1.0, scalar.square(t))
    return [scalar.multiply(s, _horner(factor, t)) for factor in _tanh_factors(order)]


@cache
def _tanh_factors(order: int) -> tuple[tuple[float, ...], ...]:
    """Coefficients of q_1, q_2, ..., lowest power first."""
    factor, found = Polynomial([1.0]), []
    for _ in range(order):
        found.append(tuple(factor.coef.tolist()))
        factor = Polynomial([1.0, 0.0, -1.0]) * factor.deriv() - Polynomial([0.0, 2.0]) * factor
    return tuple(found)


def _horner(coefficients: tuple[float, ...], t: Any) -> Any:
    # each q is even or odd, so every other coefficient is zero
    square = scalar.square(t)
    low = next((i for i, c in enumerate(coefficients) if c), 0)
    total: Any = 0.0
    for c in reversed(coefficients[low::2]):
        total = scalar.add(scalar.multiply(total, square), c)
    return scalar.multiply(total, t) if low else total
