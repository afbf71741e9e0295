"""Initial value problems for batches: one function for all of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from solvers.core import (
    OnFailure,
    Report,
    SettingsError,
    ShapeError,
    Solution,
    Status,
    apply_on_failure,
    check_callable,
    check_choice,
    check_count,
    check_finite,
    check_positive,
    open_progress,
)
from solvers.ode._events import follow_event
from solvers.ode._explicit import BOGACKI_SHAMPINE, DORMAND_PRINCE, ExplicitMethod
from solvers.ode._implicit import RadauMethod
from solvers.ode._replay import replay
from solvers.ode._rest import resting_points
from solvers.ode._search import March, Path
from solvers.ode._transforms import refuse_transforms

__all__ = ["Integral", "integrate"]

Function = Callable[[Tensor, Tensor], Tensor]
MethodName = Literal["auto", "dopri5", "bosh3", "radau5"]
Gradient = Literal["auto", "steps", "states", "none"]
_METHODS = ("auto", "dopri5", "bosh3", "radau5")
_LARGE = 2**27


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Integral(Solution[Tensor]):
    """States over time with the story of their computation.

    Attributes:
        last_time: Time up to which the value of each item is good, shape ``(B,)``.
        last_state: State there, shape of ``y0``.
        event: Number of the event that ended each item, -1 if none did, shape ``(B,)``.
        event_time: Time of that event, infinite if there was none; with a gradient.
    """

    last_time: Float[Tensor, "*batch"]
    last_state: Float[Tensor, "..."]
    event: Int[Tensor, "*batch"]
    event_time: Float[Tensor, "*batch"]


def integrate(
    function: Function,
    y0: Float[Tensor, "..."],
    times: Float[Tensor, "..."] | Sequence[float],
    *,
    method: MethodName = "auto",
    rtol: float = 1e-6,
    atol: float = 1e-9,
    events: Function | Sequence[Function] = (),
    gradient: Gradient = "auto",
    max_steps: int = 10_000,
    progress: bool | None = False,
    on_failure: OnFailure = "raise",
) -> Integral:
    r"""Integrate :math:`\dot y = f(t, y)`, each item of a batch with steps of its own.

    Args:
        function: f. Takes times ``(B, 1, ...)``, which broadcast with states, and states of the
            shape of ``y0``; gives rates of that shape. Items must not mix: the rate of an item may
            depend on its own state and on parameters only.
        y0: States at the first time, batch first, ``(B, ...)``; of shape ``(n,)`` a single item,
            for which times are scalars. Computed in its type, float64 for integers.
        times: Times to report, rising or falling, ``(T,)``, or ``(T, B)`` for times of each item;
            the first is the start.
        method: ``"dopri5"`` or ``"bosh3"`` (explicit), ``"radau5"`` (implicit, for stiff
            problems), or ``"auto"``: dopri5, and radau5 for those items that turn out stiff.
        rtol: Error per step relative to the state.
        atol: Error per step that is always allowed, in the unit of the state.
        events: Functions of times and states, ``(B,)``, whose change of sign ends an item; the
            first to change counts. After it the item keeps the event's state. An item that starts
            at a zero, up to rounding, is on the side to which it moves; a touch is no change.
        gradient: How the backward pass is prepared: ``"steps"`` keeps everything, ``"states"``
            keeps states between steps and computes steps again, ``"auto"`` chooses by size,
            ``"none"`` prepares nothing. :func:`compare_gradients` measures what each costs.
        max_steps: Largest number of trial steps of an item.
        progress: False for silence, True to show, None to show in a terminal.
        on_failure: What happens when an item does not reach the last time.

    Returns:
        Values ``(T, B, ...)``. An item that failed holds its last good state for later times; its
        status is ``STIFF`` (steps too short or too many for the method), ``NON_FINITE`` or
        ``MAX_ITERATIONS``. ``iterations`` counts accepted steps, ``residual_norm`` is the part of
        the time that was not covered, counts hold ``rejected`` steps and ``evaluations``.

    Raises:
        NotConvergedError: If an item fails and ``on_failure="raise"``; it carries the result.
        SettingsError: If times do not rise or fall or want a gradient, a setting is out of range,
            or this is inside ``torch.vmap`` or forward mode.
        ShapeError: If shapes do not fit.

    Gradients: of the numbers that were computed, with the lengths of steps fixed, with respect to
    ``y0`` and everything that ``function`` and ``events`` use; times of events move by the implicit
    function theorem. An item that failed passes none, at no time. First derivatives through
    ``"radau5"`` and events, any order through explicit methods without them.

    Cost: a search without graph, and a second pass over the accepted steps if a gradient is wanted.
    An implicit step costs as many backward passes of ``function`` as there are states.

    Source: J. Dormand and P. Prince (1980); E. Hairer and G. Wanner, Solving ODEs II (1996).

    Example:
        >>> rates = torch.tensor([[1.0], [1000.0]], dtype=torch.float64)
        >>> start = torch.ones(2, 1, dtype=torch.float64)
        >>> decay = integrate(lambda t, y: -rates * y, start, [0.0, 1.0])
        >>> round(float(decay.value[-1, 0, 0]), 6), abs(float(decay.value[-1, 1, 0])) < 1e-6
        (0.367879, True)
    """
    check_choice("method", method, _METHODS)
    check_choice("gradient", gradient, ("auto", "steps", "states", "none"))
    check_positive("rtol", rtol)
    check_positive("atol", atol)
    check_count("max_steps", max_steps)
    check_callable("function", function, "a function of times and states, as lambda t, y: -y")
    problem = _Problem(function, y0, times, events)
    with torch.no_grad(), open_progress(None, description="integrate", show=progress) as display:
        march = March(
            problem.rate, problem.y, problem.times,
            rtol=rtol, atol=atol, max_steps=max_steps, events=problem.events, progress=display,
        )  # fmt: skip
        implicit = RadauMethod(tolerance=(rtol, atol))
        if method == "auto":
            march.run(DORMAND_PRINCE, hands_over=True)
            march.run(implicit)
        else:
            chosen: dict[str, ExplicitMethod | RadauMethod] = {
                "dopri5": DORMAND_PRINCE, "bosh3": BOGACKI_SHAMPINE, "radau5": implicit,
            }  # fmt: skip
            march.run(chosen[method])
    result = _finish(problem, march, gradient)
    apply_on_failure(result.report, on_failure, solution=result, what="integrate", stacklevel=2)
    return result


class _Problem:
    """Arguments brought to flat states, with the shape that the user knows at hand."""

    def __init__(
        self,
        function: Function,
        y0: Tensor,
        times: Tensor | Sequence[float],
        events: Function | Sequence[Function],
    ) -> None:
        if not isinstance(y0, Tensor) or y0.ndim == 0 or 0 in y0.shape[y0.ndim > 1 :]:
            raise ShapeError(
                f"y0: got {tuple(y0.shape) if isinstance(y0, Tensor) else type(y0).__name__}, "
                "expected a tensor (B, ...) of a batch, or (n,) of a single item"
            )
        refuse_transforms("y0", y0)
        if y0.is_complex():
            raise SettingsError(
                f"y0: got {y0.dtype}, expected real numbers; integrate torch.view_as_real(y0), "
                "real and imaginary parts as components"
            )
        y0 = y0 if y0.is_floating_point() else y0.double()
        self.is_single = y0.ndim == 1
        self.shape = y0.shape if self.is_single else y0.shape[1:]
        self.function = function
        self.y = y0[None] if self.is_single else y0.flatten(1)
        self.times = _check_times(times, len(self.y), y0.device)
        given = [events] if callable(events) else events
        if not isinstance(given, Sequence) or not all(map(callable, given)):
            raise SettingsError(f"events: got {events!r}, expected a function or functions")
        self.events = [self._event(event) for event in given]
        self._check_once(given)

    def rate(self, t: Tensor, y: Tensor) -> Tensor:
        """Right-hand side on flat states."""
        value = self.function(*self._arguments(t, y))
        return value.reshape(y.shape)

    def unflatten(self, y: Tensor) -> Tensor:
        """Bring flat states, with any axes in front, to the user's shape."""
        front = y.shape[:-2] if self.is_single else y.shape[:-1]
        return y.reshape(*front, *self.shape)

    def scalar(self, x: Tensor) -> Tensor:
        """One number per item in the user's shape."""
        return x[0] if self.is_single else x

    def _arguments(self, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        t = t.to(y.dtype)
        if self.is_single:
            return t[0], y.reshape(self.shape)
        return t.reshape(-1, *(1,) * len(self.shape)), y.reshape(-1, *self.shape)

    def _event(self, event: Function) -> Function:
        def flat(t: Tensor, y: Tensor) -> Tensor:
            return event(*self._arguments(t, y)).reshape(len(y))

        return flat

    def _check_once(self, events: Sequence[Function]) -> None:
        """Evaluate everything once, to speak of shapes before the march."""
        start = self.y.detach()
        arguments = self._arguments(self.times[0], start.clone())
        value = self.function(*arguments)
        if not torch.allclose(arguments[1].reshape(start.shape), start, 0.0, 0.0, equal_nan=True):
            raise SettingsError(
                "function: changed the states that it was given; return new rates, such as "
                "-y instead of y.neg_()"
            )
        if not isinstance(value, Tensor) or value.shape != arguments[1].shape:
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ShapeError(
                f"function: gave {got} for states {tuple(arguments[1].shape)}, expected the same "
                "shape; times have trailing axes of size 1, take t[:, 0] beside y[:, k]"
            )
        if value.dtype is not arguments[1].dtype:
            raise SettingsError(
                f"function: gave {value.dtype} for states of {arguments[1].dtype}, expected the "
                "same; convert its numbers, or y0"
            )
        refuse_transforms("function", value)
        for number, event in enumerate(events):
            sign = event(*arguments)
            if not isinstance(sign, Tensor) or sign.numel() != len(self.y):
                raise ShapeError(
                    f"events: number {number} gave {sign!r}, expected one number per item, shape "
                    f"({len(self.y)},)"
                )
            if not sign.is_floating_point():
                raise SettingsError(
                    f"events: number {number} gave {sign.dtype}, expected real numbers that pass "
                    "zero, such as y[:, 0] - level"
                )
            refuse_transforms("events", sign)


def _check_times(
    times: Tensor | Sequence[float], batch: int, device: torch.device
) -> Float[Tensor, "t b"]:
    if isinstance(times, Tensor) and times.requires_grad:
        raise SettingsError(
            "times: want a gradient, which is not there; detach them, or let the function depend "
            "on a length of time T: lambda s, y: T * f(T * s, y) from s = 0 to 1"
        )
    try:
        given = torch.as_tensor(times, dtype=torch.float64, device=device).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise SettingsError(f"times: got {times!r}, expected numbers ({error})") from error
    check_finite("times", given)
    if given.ndim not in (1, 2) or len(given) < 2 or (given.ndim == 2 and given.shape[1] != batch):
        raise ShapeError(
            f"times: got shape {tuple(given.shape)}, expected (T,) or (T, {batch}) with at least "
            "two times"
        )
    both = given[:, None].expand(-1, batch) if given.ndim == 1 else given
    steps = both.diff(dim=0)
    if not bool(((steps >= 0).all(0) | (steps <= 0).all(0)).all()):
        raise SettingsError("times: go up and down, expected times that only rise or only fall")
    return both


def _finish(problem: _Problem, march: March, gradient: Gradient) -> Integral:
    """Values with or without a graph, and the report."""
    last_time, last = march.t, march.y
    value = march.outputs.fill(problem.y.detach(), last)
    event_time = torch.where(march.event >= 0, last_time, torch.inf)
    if gradient != "none" and torch.is_grad_enabled() and _needs_graph(problem):
        last, value, event_time = _differentiate(problem, march, gradient, value, event_time)
    span = (problem.times[-1] - problem.times[0]).abs()
    left = (problem.times[-1] - march.t).abs() / torch.where(span > 0, span, 1.0)
    scalar = problem.scalar
    report = Report(
        status=scalar(march.status),
        iterations=scalar(march.accepted),
        residual=scalar(torch.where(march.event >= 0, 0.0, left)),
        counts={
            "rejected": scalar(march.rejected),
            "evaluations": scalar(march.evaluations),
        },
    )
    return Integral(
        value=problem.unflatten(value),
        report=report,
        last_time=scalar(last_time),
        last_state=problem.unflatten(last),
        event=scalar(march.event),
        event_time=scalar(event_time),
    )


def _differentiate(
    problem: _Problem, march: March, gradient: Gradient, value: Tensor, event_time: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Last states, values and times of events with a graph; failed items stay without."""
    y, times, last_time = problem.y, problem.times, march.t
    failed = march.status != Status.CONVERGED
    resting = None
    if bool(failed.any()):
        points = resting_points(problem.rate, times[0], y)
        if points is None:
            return march.y, value, event_time
        resting = (failed, points[0])
        y = torch.where(failed[:, None], points[1], y)
        if bool(failed.all()):
            none = 0.0 * problem.rate(points[0], y).sum()
            return march.y + none, value + none, event_time
        last_time = torch.where(*resting, last_time)
    keep = _choose(march.paths, y) if gradient == "auto" else gradient
    assert keep != "none"
    last, states = replay(problem.rate, y, times, march.paths, keep=keep, resting=resting)
    moved_time, moved = last_time, last
    for number, event in enumerate(problem.events):
        chosen = march.event == number
        if bool(chosen.any()):
            time, state = follow_event(event, problem.rate, last_time, last)
            moved_time = torch.where(chosen, time, moved_time)
            moved = torch.where(chosen[:, None], state, moved)
    is_after = (times - last_time).abs() >= 0
    is_after &= (times - times[0]).abs() >= (last_time - times[0]).abs()
    ended = is_after & (march.event >= 0)
    states = torch.where(ended[..., None], moved, states)
    event_time = torch.where(march.event >= 0, moved_time, torch.inf)
    return (
        torch.where(failed[:, None], march.y, moved),
        torch.where(failed[:, None], value, states),
        event_time,
    )


def _needs_graph(problem: _Problem) -> bool:
    """Whether anything that the result depends on takes gradients."""
    if problem.y.requires_grad:
        return True
    functions = (problem.rate, *problem.events)
    return any(function(problem.times[0], problem.y).requires_grad for function in functions)


def _choose(paths: Sequence[Path], y: Tensor) -> Literal["steps", "states"]:
    # A guess of what the graph of a step holds: some tens of states for each stage.
    rows = sum(len(path.step) for path in paths)
    return "steps" if 200 * rows * y.numel() < _LARGE else "states"
