"""Many trainings that differ in a few numbers, on any executor, and a sweep over learning rates.

Jobs must not share anything that changes: each draws its random numbers from the seed that it is
given, and builds engines of its own. Then all executors give the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from solvers.core import SettingsError, check_positive
from solvers.parallel import Executor

__all__ = ["RateSweep", "run_jobs", "sweep_rates"]

Job = TypeVar("Job", bound=tuple[Any, ...])
T = TypeVar("T")


def run_jobs(
    function: Callable[..., T], jobs: Sequence[Job], executor: Executor | None
) -> dict[Job, T]:
    """Call a function once a job, in this thread or on an executor; results by job, in order."""
    if executor is None:
        return {job: function(*job) for job in jobs}
    return dict(zip(jobs, executor.map(_Spread(function), jobs), strict=True))


@dataclass(frozen=True)
class _Spread:
    """A function of several arguments as one of a tuple."""

    function: Callable[..., Any]

    def __call__(self, job: tuple[Any, ...]) -> Any:
        return self.function(*job)


@dataclass(frozen=True, slots=True, kw_only=True)
class RateSweep:
    """Losses at the end of trainings by learning rate and batch.

    Attributes:
        losses: One for each seed, by rate and batch; infinite or NaN where a training diverged.
    """

    losses: Mapping[tuple[float, int], Sequence[float]]

    @property
    def rates(self) -> list[float]:
        """Rates, rising."""
        return sorted({rate for rate, _ in self.losses})

    @property
    def batches(self) -> list[int]:
        """Batches, rising."""
        return sorted({batch for _, batch in self.losses})

    def best(self, batch: int) -> float:
        """Rate with the least median loss.

        Args:
            batch: One of the sweep.

        Returns:
            The rate.
        """
        return min(self.rates, key=lambda rate: _median(self._at(rate, batch)))

    def largest_stable(self, batch: int, limit: float) -> float | None:
        """Largest rate up to which every training ended at or below a loss.

        Args:
            batch: One of the sweep.
            limit: Loss that tells a training that held from one that did not.

        Returns:
            The rate, None if the smallest one fails already. Beside it stands what theory says:
            :func:`largest_stable_rate`.
        """
        stable = None
        for rate in self.rates:
            # A comparison with NaN is false.
            if not all(loss <= limit for loss in self._at(rate, batch)):
                break
            stable = rate
        return stable

    def _at(self, rate: float, batch: int) -> Sequence[float]:
        if (rate, batch) not in self.losses:
            raise SettingsError(f"batch: got {batch}, expected one of {self.batches}")
        return self.losses[rate, batch]


def sweep_rates(
    train: Callable[[float, int, int], float],
    rates: Sequence[float],
    batches: Sequence[int],
    *,
    seeds: Sequence[int] = (0,),
    executor: Executor | None = None,
) -> RateSweep:
    """Train at every learning rate with every batch.

    Args:
        train: Takes rate, batch and seed, and gives the loss at the end; a training that diverged
            gives infinity or NaN.
        rates: Learning rates.
        batches: Batches.
        seeds: Repetitions.
        executor: Where trainings run; in this thread by default.

    Returns:
        The losses.

    Raises:
        SettingsError: If there is nothing to do, or a rate or batch is not positive.

    Example:
        >>> found = sweep_rates(lambda rate, batch, seed: (rate - 0.1 * batch) ** 2,
        ...                     [0.1, 0.2, 0.4], [1, 2])
        >>> found.best(1), found.best(2), found.largest_stable(1, 0.05)
        (0.1, 0.2, 0.2)
    """
    if not (rates and batches and seeds):
        raise SettingsError(
            f"rates, batches, seeds: got {list(rates)}, {list(batches)} and {list(seeds)}, "
            "expected at least one of each"
        )
    for name, values in (("rates", rates), ("batches", batches)):
        for value in values:
            check_positive(name, value)
    pairs = [(rate, batch) for rate in rates for batch in batches]
    ends = run_jobs(train, [(*pair, seed) for pair in pairs for seed in seeds], executor)
    return RateSweep(
        losses={pair: [float(ends[(*pair, seed)]) for seed in seeds] for pair in pairs}
    )


def _median(values: Sequence[float]) -> float:
    known = [value if math.isfinite(value) else math.inf for value in values]
    return float(torch.tensor(known, dtype=torch.float64).median())
