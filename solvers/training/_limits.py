"""When a run ends and what happens on the way, checked against what is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from solvers.core import SettingsError, check_count, check_kind, check_number, check_positive
from solvers.training._objective import Objective
from solvers.training._schedule import Phase

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Arguments of :func:`solvers.training.train` that are numbers; it describes them."""

    steps: int | None
    budget: float | None
    cpu_budget: float | None
    tolerance: float | None
    targets: Mapping[str, float]
    resample_every: int | None
    reweight_every: int | None
    overfit: float | None
    overfit_every: int
    record_every: int | float

    def check(self, objective: Objective, phases: Sequence[Phase]) -> None:
        """Refuse numbers out of range and what the objective cannot do.

        Raises:
            SettingsError: With the argument's name.
        """
        check_kind("objective", objective, Objective, "a solvers.training.Objective")
        check_kind("targets", self.targets, Mapping, "numbers by name, or None")
        if not phases:
            raise SettingsError("schedule: got no phase, expected at least one")
        counts = {
            "steps": self.steps, "resample_every": self.resample_every,
            "reweight_every": self.reweight_every,
            "overfit_every": self.overfit_every,
        }  # fmt: skip
        for name, count in counts.items():
            if count is not None:
                check_count(name, count)
        numbers = {
            "budget": self.budget, "cpu_budget": self.cpu_budget, "tolerance": self.tolerance,
            "record_every": self.record_every,
            **{f"targets[{name!r}]": target for name, target in self.targets.items()},
        }  # fmt: skip
        for name, value in numbers.items():
            if value is not None:
                check_positive(name, value)
        limited = (self.steps, self.budget, self.cpu_budget)
        if all(limit is None for limit in limited) and any(phase.steps is None for phase in phases):
            raise SettingsError("steps, budget, cpu_budget: got none, expected a limit of one kind")
        unknown = sorted(set(self.targets) - set(objective.measures))
        if unknown:
            raise SettingsError(
                f"targets: got {unknown}, expected names among {sorted(objective.measures)}; "
                "give the function to Objective(measures=...)"
            )
        if isinstance(self.record_every, float) and self.record_every <= 1:
            raise SettingsError(
                f"record_every: got {self.record_every}, expected a factor above 1, or steps as an "
                "int"
            )
        if self.resample_every is not None and not objective.can_resample:
            raise SettingsError(
                "resample_every: the objective cannot draw points, expected Objective(resample=...)"
            )
        if self.reweight_every is not None and objective.reweight is None:
            raise SettingsError(
                "reweight_every: the objective has fixed weights, expected Objective(reweight=...)"
            )
        if self.overfit is not None and (
            check_number("overfit", self.overfit) <= 1 or objective.held_out is None
        ):
            raise SettingsError(
                f"overfit: got {self.overfit}, expected more than 1 and an objective with held_out"
            )
