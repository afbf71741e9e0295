r"""Families of initial profiles.

``"constant"`` has one parameter, the value from 0 to 0.2, as in PDEBench. ``"waves"`` has five,

.. math:: u_0(x) = \tfrac14 \Big(1 + \tanh \sum_{k=0}^{4} \frac{c_k}{1 + k} \cos k\pi x\Big),

profiles between 0 and one half.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from solvers.core import ShapeError, check_choice, check_positive

__all__ = ["PARAMETERS", "condition", "draw_initial", "profiles"]

PARAMETERS = {"constant": 1, "waves": 5}
_MOST = 0.2


def draw_initial(
    count: int, *, family: str = "constant", generator: torch.Generator | None = None
) -> Tensor:
    """Draw parameters of initial profiles.

    Args:
        count: Number of profiles ``S``.
        family: ``"constant"``, one parameter uniform from 0 to 0.2, or ``"waves"``, five normal
            ones.
        generator: Source of random numbers; seed 0 by default.

    Returns:
        Shape ``(S,)`` for constants, ``(S, 5)`` for waves.

    Raises:
        SettingsError: If the number is not positive or the family is not known.
    """
    check_positive("count", count)
    check_choice("family", family, tuple(PARAMETERS))
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    draw: Callable[..., Tensor] = torch.rand if family == "constant" else torch.randn
    shape = (count, PARAMETERS[family])
    drawn = draw(*shape, generator=generator, dtype=torch.float64)
    return _MOST * drawn[:, 0] if family == "constant" else drawn


def profiles(initial: Tensor, x: Tensor) -> Tensor:
    """Initial values at points.

    Args:
        initial: Parameters of shape ``(S,)``, constants, or ``(S, 5)``, waves.
        x: Points of shape ``(n,)``.

    Returns:
        Shape ``(S, n)``.

    Raises:
        ShapeError: If ``initial`` has another shape.

    Example:
        >>> x = torch.linspace(0, 1, 3, dtype=torch.float64)
        >>> profiles(torch.zeros(1, 5, dtype=torch.float64), x)
        tensor([[0.2500, 0.2500, 0.2500]], dtype=torch.float64)
    """
    if initial.ndim == 1:
        return initial[:, None].expand(-1, len(x))
    if initial.ndim != 2 or initial.shape[1] != PARAMETERS["waves"]:
        raise ShapeError(
            f"initial: got shape {tuple(initial.shape)}, expected (S,) for constants or "
            f"(S, {PARAMETERS['waves']}) for waves"
        )
    k = torch.arange(PARAMETERS["waves"], dtype=x.dtype)
    waves = torch.cos(math.pi * k[:, None] * x) / (1 + k[:, None])
    return 0.25 * (1 + torch.tanh(initial @ waves))


def condition(initial: Tensor, family: str) -> Tensor:
    """What the network knows of a profile, numbers of magnitude one, shape ``(S, c)``.

    Raises:
        ShapeError: If parameters are not those of the family.
    """
    columns = initial[:, None] if initial.ndim == 1 else initial
    if columns.ndim != 2 or columns.shape[1] != PARAMETERS[family]:
        raise ShapeError(
            f"initial: got shape {tuple(initial.shape)}, expected {PARAMETERS[family]} numbers a "
            f"profile, as the family {family!r} has"
        )
    return columns / _MOST if family == "constant" else columns
