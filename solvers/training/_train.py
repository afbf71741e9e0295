"""One loop for everything that trains: steps, records, stops, and files to go on from."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any

import torch
from torch import Tensor

from solvers.core import (
    CheckpointError,
    NonFiniteError,
    NotConvergedError,
    OnFailure,
    Progress,
    Report,
    Status,
    apply_on_failure,
    catch_interrupt,
    check_callable,
    check_kind,
    check_output,
    check_positive,
    load_checkpoint,
    open_progress,
    save_checkpoint,
)
from solvers.training._clock import Clock
from solvers.training._evaluation import GuiltyError
from solvers.training._limits import Limits
from solvers.training._methods import Evaluation
from solvers.training._objective import Objective
from solvers.training._record import Record, Training
from solvers.training._schedule import Phase, Plateau, phases_of
from solvers.training._state import pack, unpack

__all__ = ["train"]

_KIND = "training"
_FIRST_RECORD = 0.05
"""Time of the first record where records are a factor of time apart [s]."""


def train(
    objective: Objective,
    schedule: Phase | Sequence[Phase],
    *,
    steps: int | None = None,
    budget: float | None = None,
    cpu_budget: float | None = None,
    tolerance: float | None = None,
    targets: Mapping[str, float] | None = None,
    resample_every: int | None = None,
    reweight_every: int | None = None,
    overfit: float | None = None,
    overfit_every: int = 10,
    record_every: int | float = 100,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: float = 30.0,
    settings: Mapping[str, Any] | None = None,
    callback: Callable[[Record], object] | None = None,
    progress: bool | None = None,
    description: str = "train",
    on_failure: OnFailure = "warn",
) -> Training:
    """Train until a budget is spent, a tolerance is met, or nothing moves any more.

    Args:
        objective: What is trained; its parameters change in place.
        schedule: Phases, one after the other.
        steps: Most steps, all phases together, steps before a checkpoint included.
        budget: Wall time, earlier runs included; records are made with the clock stopped [s].
        cpu_budget: CPU time of the process, counted alike [s].
        tolerance: Stop when the held-out residual is below; without one, the loss.
        targets: Stop when a measure of the objective is below, by name.
        resample_every: Steps between two draws of points; they are also drawn after a step that was
            refused.
        reweight_every: Steps between two choices of weights, the first before the first step.
        overfit: Draw points anew when the held-out residual is this many times the least since
            they were drawn, and stop with ``STALLED`` where points cannot be drawn; off by default.
        overfit_every: Steps between two looks at it, whatever the records, so that equal runs see
            the same.
        record_every: Steps between two records. A float is the factor between their times, from
            0.05 s on: 1.05 gives rows that are even in the logarithm of time.
        checkpoint: File of the run. If it is there, training goes on from it, with the numbers
            that it would have had without the interruption.
        checkpoint_every: Seconds between two checkpoints; one is also written at the end.
        settings: What the run is, JSON values; a checkpoint with other settings is refused.
        callback: Gets every record.
        progress: True for a display, False for silence, None for a display in a terminal.
        description: What the display says in front.
        on_failure: What happens after ``NON_FINITE`` or ``STALLED``, or if a tolerance or target
            was asked for and not met.

    Returns:
        Parameters at the end. ``NON_FINITE``: those before the step that failed, the guilty term is
        named. The report's residual is the last held-out residual, or loss; its counts are those of
        the last method.

    Raises:
        NonFiniteError: If the loss is not finite at the first parameters.
        NotConvergedError: If ``on_failure="raise"`` and training failed, or if a solve inside of a
            step did: the message names step and items, and parameters, random numbers and
            checkpoint are those before that step.
        CheckpointError: If the file belongs to another run.
        SettingsError: If no limit was given, or a setting is out of range.

    Ctrl-C ends after the running step; that is recorded, the checkpoint is written and what is
    reached returned.

    Example:
        >>> from solvers.training import FirstOrder, Objective, Phase, train
        >>> x = torch.zeros(2, dtype=torch.float64, requires_grad=True)
        >>> bowl = Objective([x], lambda: {"bowl": (x - 3).square().sum()})
        >>> lbfgs = Phase(name="L-BFGS", method=lambda o: FirstOrder(o, torch.optim.LBFGS))
        >>> train(bowl, lbfgs, steps=50, tolerance=1e-12).converged
        tensor(True)
    """
    phases = phases_of(schedule)
    check_kind("settings", settings, (Mapping, NoneType), "values by name, or None")
    if callback is not None:
        check_callable("callback", callback, "a function of a Record, or None")
    limits = Limits(
        steps, budget, cpu_budget, tolerance, targets or {}, resample_every, reweight_every,
        overfit, overfit_every, record_every,
    )  # fmt: skip
    limits.check(objective, phases)
    if checkpoint is not None:
        check_output("checkpoint", checkpoint)
        check_positive("checkpoint_every", checkpoint_every, allow_zero=True)
    run = _Run(objective, phases, dict(settings or {}), callback)
    if checkpoint is not None:
        run.read(checkpoint)
    status: Status | None = None
    left = None if budget is None else max(budget - run.seconds, 0.0)
    with (
        open_progress(steps, description=description, seconds=left, show=progress) as display,
        catch_interrupt() as interrupt,
    ):
        saved = time.monotonic()
        while status is None and not interrupt.is_requested:
            try:
                status = run.advance(limits, display)
            except NotConvergedError as error:
                if checkpoint is not None and error is run.failed:
                    run.write(checkpoint)
                raise
            display.update(run.step, **run.shown)
            if checkpoint is not None and time.monotonic() - saved > checkpoint_every:
                run.write(checkpoint)
                saved = time.monotonic()
        is_interrupted = status is None
        if is_interrupted:
            status = run.look_back(limits)
        if checkpoint is not None:
            run.write(checkpoint)
    result = run.result(Status.MAX_ITERATIONS if status is None else status, is_interrupted)
    if not is_interrupted:
        what = f"train ({run.guilty} is not finite)" if run.guilty else "train"
        apply_on_failure(result.report, on_failure, solution=result, what=what)
    return result


class _Run:
    """A training at work."""

    def __init__(
        self,
        objective: Objective,
        phases: Sequence[Phase],
        settings: dict[str, Any],
        callback: Callable[[Record], object] | None,
    ) -> None:
        self.objective, self.phases = objective, phases
        self.settings, self.callback = settings, callback
        self.step, self.phase, self.phase_step = 0, 0, 0
        self.history: list[Record] = []
        self.guilty = ""
        self.shown: dict[str, float] = {}
        self.failed: NotConvergedError | None = None
        self._best_held_out: float | None = None
        self._is_overfitting = False
        self._is_refused = False
        self._kept: list[Tensor] = []
        self._last: Evaluation | None = None
        self._enter(0)
        self._clock, self._next = Clock(), _FIRST_RECORD

    @property
    def seconds(self) -> float:
        """Wall time of training up to here [s]."""
        return self._clock.seconds

    def advance(self, limits: Limits, display: Progress) -> Status | None:
        """Take one step and look around; gives a status at the end."""
        if limits.steps is not None and self.step >= limits.steps:
            return self._spent(limits)
        before = self.objective.state_dict()
        try:
            evaluation = self._take_step(limits, before["parameters"])
        except NotConvergedError as error:
            self.objective.load_state_dict(before)
            what = f"train: step {self.step + 1} failed, the state before it is kept. {error}"
            self.failed = type(error)(what, solution=error.solution)
            raise self.failed from error
        if isinstance(evaluation, Status):
            return evaluation
        self._last = evaluation
        self._is_refused = evaluation.is_refused
        if not self._is_refused:
            self._kept = before["parameters"]
            self.step += 1
            self.phase_step += 1
            self._is_overfitting = self._is_overfit(limits)
        if self._is_over(limits):
            return self._end(evaluation, limits, self._spent(limits))
        if self._is_overfitting and not self.objective.can_resample:
            return self._end(evaluation, limits, Status.STALLED)
        if self._is_record_due(limits):
            ended = self._look(evaluation, limits)
            if ended is not None:
                return ended
        phase = self.phases[self.phase]
        is_flat = self.plateau.update(evaluation.loss)
        is_through = phase.steps is not None and self.phase_step >= phase.steps
        if not (is_flat or is_through or self.method.is_stalled):
            return None
        if self.phase + 1 < len(self.phases):
            display.note(f"{self.phases[self.phase + 1].name} from step {self.step}")
            self._enter(self.phase + 1)
            return None
        status = self._spent(limits) if is_through else Status.STALLED
        return self._end(evaluation, limits, status)

    def _end(self, evaluation: Evaluation, limits: Limits, status: Status) -> Status:
        """End with a status, unless the last record shows that what was asked for is met."""
        ended = self._look(evaluation, limits)
        return status if ended is None else ended

    def look_back(self, limits: Limits) -> Status | None:
        """Record the last step, if an interruption came before that."""
        return None if self._last is None else self._look(self._last, limits)

    def _take_step(self, limits: Limits, kept: list[Tensor]) -> Evaluation | Status:
        """One step of the method, or a status if a number is not finite."""
        try:
            if self._is_reweighting_due(limits):
                self._reweight()
            if self._is_resampling_due(limits):
                self._resample()
        except (GuiltyError, NonFiniteError) as error:
            return self._fail(error, kept)
        try:
            return self.method.step()
        except (GuiltyError, NonFiniteError) as error:
            # A loss that is not finite comes of the step before, everything else of this one.
            is_late = not error.name.startswith(("parameter", "gradient"))
            return self._fail(error, self._kept if is_late else kept)

    def result(self, status: Status, is_interrupted: bool) -> Training:
        """What is reached."""
        last = self.history[-1] if self.history else None
        residual = torch.inf
        if last is not None:
            residual = last.loss if last.held_out is None else last.held_out
        return Training(
            value=self.objective.snapshot(),
            report=Report(
                status=torch.tensor(int(status)),
                iterations=torch.tensor(self.step),
                residual=torch.tensor(residual, dtype=torch.float64),
                counts={name: torch.tensor(count) for name, count in self.method.counts.items()},
            ),
            history=tuple(self.history),
            guilty=self.guilty,
            is_interrupted=is_interrupted,
        )

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write everything that the next step depends on."""
        tensors: dict[str, Tensor] = {}
        state = {
            "objective": self.objective.state_dict(),
            "method": self.method.state_dict(),
            "plateau": self.plateau.state_dict(),
            "step": self.step,
            "phase": self.phase,
            "phase_step": self.phase_step,
            "best_held_out": self._best_held_out,
            "is_refused": self._is_refused,
            "is_overfitting": self._is_overfitting,
            "seconds": self._clock.seconds,
            "cpu_seconds": self._clock.cpu_seconds,
        }
        metadata = {
            "settings": self.settings,
            "state": pack(state, tensors),
            "history": [record.as_dict() for record in self.history],
        }
        save_checkpoint(path, tensors, kind=_KIND, metadata=metadata)

    def read(self, path: str | os.PathLike[str]) -> None:
        """Go on from a file, if it is there."""
        if not Path(path).exists():
            return
        found = load_checkpoint(path, kind=_KIND)
        if found.metadata["settings"] != self.settings:
            known = found.metadata["settings"]
            changed = sorted(
                k for k in {*known, *self.settings} if known.get(k) != self.settings.get(k)
            )
            raise CheckpointError(
                f"{path}: was written with other values of {', '.join(changed)}; give the same "
                "settings, or another file"
            )
        state = unpack(found.metadata["state"], found.tensors)
        shapes = [tuple(p.shape) for p in state["objective"]["parameters"]]
        if shapes != [tuple(p.shape) for p in self.objective.parameters]:
            raise CheckpointError(
                f"{path}: holds parameters of shapes {shapes}, which are not those of this "
                "objective; give the same network, or another file"
            )
        if state["phase"] >= len(self.phases):
            raise CheckpointError(f"{path}: was in phase {state['phase']}, which is not there")
        self.step, self.phase_step = state["step"], state["phase_step"]
        self._best_held_out, self._is_refused = state["best_held_out"], state["is_refused"]
        self._is_overfitting = state["is_overfitting"]
        self.history = [Record(**row) for row in found.metadata["history"]]
        # The method starts from the parameters, which therefore come first; making it may draw
        # random numbers, whose state therefore comes again.
        self.objective.load_state_dict(state["objective"])
        self._enter(state["phase"])
        self.phase_step = state["phase_step"]
        self.method.load_state_dict(state["method"])
        self.plateau.load_state_dict(state["plateau"])
        self.objective.load_state_dict(state["objective"])
        self._clock.set(state["seconds"], state["cpu_seconds"])

    def _enter(self, phase: int) -> None:
        self.phase, self.phase_step = phase, 0
        self.method = self.phases[phase].method(self.objective)
        self.plateau = Plateau(self.phases[phase])
        self._kept = self.objective.snapshot()

    def _is_over(self, limits: Limits) -> bool:
        return (
            (limits.steps is not None and self.step >= limits.steps)
            or (limits.budget is not None and self._clock.seconds >= limits.budget)
            or (limits.cpu_budget is not None and self._clock.cpu_seconds >= limits.cpu_budget)
        )

    def _is_record_due(self, limits: Limits) -> bool:
        if isinstance(limits.record_every, float):
            return self._clock.seconds >= self._next
        return self.step == 1 or self.step % limits.record_every == 0

    def _is_overfit(self, limits: Limits) -> bool:
        """Look at the held-out residual, if it is time for that."""
        if limits.overfit is None or self.step % limits.overfit_every:
            return False
        assert self.objective.held_out is not None
        held_out, best = float(self.objective.held_out()), self._best_held_out
        is_overfit = best is not None and held_out > limits.overfit * best
        self._best_held_out = held_out if best is None or is_overfit else min(best, held_out)
        return is_overfit

    def _is_resampling_due(self, limits: Limits) -> bool:
        if self._is_overfitting:
            return True
        if not limits.resample_every:
            return False
        return self._is_refused or (self.step > 0 and self.step % limits.resample_every == 0)

    def _is_reweighting_due(self, limits: Limits) -> bool:
        if not limits.reweight_every or self._is_refused:
            return False
        return self.step % limits.reweight_every == 0

    def _reweight(self) -> None:
        assert self.objective.reweight is not None
        self.objective.reweight()
        self.method.refresh()
        self.plateau.restart()

    def _resample(self) -> None:
        if not self._is_overfitting:
            self._best_held_out = None
        self._is_overfitting = False
        self.objective.resample()
        self.method.refresh()
        self.plateau.restart()

    def _look(self, evaluation: Evaluation, limits: Limits) -> Status | None:
        """Record with the clock stopped, and stop where what is seen says so."""
        if self.history and self.history[-1].step == self.step:
            return None
        seconds, cpu_seconds = self._clock.seconds, self._clock.cpu_seconds
        try:
            return self._record(evaluation, limits, seconds, cpu_seconds)
        finally:
            self._clock.set(seconds, cpu_seconds)

    def _record(
        self,
        evaluation: Evaluation,
        limits: Limits,
        seconds: float,
        cpu_seconds: float,
    ) -> Status | None:
        self._next = seconds * float(limits.record_every)
        held_out = None if self.objective.held_out is None else float(self.objective.held_out())
        # A search on a vector sees one number, so that its terms are asked for here.
        terms = dict(evaluation.terms) or {
            name: float(term.detach()) for name, term in self.objective.terms().items()
        }
        record = Record(
            step=self.step,
            seconds=seconds,
            cpu_seconds=cpu_seconds,
            phase=self.phases[self.phase].name,
            loss=evaluation.loss,
            terms=terms,
            held_out=held_out,
            measures={name: float(get()) for name, get in self.objective.measures.items()},
        )
        self.history.append(record)
        self.shown = {"loss": evaluation.loss, **record.measures}
        if held_out is not None:
            self.shown["held_out"] = held_out
        if len(terms) > 1:
            self.shown |= terms
        if self.callback is not None:
            self.callback(record)
        measure = evaluation.loss if held_out is None else held_out
        if limits.tolerance is not None and measure < limits.tolerance:
            return Status.CONVERGED
        if any(record.measures[name] < target for name, target in limits.targets.items()):
            return Status.CONVERGED
        return None

    def _fail(self, error: GuiltyError | NonFiniteError, kept: list[Tensor]) -> Status:
        """Go back to the parameters whose loss was last seen to be finite."""
        self.guilty = error.name or "loss"
        self.objective.restore(kept)
        if not self.step:
            raise NonFiniteError(
                f"{self.guilty} is not finite at the first parameters, expected finite numbers; "
                "start from others or look for division by zero",
                name=self.guilty,
                step=0,
            ) from error
        return Status.NON_FINITE

    def _spent(self, limits: Limits) -> Status:
        """A budget without a tolerance or target is there to be spent."""
        is_asked = limits.tolerance is not None or limits.targets
        return Status.MAX_ITERATIONS if is_asked else Status.CONVERGED
