r"""How long the next step may be, for every item on its own.

Source: E. Hairer, S. Norsett and G. Wanner, Solving ODEs I, section II.4: error norm (eq. 4.11),
first step (page 169); proportional-integral control, Solving ODEs II, section IV.2, eq. 2.43.
"""

from __future__ import annotations

import torch
from torch import Tensor

from solvers.ode._explicit import Rate

__all__ = ["error_ratio", "first_step", "next_factor"]

_SAFETY = 0.9
_SHORTEST, _LONGEST = 0.2, 10.0


def error_ratio(error: Tensor, y: Tensor, end: Tensor, rtol: float, atol: float) -> Tensor:
    """Error over tolerance in the root mean square, ``(B,)``; infinite where not finite."""
    scale = atol + rtol * torch.maximum(y.abs(), end.abs())
    ratio = (error / scale).square().mean(1).sqrt().to(torch.float64)
    is_finite = torch.isfinite(ratio) & torch.isfinite(end).all(1)
    return torch.where(is_finite, ratio, torch.inf)


def first_step(
    rate: Rate, t: Tensor, y: Tensor, first: Tensor, span: Tensor, order: int,
    rtol: float, atol: float,
) -> Tensor:  # fmt: skip
    """Guess a step that gives about the error allowed, with the sign of ``span``."""
    scale = atol + rtol * y.abs()

    def norm(x: Tensor) -> Tensor:
        return (x / scale).square().mean(1).sqrt().to(torch.float64).nan_to_num(nan=torch.inf)

    size, slope = norm(y), norm(first)
    is_small = (size < 1e-5) | (slope < 1e-5)
    trial = torch.where(is_small, 1e-6, 0.01 * size / slope.clamp(min=1e-300))
    trial = torch.minimum(trial, span.abs()) * span.sign()
    ahead = rate(t + trial, y + trial.to(y.dtype)[:, None] * first)
    bend = norm(ahead - first) / trial.abs().clamp(min=1e-300)
    steepest = torch.maximum(slope, bend)
    guess = torch.where(
        steepest <= 1e-15,
        (trial.abs() * 1e-3).clamp(min=1e-6),
        (0.01 / steepest.clamp(min=1e-300)) ** (1 / (order + 1)),
    )
    length = torch.minimum(torch.minimum(100 * trial.abs(), guess), span.abs())
    # Never shorter than rounding allows, whatever a steep start asks for.
    return torch.maximum(length, 1e-12 * span.abs()) * span.sign()


def next_factor(ratio: Tensor, previous: Tensor, order: int, is_rejected: Tensor) -> Tensor:
    """Factor from this step to the next.

    Args:
        ratio: Error over tolerance of this trial.
        previous: The same of the last accepted step.
        order: Order of the method.
        is_rejected: Items whose last trial was rejected: they do not grow at once.

    Returns:
        Factors ``(B,)``.
    """
    error = ratio.clamp(min=1e-10)
    accepted = _SAFETY * error ** (-0.7 / order) * previous.clamp(min=1e-10) ** (0.4 / order)
    accepted = accepted.clamp(_SHORTEST, _LONGEST)
    accepted = torch.where(is_rejected, accepted.clamp(max=1.0), accepted)
    rejected = (_SAFETY * error ** (-1 / order)).clamp(_SHORTEST, 0.9)
    rejected = torch.where(torch.isfinite(ratio), rejected, 0.1)
    return torch.where(ratio <= 1, accepted, rejected)
