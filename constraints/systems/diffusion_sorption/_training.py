"""Arms of the comparison: the same basis and points, trained softly, hard, or by experts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from constraints.experts import MixtureSolution, Partition
from constraints.experts._mixture import MixtureOfExperts
from constraints.systems.diffusion_sorption._basis import SimilarityBasis
from constraints.systems.diffusion_sorption._equation import DiffusionSorption
from solvers.core import ShapeError, check_positive, relative_error
from solvers.parallel import Executor

__all__ = ["Arm", "Fit", "relative_errors", "train"]

Field = Callable[[Tensor, Sequence[str]], Tensor]


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
    """

    functions: int = 16
    experts: int = 1
    is_held: bool = False
    is_local: bool = True
    width: int = 64
    frequency: float = 3.0
    points: int = 2048


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A trained arm.

    Attributes:
        arm: What was trained.
        system: The equation.
        basis: The trained basis.
        mixture: The layer that solves for coefficients; None for a soft arm.
        losses: Loss of every step.
        seconds: CPU time of training [s].
        iterations: Mean iterations of the solves of every step.
    """

    arm: Arm
    system: DiffusionSorption
    basis: SimilarityBasis
    mixture: MixtureOfExperts | None
    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0
    iterations: list[float] = field(default_factory=list)

    def solve(self, initial: Tensor, *, seed: int = 12345) -> Field:
        """The field for initial values of shape ``(S,)``: a function of points and features."""
        condition = _condition(initial)
        if self.mixture is None:
            return lambda points, names: self.basis(points, condition, names)[..., 0]
        return _fit(self, initial, condition, seed)

    @torch.no_grad()
    def predict(self, initial: Tensor, *, points: int = 128, times: int = 51) -> Tensor:
        """Values at centres of cells, shape ``(S, points, times)``."""
        x = (torch.arange(points, dtype=torch.float64) + 0.5) / points
        t = torch.linspace(0, 1, times, dtype=torch.float64)
        grid = torch.cartesian_prod(x, t)
        return self.solve(initial)(grid, ("u",))[..., 0].reshape(-1, points, times)


def train(
    arm: Arm,
    *,
    system: DiffusionSorption | None = None,
    steps: int = 100,
    samples: int = 4,
    learning_rate: float = 1e-3,
    seed: int = 0,
    executor: Executor | None = None,
    on_step: Callable[[int, Fit], None] | None = None,
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
        executor: Where experts are solved.
        on_step: Called after each step.

    Returns:
        The trained arm.

    Raises:
        NotConvergedError: If a solve fails; the step would teach nothing.
    """
    check_positive("steps", steps, allow_zero=True)
    check_positive("samples", samples)
    system = system or DiffusionSorption()
    basis = SimilarityBasis(
        arm.functions,
        width=arm.width,
        depth=3,
        frequency=arm.frequency,
        seed=seed,
    )
    fit = Fit(arm=arm, system=system, basis=basis, mixture=_mixture(arm, system, basis, executor))
    optimizer = torch.optim.Adam(basis.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.1 ** (1 / max(steps, 1)))
    generator = torch.Generator().manual_seed(seed)
    began = time.process_time()
    seconds = 0.0
    for step in range(steps):
        initial = 0.2 * torch.rand(samples, generator=generator, dtype=torch.float64)
        places = system.points(arm.points // 2, seed=2 * (seed * steps + step) + 1)
        loss = _residual(
            system, fit.solve(initial, seed=2 * (seed * steps + step)), places, initial
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(basis.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        fit.losses.append(float(loss.detach()))
        seconds += time.process_time() - began
        if on_step is not None:
            on_step(step, fit)
        began = time.process_time()
    return Fit(**{**vars(fit), "seconds": seconds})


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


def _condition(initial: Tensor) -> Tensor:
    return 5 * initial[:, None]


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


def _fit(fit: Fit, initial: Tensor, condition: Tensor, seed: int) -> MixtureSolution:
    mixture: Any = fit.mixture
    solution: MixtureSolution = mixture(
        fit.system.points(fit.arm.points, seed=seed),
        {"initial": [initial[:, None]]},
        condition=condition,
    )
    fit.iterations.append(float(solution.report.iterations.double().mean()))
    return solution


def _residual(system: DiffusionSorption, u: Field, places: Any, initial: Tensor) -> Tensor:
    """Weighted sum of the mean squares of all families of rows."""
    total = torch.zeros((), dtype=torch.float64)
    for name, rows in system.rows().items():
        z = u(places[name], rows.features).unbind(-1)
        r = rows.residual(*z, initial[:, None]) if name == "initial" else rows.residual(*z)
        total = total + 0.5 * rows.weight * r.square().mean()
    return total
