r"""Burgers' equation in closed form: viscous by Cole and Hopf, inviscid by Lax and Oleinik.

Sources: E. Hopf (1950), eq. 10, and J. D. Cole (1951); P. D. Lax (1957), theorem 2.1, O. Oleinik.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.core import check_callable, check_count, check_positive

__all__ = ["cole_hopf", "lax_oleinik"]

Array = NDArray[np.float64]
Function = Callable[[Array], Array]
_CHUNK = 4096
_GOLDEN = 60


def cole_hopf(
    x: Any, t: Any, *, nu: float, initial: Function, potential: Function, nodes: int = 200
) -> Array:
    r"""Evaluate the solution of :math:`u_t + u u_x = \nu u_{xx}` on the line.

    :math:`u(x, t) = \int u_0(x - z)\, w\, dz / \int w\, dz` with
    :math:`w = \exp(-U_0(x - z) / 2\nu - z^2 / 4\nu t)` by Gauss-Hermite quadrature.

    Args:
        x: Position, any shape.
        t: Time, zero or more, a shape that broadcasts.
        nu: Viscosity, more than zero.
        initial: :math:`u_0`.
        potential: Its integral :math:`U_0`, bounded.
        nodes: Number of quadrature nodes.

    Returns:
        Values of the common shape.
    """
    _check_state(initial, potential)
    check_positive("nu", nu)
    check_count("nodes", nodes)
    y, w = _hermite(nodes)
    x, t = np.broadcast_arrays(np.asarray(x, dtype=np.float64), np.asarray(t, dtype=np.float64))
    flat_x, flat_t = x.reshape(-1), t.reshape(-1)
    parts = []
    for start in range(0, flat_x.size, _CHUNK):
        at, when = flat_x[start : start + _CHUNK], flat_t[start : start + _CHUNK]
        origin = at[:, None] - np.sqrt(4 * nu * when)[:, None] * y
        exponent = -potential(origin) / (2 * nu)
        exponent -= exponent.max(1, keepdims=True)
        weight = np.exp(exponent) * w
        parts.append((weight * initial(origin)).sum(1) / weight.sum(1))
    return np.concatenate([np.zeros(0), *parts]).reshape(x.shape)


def lax_oleinik(
    x: Any, t: Any, *, initial: Function, potential: Function, reach: float, candidates: int = 400
) -> Array:
    r"""Evaluate the entropy solution of :math:`u_t + (u^2/2)_x = 0`.

    :math:`u = u_0(y)` where y minimises :math:`U_0(y) + (x - y)^2 / 2t`: the characteristic that
    arrives first. At a shock, where two tie, either side may be given.

    Args:
        x: Position, any shape.
        t: Time, zero or more, a shape that broadcasts.
        initial: :math:`u_0`, bounded by ``reach``.
        potential: Its integral :math:`U_0`.
        reach: Bound of the speed of characteristics.
        candidates: Number of origins that are compared; minima closer than ``2 reach t`` over this
            number are not told apart.

    Returns:
        Values of the common shape.
    """
    x, t = np.broadcast_arrays(np.asarray(x, dtype=np.float64), np.asarray(t, dtype=np.float64))
    _check_state(initial, potential)
    check_positive("reach", reach)
    check_count("candidates", candidates, least=2)
    at, when = x.reshape(-1, 1), t.reshape(-1, 1)
    # At time zero the origin is the point itself, whatever divides the square.
    safe = np.maximum(when, 1e-300)

    def action(y: Array) -> Array:
        result: Array = potential(y) * safe + 0.5 * (at - y) ** 2
        return result

    spread = 1.05 * reach * when
    origins = at + spread * np.linspace(-1, 1, candidates)
    best = np.take_along_axis(origins, action(origins).argmin(1)[:, None], 1)
    width = 2 * spread / (candidates - 1)
    low, high = best - width, best + width
    # The root of y + t u0(y) = x is sharper than the minimum, whose slope is zero there.
    for _ in range(_GOLDEN):
        middle = 0.5 * (low + high)
        is_left = middle + when * initial(middle) < at
        low, high = np.where(is_left, middle, low), np.where(is_left, high, middle)
    y = 0.5 * (low + high)
    return initial(y).reshape(x.shape)


def _check_state(initial: object, potential: object) -> None:
    for name, function in (("initial", initial), ("potential", potential)):
        check_callable(name, function, "a function of an array of positions, as np.sin")


@lru_cache(maxsize=4)
def _hermite(nodes: int) -> tuple[Array, Array]:
    return np.polynomial.hermite.hermgauss(nodes)
