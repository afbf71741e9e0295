"""Timing of alternatives against each other on a machine that does other things as well."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = ["Timings", "alternate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """CPU times of alternatives that ran in turns.

    Attributes:
        seconds: CPU time of every repetition [s], by name of the alternative.
    """

    seconds: Mapping[str, tuple[float, ...]]

    def median(self, name: str) -> float:
        """Median CPU time of an alternative [s]."""
        return statistics.median(self.seconds[name])

    def ratio(self, name: str, base: str) -> float:
        """Median of the ratios ``name / base`` within each repetition.

        The two ran one after the other, so that a slow moment of the machine hits both.
        """
        pairs = zip(self.seconds[name], self.seconds[base], strict=True)
        return statistics.median(a / b for a, b in pairs)

    def spread(self, name: str) -> float:
        """Largest over smallest CPU time of an alternative."""
        return max(self.seconds[name]) / min(self.seconds[name])


def alternate(work: Mapping[str, Callable[[], object]], *, repetitions: int = 5) -> Timings:
    """Time alternatives in turns, after one round that is not counted.

    CPU time of the process is measured: what other programs take meanwhile does not count, though
    the caches and the clock rate that they cost do.

    Args:
        work: What to time, by name.
        repetitions: Rounds that count.

    Returns:
        The times.
    """
    for call in work.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(repetitions):
        for name, call in work.items():
            start = time.process_time()
            call()
            seconds[name].append(time.process_time() - start)
    return Timings(seconds={name: tuple(values) for name, values in seconds.items()})
