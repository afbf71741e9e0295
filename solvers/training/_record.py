"""What a training tells: rows of its history, and its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from solvers.core import Solution

__all__ = ["Record", "Training"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A row of a training's history.

    Attributes:
        step: Steps taken, all phases together.
        seconds: Wall time of training up to here, earlier runs included, records not [s].
        cpu_seconds: CPU time of the process, counted alike [s].
        phase: Name of the phase.
        loss: Loss before the last step; after it if a search took it.
        terms: Its terms.
        held_out: Residual where nothing was trained; None without one.
        measures: The objective's measures.
    """

    step: int
    seconds: float
    cpu_seconds: float
    phase: str
    loss: float
    terms: Mapping[str, float]
    held_out: float | None
    measures: Mapping[str, float]

    def as_dict(self) -> dict[str, Any]:
        """The record as JSON values."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return values | {"terms": dict(self.terms), "measures": dict(self.measures)}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Training(Solution[list[Tensor]]):
    """The end of a training; its value are the parameters.

    Attributes:
        history: Records in order.
        guilty: Term or gradient that was not finite; empty if none was.
        is_interrupted: Whether Ctrl-C ended it.
    """

    history: tuple[Record, ...]
    guilty: str = ""
    is_interrupted: bool = False
