r"""Zeros of functions of the state: where they are, and how they move.

A zero :math:`g(t_e, y(t_e)) = 0` moves with parameters as
:math:`dt_e = -(\partial g / \partial p) / \dot g`, the implicit function theorem, R. Chen,
B. Amos and M. Nickel (2021), section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from solvers.ode._explicit import ExplicitMethod, Rate, Step
from solvers.ode._implicit import RadauMethod
from solvers.ode._once import differentiate_once
from solvers.ode._rest import value_and_pull

__all__ = ["EventFunction", "follow_event", "locate"]

EventFunction = Callable[[Tensor, Tensor], Tensor]
"""Takes times ``(B,)`` and states ``(B, n)``, gives ``(B,)``."""

_BISECTIONS = 40
_SECTIONS = 30
_CORRECTIONS = 3
_ROUNDING = 16


def locate(
    events: Sequence[EventFunction],
    method: ExplicitMethod | RadauMethod,
    rate: Rate,
    t: Tensor,
    y: Tensor,
    first: Tensor,
    step: Step,
    h: Tensor,
    good: Tensor,
    reach: Tensor,
) -> tuple[Step, Tensor, Tensor, Tensor]:
    """Shorten steps to the first zero of an event.

    Args:
        events: Event functions.
        method: Method of the step.
        rate: Right-hand side.
        t: Start times.
        y: States at the start.
        first: Rates at the start.
        step: The step.
        h: Steps.
        good: Items whose step is accepted.
        reach: Largest size of a time of items at their start, where a zero is where they come from;
            0 for items on their way.

    Returns:
        The step with shortened items taken anew, its lengths, which items met an event, and which
        event that was.
    """
    part = torch.full_like(h, torch.inf)
    which = torch.full(h.shape, -1, device=h.device)
    for number, event in enumerate(events):
        found = _first_change(event, method, t, y, first, step, h, good, reach)
        is_first = found < part
        part = torch.where(is_first, found, part)
        which = torch.where(is_first, number, which)
    hit = torch.isfinite(part)
    if not bool(hit.any()):
        return step, h, hit, which
    shortened = torch.where(hit, part.clamp(max=1.0) * h, h)
    for _ in range(_CORRECTIONS):
        step = method.step(rate, t, shortened, y, first, None)
        for number, event in enumerate(events):
            chosen = hit & (which == number)
            value, speed = _value_and_speed(event, t + shortened, step.end, step.rate)
            correction = torch.where(chosen & (speed != 0), -value / speed, 0.0)
            # The interpolant is close, so a long correction means a tangent, not a better zero.
            is_short = correction.abs() <= 1e-2 * h.abs()
            shortened = shortened + torch.where(is_short, correction, 0.0)
    step = method.step(rate, t, shortened, y, first, None)
    return step, shortened, hit, which


def follow_event(event: EventFunction, rate: Rate, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Let the time of an event and its state depend on what the state depends on.

    Args:
        event: Event function.
        rate: Right-hand side.
        t: Times of the event ``(B,)``, fixed.
        y: States there, with a graph.

    Returns:
        The same times and states, with the motion of the zero in their graph.
    """
    value = differentiate_once(event(t, y), "the time of an event")
    with torch.no_grad():
        slope = rate(t, y)
    _, speed = _value_and_speed(event, t, y.detach(), slope)
    moved = t - value / torch.where(speed == 0, torch.inf, speed)
    # In value the correction is at the rounding of the search, and is left out.
    time = t + (moved - moved.detach())
    return time, y + slope * (time - t).to(y.dtype)[:, None]


def _first_change(
    event: EventFunction,
    method: ExplicitMethod | RadauMethod,
    t: Tensor,
    y: Tensor,
    first: Tensor,
    step: Step,
    h: Tensor,
    good: Tensor,
    reach: Tensor,
) -> Tensor:
    """Part of the step at which an event changes sign; infinite where it does not."""
    rows = torch.arange(len(h), device=h.device)

    def along(part: Tensor) -> Tensor:
        return event(t + part * h, method.interpolate(step, h, part, rows))

    before, speed = _value_and_speed(event, t, y, first)
    after, end_speed = _value_and_speed(event, t + h, step.end, step.rate)
    heading, end_heading = speed * h.sign(), end_speed * h.sign()
    is_on = _is_on_surface(event, t, y, before, speed, reach)
    side = torch.where(is_on, heading, before).sign()
    inside = good & (side != 0)
    changes = inside & (side != after.sign())
    high = torch.ones_like(h)
    # A value that nears zero at first and leaves it at the end may have been beyond in between.
    turns = inside & ~changes & (side * heading < 0) & (side * end_heading > 0)
    if bool(turns.any()):
        nearest = _least(lambda part: side * along(part), h)
        dips = turns & (side * along(nearest) < 0)
        changes, high = changes | dips, torch.where(dips, nearest, high)
    if not bool(changes.any()):
        return torch.full_like(h, torch.inf)
    low = torch.zeros_like(h)
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        is_before = along(middle).sign() == side
        low, high = torch.where(is_before, middle, low), torch.where(is_before, high, middle)
    return torch.where(changes, high, torch.inf)


def _is_on_surface(
    event: EventFunction, t: Tensor, y: Tensor, value: Tensor, speed: Tensor, reach: Tensor
) -> Tensor:
    """Starts whose event function is zero up to the rounding of the state and of the time."""
    starts = reach > 0
    if not bool(starts.any()):
        return starts
    _, slope = value_and_pull(event, t, y)
    size = (slope * y).abs().sum(1) + speed.abs() * reach
    return starts & (value.detach().abs() <= _ROUNDING * torch.finfo(y.dtype).eps * size)


def _least(function: Callable[[Tensor], Tensor], like: Tensor) -> Tensor:
    """Place in the unit interval of the least value of a function with one minimum there."""
    low, high = torch.zeros_like(like), torch.ones_like(like)
    for _ in range(_SECTIONS):
        third = (high - low) / 3
        is_left = function(low + third) < function(high - third)
        low, high = torch.where(is_left, low, low + third), torch.where(is_left, high - third, high)
    return 0.5 * (low + high)


def _value_and_speed(
    event: EventFunction, t: Tensor, y: Tensor, slope: Tensor
) -> tuple[Tensor, Tensor]:
    """Value of an event function and its rate of change along the solution."""
    with torch.enable_grad():
        when, where = t.detach().requires_grad_(), y.detach().requires_grad_()
        value = event(when, where)
        if not value.requires_grad:
            return value.detach(), torch.zeros_like(value)
        by_time, by_state = torch.autograd.grad(value.sum(), (when, where), materialize_grads=True)
    return value.detach(), by_time + (by_state * slope).sum(1).to(t.dtype)
