"""Curriculum: an easy equation first, then harder ones, each from where the last one ended.

Reference: Krishnapriyan, Gholami, Zhe, Kirby and Mahoney (2021), Characterizing possible failure
modes in physics-informed neural networks, section 4 (curriculum regularisation).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from solvers.core import OnFailure, SettingsError, Solution, apply_on_failure, check_choice
from solvers.pde import Problem
from solvers.pinn._arguments import check_problem
from solvers.pinn._networks import MLP, ModifiedMLP, OwnNetwork
from solvers.pinn._pinn import PINN
from solvers.pinn._result import PINNResult
from solvers.pinn._stages import run_stages

__all__ = ["Curriculum"]


class Curriculum:
    """A `PINN` that is trained while one coefficient goes to its value in stages.

    Args:
        problem: What is solved in the end.
        network: As in `PINN`.
        coefficient: Name of the coefficient.
        values: Its values in the stages before the last one, which has that of the problem.
        **options: Further options of `PINN`.

    Attributes:
        is_interrupted: Whether Ctrl-C ended the last fit.

    Raises:
        SettingsError: If there is no such coefficient, it is trained itself, or an option is
            out of range.

    Example:
        >>> from solvers.pinn import MLP, problems
        >>> steps = Curriculum(
        ...     problems.Convection(beta=4.0), MLP(width=8, depth=2), coefficient="beta",
        ...     values=(2.0, 3.0), points=200,
        ... )
        >>> [row["stage"] for row in steps.fit(10, steps=2).history][-1]
        2
    """

    is_interrupted = False

    def __init__(
        self,
        problem: Problem,
        network: MLP | ModifiedMLP | OwnNetwork | None = None,
        *,
        coefficient: str,
        values: Sequence[float],
        **options: Any,
    ) -> None:
        check_problem(problem)
        check_choice("coefficient", coefficient, tuple(problem.coefficients))
        if coefficient in problem.unknown:
            raise SettingsError(
                f"coefficient: {coefficient} of {problem.name} is unknown and trained, expected "
                "one with a value to go to; use PINN"
            )
        try:
            self.coefficient, self.values = coefficient, tuple(float(value) for value in values)
        except (TypeError, ValueError):
            raise SettingsError(
                f"values: got {values!r}, expected numbers in a row, as in (10.0, 20.0)"
            ) from None
        if not self.values:
            raise SettingsError("values: got none, expected one or more; use PINN for one stage")
        self.problem = problem
        self._problems = [
            *(problem.with_coefficients(**{coefficient: value}) for value in self.values),
            problem,
        ]
        self._options: dict[str, Any] = {"network": network, **options}
        pinn = PINN(problem, **self._options)
        self.settings = {
            **pinn.training_settings,
            "coefficient": coefficient,
            "values": list(self.values),
        }

    def fit(
        self,
        budget: float = 60.0,
        tolerance: float | None = None,
        *,
        stage_tolerance: float | None = 1e-2,
        target: float | None = None,
        cpu_budget: float | None = None,
        measure: bool = False,
        checkpoint: str | os.PathLike[str] | None = None,
        on_failure: OnFailure = "warn",
        **options: Any,
    ) -> PINNResult:
        """Train stage after stage.

        Args:
            budget: Wall time; what a stage leaves goes to the later ones [s].
            tolerance: Stop the last stage when the held-out residual is below.
            stage_tolerance: Leave an earlier stage when it is below.
            target: Stop the last stage when the error against the reference is below.
            cpu_budget: CPU time of the process, beside ``budget`` [s].
            measure: Keep the error in the history, in stages that have a reference.
            checkpoint: File of the stages that are done; the running stage has one beside it.
            on_failure: As in `PINN.fit`, for the last stage.
            **options: Further options of `PINN.fit`, for every stage; ``steps`` are of each.

        Returns:
            The result of the last stage; its history has all of them, by ``stage``. Ctrl-C ends
            after the running step, with the result of the running stage.

        Raises:
            NotConvergedError: If ``on_failure="raise"`` and the last stage failed.
            CheckpointError: If the file belongs to another run.
        """
        *earlier, last = [
            {**options, "measure": measure and problem.reference is not None}
            for problem in self._problems
        ]
        found = run_stages(
            [partial(self._stage, problem) for problem in self._problems],
            budget=budget,
            cpu_budget=cpu_budget,
            checkpoint=checkpoint,
            settings=self.settings,
            options=[
                *({**each, "tolerance": stage_tolerance} for each in earlier),
                {**last, "tolerance": tolerance, "target": target},
            ],
        )
        self.is_interrupted = found.is_interrupted
        end = found.results[-1]
        is_whole = len(found.results) == len(self._problems)
        report = replace(
            found.report,
            status=end.report.status if is_whole else found.report.status,
            residual=end.report.residual,
        )
        solution = Solution(value=end.network.theta.detach(), report=report)
        apply_on_failure(report, on_failure, solution=solution, what="Curriculum.fit")
        return replace(end, report=report, history=found.history)

    def _stage(self, problem: Problem, before: Sequence[PINNResult]) -> PINN:
        return PINN(problem, **self._options)
