r"""A step length that satisfies the strong Wolfe conditions.

For :math:`\varphi(\alpha) = f(x + \alpha d)` with :math:`\varphi'(0) < 0` it finds

.. math:: \varphi(\alpha) \le \varphi(0) + \mu \alpha \varphi'(0), \qquad
          |\varphi'(\alpha)| \le \eta\, |\varphi'(0)|.

An interval that holds such a length shrinks around the best trial; new trials come from cubics and
parabolas through values and slopes. Until a trial descends enough with a slope that is not
negative, the values are those of :math:`\varphi(\alpha) - \varphi(0) - \mu \alpha \varphi'(0)`.

Source: J. Moré and D. Thuente (1994), Line search algorithms with guaranteed sufficient decrease,
sections 2 to 4.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

__all__ = ["wolfe_search"]

_LEAST_GROWTH, _MOST_GROWTH = 1.1, 4.0
"""By how many of its last moves a trial may leave an interval without end."""

_SHRINK = 0.66
"""An interval that does not become smaller than this in two trials is halved."""

_WIDTH = 1e-14
_BACK = 0.25
"""Where to go after a trial that is not finite, as a part of the way."""


@dataclass(frozen=True, slots=True)
class _Trial:
    length: float
    value: float
    slope: float

    def tilted(self, slope: float) -> _Trial:
        """The same on the function less a line through the origin."""
        return replace(self, value=self.value - slope * self.length, slope=self.slope - slope)

    @property
    def is_finite(self) -> bool:
        return math.isfinite(self.value) and math.isfinite(self.slope)


def wolfe_search(
    evaluate: Callable[[float], tuple[float, float]],
    value: float,
    slope: float,
    first: float,
    *,
    decrease: float,
    curvature: float,
    trials: int = 100,
) -> float | None:
    r"""Search along a direction of descent.

    Args:
        evaluate: Length to value and slope there; either may be infinite or NaN.
        value: :math:`\varphi(0)`.
        slope: :math:`\varphi'(0)`, negative.
        first: First length to try.
        decrease: :math:`\mu`.
        curvature: :math:`\eta`, larger than ``decrease``.
        trials: Most evaluations.

    Returns:
        The last length that was evaluated if it satisfies both conditions; None if there is none
        up to rounding or trials are spent.
    """
    least_slope = decrease * slope
    best = other = _Trial(0.0, value, slope)
    is_bracketed, is_early = False, True
    low, high, ceiling = 0.0, first + _MOST_GROWTH * first, math.inf
    width, before = math.inf, math.inf
    length = first
    for _ in range(trials):
        trial = _Trial(length, *evaluate(length))
        if not trial.is_finite:
            ceiling = length
            length = best.length + _BACK * (length - best.length)
            high = min(high, ceiling)
            if length == best.length:
                return None
            continue
        is_low = trial.value <= value + length * least_slope
        if is_low and abs(trial.slope) <= curvature * -slope:
            return length
        if is_bracketed and (not low < length < high or high - low <= _WIDTH * high):
            return None
        is_early = is_early and not (is_low and trial.slope >= 0.0)
        at_best, at_other, at_trial = best, other, trial
        if is_early and trial.value <= best.value and not is_low:
            at_best, at_other, at_trial = (p.tilted(least_slope) for p in (best, other, trial))
        moved, closes = _next_length(at_best, at_other, at_trial, is_bracketed, low, high)
        is_bracketed = is_bracketed or closes
        if at_trial.value > at_best.value:
            other = trial
        else:
            turns = at_trial.slope * at_best.slope < 0.0
            other, best = (best if turns else other), trial
        if is_bracketed:
            if abs(other.length - best.length) >= _SHRINK * before:
                moved = best.length + 0.5 * (other.length - best.length)
            before, width = width, abs(other.length - best.length)
            low, high = sorted((best.length, other.length))
        else:
            low = moved + _LEAST_GROWTH * (moved - best.length)
            high = moved + _MOST_GROWTH * (moved - best.length)
        length = moved if moved < ceiling else 0.5 * (best.length + ceiling)
        if is_bracketed and (not low < length < high or high - low <= _WIDTH * high):
            length = best.length
    return None


def _next_length(
    best: _Trial, other: _Trial, trial: _Trial, is_bracketed: bool, low: float, high: float
) -> tuple[float, bool]:
    """The next length from values and slopes, and whether a minimum is known to lie between."""
    a, t = best.length, trial.length
    if trial.value > best.value:
        cubic = _cubic_minimum(best, trial)
        drop = (best.value - trial.value) / (t - a)
        parabola = a + 0.5 * best.slope / (drop + best.slope) * (t - a)
        is_near = abs(cubic - a) < abs(parabola - a)
        return (cubic if is_near else 0.5 * (cubic + parabola)), True
    bend = trial.slope - best.slope
    secant = t + trial.slope / bend * (a - t) if bend else math.inf
    if trial.slope * best.slope < 0.0:
        cubic = _cubic_minimum(best, trial)
        return (cubic if abs(cubic - t) > abs(secant - t) else secant), True
    if abs(trial.slope) < abs(best.slope):
        # A cubic that has no minimum ahead sends the trial to the end.
        cubic = _cubic_minimum(best, trial, ahead=high if t > a else low)
        if is_bracketed:
            length = cubic if abs(cubic - t) < abs(secant - t) else secant
            limit = t + _SHRINK * (other.length - t)
            return (min(length, limit) if t > a else max(length, limit)), False
        length = cubic if abs(cubic - t) > abs(secant - t) else secant
        return min(max(length, low), high), False
    if is_bracketed:
        return _cubic_minimum(other, trial), False
    return (high if t > a else low), False


def _cubic_minimum(first: _Trial, second: _Trial, *, ahead: float | None = None) -> float:
    """Minimum of the cubic through both; ``ahead`` if that does not lie beyond the second."""
    a, t = first.length, second.length
    theta = 3.0 * (first.value - second.value) / (t - a) + first.slope + second.slope
    scale = max(abs(theta), abs(first.slope), abs(second.slope))
    square = (theta / scale) ** 2 - (first.slope / scale) * (second.slope / scale)
    root = math.copysign(scale * math.sqrt(max(square, 0.0)), t - a)
    below = second.slope - first.slope + 2.0 * root
    part = (second.slope - theta + root) / below if below else math.inf
    if ahead is not None and not (part < 0.0 and root != 0.0):
        return ahead
    return t + part * (a - t)
