"""Does a method converge with the order that its theory promises?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from solvers.core._errors import SettingsError
from solvers.core.testing._table import text_table

__all__ = ["check_order"]

_LEAST_STEPS = 4


def check_order(
    error: Callable[[float], float],
    steps: Sequence[float],
    *,
    order: float,
    tolerance: float = 0.15,
) -> float:
    r"""Fit :math:`\log e = p \log h + c` by least squares and compare the slope ``p`` with theory.

    Args:
        error: Error ``e`` of the method for a step or mesh size ``h``.
        steps: At least four different positive sizes, in the range where the leading term rules:
            neither too large nor at the rounding floor.
        order: The slope that theory promises.
        tolerance: Largest deviation of the slope, to either side: a higher order than promised
            usually means that the test problem is too simple.

    Returns:
        The fitted slope.

    Raises:
        SettingsError: If there are fewer than four different steps or one is not positive.
        AssertionError: If an error is not a positive number, or the slope is off; with a table of
            the slopes between neighbours.

    Example:
        >>> slope = check_order(lambda h: 3 * h**2, [0.1, 0.05, 0.025, 0.0125], order=2)
        >>> round(slope, 6)
        2.0
    """
    sizes = sorted({float(step) for step in steps}, reverse=True)
    if len(sizes) < _LEAST_STEPS or sizes[-1] <= 0:
        raise SettingsError(
            f"steps: got {list(steps)}, expected at least {_LEAST_STEPS} different positive sizes"
        )
    errors = [float(error(size)) for size in sizes]
    if not all(math.isfinite(value) and value > 0 for value in errors):
        table = text_table(("step", "error"), list(zip(sizes, errors, strict=True)))
        raise AssertionError(
            f"errors must be positive and finite to have a logarithm; an error of zero means that "
            f"the test problem is solved exactly:\n{table}"
        )
    h = torch.tensor(sizes, dtype=torch.float64).log()
    e = torch.tensor(errors, dtype=torch.float64).log()
    centred = h - h.mean()
    slope = float(centred @ e / (centred @ centred))
    if abs(slope - order) > tolerance:
        local = ["-", *((e[1:] - e[:-1]) / (h[1:] - h[:-1])).tolist()]
        table = text_table(
            ("step", "error", "local slope"), list(zip(sizes, errors, local, strict=True))
        )
        raise AssertionError(
            f"fitted order {slope:.3f}, expected {order:g} within {tolerance:g}:\n{table}"
        )
    return slope
