"""Whole rollouts as one differentiable function.

Forward is a few native calls of many steps. Backward is one adjoint sweep over all steps, which
carries the cotangents of the state from step to step and adds up those of what all steps share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from physim.dynamics._advance import Advance, Smoothing
from physim.dynamics._assembly import StepData
from physim.dynamics._inputs import (
    Parameters,
    check_controls,
    finite_items,
    normalise_quaternions,
)
from physim.dynamics._kernel import KernelSolver
from physim.dynamics._layers import Layers, LayerTable
from physim.dynamics._reports import StepReport, done_report, step_smoothing
from physim.dynamics._solved_steps import OUTCOME, Steps, retake_parts
from physim.dynamics._state import State
from solvers.core import OnFailure, Report, apply_on_failure, open_progress

if TYPE_CHECKING:
    from physim.dynamics._simulator import Simulator

STEPS_PER_LAUNCH = 100
"""Between calls a rollout shows its progress and can be stopped."""

_NAMES = StepData.__slots__
_ONLY_ONCE = (
    "second derivatives through a rollout of compiled steps are not available; build the "
    'simulator with backend="reference"'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What a run keeps for backward besides states and controls.

    Attributes:
        outcome: `OUTCOME` of every step (T, B, 3); None if the steps are taken again.
        soft: Solutions that gradients belong to (T, B, nq); None if they are those of the states
            or the steps are taken again.
        path: Impulses of all steps (T, B, w), if the gradient is exact or the rollout keeps them.
        starts: Impulses before each call, if the steps are taken again.
    """

    outcome: Tensor | None
    soft: Tensor | None
    path: Tensor | None
    starts: list[Tensor | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Outcome of all steps, time first.

    Attributes:
        q: Configurations (T + 1, B, nq).
        v: Velocities (T + 1, B, nv).
        interval: Lengths of the intervals that ended there (T + 1, B).
        control: Controls (T, B, nu).
        report: Reports (T, B).
        impulses: Impulses of the last step (1, B, w), or of all (T, B, w) if they are kept.
        kept: What backward reads besides.
    """

    q: Tensor
    v: Tensor
    interval: Tensor
    control: Tensor
    report: Report
    impulses: Tensor
    kept: Kept


@dataclass(slots=True, kw_only=True)
class Unroll:
    """A rollout whose controls are given or come from a policy of layers.

    Attributes:
        simulator: What is simulated.
        layers: The policy, or None if controls are given.
        steps: Number of steps.
        checkpoint_every: Steps whose solutions for gradients are kept at a time; None keeps all.
        on_failure: What to do about failed items.
        parameters: Numbers that were given instead of the model's.
        progress: Whether to show a progress bar.
        keep_impulses: Whether the impulses of all steps are wanted.
        outcome: Of the last run.
        wants_states: Whether backward leaves the cotangents of all states.
        states: Cotangents (T + 1, B, nq) and (T + 1, B, nv) that it left.
    """

    simulator: Simulator
    layers: Layers | None
    steps: int
    checkpoint_every: int | None
    on_failure: OnFailure
    parameters: Parameters | None
    progress: bool
    keep_impulses: bool
    outcome: Run | None = None
    wants_states: bool = False
    states: tuple[Tensor, Tensor] | None = None

    def __call__(
        self, data: StepData, drive: Tensor, impulses: Tensor | None, *, with_gradient: bool
    ) -> tuple[Run, Tensor]:
        """The run, its tensors differentiable if wanted, and what `state_gradients` asks for.

        Args:
            data: Inputs of the first step.
            drive: Controls (T, B, nu), or the policy's flat numbers (T or 1, B or 1, P).
            impulses: Impulses of the step before (B, w).
            with_gradient: Whether the result will be differentiated.
        """
        probe = torch.zeros(1, dtype=torch.float64, requires_grad=with_gradient)
        if not with_gradient:
            return self.run(data, drive, impulses, with_gradient=False), probe
        inputs = [getattr(data, name) for name in _NAMES]
        q, v, interval, control = _Unrolled.apply(  # type: ignore[no-untyped-call]
            self, impulses, probe, drive, *inputs
        )
        run, self.outcome = self.outcome, None
        assert run is not None
        return replace(run, q=q, v=v, interval=interval, control=control), probe

    @property
    def _spans(self) -> list[tuple[int, int]]:
        span = self.checkpoint_every or STEPS_PER_LAUNCH
        return [(k, min(k + span, self.steps)) for k in range(0, self.steps, span)]

    @property
    def _gradient_smoothing(self) -> Smoothing:
        sim = self.simulator
        return step_smoothing(sim, sim.smoothing, with_gradient=True)

    def _table(self, drive: Tensor) -> LayerTable | None:
        return None if self.layers is None else self.layers.table(drive.detach())

    def _advance(
        self,
        data: StepData,
        controls: Tensor,
        impulses: Tensor | None,
        table: LayerTable | None,
        *,
        with_gradient: bool,
    ) -> Advance:
        """Steps of one call; a policy writes the controls."""
        solver, most_parts = self.simulator._solver, self.simulator.settings.max_substeps
        smoothing = self._gradient_smoothing
        if not with_gradient:
            smoothing = replace(smoothing, gradient=None)
        keeps = self.keep_impulses or (with_gradient and smoothing.followed == 0.0)
        advance = solver.advance
        if isinstance(solver, KernelSolver):
            advance = partial(solver.advance, policy=table)
        return advance(
            data,
            smoothing,
            controls=controls,
            impulses=impulses,
            most_parts=most_parts,
            keep_impulses=keeps,
        )

    @torch.no_grad()
    def run(
        self, data: StepData, drive: Tensor, impulses: Tensor | None, *, with_gradient: bool
    ) -> Run:
        """Take all steps, many in a call; with a gradient keep what backward reads."""
        keeps = with_gradient and self.checkpoint_every is None
        batch, nu = data.control.shape
        table = self._table(drive)
        if table is None:
            control = drive.expand(self.steps, batch, nu).clone()
            check_controls(control, self.on_failure)
        else:
            control = drive.new_empty(self.steps, batch, nu)
        now, columns = data, [(data.q[None], data.v[None], data.past_timestep[None])]
        parts: list[Advance] = []
        reports: list[StepReport] = []
        starts: list[Tensor | None] = []
        with open_progress(self.steps, description="rollout", show=self.progress) as bar:
            for first, last in self._spans:
                good = finite_items(now, self.on_failure, self.parameters)
                starts.append(impulses)
                done = self._advance(
                    now,
                    control[first:last],
                    impulses,
                    None if table is None else table.span(first, last),
                    with_gradient=keeps,
                )
                # Those of a policy are known now.
                taken = control[first:last]
                check_controls(taken, self.on_failure, first)
                report = done_report(done, good & torch.isfinite(taken).all(-1))
                interval = data.timestep / done.column("parts")
                self._check(done, report, interval, first)
                columns.append((done.q, done.v, interval))
                parts.append(done)
                reports.append(report)
                now = replace(now, q=done.q[-1], v=done.v[-1], past_timestep=interval[-1])
                impulses = done.impulses
                bar.update(last, iterations=float(report.iterations.double().mean()))
        q, v, interval = (torch.cat(column) for column in zip(*columns, strict=True))
        path = _cat([done.path for done in parts])
        assert impulses is not None
        return Run(
            q=q,
            v=v,
            interval=interval,
            control=control,
            report=StepReport.joined(reports),
            impulses=path if path is not None and self.keep_impulses else impulses[None],
            kept=Kept(
                outcome=torch.cat([_outcome(done) for done in parts]) if keeps else None,
                soft=_cat([done.soft for done in parts]),
                path=path,
                starts=[] if keeps else starts,
            ),
        )

    def _check(self, done: Advance, report: Report, interval: Tensor, first: int) -> None:
        """Act on failed items, with the states of the first failed step at hand."""
        if self.on_failure == "mask" or report.all_converged:
            return
        step = int((~report.converged).any(-1).nonzero()[0])
        there = State(q=done.q[step], v=done.v[step], interval=interval[step])
        apply_on_failure(
            report[step],
            self.on_failure,
            solution=(there, report[step]),
            what=f"Simulator.rollout at step {first + step}",
        )

    @torch.no_grad()
    def pull_back(
        self,
        states: Sequence[Tensor],
        kept: Kept,
        drive: Tensor,
        data: StepData,
        direct: Sequence[Tensor | None],
        *,
        with_numbers: bool,
    ) -> tuple[Tensor, StepData]:
        """Cotangents of ``drive`` and of the inputs of the first step; zero for failed items.

        Args:
            states: The run's q, v, interval and control.
            kept: What it kept.
            drive: As in `__call__`.
            data: Inputs of the first step.
            direct: Cotangents of q, v, interval and control, as the loss reads them itself;
                None where it does not.
            with_numbers: Whether cotangents of the numbers are wanted.
        """
        solver = self.simulator._solver
        assert isinstance(solver, KernelSolver)
        table, sweeper, smoothing = self._table(drive), solver.sweeper, self._gradient_smoothing
        q, v, interval, control = states
        batch, size = data.numbers.shape
        bars = sweeper.zeros(
            self.steps, batch, table, with_numbers=with_numbers, states=self.wants_states
        )
        spans = self._spans if kept.outcome is None else [(0, self.steps)]
        for k, (first, last) in reversed([*enumerate(spans)]):
            steps, nodes = slice(first, last), slice(first, last + 1)
            part = None if table is None else table.span(first, last)
            soft, path, outcome = kept.soft, kept.path, kept.outcome
            if outcome is None:
                now = replace(data, q=q[first], v=v[first], past_timestep=interval[first])
                again = control[steps].clone()
                done = self._advance(now, again, kept.starts[k], part, with_gradient=True)
                soft, path, outcome = done.soft, done.path, _outcome(done)
            solved = Steps(
                q=q[nodes],
                v=v[nodes],
                interval=interval[nodes],
                control=control[steps],
                outcome=outcome,
                soft=q[first + 1 : last + 1] if soft is None else soft,
                impulses=path,
            )
            here = [None if g is None else g[nodes] for g in direct[:3]]
            here.append(None if direct[3] is None else direct[3][steps])
            sweeper.sweep(
                data,
                replace(solved, parts=retake_parts(solver, data, solved, smoothing)),
                smoothing.followed,
                here,
                bars,
                first,
                table=part,
                with_numbers=with_numbers,
            )
        tree = self.simulator.mechanism.tree
        gq, gv, g_interval = direct[:3]
        pulled = StepData(
            q=_plus(_through_units(tree, data.q, bars.q), gq),
            v=_plus(bars.v, gv),
            control=torch.zeros_like(data.control),
            force=bars.force,
            past_timestep=_plus(bars.interval, g_interval),
            timestep=bars.timestep,
            numbers=sweeper.number_gradient(bars, batch, size, with_numbers=with_numbers),
        )
        if bars.states is not None:
            of_q, of_v = bars.states
            carried = of_q if gq is None else of_q - gq
            carried[0] = bars.q
            flat = _through_units(tree, q.flatten(0, 1), carried.flatten(0, 1)).reshape(q.shape)
            of_v[0] = pulled.v
            self.states = flat if gq is None else flat + gq, of_v
        if self.layers is None:
            return bars.control, pulled
        return sweeper.weight_gradient(bars, drive), pulled


class _Unrolled(torch.autograd.Function):
    """All states, intervals and controls of a rollout; first derivatives only."""

    @staticmethod
    def forward(
        ctx: Any,
        plan: Unroll,
        impulses: Tensor | None,
        probe: Tensor,
        drive: Tensor,
        *inputs: Tensor,
    ) -> tuple[Tensor, ...]:
        """Run, and keep what the sweep reads."""
        run = plan.run(StepData(*inputs), drive, impulses, with_gradient=True)
        plan.outcome = run
        ctx.plan, ctx.kept = plan, run.kept
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(run.q, run.v, run.interval, run.control, drive, *inputs)
        return run.q, run.v, run.interval, run.control

    @staticmethod
    def backward(ctx: Any, *direct: Tensor | None) -> Any:
        """Sweep."""
        *states, drive = ctx.saved_tensors[:5]
        inputs = ctx.saved_tensors[5:]
        by_drive, pulled = ctx.plan.pull_back(
            states,
            ctx.kept,
            drive,
            StepData(*inputs),
            direct,
            with_numbers=ctx.needs_input_grad[-1],
        )
        found = [drive.new_zeros(1), by_drive, *(getattr(pulled, name) for name in _NAMES)]
        if torch.is_grad_enabled():
            given = [g for g in direct if g is not None]
            found = list(_Once.apply(len(found), *found, *given, drive, *inputs))  # type: ignore[no-untyped-call]
        return (None, None, *found)


class _Once(torch.autograd.Function):
    """Derivatives that depend on tensors in a way that has no derivative here."""

    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The first ``count`` of the tensors."""
        return tuple(y.view_as(y) for y in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        """Refuse."""
        raise RuntimeError(_ONLY_ONCE)


def _through_units(tree: Any, q: Tensor, cotangent: Tensor) -> Tensor:
    """Pull a cotangent of normalised configurations back to ``q``."""
    with torch.enable_grad():
        leaf = q.detach().requires_grad_()
        unit = normalise_quaternions(tree, leaf)
        return torch.autograd.grad(unit, leaf, cotangent)[0]


def _outcome(done: Advance) -> Tensor:
    """`OUTCOME` of steps (T, B, 3)."""
    return torch.stack([done.column(name) for name in OUTCOME], dim=-1)


def _plus(carried: Tensor, direct: Tensor | None) -> Tensor:
    """What is carried to the start and what the loss reads there."""
    return carried if direct is None else carried + direct[0]


def _cat(pieces: Sequence[Tensor | None]) -> Tensor | None:
    found = [y for y in pieces if y is not None]
    return torch.cat(found) if found else None
