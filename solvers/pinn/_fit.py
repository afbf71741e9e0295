"""One way to fit for all networks of this room: the training loop, and rows of its history."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, ClassVar, Generic, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from solvers.core import (
    OnFailure,
    Report,
    SettingsError,
    Solution,
    apply_on_failure,
    check_callable,
    check_kind,
)
from solvers.parallel import Executor
from solvers.pde import Problem
from solvers.pinn._arguments import check_executor
from solvers.pinn._optimizers import Optimizer, make_schedule
from solvers.training import Objective, Record, train

__all__ = ["Row", "Trainer"]

Row = Mapping[str, float]
R = TypeVar("R")

_RECORDS = 1.05
"""Factor between the times of two rows of a history."""


class Trainer(ABC, Generic[R]):
    """A network on a problem, with parameters that a fit changes.

    Attributes:
        problem: What is solved.
        resample_every: Steps between two draws of points; None for none.
        reweight_every: Steps between two choices of weights; None for none.
        is_interrupted: Whether Ctrl-C ended the last fit.
    """

    problem: Problem
    resample_every: int | None = None
    reweight_every: int | None = None
    is_interrupted = False
    _loss: ClassVar[str] = "loss"
    """Name of the loss in a history."""

    @property
    @abstractmethod
    def parameter_count(self) -> int:
        """Number of parameters, unknown coefficients included."""

    @property
    @abstractmethod
    def training_settings(self) -> dict[str, Any]:
        """What a run is, so that a checkpoint of another one is refused."""

    @abstractmethod
    def initial(self) -> Float[Tensor, " P"]:
        """First parameters."""

    @abstractmethod
    def result(self, theta: Tensor, report: Report, history: list[dict[str, float]]) -> R:
        """Put parameters and their story together."""

    @abstractmethod
    def _training(
        self, theta: Tensor, *, measure: bool, executor: Executor | None
    ) -> AbstractContextManager[Objective]:
        """What is trained, as long as workers are there."""

    def _judge(self, theta: Tensor, report: Report) -> Report:
        """Look at the end of a training."""
        return report

    def fit(
        self,
        budget: float = 60.0,
        tolerance: float | None = None,
        *,
        optimizer: Optimizer = "self-scaled-broyden",
        steps: int | None = None,
        cpu_budget: float | None = None,
        target: float | None = None,
        start: Tensor | None = None,
        executor: Executor | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: float = 30.0,
        measure: bool = False,
        progress: bool | None = None,
        callback: Callable[[Row], object] | None = None,
        on_failure: OnFailure = "warn",
    ) -> R:
        """Train.

        Args:
            budget: Wall time [s].
            tolerance: Stop when the held-out residual, see `PINNResult.report`, is below.
            optimizer: ``"self-scaled-broyden"``, ``"levenberg-marquardt"``, ``"gns"``,
                ``"natural-gradient"``, ``"lbfgs"``, ``"adam"``, ``"diffgrad"``, a
                `solvers.training.Phase`, or several of these one after the other; a named one gives
                way to the next when the loss has not fallen by a hundredth over 500 steps.
            steps: Stop after so many steps.
            cpu_budget: CPU time of the process [s], beside ``budget``.
            target: Stop when the error against the reference is below; measures it.
            start: First parameters, unknown coefficients last; drawn from the seed by default.
            executor: Workers that share the points inside the domain; executors with equally many
                give the same numbers.
            checkpoint: File of the run. If it is there, training goes on from it with the same
                numbers as without the interruption.
            checkpoint_every: Seconds between two checkpoints.
            measure: Keep the error against the reference in the history. The time that takes is
                not counted.
            progress: Show a live display: True, False, or None for in a terminal only.
            callback: Gets every row of the history.
            on_failure: What happens when training ends elsewhere than at the tolerance or target,
                or stalls; spending the budget without having asked for either is success.

        Returns:
            Fields, and the story of their training. If new points give a NaN, the last state is
            returned as ``NON_FINITE`` and the warning names the guilty term. Ctrl-C ends after the
            running step.

        Raises:
            NotConvergedError: If ``on_failure="raise"`` and training failed.
            NonFiniteError: If the loss is not finite at the first parameters.
            CheckpointError: If the file belongs to another run.
        """
        if start is not None and not isinstance(start, Tensor):
            raise SettingsError(
                f"start: got {type(start).__name__}, expected a tensor of {self.parameter_count} "
                "parameters"
            )
        theta = (self.initial() if start is None else start).detach().double().clone()
        if theta.shape != (self.parameter_count,):
            raise SettingsError(
                f"start: got shape {tuple(theta.shape)}, expected ({self.parameter_count},): all "
                "parameters in a row, unknown coefficients last"
            )
        theta.requires_grad_()
        is_measured = measure or target is not None
        phases = make_schedule(optimizer)
        check_executor(executor)
        check_kind("measure", measure, bool, "True or False")
        if callback is not None:
            check_callable("callback", callback, "a function of a row of the history, or None")
        with self._training(theta, measure=is_measured, executor=executor) as objective:
            run = train(
                objective, phases, steps=steps, budget=budget, cpu_budget=cpu_budget,
                tolerance=tolerance, targets=None if target is None else {"relative_l2": target},
                resample_every=self.resample_every, reweight_every=self.reweight_every,
                record_every=_RECORDS, checkpoint=checkpoint, checkpoint_every=checkpoint_every,
                settings={
                    **self.training_settings, "optimizer": [phase.name for phase in phases]
                },
                callback=None if callback is None else lambda record: callback(self._row(record)),
                progress=progress, description=self.problem.name, on_failure="mask",
            )  # fmt: skip
            assert objective.held_out is not None
            held_out = torch.tensor(objective.held_out(), dtype=torch.float64)
        self.is_interrupted = run.is_interrupted
        theta = theta.detach()
        report = self._judge(theta, replace(run.report, residual=held_out))
        what = f"{type(self).__name__}.fit"
        apply_on_failure(
            report, on_failure, solution=Solution(value=theta, report=report),
            what=f"{what} ({run.guilty} is not finite)" if run.guilty else what,
        )  # fmt: skip
        return self.result(theta, report, [self._row(record) for record in run.history])

    def _row(self, record: Record) -> dict[str, float]:
        """A row of a history, numbers only."""
        assert record.held_out is not None
        row = {
            "step": float(record.step),
            "seconds": record.seconds,
            "cpu_seconds": record.cpu_seconds,
            self._loss: record.loss,
            "held_out": record.held_out,
            **record.measures,
        }
        return row | {name: size for name, size in record.terms.items() if name not in row}
