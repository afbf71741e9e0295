r"""Intrinsic dimension: how many random directions suffice to train.

Parameters move in a random subspace through the start, :math:`\theta = \theta_0 + P z`, and the
intrinsic dimension is the smallest d whose score reaches a share, 90 percent by default, of the
score in the full space. The learning rate of a subspace is another one than that of the full space
(tune it for each d): a wrong one inflates the number. Read it to about a third.

Reference: Li, Farkhoor, Liu & Yosinski 2018, "Measuring the intrinsic dimension of objective
landscapes", equation 2 and section 2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from physim.learn.landscape._projections import Projection, random_projection
from physim.learn.landscape._sweep import run_jobs
from solvers.core import SettingsError, Status
from solvers.curvature import Objective, ParameterSpace, ResidualSource
from solvers.parallel import Executor

__all__ = ["IntrinsicDimension", "SubspaceModule", "intrinsic_dimension", "subspace_objective"]


class SubspaceModule(nn.Module):
    """A module that trains in a random subspace.

    Args:
        module: Its parameters that take gradients are frozen at their present values; buffers and
            other parameters act as before. Move it to its device first.
        dimension: Number of coordinates.
        projection: Kind of the map.
        seed: Of the map.

    Attributes:
        z: The coordinates, zero at first; the only parameter.

    Raises:
        SettingsError: If the dimension exceeds the number of parameters.

    Example:
        >>> small = SubspaceModule(nn.Linear(10, 10), 5)
        >>> [tuple(p.shape) for p in small.parameters()], small(torch.ones(10)).shape
        ([(5,)], torch.Size([10]))
    """

    def __init__(
        self,
        module: nn.Module,
        dimension: int,
        *,
        projection: Projection = "fastfood",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self._space, start = ParameterSpace.of(module)
        self._project = random_projection(
            self._space.size, dimension, kind=projection, seed=seed, dtype=start.dtype,
            device=start.device,
        )  # fmt: skip
        self.register_buffer("start", start)
        # In a tuple, so that the frozen parameters do not count as this module's own.
        self._module = (module,)
        self.z = nn.Parameter(start.new_zeros(dimension))

    def forward(self, *inputs: Any) -> Any:
        """Evaluate the module at the point of the subspace."""
        return functional_call(self._module[0], self.named_point(), inputs)

    def point(self) -> Tensor:
        """All parameters as one vector; differentiable with respect to ``z``."""
        start: Tensor = self.get_buffer("start")
        return start + self._project(self.z)

    def named_point(self) -> dict[str, Tensor]:
        """All parameters by name."""
        return self._space.unflatten(self.point())


def subspace_objective(
    objective: Objective,
    dimension: int,
    *,
    projection: Projection = "dense",
    seed: int = 0,
) -> Objective:
    """Restrict an objective to a random subspace through its start.

    Args:
        objective: What is minimised.
        dimension: Number of coordinates.
        projection: Kind of the map.
        seed: Of the map.

    Returns:
        An objective of the coordinates, which start at zero. Residuals stay residuals, and those
        that bring their own derivatives still do.

    Raises:
        SettingsError: If the dimension exceeds the number of parameters.

    Example:
        >>> bowl = Objective.of_residual(lambda p: p - 1.0, torch.zeros(9, dtype=torch.float64))
        >>> subspace_objective(bowl, 3).start.shape
        torch.Size([3])
    """
    start = objective.start
    project = random_projection(
        start.numel(), dimension, kind=projection, seed=seed, dtype=start.dtype,
        device=start.device,
    )  # fmt: skip
    origin = start.new_zeros(dimension)
    if objective.source is not None:
        unit = torch.eye(dimension, dtype=start.dtype, device=start.device)
        columns = torch.stack([project(row) for row in unit], 1)
        return Objective.of_source(_SubspaceSource(objective.source, start, columns), origin)
    if objective.is_least_squares:
        return Objective.of_residual(
            lambda z: objective.residual(start + project(z)), origin, mode=objective.mode
        )
    return Objective.of_loss(
        lambda z: objective.loss(start + project(z)), origin, mode=objective.mode
    )


@dataclass(frozen=True)
class _SubspaceSource:
    """Residuals with their derivatives along the columns of a matrix."""

    source: ResidualSource
    start: Tensor
    columns: Tensor

    def residuals(self, theta: Tensor) -> Tensor:
        return self.source.residuals(self.start + self.columns @ theta)

    def jacobian(self, theta: Tensor) -> Tensor:
        return self.source.jacobian(self.start + self.columns @ theta) @ self.columns

    def loss_and_gradient(self, theta: Tensor) -> tuple[float, Tensor]:
        loss, gradient = self.source.loss_and_gradient(self.start + self.columns @ theta)
        return loss, self.columns.T @ gradient


@dataclass(frozen=True, slots=True, kw_only=True)
class IntrinsicDimension:
    """What a sweep over dimensions found.

    Attributes:
        dimension: Smallest dimension whose median score reaches the threshold; None if none does.
        interval: The same for the best and the worst seed; None where not reached.
        scores: Scores of every seed by dimension.
        baseline: Median score in the full space.
        threshold: Score that had to be reached.
        status: ``CONVERGED``, or ``MAX_ITERATIONS`` if no dimension sufficed.
    """

    dimension: int | None
    interval: tuple[int | None, int | None]
    scores: Mapping[int, Sequence[float]]
    baseline: float
    threshold: float
    status: Status


def intrinsic_dimension(
    score: Callable[[int | None, int], float],
    dimensions: Sequence[int],
    *,
    seeds: Sequence[int] = (0, 1, 2),
    share: float = 0.9,
    baseline: float | None = None,
    executor: Executor | None = None,
) -> IntrinsicDimension:
    """Sweep dimensions and seeds.

    Args:
        score: Trains in a subspace of the given dimension (None: in full) with the given seed and
            gives a positive score where more is better, accuracy or one over the error.
        dimensions: Candidates.
        seeds: Repetitions.
        share: Part of the baseline to reach.
        baseline: Score in the full space; trained here by default.
        executor: Where trainings run; in this thread by default. The score then builds what it
            changes, such as a PINN with its engine, by itself.

    Returns:
        The dimension with the interval over seeds.

    Raises:
        SettingsError: If there are no dimensions or seeds.

    Example:
        >>> found = intrinsic_dimension(lambda d, seed: 1.0 if d is None else d / 20, [5, 10, 18])
        >>> found.dimension
        18
    """
    if not dimensions or not seeds or min(dimensions) < 1:
        raise SettingsError(
            f"dimensions, seeds: got {list(dimensions)} and {list(seeds)}, expected at least one "
            "positive dimension and one seed"
        )
    ladder = sorted(set(dimensions))
    jobs: list[tuple[int | None, int]] = [(d, seed) for d in ladder for seed in seeds]
    if baseline is None:
        jobs = [*((None, seed) for seed in seeds), *jobs]
    results = {job: float(value) for job, value in run_jobs(score, jobs, executor).items()}
    if baseline is None:
        baseline = _median([results[None, seed] for seed in seeds])
    goal = share * baseline
    scores = {d: [results[d, seed] for seed in seeds] for d in ladder}

    def first(pick: Callable[[Sequence[float]], float]) -> int | None:
        return next((d for d in ladder if pick(scores[d]) >= goal), None)

    dimension = first(_median)
    return IntrinsicDimension(
        dimension=dimension,
        interval=(first(max), first(min)),
        scores=scores,
        baseline=baseline,
        threshold=goal,
        status=Status.MAX_ITERATIONS if dimension is None else Status.CONVERGED,
    )


def _median(values: Sequence[float]) -> float:
    return float(torch.tensor(values, dtype=torch.float64).median())
