"""The way through time, found without a graph: which steps each item takes, and how it ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from solvers.core import Progress, Status
from solvers.ode._control import error_ratio, first_step, next_factor
from solvers.ode._events import EventFunction, locate
from solvers.ode._explicit import ExplicitMethod, Rate, Step
from solvers.ode._implicit import RadauMethod
from solvers.ode._outputs import Outputs

__all__ = ["March", "Path"]

Method = ExplicitMethod | RadauMethod
_RUNNING, _HANDED_OVER = -1, -2
_PATIENCE = 15
_NEARLY_BOUND = 1.0
_ROUNDING = 16 * torch.finfo(torch.float64).eps


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Path:
    """Accepted steps, one row each; an item that took none in a row has step zero.

    Attributes:
        method: Method of the steps.
        start: Start times ``(K, B)``.
        step: Steps ``(K, B)``.
        end: End times ``(K, B)``.
        stages: Implicit stages by row, None for explicit methods.
    """

    method: Method
    start: Tensor
    step: Tensor
    end: Tensor
    stages: Sequence[Tensor | None]


class March:
    """The state of a search that may change its method on the way.

    Args:
        rate: Right-hand side.
        y: States at the start ``(B, n)``.
        times: Times asked for ``(T, B)``, the first the start, the last the end.
        rtol: Relative tolerance.
        atol: Absolute tolerance.
        max_steps: Largest number of trials of an item.
        events: Functions whose zeros end an item.
        progress: Display.

    Attributes:
        t: Times reached ``(B,)``.
        y: States reached ``(B, n)``, the last good ones.
        status: Status by item.
        event: Number of the event that ended an item, -1 if none did.
        outputs: States at the times asked for.
        paths: Steps taken so far.
    """

    def __init__(
        self,
        rate: Rate,
        y: Tensor,
        times: Tensor,
        *,
        rtol: float,
        atol: float,
        max_steps: int,
        events: Sequence[EventFunction],
        progress: Progress,
    ) -> None:
        self._calls = 0
        self._rate = rate
        self._rtol, self._atol, self._max_steps = rtol, atol, max_steps
        self._events, self._progress = events, progress
        self.t, self.y = times[0].clone(), y.detach().clone()
        self._stop, self._span = times[-1], times[-1] - times[0]
        self._reach = times.abs().amax(0)
        self.outputs = Outputs(times)
        self.paths: list[Path] = []
        batch, device = len(y), y.device
        whole = torch.zeros(batch, dtype=torch.int64, device=device)
        self.status = torch.full_like(whole, _RUNNING)
        self.event = whole - 1
        self.accepted, self.rejected, self.evaluations = whole, whole.clone(), whole.clone()
        self._slope = self._evaluate(self.t, self.y)
        bad = ~(torch.isfinite(self._slope).all(1) & torch.isfinite(self.y).all(1))
        self.status[bad] = Status.NON_FINITE
        self.status[~bad & (self._span == 0)] = Status.CONVERGED

    @property
    def is_active(self) -> Tensor:
        """Items that go on."""
        return self.status == _RUNNING

    def run(self, method: Method, *, hands_over: bool = False) -> None:
        """March until every item has ended.

        Args:
            method: Method of the steps.
            hands_over: Leave to the next method what is bound by stability, or nearly so where
                the steps left would not take it to the end.
        """
        self.status[self.status == _HANDED_OVER] = _RUNNING
        if not bool(self.is_active.any()):
            return
        h = first_step(
            self._evaluate, self.t, self.y, self._slope, self._stop - self.t,
            method.control_order, self._rtol, self._atol,
        )  # fmt: skip
        previous = torch.full_like(h, 1e-4)
        was_rejected = torch.zeros_like(self.is_active)
        stiff_for = torch.zeros_like(self.accepted)
        rows: list[tuple[Tensor, Tensor, Tensor, Tensor | None]] = []
        known, length = None, torch.zeros_like(h)
        while bool(self.is_active.any()):
            active = self.is_active
            calls = self._calls
            remaining = self._stop - self.t
            is_last = h.abs() >= remaining.abs() * (1 - 1e-12)
            trial = torch.where(active, torch.where(is_last, remaining, h), 0.0)
            guess = None
            if isinstance(method, RadauMethod) and known is not None:
                guess = method.extrapolate(known, length, trial)
            step = method.step(
                self._evaluate, self.t, trial, self.y, self._slope, None, guess=guess
            )
            ratio = error_ratio(step.error, self.y, step.end, self._rtol, self._atol)
            ratio = torch.where(step.is_solved, ratio, torch.inf)
            good = active & (ratio <= 1)
            end = torch.where(is_last, self._stop, self.t + trial)
            hit, which = torch.zeros_like(good), self.event
            if self._events:
                step, trial, hit, which = locate(
                    self._events, method, self._evaluate, self.t, self.y, self._slope,
                    step, trial, good, torch.where(self.accepted == 0, self._reach, 0.0),
                )  # fmt: skip
                end = torch.where(hit, self.t + trial, end)
            taken = torch.where(good, trial, 0.0)
            self.outputs.add(method, step, self.t, taken, end)
            if bool(good.any()):
                stages = step.stages if method.is_implicit else None
                rows.append((self.t, taken, torch.where(good, end, self.t), stages))
            self._accept(step, end, good)
            known = (
                step.stages
                if known is None
                else torch.where(good[:, None, None], step.stages, known)
            )
            # Where the stages were not found, the next trial does not extrapolate.
            length = torch.where(good, trial, torch.where(step.is_solved, length, 0.0))
            self.event = torch.where(hit, which, self.event)
            self.rejected = self.rejected + (active & ~good)
            self.evaluations = self.evaluations + active * (self._calls - calls)
            factor = next_factor(ratio, previous, method.control_order, was_rejected)
            factor = torch.where(active & ~step.is_solved, 0.5, factor)
            h = torch.where(active & ~(good & is_last), trial * factor, h)
            previous = torch.where(good, ratio, previous)
            was_rejected = active & ~good
            is_bound = step.stiffness > method.stability
            if hands_over:
                # What would not arrive at this length may be held up by a mode that has died out.
                left = self._max_steps - self.accepted - self.rejected
                is_far = (self._stop - self.t).abs() > left * h.abs()
                is_bound |= is_far & (step.stiffness > _NEARLY_BOUND)
            stiff_for = torch.where(good, torch.where(is_bound, stiff_for + 1, 0), stiff_for)
            self._judge(step, h, active & ~good, hit, stiff_for, hands_over)
            share = ((self.t - self._stop) / self._span).abs().nan_to_num()
            self._progress.update(len(rows), left=float(share.max()))
        self.paths.append(_pack(method, rows, self.t))

    def _accept(self, step: Step, end: Tensor, good: Tensor) -> None:
        self.t = torch.where(good, end, self.t)
        self.y = torch.where(good[:, None], step.end, self.y)
        self._slope = torch.where(good[:, None], step.rate, self._slope)
        self.accepted = self.accepted + good

    def _judge(
        self,
        step: Step,
        h: Tensor,
        rejected: Tensor,
        hit: Tensor,
        stiff_for: Tensor,
        hands_over: bool,
    ) -> None:
        """End the items that are done, stuck or bound by stability."""
        active = self.is_active
        is_stiff = stiff_for >= _PATIENCE
        if hands_over:
            self.status[active & is_stiff] = _HANDED_OVER
        spent = active & (self.accepted + self.rejected >= self._max_steps)
        self.status[spent] = torch.where(
            stiff_for > 0, int(Status.STIFF), int(Status.MAX_ITERATIONS)
        )[spent]
        reach = torch.maximum(self.t.abs(), self._span.abs() * 1e-3)
        stuck = rejected & (h.abs() <= _ROUNDING * reach)
        is_finite = torch.isfinite(step.end).all(1) & torch.isfinite(step.rate).all(1)
        self.status[stuck] = torch.where(is_finite, int(Status.STIFF), int(Status.NON_FINITE))[
            stuck
        ]
        # A rate that is not finite at an accepted end leaves no way on.
        lost = ~rejected & active & ~torch.isfinite(self._slope).all(1)
        self.status[lost] = Status.NON_FINITE
        self.status[active & (hit | (self.t == self._stop))] = Status.CONVERGED

    def _evaluate(self, t: Tensor, y: Tensor) -> Tensor:
        self._calls += 1
        return self._rate(t, y)


def _pack(
    method: Method, rows: list[tuple[Tensor, Tensor, Tensor, Tensor | None]], t: Tensor
) -> Path:
    if not rows:
        empty = t.new_zeros(0, len(t))
        return Path(method=method, start=empty, step=empty, end=empty, stages=())
    start, step, end = (torch.stack([row[k] for row in rows]) for k in range(3))  # type: ignore[misc]
    return Path(
        method=method, start=start, step=step, end=end, stages=tuple(row[3] for row in rows)
    )
