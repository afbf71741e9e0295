"""How ``physim solve`` solves: here with the residual in sight, or in processes."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from physim.cli._systems import System
from solvers.core import Progress, open_progress
from solvers.linear import (
    ConjugateGradient,
    Fallback,
    LinearOperator,
    LinearSolver,
    Outcome,
    Preconditioner,
    Prepared,
    PreparedPreconditioner,
)

__all__ = ["Run", "run_serial", "run_with_ray"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A finished solve.

    Attributes:
        outcome: Solutions and how they ended.
        label: What solved, in words.
        preparation: Time of what does not depend on the right-hand side [s].
        seconds: Time of the solve [s].
        start: Time to start processes [s].
    """

    outcome: Outcome
    label: str
    preparation: float
    seconds: float
    start: float = 0.0


def run_serial(system: System, solver: LinearSolver) -> Run:
    """Solve in this process and show the residual while it falls.

    Args:
        system: The system.
        solver: The method.
    """
    with open_progress(None, description="solve") as progress:
        began = time.perf_counter()
        prepared = _watch(solver, progress).prepare(system.operator)
        middle = time.perf_counter()
        outcome = _solve(prepared, system.b)
        ended = time.perf_counter()
        _show_end(progress, outcome)
    return Run(
        outcome=outcome,
        label=prepared.label,
        preparation=middle - began,
        seconds=ended - middle,
    )


def _solve(prepared: Prepared, b: Tensor) -> Outcome:
    solution = prepared.solve(b, on_failure="mask")
    return Outcome(
        value=solution.value,
        status=solution.status,
        iterations=solution.iterations,
        residual=solution.residual_norm,
    )


def _show_end(progress: Progress, outcome: Outcome) -> None:
    progress.update(int(outcome.iterations.max()), residual=float(outcome.residual.max()))


def _watch(solver: LinearSolver, progress: Progress) -> LinearSolver:
    """The same solver, whose preconditioner tells the residuals that it is given."""
    if isinstance(solver, Fallback):
        return Fallback(_watch(solver.first, progress), _watch(solver.then, progress))
    if isinstance(solver, ConjugateGradient) and solver.preconditioner is not None:
        return replace(solver, preconditioner=_Watched(solver.preconditioner, progress))
    return solver


class _Watched:
    def __init__(self, inner: Preconditioner, progress: Progress):
        self._inner = inner
        self._progress = progress

    def prepare(self, operator: LinearOperator) -> PreparedPreconditioner:
        return _PreparedWatched(self._inner.prepare(operator), operator, self._progress)


class _PreparedWatched(PreparedPreconditioner):
    def __init__(self, inner: PreparedPreconditioner, operator: LinearOperator, progress: Progress):
        self.label = inner.label
        self._inner = inner
        self._progress = progress
        self._axes = tuple(range(-len(operator.domain), 0))
        self._steps = 0
        self._first: Tensor | None = None

    def apply(self, r: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(r, dim=self._axes)
        if self._first is None:
            self._first = norm.clamp(min=torch.finfo(norm.dtype).tiny)
        self._progress.update(self._steps, residual=float((norm / self._first).max()))
        self._steps += 1
        return self._inner.apply(r)

    def conjugate_gradient(
        self, b: Tensor, x0: Tensor | None, *, rtol: float, max_iterations: int
    ) -> Outcome | None:
        return self._inner.conjugate_gradient(b, x0, rtol=rtol, max_iterations=max_iterations)


def run_with_ray(
    system: System,
    solver: LinearSolver,
    *,
    workers: int,
    rtol: float,
    iterations: int | None,
) -> Run:
    """Solve in processes: items among them, or one grid in parts.

    Args:
        system: The system.
        solver: The method, for whole systems.
        workers: Number of processes.
        rtol: Relative tolerance, for a grid in parts.
        iterations: Limit of the iterations, for a grid in parts.
    """
    from solvers.parallel import RayExecutor

    operator = system.operator
    items = system.b.ndim > len(operator.domain)
    rows = system.b if items else system.b.unsqueeze(0)
    began = time.perf_counter()
    with RayExecutor(workers) as executor:
        executor.start()
        start = time.perf_counter() - began
        began = time.perf_counter()
        parts = [part for part in rows.tensor_split(workers) if len(part)]
        both = executor.share((operator, solver))
        outcomes = executor.map(_solve_part, [both] * len(parts), parts)
        seconds = time.perf_counter() - began
    labels, solved = zip(*outcomes, strict=True)
    joined = Outcome(
        value=torch.cat([outcome.value for outcome in solved]),
        status=torch.cat([outcome.status for outcome in solved]),
        iterations=torch.cat([outcome.iterations for outcome in solved]),
        residual=torch.cat([outcome.residual for outcome in solved]),
    )
    if not items:
        joined = Outcome(
            value=joined.value[0],
            status=joined.status[0],
            iterations=joined.iterations[0],
            residual=joined.residual[0],
        )
    return Run(outcome=joined, label=labels[0], preparation=0.0, seconds=seconds, start=start)


def _solve_part(both: tuple[LinearOperator, LinearSolver], b: Tensor) -> tuple[str, Outcome]:
    operator, solver = both
    prepared = solver.prepare(operator)
    return prepared.label, _solve(prepared, b)
