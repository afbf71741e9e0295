"""How ``physim solve`` solves: here with the residual in sight, or in processes."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from physim.cli._systems import System
from solvers.core import Progress, open_progress
from solvers.linear import (
    ConjugateGradient,
    Fallback,
    LinearOperator,
    LinearSolver,
    Multigrid,
    Outcome,
    PoissonOperator,
    Preconditioner,
    Prepared,
    PreparedPreconditioner,
)

if TYPE_CHECKING:
    from solvers.linear.distributed import DistributedConjugateGradient
    from solvers.parallel import Executor

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
        self,
        b: Tensor,
        x0: Tensor | None,
        *,
        rtol: float,
        max_iterations: int,
        patience: int | None = None,
    ) -> Outcome | None:
        return self._inner.conjugate_gradient(
            b, x0, rtol=rtol, max_iterations=max_iterations, patience=patience
        )


def run_with_ray(system: System, solver: LinearSolver, *, workers: int) -> Run:
    """Solve in processes: items among them, or one grid in slabs.

    Args:
        system: The system.
        solver: The method; multigrid for one grid means multigrid on slabs.
        workers: Number of processes.
    """
    from solvers.parallel import RayExecutor

    began = time.perf_counter()
    with RayExecutor(workers) as executor:
        executor.start()
        start = time.perf_counter() - began
        is_one = system.b.ndim == len(system.operator.domain) and not system.operator.batch
        slabs = _as_slabs(solver, executor) if is_one and _can_cut(system.operator) else None
        if slabs is not None:
            return replace(_run_on_slabs(system, slabs), start=start)
        return replace(_spread_items(system, solver, executor), start=start)


def _can_cut(operator: LinearOperator) -> bool:
    """Whether there is an axis that does not close on itself."""
    return not isinstance(operator, PoissonOperator) or not all(operator.periodic)


def _as_slabs(solver: LinearSolver, executor: Executor) -> DistributedConjugateGradient | None:
    """The method for a grid in slabs; None if the solver is another one."""
    from solvers.linear.distributed import DistributedConjugateGradient

    first = solver.first if isinstance(solver, Fallback) else solver
    if not (isinstance(first, ConjugateGradient) and isinstance(first.preconditioner, Multigrid)):
        return None
    return DistributedConjugateGradient(
        executor=executor, rtol=first.rtol, max_iterations=first.max_iterations
    )


def _run_on_slabs(system: System, solver: DistributedConjugateGradient) -> Run:
    with open_progress(None, description="solve") as progress:

        def watch(step: int, residual: float) -> None:
            progress.update(step, residual=residual)

        began = time.perf_counter()
        prepared = replace(solver, watch=watch).prepare(system.operator)
        middle = time.perf_counter()
        outcome = _solve(prepared, system.b)
    return Run(
        outcome=outcome,
        label=prepared.label,
        preparation=middle - began,
        seconds=time.perf_counter() - middle,
    )


def _spread_items(system: System, solver: LinearSolver, executor: Executor) -> Run:
    """Every process prepares the solver and solves its share of the right-hand sides."""
    operator, b = system.operator, system.b
    is_one = b.ndim == len(operator.domain)
    # A batch of systems is not taken apart.
    count = 1 if is_one or operator.batch else executor.workers
    parts = [b] if count == 1 else [part for part in b.tensor_split(count) if len(part)]
    began = time.perf_counter()
    both = executor.share((operator, solver))
    labels, solved = zip(*executor.map(_solve_part, [both] * len(parts), parts), strict=True)
    seconds = time.perf_counter() - began

    def join(name: str) -> Tensor:
        fields = [getattr(outcome, name) for outcome in solved]
        return fields[0] if len(fields) == 1 else torch.cat(fields)

    outcome = Outcome(
        value=join("value"),
        status=join("status"),
        iterations=join("iterations"),
        residual=join("residual"),
    )
    return Run(outcome=outcome, label=labels[0], preparation=0.0, seconds=seconds)


def _solve_part(both: tuple[LinearOperator, LinearSolver], b: Tensor) -> tuple[str, Outcome]:
    operator, solver = both
    prepared = solver.prepare(operator)
    return prepared.label, _solve(prepared, b)
