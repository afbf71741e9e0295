"""Time that a training has taken."""

from __future__ import annotations

import time

__all__ = ["Clock"]


class Clock:
    """Wall and CPU time of a training, which stand still while it is looked at."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    @property
    def seconds(self) -> float:
        """Wall time [s]."""
        return time.perf_counter() - self._wall

    @property
    def cpu_seconds(self) -> float:
        """CPU time of the process [s]."""
        return time.process_time() - self._cpu

    def set(self, seconds: float, cpu_seconds: float) -> None:
        """Go on from times."""
        self._wall = time.perf_counter() - seconds
        self._cpu = time.process_time() - cpu_seconds
