"""Arms of the comparison: the same basis and points, trained softly, hard, or by experts."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from constraints.experts import MixtureSolution, Partition
from constraints.experts._mixture import MixtureOfExperts
from constraints.systems.diffusion_sorption._basis import SimilarityBasis
from constraints.systems.diffusion_sorption._equation import DiffusionSorption
from solvers.core import (
    ShapeError,
    check_positive,
    load_checkpoint,
    relative_error,
    save_checkpoint,
)
from solvers.parallel import Executor
from solvers.training import FirstOrder, Objective, Phase, Record, Training
from solvers.training import train as run

__all__ = ["Arm", "Fit", "relative_errors", "train"]

Field = Callable[[Tensor, Sequence[str]], Tensor]

_KIND = "diffusion-sorption"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """A way of obeying the equation.

    Attributes:
        functions: Basis functions; 1 makes a network whose residual is only in its loss (soft).
        experts: Parts along ``x``.
        is_held: Whether experts are solved together, with continuous value and flux.
        is_local: Whether conditions concern only the experts that touch them.
        width: Units of a hidden layer of the basis.
        frequency: Factor of its first layer.
        points: Points of the equation in a step, for all experts together.

    Raises:
        SettingsError: If a number is not positive.
    """

    functions: int = 16
    experts: int = 1
    is_held: bool = False
    is_local: bool = True
    width: int = 64
    frequency: float = 3.0
    points: int = 2048

    def __post_init__(self) -> None:
        for name in ("functions", "experts", "width", "frequency", "points"):
            check_positive(name, getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A trained arm.

    Attributes:
        arm: What was trained.
        system: The equation.
        basis: The trained basis.
        mixture: The layer that solves for coefficients; None for a soft arm.
        training: History and status of the loop; None if no step was asked for.
        seconds: CPU time of training, earlier runs included [s].
        iterations: Mean iterations of the solves of every step; empty for a soft arm.
    """

    arm: Arm
    system: DiffusionSorption
    basis: SimilarityBasis
    mixture: MixtureOfExperts | None
    training: Training | None = None
    seconds: float = 0.0
    iterations: list[float] = field(default_factory=list)

    @property
    def losses(self) -> list[float]:
        """Loss of every step."""
        return [] if self.training is None else [record.loss for record in self.training.history]

    def solve(self, initial: Tensor, *, seed: int = 12345) -> Field:
        """The field for initial values of shape ``(S,)``: a function of points and features."""
        condition = _condition(initial)
        if self.mixture is None:
            return lambda points, names: self.basis(points, condition, names)[..., 0]
        solution: MixtureSolution = self.mixture(
            self.system.points(self.arm.points, seed=seed),
            {"initial": [initial[:, None]]},
            condition=condition,
        )
        return solution

    @torch.no_grad()
    def predict(self, initial: Tensor, *, points: int = 128, times: int = 51) -> Tensor:
        """Values at centres of cells, shape ``(S, points, times)``."""
        x = (torch.arange(points, dtype=torch.float64) + 0.5) / points
        t = torch.linspace(0, 1, times, dtype=torch.float64)
        grid = torch.cartesian_prod(x, t)
        return self.solve(initial)(grid, ("u",))[..., 0].reshape(-1, points, times)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write arm, system and weights to a ``.safetensors`` file, whole or not at all."""
        metadata = {"arm": asdict(self.arm), "system": asdict(self.system)}
        return save_checkpoint(path, self.basis.state_dict(), kind=_KIND, metadata=metadata)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, executor: Executor | None = None) -> Fit:
        """Read what `save` wrote; the history stays behind.

        Args:
            path: The file.
            executor: Where experts are solved.

        Raises:
            CheckpointError: If the file is damaged or holds something else.
        """
        found = load_checkpoint(path, kind=_KIND)
        system = DiffusionSorption(**found.metadata["system"])
        fit = _untrained(Arm(**found.metadata["arm"]), system, seed=0, executor=executor)
        fit.basis.load_state_dict(found.tensors)
        return fit


def train(
    arm: Arm,
    *,
    system: DiffusionSorption | None = None,
    steps: int = 100,
    samples: int = 4,
    learning_rate: float = 1e-3,
    seed: int = 0,
    executor: Executor | None = None,
    budget: float | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    callback: Callable[[Record], object] | None = None,
    progress: bool | None = False,
) -> Fit:
    """Train a basis on initial values drawn from 0 to 0.2, without any solution.

    A step fits coefficients on one set of points and measures the residual on another; gradients go
    through the fit.

    Args:
        arm: What to train.
        system: Parameters of the equation.
        steps: Steps of Adam; its rate falls to a tenth.
        samples: Initial values in a step.
        learning_rate: First rate.
        seed: Of weights, points and initial values.
        executor: Where experts are solved; all give the same bits.
        budget: Wall time after which training ends before its steps are done [s].
        checkpoint: File of the run; training goes on from it if it is there, on any executor, with
            the numbers that it would have had without the interruption.
        callback: Gets the record of every step.
        progress: True for a display, False for silence, None for a display in a terminal.

    Returns:
        The trained arm.

    Raises:
        NotConvergedError: If a solve fails, for the step would teach nothing, or if training runs
            into NaN.
        CheckpointError: If the file belongs to another run.

    Ctrl-C ends after the running step; the checkpoint is written, and what is reached returned.

    Example:
        >>> small = Arm(functions=4, experts=2, is_held=True, width=8, points=64)
        >>> len(train(small, steps=2, samples=1).losses)
        2
    """
    check_positive("steps", steps, allow_zero=True)
    check_positive("samples", samples)
    system = system or DiffusionSorption()
    fit = _untrained(arm, system, seed=seed, executor=executor)
    if not steps:
        return fit
    # What a run has beside parameters; a checkpoint fills it in place.
    done = torch.zeros((), dtype=torch.int64)
    seconds = torch.zeros((), dtype=torch.float64)
    iterations = torch.zeros(steps, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    clock = time.process_time()

    def terms() -> dict[str, Tensor]:
        initial = 0.2 * torch.rand(samples, generator=generator, dtype=torch.float64)
        first = 2 * (seed * steps + int(done))
        u = fit.solve(initial, seed=first)
        if isinstance(u, MixtureSolution):
            iterations[done] = u.report.iterations.double().mean()
        return _terms(system, u, system.points(arm.points // 2, seed=first + 1), initial)

    def note(record: Record) -> None:
        nonlocal clock
        done.fill_(record.step)
        seconds.add_(time.process_time() - clock)
        if callback is not None:
            callback(record)
        clock = time.process_time()

    training = run(
        Objective(
            fit.basis,
            terms,
            generator=generator,
            state={"done": done, "seconds": seconds, "iterations": iterations},
        ),
        Phase(name="Adam", method=lambda o: FirstOrder(o, _adam(learning_rate, steps))),
        steps=steps,
        budget=budget,
        record_every=1,
        checkpoint=checkpoint,
        settings={
            "arm": asdict(arm),
            "system": asdict(system),
            "steps": steps,
            "samples": samples,
            "learning_rate": learning_rate,
            "seed": seed,
        },
        callback=note,
        progress=progress,
        description=_KIND,
        on_failure="raise",
    )
    counts = [] if fit.mixture is None else iterations[: int(done)].tolist()
    return Fit(
        **{**vars(fit), "training": training, "seconds": float(seconds), "iterations": counts}
    )


def relative_errors(prediction: Tensor, solution: Tensor) -> Tensor:
    """Relative error of each sample in the mean square over space and time, shape ``(S,)``.

    Raises:
        ShapeError: If shapes differ.
    """
    if prediction.shape != solution.shape:
        raise ShapeError(
            f"prediction: got shape {tuple(prediction.shape)}, expected {tuple(solution.shape)}"
        )
    return relative_error(prediction, solution, dim=(1, 2))


class _ClippedAdam(torch.optim.Adam):
    """Adam with gradients of at most norm one and a rate that falls with every step."""

    def __init__(self, parameters: Sequence[Tensor], *, rate: float, decay: float) -> None:
        super().__init__(parameters, lr=rate)
        self._decay = decay

    def step(self, closure: Any = None) -> Any:
        """Take one step."""
        parameters = [p for group in self.param_groups for p in group["params"]]

        def clipped() -> Any:
            loss = closure()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            return loss

        loss = super().step(clipped)
        for group in self.param_groups:
            group["lr"] *= self._decay
        return loss


def _adam(rate: float, steps: int) -> Callable[[Sequence[Tensor]], _ClippedAdam]:
    return lambda parameters: _ClippedAdam(parameters, rate=rate, decay=0.1 ** (1 / steps))


def _condition(initial: Tensor) -> Tensor:
    return 5 * initial[:, None]


def _untrained(arm: Arm, system: DiffusionSorption, *, seed: int, executor: Executor | None) -> Fit:
    basis = SimilarityBasis(
        arm.functions, width=arm.width, depth=3, frequency=arm.frequency, seed=seed
    )
    mixture = _mixture(arm, system, basis, executor)
    return Fit(arm=arm, system=system, basis=basis, mixture=mixture)


def _mixture(
    arm: Arm, system: DiffusionSorption, basis: SimilarityBasis, executor: Executor | None
) -> MixtureOfExperts | None:
    if arm.functions == 1:
        return None
    return MixtureOfExperts(
        basis,
        system.rows(is_local=arm.is_local),
        Partition.boxes([0.0, 0.0], [1.0, 1.0], [arm.experts, 1]),
        continuity={"x": ("u", "u_x")} if arm.is_held else None,
        ridge=1e-10,
        executor=executor,
    )


def _terms(system: DiffusionSorption, u: Field, places: Any, initial: Tensor) -> dict[str, Tensor]:
    """Weighted mean squares of all families of rows."""
    terms = {}
    for name, rows in system.rows().items():
        z = u(places[name], rows.features).unbind(-1)
        r = rows.residual(*z, initial[:, None]) if name == "initial" else rows.residual(*z)
        terms[name] = 0.5 * rows.weight * r.square().mean()
    return terms
