"""Physics-informed networks in the Eulerian frame: one network from coordinates to fields.

Source: Raissi, Perdikaris and Karniadakis (2019). Conditions hold by construction where they can;
training is self-scaled Broyden on residuals in float64, as in Urbán, Stefanou and Pons (2025), on
points that are drawn again by residual, as in Wu, Zhu, Tan, Kartha and Lu (2023).
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from solvers.core import (
    NonFiniteError,
    OnFailure,
    Report,
    Solution,
    Status,
    apply_on_failure,
    catch_interrupt,
    check_choice,
    check_positive,
    open_progress,
)
from solvers.derivatives import Backend
from solvers.optim import SelfScaledBroyden
from solvers.pde import Problem
from solvers.pinn._ansatz import Exact, make_ansatz
from solvers.pinn._collocation import Collocation
from solvers.pinn._networks import MLP, ModifiedMLP, OwnNetwork
from solvers.pinn._result import ErrorMeter, FieldNetwork, PINNResult
from solvers.pinn._run_state import read_run, write_run

__all__ = ["PINN"]

_MOST_FAILURES = 3
_FEWEST_POINTS, _MOST_POINTS = 1000, 5000
_POINTS_PER_PARAMETER = 4.5
_RECORDS = 1.05
"""Factor between the times of two rows of the history."""


class PINN:
    """A network that satisfies an equation and its conditions.

    Args:
        problem: What is solved.
        network: `MLP`, `ModifiedMLP`, or a module of your own; four hidden layers of 16 by default.
        seed: Seed of parameters and points.
        exact: Conditions that hold by construction: ``"all"`` that can, all ``"boundary"``
            conditions but not the initial ones, or ``"periodic"`` ones only. The others are terms
            of the loss.
        condition_weight: Weight of a condition in the loss against that of the equations.
        points: Points inside the domain; 4.5 per parameter, 1000 to 5000, by default.
        condition_points: Points of each condition in the loss.
        sampling: Where new points come from: ``"adaptive"`` prefers large residuals, ``"even"``
            does not.
        resample_every: Steps between two draws of points.
        residual_scales: Factor of each equation; by default one over the size that it has when
            fields of order one vary over half the domain.
        backend: Engine of the derivatives.
        threads: Threads of the compiled engine.

    Raises:
        SettingsError: If a setting is out of range or the network does not fit the problem.

    Example:
        >>> from solvers.pde import Box, Dirichlet, Problem
        >>> from solvers.pde.functions import pi, sin
        >>> poisson = Problem(
        ...     name="Poisson", domain=Box(x=(0, 1)),
        ...     residual=lambda u, x: u.xx + pi**2 * sin(pi * x),
        ...     conditions=[Dirichlet(axis="x", side="both", u=0.0)],
        ...     reference=lambda x: sin(pi * x),
        ... )
        >>> result = PINN(poisson, MLP(width=10, depth=2), points=100).fit(tolerance=1e-4)
        >>> result.relative_l2 < 1e-4
        True
    """

    def __init__(
        self,
        problem: Problem,
        network: MLP | ModifiedMLP | OwnNetwork | nn.Module | None = None,
        *,
        seed: int = 0,
        exact: Exact = "all",
        condition_weight: float = 10.0,
        points: int | None = None,
        condition_points: int = 200,
        sampling: str = "adaptive",
        resample_every: int = 500,
        residual_scales: Sequence[float] | None = None,
        backend: Backend = "auto",
        threads: int = 1,
    ) -> None:
        check_choice("sampling", sampling, ("adaptive", "even"))
        for name, value in (
            ("condition_weight", condition_weight),
            ("condition_points", condition_points),
            ("resample_every", resample_every),
            ("points", 1 if points is None else points),
        ):
            check_positive(name, value)
        self.problem = problem
        chosen = MLP() if network is None else network
        self.network = OwnNetwork(chosen) if isinstance(chosen, nn.Module) else chosen
        self.seed, self.resample_every = seed, resample_every
        bare = make_ansatz(problem, exact)
        waves = self.network.waves(bare.inputs, seed)
        ansatz = make_ansatz(problem, exact, frequencies=waves)
        self._layers = self.network.layers(ansatz.inputs, len(problem.fields), seed)
        count = self._layers.parameter_count
        wanted = round(_POINTS_PER_PARAMETER * count)
        self.points = points or min(max(wanted, _FEWEST_POINTS), _MOST_POINTS)
        self.meter: Callable[[], Callable[[nn.Module], float]] = lambda: ErrorMeter(problem)
        self.settings: dict[str, Any] = {
            "network": type(self.network).__name__,
            "seed": seed,
            "exact": exact,
            "condition_weight": condition_weight,
            "points": self.points,
            "condition_points": condition_points,
            "sampling": sampling,
            "resample_every": resample_every,
            "residual_scales": None if residual_scales is None else list(residual_scales),
        }
        if is_dataclass(self.network) and not isinstance(self.network, OwnNetwork):
            self.settings["shape"] = asdict(self.network)
        self.collocation = Collocation(
            problem, ansatz, self._layers, points=self.points, condition_points=condition_points,
            condition_weight=condition_weight, scales=residual_scales,
            is_adaptive=sampling == "adaptive", backend=backend, threads=threads,
            generator=torch.Generator().manual_seed(seed),
        )  # fmt: skip

    @property
    def parameter_count(self) -> int:
        """Number of parameters, unknown coefficients included."""
        return self.collocation.parameter_count

    def initial(self) -> Tensor:
        """First parameters, unknown coefficients last."""
        guesses = [self.problem.coefficients[name] for name in self.problem.unknown]
        return torch.cat(
            [self._layers.initial(self.seed), torch.tensor(guesses, dtype=torch.float64)]
        )

    def field(self, theta: Tensor) -> FieldNetwork:
        """Make the fields at given parameters."""
        return FieldNetwork(self.collocation.program, theta)

    def fit(
        self,
        budget: float = 60.0,
        tolerance: float | None = None,
        *,
        steps: int | None = None,
        cpu_budget: float | None = None,
        target: float | None = None,
        start: Tensor | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: float = 30.0,
        measure: bool = False,
        progress: bool | None = None,
        callback: Callable[[Mapping[str, float]], object] | None = None,
        on_failure: OnFailure = "warn",
    ) -> PINNResult:
        """Train.

        Args:
            budget: Wall time [s].
            tolerance: Stop when the held-out residual, see `PINNResult.report`, is below.
            steps: Stop after so many steps.
            cpu_budget: CPU time of the process [s], beside ``budget``.
            target: Stop when the error against the reference is below; measures it.
            start: First parameters, unknown coefficients last; drawn from the seed by default.
            checkpoint: File of the run. If it is there, training goes on from it with the same
                numbers as without the interruption.
            checkpoint_every: Seconds between two checkpoints.
            measure: Keep the error against the reference in the history. The time that takes is
                not counted.
            progress: Show a live display: True, False, or None for in a terminal only.
            callback: Gets every row of the history.
            on_failure: What happens when training ends elsewhere than at the tolerance or target,
                or stalls; spending the budget without having asked for either is success.

        Returns:
            Fields, and the story of their training. If new points give a NaN, the last state is
            returned as ``NON_FINITE`` and the warning names the guilty term. Ctrl-C ends after the
            running step.

        Raises:
            NotConvergedError: If ``on_failure="raise"`` and training failed.
            NonFiniteError: If the loss is not finite at the first parameters.
            CheckpointError: If the file belongs to another run.
        """
        check_positive("budget", budget)
        limits = _Limits(budget, math.inf if cpu_budget is None else cpu_budget, steps)
        identity = {
            "problem": self.problem.name,
            "coefficients": dict(self.problem.coefficients),
            **self.settings,
        }
        first = self.initial() if start is None else start
        run = _Run(
            self, first, tolerance=tolerance, target=target, measure=measure, callback=callback
        )
        if checkpoint is not None:
            read_run(checkpoint, identity, run.search, self.collocation, run.history)
            run.set_clock()
        status, saved = None, time.monotonic()
        with (
            open_progress(steps, description=self.problem.name, show=progress) as display,
            catch_interrupt() as interrupt,
        ):
            while status is None:
                status = run.advance(limits, display)
                if interrupt.is_requested:
                    status = Status.MAX_ITERATIONS
                is_due = time.monotonic() - saved > checkpoint_every
                if checkpoint is not None and (status is not None or is_due):
                    write_run(checkpoint, identity, run.search, self.collocation, run.history)
                    saved = time.monotonic()
        theta = run.search.point
        report = Report(
            status=torch.tensor(int(status)),
            iterations=torch.tensor(run.search.steps),
            residual=torch.tensor(self.collocation.held_out(theta), dtype=torch.float64),
            counts={
                "evaluations": torch.tensor(run.search.evaluations),
                "restarts": torch.tensor(run.search.restarts),
            },
        )
        solution = Solution(value=theta, report=report)
        what = f"PINN.fit ({run.guilty} is not finite)" if run.guilty else "PINN.fit"
        apply_on_failure(report, on_failure, solution=solution, what=what)
        return self.result(theta, report, run.history)

    def result(self, theta: Tensor, report: Report, history: list[dict[str, float]]) -> PINNResult:
        """Put parameters and their story together."""
        first = self._layers.parameter_count
        found = dict(zip(self.problem.unknown, theta[first:].tolist(), strict=True))
        return PINNResult(
            problem=self.problem,
            network=self.field(theta),
            coefficients=found,
            report=report,
            history=history,
            settings=self.settings,
        )


@dataclass(frozen=True)
class _Limits:
    """Where a training ends at the latest."""

    seconds: float
    cpu_seconds: float
    steps: int | None

    def are_reached(self, seconds: float, cpu_seconds: float, steps: int) -> bool:
        is_late = seconds >= self.seconds or cpu_seconds >= self.cpu_seconds
        return is_late or (self.steps is not None and steps >= self.steps)


class _Run:
    """One training: the search, its clock and its history."""

    def __init__(
        self,
        pinn: PINN,
        start: Tensor,
        *,
        tolerance: float | None,
        target: float | None,
        measure: bool,
        callback: Callable[[Mapping[str, float]], object] | None,
    ) -> None:
        self.pinn, self.tolerance, self.target = pinn, tolerance, target
        self.callback = callback
        self.meter = pinn.meter() if measure or target is not None else None
        self.history: list[dict[str, float]] = []
        self.search = SelfScaledBroyden(pinn.collocation.loss_and_gradient, start)
        self.guilty = ""
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        self._next = 0.05

    def set_clock(self) -> None:
        """Count the time of a run that this one goes on from."""
        if self.history:
            self._wall -= self.history[-1]["seconds"]
            self._cpu -= self.history[-1]["cpu_seconds"]

    def advance(self, limits: _Limits, display: Any) -> Status | None:
        """Take one step and look around; returns a status at the end."""
        search, pinn = self.search, self.pinn
        is_better = search.step()
        if search.failures >= _MOST_FAILURES:
            self._record(display)
            return Status.STALLED
        if not is_better or search.steps % pinn.resample_every == 0:
            try:
                pinn.collocation.move(search.point)
                search.refresh()
            except NonFiniteError:
                terms = pinn.collocation.terms(search.point)
                guilty = [name for name, size in terms.items() if not math.isfinite(size)]
                self.guilty = ", ".join(guilty) or "the gradient"
                self._record(display)
                return Status.NON_FINITE
        elapsed = time.perf_counter() - self._wall
        is_over = limits.are_reached(elapsed, time.process_time() - self._cpu, search.steps)
        if elapsed < self._next and not is_over:
            return None
        self._next = elapsed * _RECORDS
        row = self._record(display)
        if self.tolerance is not None and row["held_out"] < self.tolerance:
            return Status.CONVERGED
        if self.target is not None and row["relative_l2"] < self.target:
            return Status.CONVERGED
        if not is_over:
            return None
        asked = self.tolerance is not None or self.target is not None
        return Status.MAX_ITERATIONS if asked else Status.CONVERGED

    def _record(self, display: Any) -> dict[str, float]:
        """Write a row of the history, with the clock stopped."""
        wall, cpu = time.perf_counter(), time.process_time()
        theta = self.search.point
        row = {
            "step": float(self.search.steps),
            "seconds": wall - self._wall,
            "cpu_seconds": cpu - self._cpu,
            "loss": self.search.loss,
            "held_out": self.pinn.collocation.held_out(theta),
        }
        if self.meter is not None:
            row["relative_l2"] = self.meter(self.pinn.field(theta))
        self.history.append(row)
        shown = {name: row[name] for name in ("loss", "held_out", "relative_l2") if name in row}
        display.update(self.search.steps, **shown)
        if self.callback is not None:
            self.callback(row)
        self._wall += time.perf_counter() - wall
        self._cpu += time.process_time() - cpu
        return row
