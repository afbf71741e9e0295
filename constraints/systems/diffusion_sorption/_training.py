"""Arms of the comparison: the same basis and points, trained softly, hard, or by experts."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from constraints.experts import MixtureSolution, Partition
from constraints.experts._mixture import MixtureOfExperts
from constraints.systems._training import Lesson, TrainedArm, train_arm
from constraints.systems.diffusion_sorption._basis import SimilarityBasis
from constraints.systems.diffusion_sorption._equation import DiffusionSorption
from constraints.systems.diffusion_sorption._initial import (
    PARAMETERS,
    condition,
    draw_initial,
    profiles,
)
from solvers.core import check_choice, check_count, check_positive, load_checkpoint
from solvers.parallel import Executor
from solvers.training import Record

__all__ = ["Arm", "Fit", "train"]

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


class Fit(TrainedArm):
    """A trained arm."""

    kind: ClassVar[str] = _KIND
    arm: Arm
    system: DiffusionSorption
    basis: SimilarityBasis

    def solve(self, initial: Tensor, *, seed: int = 12345) -> Field:
        """The field, as a function of points and features.

        Args:
            initial: Parameters of profiles, shape ``(S,)`` or ``(S, c)``, see `profiles`.
            seed: Of the points of the equation.

        Raises:
            ShapeError: If parameters are not those of the family that was trained on.
            NotConvergedError: If a solve fails.
        """
        seen = condition(initial, self.family)
        if self.mixture is None:
            return lambda points, names: self.basis(points, seen, names)[..., 0]
        points = self.system.points(self.arm.points, seed=seed)
        goal = profiles(initial, points["initial"][:, 0])
        solution: MixtureSolution = self.mixture(points, {"initial": [goal]}, condition=seen)
        return solution

    @torch.no_grad()
    def predict(self, initial: Tensor, *, points: int = 128, times: int = 51) -> Tensor:
        """Values at centres of cells, shape ``(S, points, times)``."""
        x = (torch.arange(points, dtype=torch.float64) + 0.5) / points
        t = torch.linspace(0, 1, times, dtype=torch.float64)
        grid = torch.cartesian_prod(x, t)
        return self.solve(initial)(grid, ("u",))[..., 0].reshape(-1, points, times)

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
        arm, system = Arm(**found.metadata["arm"]), DiffusionSorption(**found.metadata["system"])
        # Files from before there were families hold constants.
        family = found.metadata.get("family", "constant")
        fit = _untrained(arm, system, family, seed=0, executor=executor)
        fit.basis.load_state_dict(found.tensors)
        return fit


def train(
    arm: Arm,
    *,
    system: DiffusionSorption | None = None,
    family: str = "constant",
    steps: int = 100,
    samples: int = 4,
    learning_rate: float = 1e-3,
    optimizer: str = "adam",
    seed: int = 0,
    executor: Executor | None = None,
    budget: float | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    callback: Callable[[Record], object] | None = None,
    progress: bool | None = False,
) -> Fit:
    """Train a basis on initial profiles that are drawn anew, without any solution.

    A step fits coefficients on one set of points and measures the residual on another; gradients go
    through the fit.

    Args:
        arm: What to train.
        system: Parameters of the equation.
        family: Initial profiles, see `draw_initial`.
        steps: Steps of the optimizer; its rate falls to a tenth.
        samples: Initial profiles in a step.
        learning_rate: First rate.
        optimizer: ``"adam"``, ``"adamw"``, ``"diffgrad"``, ``"rmsprop"`` or ``"sgd"``.
        seed: Of weights, points and initial profiles.
        executor: Where experts are solved; all give the same bits.
        budget: Wall time after which training ends before its steps are done [s].
        checkpoint: File of the run; training goes on from it if it is there, on any executor, with
            the numbers that it would have had without the interruption.
        callback: Gets the record of every step.
        progress: True for a display, False for silence, None for a display in a terminal.

    Returns:
        The trained arm.

    Raises:
        SettingsError: If a setting is out of range.
        NotConvergedError: If a solve fails, for the step would teach nothing, or if training runs
            into NaN; a checkpoint holds the state before that step.
        CheckpointError: If the file belongs to another run.

    Ctrl-C ends after the running step; the checkpoint is written, and what is reached returned.

    Example:
        >>> small = Arm(functions=4, experts=2, is_held=True, width=8, points=64)
        >>> len(train(small, steps=2, samples=1).losses)
        2
    """
    check_positive("steps", steps, allow_zero=True)
    check_count("samples", samples)
    system = system or DiffusionSorption()
    fit = _untrained(arm, system, family, seed=seed, executor=executor)
    if not steps:
        return fit
    trained = train_arm(
        fit,
        _Profiles(fit, steps=steps, samples=samples, seed=seed),
        learning_rate=learning_rate,
        optimizer=optimizer,
        settings={"samples": samples, "seed": seed},
        budget=budget,
        checkpoint=checkpoint,
        callback=callback,
        progress=progress,
    )
    return Fit(**trained)


class _Profiles(Lesson):
    """Initial profiles, drawn anew in every step."""

    def __init__(self, fit: Fit, *, steps: int, samples: int, seed: int):
        super().__init__(steps, seed)
        self._fit, self._samples = fit, samples

    def terms(self) -> Mapping[str, Tensor]:
        """Weighted mean squares of all families of rows."""
        first, second = self.seeds
        fit, system = self._fit, self._fit.system
        initial = draw_initial(self._samples, family=fit.family, generator=self.generator)
        u = fit.solve(initial, seed=first)
        if isinstance(u, MixtureSolution):
            self.iterations[self.step] = u.report.iterations.double().mean()
        places = system.points(fit.arm.points // 2, seed=second)
        goal = profiles(initial, places["initial"][:, 0])
        terms = {}
        for name, rows in system.rows().items():
            z = u(places[name], rows.features).unbind(-1)
            r = rows.residual(*z, goal) if name == "initial" else rows.residual(*z)
            terms[name] = 0.5 * rows.weight * r.square().mean()
        return terms


def _untrained(
    arm: Arm, system: DiffusionSorption, family: str, *, seed: int, executor: Executor | None
) -> Fit:
    check_choice("family", family, tuple(PARAMETERS))
    basis = SimilarityBasis(
        arm.functions,
        conditions=PARAMETERS[family],
        width=arm.width,
        depth=3,
        frequency=arm.frequency,
        seed=seed,
    )
    mixture = _mixture(arm, system, basis, executor)
    return Fit(arm=arm, system=system, family=family, basis=basis, mixture=mixture)


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
