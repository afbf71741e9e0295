"""Time marching: one network a window of time, the end of one the start of the next.

Reference: Krishnapriyan, Gholami, Zhe, Kirby and Mahoney (2021), Characterizing possible failure
modes in physics-informed neural networks, section 5 (sequence-to-sequence learning).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from solvers.core import (
    OnFailure,
    Report,
    SettingsError,
    Solution,
    apply_on_failure,
    check_count,
    check_positive,
)
from solvers.pde import Problem, sample
from solvers.pinn._boxes import check_divisible, conditions_within, cut, state_at
from solvers.pinn._networks import MLP, ModifiedMLP, OwnNetwork
from solvers.pinn._pieces import Joint, PiecewiseField, PiecewiseResult
from solvers.pinn._pinn import PINN
from solvers.pinn._result import PINNResult
from solvers.pinn._stages import Stages, run_stages

__all__ = ["TimeMarching"]

_JOINT_POINTS = 256


class TimeMarching:
    """A network on each of several windows of time, trained one after the other.

    The initial state of the first window is that of the problem; that of a later one is what the
    window before it ends with, as a term of the loss. A window starts from the parameters of the
    one before.

    Args:
        problem: What is solved, on a box with time.
        network: As in `PINN`; every window has its own.
        windows: Number of windows, of equal length.
        joint_weight: Weight of the initial state of a later window against the equations.
        **options: Further options of `PINN`.

    Attributes:
        is_interrupted: Whether Ctrl-C ended the last fit.

    Raises:
        SettingsError: If the domain is no box with time, coefficients are unknown, or an option is
            out of range.

    Example:
        >>> from solvers.pinn import MLP, problems
        >>> march = TimeMarching(
        ...     problems.Convection(beta=2.0), MLP(width=8, depth=2), windows=2, points=200
        ... )
        >>> result = march.fit(20, steps=150)
        >>> result.largest_jump < 0.05
        True
    """

    is_interrupted = False

    def __init__(
        self,
        problem: Problem,
        network: MLP | ModifiedMLP | OwnNetwork | None = None,
        *,
        windows: int = 5,
        joint_weight: float = 100.0,
        **options: Any,
    ) -> None:
        check_count("windows", windows)
        check_positive("joint_weight", joint_weight)
        box = check_divisible(problem)
        if not box.has_time:
            raise SettingsError(
                f"problem: {problem.name} has axes {', '.join(box.axes)}, expected time among them"
            )
        self.problem, self.windows, self.joint_weight = problem, windows, joint_weight
        self._boxes = cut(box, {"t": windows})
        self._options: dict[str, Any] = {"network": network, **options}
        pinn = PINN(problem, **self._options)
        self._size = pinn.parameter_count
        self.settings: dict[str, Any] = {
            **pinn.settings,
            "windows": windows,
            "joint_weight": joint_weight,
        }
        self._training_settings = pinn.training_settings

    def fit(
        self,
        budget: float = 60.0,
        tolerance: float | None = None,
        *,
        cpu_budget: float | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        on_failure: OnFailure = "warn",
        **options: Any,
    ) -> PiecewiseResult:
        """Train window after window.

        Args:
            budget: Wall time; what a window leaves goes to the later ones [s].
            tolerance: Leave a window when its held-out residual is below.
            cpu_budget: CPU time of the process, beside ``budget`` [s].
            checkpoint: File of the windows that are done; the running one has a file beside it.
            on_failure: As in `PINN.fit`, for the first window that fails.
            **options: Further options of `PINN.fit`, for every window; ``steps`` are of each, a
                ``target`` is the error within it.

        Returns:
            The field in pieces; after Ctrl-C it ends with the window that ran.

        Raises:
            NotConvergedError: If ``on_failure="raise"`` and a window failed.
            CheckpointError: If the file belongs to another run.
        """
        found = run_stages(
            [partial(self._window, k) for k in range(self.windows)],
            budget=budget,
            cpu_budget=cpu_budget,
            checkpoint=checkpoint,
            settings={**self._training_settings, **self.settings},
            options=[{**options, "tolerance": tolerance}] * self.windows,
        )
        self.is_interrupted = found.is_interrupted
        result = self._join(found)
        solution = Solution(value=result.network.theta.detach(), report=found.report)
        apply_on_failure(found.report, on_failure, solution=solution, what="TimeMarching.fit")
        return result

    def restore(
        self,
        theta: Tensor,
        *,
        report: Report,
        history: Sequence[Mapping[str, float]],
        settings: Mapping[str, Any],
    ) -> PiecewiseResult:
        """Put saved parameters and their story together; `load` calls it."""
        results: list[PINNResult] = []
        programs = []
        for number, part in enumerate(theta.split(self._size)):
            pinn = self._window(number, results)
            results.append(pinn.result(part, report, []))
            programs.append(pinn.collocation.program)
        found = self._join(Stages(results, programs, list(history), report))
        return replace(found, settings=settings)

    def _window(self, number: int, before: Sequence[PINNResult]) -> PINN:
        """The network of a window, given the results of those before it."""
        box = self._boxes[number]
        conditions = conditions_within(self.problem, box)
        if not number:
            first = replace(self.problem, domain=box, conditions=conditions)
            return PINN(first, **self._options)
        start = state_at(self.problem, before[-1].network, box.bounds["t"][0])
        window = replace(self.problem, domain=box, conditions=[start, *conditions])
        return PINN(window, **{**self._options, "condition_weight": self.joint_weight})

    def _join(self, found: Stages) -> PiecewiseResult:
        boxes = self._boxes[: len(found.results)]
        joints = []
        for k, box in enumerate(boxes[1:], start=1):
            points = sample(box, _JOINT_POINTS)
            points[:, box.axis("t")] = box.bounds["t"][0]
            joints.append(Joint((k - 1, k), (points, points)))
        return PiecewiseResult(
            problem=self.problem,
            network=PiecewiseField(
                boxes,
                found.programs,
                torch.cat([result.network.theta.detach() for result in found.results]),
            ),
            coefficients={},
            report=found.report,
            history=found.history,
            settings=self.settings,
            joints=joints,
        )
