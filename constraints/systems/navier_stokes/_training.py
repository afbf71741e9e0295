"""Arms of the comparison: the same network and points, trained softly, hard, or by experts."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from constraints.experts import MixtureSolution, Partition
from constraints.experts._mixture import MixtureOfExperts
from constraints.systems._training import Lesson, TrainedArm, train_arm
from constraints.systems.navier_stokes._basis import OperatorBasis
from constraints.systems.navier_stokes._equation import NavierStokes
from constraints.systems.navier_stokes._initial import FAMILIES, initial_fields
from solvers.core import (
    NumericalWarning,
    SettingsError,
    check_choice,
    check_count,
    check_positive,
    check_shape,
    load_checkpoint,
)
from solvers.parallel import Executor
from solvers.training import Record

__all__ = ["Arm", "Fit", "train"]

Field = Callable[[Tensor, Sequence[str]], Tensor]

_KIND = "navier-stokes"
_CHUNK = 16
_GROWTH = 2.0
"""Vorticity cannot grow without forcing; a flow that does by this factor is given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """A way of obeying the equation.

    Time is covered by slabs, one after the other: the field at the end of one is the initial field
    of the next, in every arm.

    Attributes:
        is_soft: Whether the network gives the field itself, with the residual only in its loss.
        fields: Fields of the basis, each with ``degrees`` coefficients; a soft arm has as many as
            it needs.
        degrees: Polynomials of time in a slab, at least two.
        slabs: Equal parts of time.
        experts: Parts along ``x`` and ``y``.
        is_held: Whether experts are solved together, with continuous value and slope.
        cells: Points along a side of the network's grid.
        modes: Largest wave number of its layers and of its fields.
        width: Channels of a layer.
        points: Points of the equation in a step, for all experts together.

    Raises:
        SettingsError: If a number is not positive, or settings contradict each other.
    """

    is_soft: bool = False
    fields: int = 16
    degrees: int = 2
    slabs: int = 40
    experts: tuple[int, int] = (1, 1)
    is_held: bool = False
    cells: int = 32
    modes: int = 10
    width: int = 16
    points: int = 1024

    def __post_init__(self) -> None:
        for name in ("fields", "degrees", "slabs", "cells", "modes", "width", "points"):
            check_positive(name, getattr(self, name))
        # A file gives back a list.
        object.__setattr__(self, "experts", tuple(self.experts))
        if len(self.experts) != 2 or min(self.experts) < 1:
            raise SettingsError(f"experts: got {self.experts}, expected two positive numbers")
        if self.is_soft and self.experts != (1, 1):
            raise SettingsError(f"experts: got {self.experts} for a soft arm, expected (1, 1)")
        if self.is_held and self.experts == (1, 1):
            raise SettingsError("is_held: got True for one expert, expected two or more")


class Fit(TrainedArm):
    """A trained arm; its basis and mixture are those of a slab."""

    kind: ClassVar[str] = _KIND
    arm: Arm
    system: NavierStokes
    basis: OperatorBasis

    def solve(self, initial: Tensor, *, seed: int = 12345) -> Field:
        """Departure from the initial fields in a slab, as a function of points and features.

        Args:
            initial: Vorticity at ``(i / n, j / n)`` with ``n = arm.cells``, shape ``(S, n, n)``.
            seed: Of the points of the equation.

        Raises:
            ShapeError: If ``initial`` has another shape.
            NotConvergedError: If a solve fails.
        """
        check_shape("initial", initial, "S n n", sizes={"n": self.arm.cells})
        # Transforms of a view differ in the last bits from those of the copy that a worker gets.
        initial = initial.double().contiguous()
        if self.mixture is None:
            own = self.basis.own_coefficients()
            return lambda points, names: self.basis(points, initial, names) @ own
        slab = self.basis.system
        points = slab.points(self.arm.points, seed=seed)
        data = {"equation": slab.lift(initial, points["equation"])}
        solution: MixtureSolution = self.mixture(points, data, condition=initial)
        return solution

    @torch.no_grad()
    def predict(self, initial: Tensor, *, times: int = 11) -> Tensor:
        """Vorticity at ``times`` from 0 to the duration, shape ``(S, times, n, n)``.

        Fields are followed a few at a time, so that memory does not grow with their number.

        Args:
            initial: As for `solve`.
            times: At least two.

        Raises:
            SettingsError: If ``times`` is smaller.
            ShapeError: If ``initial`` has another shape.
            NotConvergedError: If a solve fails.

        Fields of a soft arm may blow up; a warning names them.
        """
        if times < 2:
            raise SettingsError(f"times: got {times}, expected at least 2")
        check_shape("initial", initial, "S n n", sizes={"n": self.arm.cells})
        if not len(initial):
            return initial.double().new_zeros(0, times, *initial.shape[1:])
        fields = torch.cat([self._follow(part, times) for part in initial.double().split(_CHUNK)])
        lost = (~fields.isfinite().flatten(1).all(1)).nonzero()[:, 0].tolist()
        if lost:
            warnings.warn(
                f"predict: fields {lost} of {len(fields)} blow up, they hold NaN or infinity; "
                "train longer, take more slabs, or a hard arm",
                NumericalWarning,
                stacklevel=2,
            )
        return fields

    def _follow(self, w: Tensor, times: int) -> Tensor:
        frames, slabs = [w], self.arm.slabs
        for slab in range(slabs):
            u = self.solve(w, seed=slab)
            # In units of a slab; the end of the last one is the last time.
            inside = [k * slabs / (times - 1) - slab for k in range(1, times)]
            frames += [w + _frame(u, t, w) for t in inside if 1e-9 < t < 1 - 1e-9]
            w = w + _frame(u, 1.0, w)
            frames += [w for t in inside if abs(t - 1) <= 1e-9]
        return torch.stack(frames, 1)

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
        arm, system = Arm(**found.metadata["arm"]), NavierStokes(**found.metadata["system"])
        fit = _untrained(arm, system, found.metadata["family"], seed=0, executor=executor)
        fit.basis.load_state_dict(found.tensors)
        return fit


def train(
    arm: Arm,
    *,
    system: NavierStokes | None = None,
    family: str = "smooth",
    steps: int = 100,
    samples: int = 4,
    learning_rate: float | None = None,
    optimizer: str = "adam",
    seed: int = 0,
    executor: Executor | None = None,
    budget: float | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    callback: Callable[[Record], object] | None = None,
    progress: bool | None = False,
) -> Fit:
    """Train a basis on flows that it follows itself, without any solution.

    A step is one slab of a few flows, each of another age: coefficients are fitted on one set of
    points, the residual is measured on another, and gradients go through the fit. Then the flows go
    on from where the slab ends; at the end of time a new one begins.

    Args:
        arm: What to train.
        system: Parameters of the equation.
        family: Initial fields, see `initial_fields`.
        steps: Steps of the optimizer; its rate falls to a tenth.
        samples: Flows.
        learning_rate: First rate; 5e-3 by default, 1e-3 for a soft arm.
        optimizer: ``"adam"``, ``"adamw"``, ``"diffgrad"``, ``"rmsprop"`` or ``"sgd"``.
        seed: Of weights, points and initial fields.
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
        >>> small = Arm(fields=4, cells=16, modes=5, width=4, points=128, slabs=50)
        >>> len(train(small, steps=2, samples=1).losses)
        2
    """
    check_positive("steps", steps, allow_zero=True)
    check_count("samples", samples)
    fit = _untrained(arm, system or NavierStokes(), family, seed=seed, executor=executor)
    if not steps:
        return fit
    trained = train_arm(
        fit,
        _Flows(fit, steps=steps, samples=samples, seed=seed),
        learning_rate=(1e-3 if arm.is_soft else 5e-3) if learning_rate is None else learning_rate,
        optimizer=optimizer,
        settings={"samples": samples, "seed": seed},
        budget=budget,
        checkpoint=checkpoint,
        callback=callback,
        progress=progress,
    )
    return Fit(**trained)


class _Flows(Lesson):
    """Flows that are followed while the network learns."""

    def __init__(self, fit: Fit, *, steps: int, samples: int, seed: int):
        super().__init__(steps, seed)
        self._fit = fit
        self._ages = torch.randint(fit.arm.slabs, (samples,), generator=self.generator)
        self._flows = self._draw(samples)
        self._bounds = _GROWTH * self._flows.abs().amax((1, 2))
        self._next = self._flows
        self.state |= {"flows": self._flows, "ages": self._ages, "bounds": self._bounds}

    def terms(self) -> Mapping[str, Tensor]:
        """The mean square of the residual in the next slab of every flow."""
        first, second = self.seeds
        slab = self._fit.basis.system
        u = self._fit.solve(self._flows, seed=first)
        if isinstance(u, MixtureSolution):
            self.iterations[self.step] = u.report.iterations.double().mean()
        places = slab.points(self._fit.arm.points // 2, seed=second)["equation"]
        rows = slab.rows()["equation"]
        z = u(places, rows.features).unbind(-1)
        r = rows.residual(*z, *slab.lift(self._flows, places))
        with torch.no_grad():
            self._next = self._flows + _frame(u, 1.0, self._flows)
        return {"equation": 0.5 * r.square().mean()}

    def advance(self) -> None:
        """Go on to the ends of the slabs; begin anew where time or a flow is over."""
        super().advance()
        self._ages.add_(1)
        is_over = self._ages >= self._fit.arm.slabs
        is_over |= ~(self._next.abs().amax((1, 2)) <= self._bounds)
        self._flows.copy_(self._next)
        if bool(is_over.any()):
            self._flows[is_over] = self._draw(int(is_over.sum()))
            self._bounds[is_over] = _GROWTH * self._flows[is_over].abs().amax((1, 2))
            self._ages[is_over] = 0

    def _draw(self, count: int) -> Tensor:
        cells, family = self._fit.arm.cells, self._fit.family
        return initial_fields(count, cells=cells, family=family, generator=self.generator)


def _frame(u: Field, t: float, like: Tensor) -> Tensor:
    """Values of a field on the grid at one time, shape ``(S, n, n)``."""
    x = torch.arange(like.shape[-1], dtype=torch.float64) / like.shape[-1]
    places = torch.cartesian_prod(x, x, torch.tensor([t], dtype=torch.float64))
    return u(places, ("w",))[..., 0].reshape(like.shape)


def _untrained(
    arm: Arm, system: NavierStokes, family: str, *, seed: int, executor: Executor | None
) -> Fit:
    check_choice("family", family, tuple(FAMILIES))
    slab = replace(system, duration=system.duration / arm.slabs)
    basis = OperatorBasis(
        arm.degrees + 2 if arm.is_soft else arm.fields,
        arm.degrees,
        system=slab,
        cells=arm.cells,
        modes=arm.modes,
        width=arm.width,
        seed=seed,
    )
    mixture = None if arm.is_soft else _mixture(arm, slab, basis, executor)
    if arm.is_soft:
        basis.own_coefficients()
    return Fit(arm=arm, system=system, family=family, basis=basis, mixture=mixture)


def _mixture(
    arm: Arm, slab: NavierStokes, basis: OperatorBasis, executor: Executor | None
) -> MixtureOfExperts:
    continuity: dict[str, Any] = {}
    if arm.is_held:
        cut = [axis for axis, parts in zip("xy", arm.experts, strict=True) if parts > 1]
        continuity = {axis: ("w", f"w_{axis}") for axis in cut}
    return MixtureOfExperts(
        basis,
        slab.rows(),
        Partition.boxes([0.0] * 3, [1.0] * 3, [*arm.experts, 1], periodic=(0, 1)),
        continuity=continuity or None,
        ridge=1e-8,
        tolerance=1e-4,
        executor=executor,
    )
