"""Which method when: phases that end by themselves."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from solvers.core import SettingsError, check_callable, check_kind, check_number, check_positive
from solvers.training._methods import Method
from solvers.training._objective import Objective

__all__ = ["Phase", "Plateau", "phases_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A method and when to leave it.

    A phase ends when its steps are spent, when the loss stops falling, or when the method itself
    can go no further; the next phase begins where it ended.

    Args:
        method: Takes the objective, gives a method at work, for example
            ``lambda objective: FirstOrder(objective, torch.optim.Adam)``.
        name: Name in records.
        steps: Most steps; no limit by default.
        patience: Steps over which the best loss must fall; None never ends for that reason.
        least_decrease: How far it must fall over that many steps, relative to itself.

    Raises:
        SettingsError: If a number is not positive.
    """

    method: Callable[[Objective], Method]
    name: str
    steps: int | None = None
    patience: int | None = None
    least_decrease: float = 1e-2

    def __post_init__(self) -> None:
        check_callable("method", self.method, "a function that makes one of an objective")
        for name, value in (("steps", self.steps), ("patience", self.patience)):
            if value is not None:
                check_positive(name, value)
        if not 0 < check_number("least_decrease", self.least_decrease) < 1:
            raise SettingsError(
                f"least_decrease: got {self.least_decrease}, expected between 0 and 1"
            )


def phases_of(schedule: Phase | Sequence[Phase]) -> tuple[Phase, ...]:
    """Phases of a schedule, one or several.

    Raises:
        SettingsError: If one is none.
    """
    expected = "a solvers.training.Phase, or several in a row"
    check_kind("schedule", schedule, (Phase, Sequence), expected)
    phases = (schedule,) if isinstance(schedule, Phase) else tuple(schedule)
    for phase in phases:
        check_kind("schedule", phase, Phase, expected)
    return phases


class Plateau:
    """Notices that a loss no longer falls.

    Args:
        phase: Gives patience and least decrease.

    Example:
        >>> flat = Plateau(Phase(method=Method, name="", patience=2, least_decrease=0.1))
        >>> [flat.update(loss) for loss in (1.0, 0.5, 0.49, 0.48)]
        [False, False, False, True]
    """

    def __init__(self, phase: Phase) -> None:
        self._phase = phase
        self.restart()

    def restart(self) -> None:
        """Forget, because the objective has changed."""
        self._best, self._waited = math.inf, 0

    def update(self, loss: float) -> bool:
        """Take in the loss of a step; tells whether the plateau is reached."""
        if loss < self._best * (1 - self._phase.least_decrease):
            self._best, self._waited = loss, 0
        else:
            self._waited += 1
        return self._phase.patience is not None and self._waited >= self._phase.patience

    def state_dict(self) -> dict[str, Any]:
        """What the next update depends on."""
        best = None if math.isinf(self._best) else self._best
        return {"best": best, "waited": self._waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self._best = math.inf if state["best"] is None else state["best"]
        self._waited = state["waited"]
