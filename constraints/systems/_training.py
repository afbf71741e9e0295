"""What training has in common on all systems: a basis, a loss that is drawn anew, the loop."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from constraints.experts._mixture import MixtureOfExperts
from solvers.core import ShapeError, check_choice, check_positive, relative_error, save_checkpoint
from solvers.optim import DiffGrad
from solvers.training import FirstOrder, Objective, Phase, Record, Training
from solvers.training import train as run

__all__ = ["OPTIMIZERS", "Lesson", "TrainedArm", "relative_errors", "train_arm"]

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "diffgrad": DiffGrad,
    "rmsprop": torch.optim.RMSprop,
    "sgd": torch.optim.SGD,
}
"""Optimizers that evaluate the loss once a step, by name."""


@dataclass(frozen=True, kw_only=True)
class TrainedArm:
    """A trained arm.

    Attributes:
        arm: What was trained.
        system: The equation.
        family: Initial conditions that it was trained on.
        basis: The trained basis.
        mixture: The layer that solves for coefficients; None for a soft arm.
        training: History and status of the loop; None if no step was asked for.
        seconds: CPU time of training, earlier runs included [s].
        iterations: Mean iterations of the solves of every step; empty for a soft arm.
    """

    kind: ClassVar[str]

    arm: Any
    system: Any
    family: str
    basis: nn.Module
    mixture: MixtureOfExperts | None
    training: Training | None = None
    seconds: float = 0.0
    iterations: list[float] = field(default_factory=list)

    @property
    def losses(self) -> list[float]:
        """Loss of every step."""
        return [] if self.training is None else [record.loss for record in self.training.history]

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write arm, system, family and weights to a ``.safetensors`` file, whole or not at all."""
        metadata = {
            "arm": asdict(self.arm), "system": asdict(self.system), "family": self.family,
        }  # fmt: skip
        return save_checkpoint(path, self.basis.state_dict(), kind=self.kind, metadata=metadata)


class Lesson(ABC):
    """What a step of training sees, and what a run has beside parameters.

    Args:
        steps: Steps of the run.
        seed: Of the random numbers.

    Attributes:
        generator: Source of random numbers.
        iterations: Mean iterations of the solves of every step.
        state: Tensors of the run; a checkpoint fills them in place.
    """

    def __init__(self, steps: int, seed: int):
        self.generator = torch.Generator().manual_seed(seed)
        self.iterations = torch.zeros(steps, dtype=torch.float64)
        self._done = torch.zeros((), dtype=torch.int64)
        self._first = 2 * seed * steps
        self.state = {"done": self._done, "iterations": self.iterations}

    @property
    def step(self) -> int:
        """Steps taken."""
        return int(self._done)

    @property
    def seeds(self) -> tuple[int, int]:
        """Of the points of a step: those that coefficients are fitted to, and those of the loss."""
        first = self._first + 2 * self.step
        return first, first + 1

    @abstractmethod
    def terms(self) -> Mapping[str, Tensor]:
        """Terms of the loss, by name."""

    def advance(self) -> None:
        """Take in that a step was taken; a step that fails is not."""
        self._done.add_(1)


def train_arm(
    fit: TrainedArm,
    lesson: Lesson,
    *,
    learning_rate: float,
    optimizer: str,
    settings: Mapping[str, Any],
    budget: float | None,
    checkpoint: str | os.PathLike[str] | None,
    callback: Callable[[Record], object] | None,
    progress: bool | None,
) -> dict[str, Any]:
    """Train the basis of an arm.

    Args:
        fit: The arm; its basis changes in place.
        lesson: What a step sees.
        learning_rate: First rate; it falls to a tenth.
        optimizer: Name among `OPTIMIZERS`.
        settings: What the run is, beside what is here.
        budget: Wall time after which training ends before its steps are done [s].
        checkpoint: File of the run.
        callback: Gets the record of every step.
        progress: True for a display, False for silence, None for a display in a terminal.

    Returns:
        The attributes of the trained arm.

    Raises:
        SettingsError: If a setting is out of range.
        NotConvergedError: If a solve fails, or training runs into NaN.
        CheckpointError: If the file belongs to another run.
    """
    check_choice("optimizer", optimizer, tuple(OPTIMIZERS))
    check_positive("learning_rate", learning_rate)
    steps = len(lesson.iterations)
    seconds = torch.zeros((), dtype=torch.float64)
    clock = time.process_time()

    def note(record: Record) -> None:
        nonlocal clock
        lesson.advance()
        seconds.add_(time.process_time() - clock)
        if callback is not None:
            callback(record)
        clock = time.process_time()

    def make(parameters: Sequence[Tensor]) -> Any:
        chosen = OPTIMIZERS[optimizer](parameters, lr=learning_rate)
        return _Clipped(chosen, decay=0.1 ** (1 / steps))

    training = run(
        Objective(
            fit.basis,
            lesson.terms,
            generator=lesson.generator,
            state={**lesson.state, "seconds": seconds},
        ),
        Phase(name=optimizer, method=lambda o: FirstOrder(o, make)),
        steps=steps,
        budget=budget,
        record_every=1,
        checkpoint=checkpoint,
        settings={
            "arm": _as_json(asdict(fit.arm)),
            "system": asdict(fit.system),
            "family": fit.family,
            "steps": steps,
            "learning_rate": learning_rate,
            "optimizer": optimizer,
            **settings,
        },
        callback=note,
        progress=progress,
        description=fit.kind,
        on_failure="raise",
    )
    counts = [] if fit.mixture is None else lesson.iterations[: lesson.step].tolist()
    return {**vars(fit), "training": training, "seconds": float(seconds), "iterations": counts}


def relative_errors(prediction: Tensor, solution: Tensor) -> Tensor:
    """Relative error of each sample in the mean square over space and time, shape ``(S,)``.

    Raises:
        ShapeError: If shapes differ.
    """
    if prediction.shape != solution.shape:
        raise ShapeError(
            f"prediction: got shape {tuple(prediction.shape)}, expected {tuple(solution.shape)}"
        )
    return relative_error(prediction.flatten(1), solution.flatten(1), dim=1)


def _as_json(settings: Mapping[str, Any]) -> dict[str, Any]:
    """As a file gives it back: tuples become lists."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in settings.items()}


class _Clipped:
    """An optimizer with gradients of at most norm one and a rate that falls with every step."""

    def __init__(self, optimizer: torch.optim.Optimizer, *, decay: float) -> None:
        self._optimizer, self._decay = optimizer, decay

    def step(self, closure: Callable[[], Any]) -> Any:
        """Take one step."""
        groups = self._optimizer.param_groups
        parameters = [p for group in groups for p in group["params"]]

        def clipped() -> Any:
            loss = closure()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            return loss

        loss = self._optimizer.step(clipped)
        for group in groups:
            group["lr"] *= self._decay
        return loss

    def state_dict(self) -> dict[str, Any]:
        """State of the optimizer."""
        return self._optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self._optimizer.load_state_dict(state)
