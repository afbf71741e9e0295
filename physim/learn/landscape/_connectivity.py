r"""Linear mode connectivity: what lies on the straight line between two solutions.

The barrier is the largest excess over the chord,

.. math:: B = \max_{t\in[0,1]} L((1-t)a + t b) - (1-t) L(a) - t L(b),

in the loss and, for losses that span decades, in its logarithm. Layer-wise barriers interpolate one
layer and keep the others. A fork study trains together up to a step and then apart: runs that part
late end in one basin. From both ends, second order with :math:`d = b - a` predicts the excess at
the middle,

.. math:: \tfrac14 (g_a - g_b)^\top d + \tfrac1{16} d^\top (H_a + H_b) d ,

up to fourth-order terms.

Reference: Singh et al. 2024, "Landscaping linear mode connectivity" (fork studies, angles,
layer-wise barriers); the prediction is an expansion of our own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import vmap

from physim.learn.landscape._sweep import run_jobs
from solvers.core import SettingsError, check_shape
from solvers.curvature import Objective, hessian
from solvers.parallel import Executor

__all__ = [
    "Barrier",
    "Fork",
    "angle",
    "barrier",
    "fork_study",
    "layerwise_barriers",
    "predicted_barrier",
]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Barrier:
    """Losses along a line.

    Attributes:
        t: Places from 0 to 1, shape ``(m,)``.
        losses: Shape ``(m,)``.
        height: Largest excess over the chord; zero if the line never rises above it.
        log_height: The same for the natural logarithm; NaN if a loss is not positive.
    """

    t: Float[Tensor, " m"]
    losses: Float[Tensor, " m"]
    height: float
    log_height: float


def barrier(
    objective: Objective,
    a: Float[Tensor, " n"],
    b: Float[Tensor, " n"],
    *,
    points: int = 21,
    layers: Iterable[str] | None = None,
    chunk: int = 1,
) -> Barrier:
    """Evaluate the loss on the line between two parameter vectors.

    Args:
        objective: What is minimised.
        a: One end.
        b: Other end.
        points: Evaluations, ends included.
        layers: Move only these layers of the objective's space, from a towards b.
        chunk: Evaluations at once, by ``vmap`` if above 1.

    Returns:
        The barrier. A loss that is not finite makes the heights infinite.

    Raises:
        SettingsError: If there are fewer than three points or the objective is random.
        NonFiniteError: If the loss at ``a`` is not finite.

    Example:
        >>> double_well = Objective.of_loss(lambda p: (p**2 - 1).square().sum(), torch.ones(1))
        >>> barrier(double_well, torch.tensor([-1.0]), torch.tensor([1.0])).height
        1.0
    """
    check_shape("b", b, str(len(a)))
    if points < 3:
        raise SettingsError(f"points: got {points}, expected at least 3")
    objective.check_repeatable(a)
    move = b - a
    if layers is not None:
        move = move * objective.space.mask(layers).to(move)
    t = torch.linspace(0, 1, points, dtype=a.dtype, device=a.device)
    line = (a + t[:, None] * move).detach()
    # With grad enabled: a loss may differentiate inside.
    if chunk > 1:
        losses: Tensor = vmap(objective.loss, chunk_size=chunk)(line).detach()
    else:
        losses = torch.stack([objective.loss(point).detach() for point in line])
    is_positive = bool((losses > 0).all()) or not bool(torch.isfinite(losses).all())
    log_height = _excess(t, losses.log()) if is_positive else math.nan
    return Barrier(t=t, losses=losses, height=_excess(t, losses), log_height=log_height)


def layerwise_barriers(
    objective: Objective,
    a: Float[Tensor, " n"],
    b: Float[Tensor, " n"],
    *,
    points: int = 21,
) -> dict[str, Barrier]:
    """Evaluate one line per layer: that layer goes from a to b, the others stay at a.

    Args:
        objective: Built from a module, so that it knows its layers.
        a: One end.
        b: Other end.
        points: Evaluations on each line.

    Returns:
        Barriers by layer.
    """
    return {
        layer: barrier(objective, a, b, points=points, layers=[layer])
        for layer in objective.space.layers
    }


def predicted_barrier(
    objective: Objective, a: Float[Tensor, " n"], b: Float[Tensor, " n"]
) -> float:
    """Predict the excess at the middle of a line from both ends alone, to second order.

    Args:
        objective: What is minimised.
        a: One end.
        b: Other end.

    Returns:
        The prediction; it over-estimates high barriers and ranks them well.

    Cost: a gradient and a Hessian product at each end.
    """
    d = b - a
    tilt = (objective.gradient(a) - objective.gradient(b)) @ d / 4
    bend = d @ (hessian(objective, a)(d) + hessian(objective, b)(d)) / 16
    return float(tilt + bend)


def angle(base: Float[Tensor, " n"], a: Float[Tensor, " n"], b: Float[Tensor, " n"]) -> float:
    """Angle between the ways from a base to two points [degree].

    Args:
        base: Where the ways part.
        a: End of one.
        b: End of the other.

    Returns:
        0 for one direction, 90 for independent ones; NaN if one of the points is the base.
    """
    first, second = a - base, b - base
    lengths = torch.linalg.vector_norm(first) * torch.linalg.vector_norm(second)
    cosine = float(first @ second / lengths)
    if math.isnan(cosine):
        return math.nan
    return math.degrees(math.acos(max(-1.0, min(1.0, cosine))))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fork:
    """One fork of a study.

    Attributes:
        step: Where the two runs parted.
        seed: Repetition.
        barrier: Between the ends.
        predicted: Excess at the middle predicted from the ends.
        angle: Between the ways from the fork to the ends [degree].
        loss: Mean loss of the ends.
    """

    step: int
    seed: int
    barrier: Barrier
    predicted: float
    angle: float
    loss: float


def fork_study(
    objective: Objective,
    train: Callable[[Tensor, int, int, int], Tensor],
    *,
    steps: int,
    forks: Sequence[int],
    start: Callable[[int], Tensor],
    seeds: Sequence[int] = (0,),
    points: int = 21,
    executor: Executor | None = None,
) -> list[Fork]:
    """Train together up to a step and apart from there, and look at the line between the ends.

    Args:
        objective: What the barrier is measured in; its start is not used.
        train: ``train(theta, first, last, seed)`` continues from step ``first`` to ``last`` with
            batches drawn from ``seed`` and gives the new vector.
        steps: Length of every run.
        forks: Steps at which runs part, each below ``steps``.
        start: First parameters by seed.
        seeds: Repetitions.
        points: Evaluations on each line.
        executor: Where trainings run, common parts first and then the branches; in this thread by
            default.

    Returns:
        One record for every fork and seed.

    Raises:
        SettingsError: If a fork is not below ``steps``.
    """
    if not all(0 <= fork < steps for fork in forks):
        raise SettingsError(f"forks: got {list(forks)}, expected steps from 0 to {steps - 1}")
    places = sorted(set(forks))

    def trunk(seed: int) -> list[Tensor]:
        reached, theta, parted = 0, start(seed), []
        for fork in places:
            theta = train(theta, reached, fork, 3 * seed) if fork > reached else theta
            reached = fork
            parted.append(theta)
        return parted

    trunks = run_jobs(trunk, [(seed,) for seed in seeds], executor)

    def branch(seed: int, place: int, side: int) -> Tensor:
        return train(trunks[seed,][place], places[place], steps, 3 * seed + side)

    pairs = [(seed, place) for seed in seeds for place in range(len(places))]
    ends = run_jobs(branch, [(*pair, side) for pair in pairs for side in (1, 2)], executor)
    records = []
    for seed, place in pairs:
        a, b = ends[seed, place, 1], ends[seed, place, 2]
        theta, fork = trunks[seed,][place], places[place]
        line = barrier(objective, a, b, points=points)
        records.append(
            Fork(
                step=fork,
                seed=seed,
                barrier=line,
                predicted=predicted_barrier(objective, a, b),
                angle=angle(theta, a, b),
                loss=float(0.5 * (line.losses[0] + line.losses[-1])),
            )
        )
    return records


def _excess(t: Tensor, values: Tensor) -> float:
    if not bool(torch.isfinite(values).all()):
        return math.inf
    chord = (1 - t) * values[0] + t * values[-1]
    return max(0.0, float((values - chord).max()))
