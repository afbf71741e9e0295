"""Conjugate gradients on slabs, which survive the death of a worker."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from solvers.core import SettingsError, Status, check_choice, check_count
from solvers.linear._precision import runs_in_double, widen
from solvers.linear._prepared import Outcome, Prepared
from solvers.linear._tolerance import check_rtol
from solvers.linear.distributed._multigrid import SlabCycle
from solvers.linear.distributed._schwarz import DeflatedSchwarz
from solvers.linear.distributed._slabs import HALO, slab_window
from solvers.linear.krylov._cg import ConjugateGradient
from solvers.linear.krylov._items import RATE_STEPS, Items
from solvers.linear.operators._operator import LinearOperator
from solvers.linear.operators._poisson import PoissonOperator
from solvers.linear.preconditioners._multigrid import Multigrid
from solvers.parallel import Actor, Executor, WorkerLostError

__all__ = ["DistributedConjugateGradient"]

_MOST_DEATHS = 10
_FRESH_STARTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class DistributedConjugateGradient:
    r"""Conjugate gradients for one grid that is cut into slabs, one for each worker.

    ``"multigrid"`` is the serial cycle: the same iterates up to rounding, with one exchange of four
    planes where a level is smoothed and small levels gathered by the caller. Where no axis is
    periodic it is native, in single precision within double, as `Multigrid` is. ``"schwarz"`` runs
    a cycle on every slab alone and a global coarse space of boxes: about three times the
    iterations, each with two exchanges of one plane. All numbers between slabs pass through the
    caller.

    When a worker dies, its slab is made anew on the successor and the iteration starts again from
    the last iterate that the caller has.

    It pays for grids that one machine cannot hold or solve fast enough. Many systems of usual size
    are better spread whole, with ``executor.map``.

    Args:
        executor: The workers.
        preconditioner: ``"multigrid"`` or ``"schwarz"``.
        cycle: ``"W"`` or ``"V"``, for ``"multigrid"``.
        backend: ``"kernel"`` for the compiled form of ``"multigrid"``, ``"reference"`` for tensors,
            ``"auto"`` for the compiled one where it exists: not on periodic axes.
        rtol: Stop at :math:`\|b - A x\| \le` ``rtol`` :math:`\|b\|`.
        max_iterations: Limit of the iterations.
        gather_below: Levels of at most so many cells are gathered by the caller.
        keep_every: Iterations after which the caller takes a copy of the iterate.
        watch: Called after every iteration with its number and the relative residual.

    Raises:
        SettingsError: If a setting is out of range.

    Gradients: as of every linear solve, by a solve on the same workers.
    Cost: an iteration with ``"multigrid"`` takes three rounds of messages and, for each level that
    is distributed and each visit, two more; with ``"schwarz"`` four.

    Example:
        >>> from solvers.linear import linear_solve
        >>> from solvers.parallel import ThreadExecutor
        >>> A = PoissonOperator.from_cells(torch.zeros(32, 32), outside=2)
        >>> with ThreadExecutor(2) as executor:
        ...     solver = DistributedConjugateGradient(executor=executor)
        ...     solution = linear_solve(A, torch.ones(32, 32, dtype=torch.float64), solver)
        >>> solution.all_converged
        True
    """

    executor: Executor
    preconditioner: Literal["multigrid", "schwarz"] = "multigrid"
    cycle: Literal["W", "V"] = "W"
    backend: Literal["auto", "kernel", "reference"] = "auto"
    rtol: float = 1e-8
    max_iterations: int = 1000
    gather_below: int = 64**3
    keep_every: int = 5
    watch: Callable[[int, float], None] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        check_choice("preconditioner", self.preconditioner, ("multigrid", "schwarz"))
        check_choice("cycle", self.cycle, ("W", "V"))
        check_choice("backend", self.backend, ("auto", "kernel", "reference"))
        check_rtol(self.rtol)
        for name in ("max_iterations", "gather_below", "keep_every"):
            check_count(name, getattr(self, name))

    def prepare(self, operator: LinearOperator) -> Prepared:
        """Cut the grid and send every worker its slab.

        Args:
            operator: A `PoissonOperator`, one system on the CPU. A grid too thin to be cut is
                solved here.

        Raises:
            SettingsError: If it is another kind of operator, a batch, on another device, or
                periodic along every axis.
        """
        if not isinstance(operator, PoissonOperator):
            raise SettingsError(
                f"DistributedConjugateGradient: got {operator!r}, expected a PoissonOperator; for "
                "matrices spread right-hand sides with executor.map"
            )
        if operator.batch:
            raise SettingsError(
                f"DistributedConjugateGradient: got a batch {operator.batch} of systems, expected "
                "one; spread whole systems with executor.map"
            )
        if operator.device.type != "cpu":
            raise SettingsError(
                f"DistributedConjugateGradient: got tensors on {operator.device}, expected some on "
                "the CPU; move it with A.to"
            )
        axis = _longest_open_axis(operator)
        parts = min(self.executor.workers, operator.domain[axis] // HALO)
        if parts < 1 or operator.size <= 1024:
            preconditioner = Multigrid(cycle=self.cycle, backend=self.backend)
            return ConjugateGradient(
                preconditioner=preconditioner, rtol=self.rtol, max_iterations=self.max_iterations
            ).prepare(operator)
        return _PreparedSlabs(operator, self, axis, parts)


class _PreparedSlabs(Prepared):
    def __init__(
        self,
        operator: PoissonOperator,
        solver: DistributedConjugateGradient,
        axis: int,
        parts: int,
    ):
        self._axis = axis
        plain = widen(operator.detach())
        assert isinstance(plain, PoissonOperator)
        self._plain = _turned(plain, axis)
        self._plain.check()
        self._method: SlabCycle | DeflatedSchwarz
        if solver.preconditioner == "multigrid":
            visits = 2 if solver.cycle == "W" else 1
            self._method = SlabCycle(
                self._plain,
                parts,
                cycle=visits,
                gather_below=solver.gather_below,
                backend=solver.backend,
            )
        else:
            self._method = DeflatedSchwarz(self._plain, parts)
        executor = solver.executor
        self._actors: list[Actor] = [
            executor.spawn(
                self._method.worker,
                *(executor.share(part) for part in self._method.recipe(number)),
                worker=number,
            )
            for number in range(parts)
        ]
        self._settings = solver
        label = f"ConjugateGradient with {self._method.label} ({parts} workers)"
        super().__init__(operator, solver, label)

    @runs_in_double
    def run(self, b: Tensor, x0: Tensor | None) -> Outcome:
        with torch.no_grad():
            axes = len(self._plain.domain)
            place = self._axis - axes
            batch = b.shape[: b.ndim - axes]
            b = b.movedim(place, -axes).reshape(-1, *self._plain.domain)
            guesses = (
                [None] * len(b)
                if x0 is None
                else list(
                    x0.expand(*batch, *x0.shape[-axes:]).movedim(place, -axes).reshape(b.shape)
                )
            )
            ends = [self._solve(*pair) for pair in zip(b, guesses, strict=True)]
            value = torch.stack([end.value for end in ends])
            fields = [
                torch.stack([getattr(end, name) for end in ends]).reshape(batch)
                for name in ("status", "iterations", "residual")
            ]
            counts = {
                name: torch.stack([end.counts[name] for end in ends]).reshape(batch)
                for name in ends[0].counts
            }
        return Outcome(
            value=value.reshape(*batch, *self._plain.domain).movedim(-axes, place),
            status=fields[0],
            iterations=fields[1],
            residual=fields[2],
            counts=counts,
        )

    def _solve(self, b: Tensor, x0: Tensor | None) -> Outcome:
        """One right-hand side; starts again after a death, or from the true residual."""
        settings = self._settings
        items = Items(self._plain, b, settings.rtol, self._plain.null_space())
        state = _Iterate(items.start(x0), settings.max_iterations)
        deaths, r = 0, None
        fresh_starts = _FRESH_STARTS if self._method.is_singular else 0
        if not bool(torch.isfinite(items.b_norm)):
            items.end(torch.ones_like(items.running), Status.NON_FINITE)
        while bool(items.running):
            try:
                end = self._iterate(state, items.b, float(items.limit), float(items.b_norm))
            except WorkerLostError:
                deaths += 1
                if deaths > _MOST_DEATHS:
                    raise
                continue
            items.iterations = torch.full_like(items.iterations, state.steps)
            if end in (Status.STALLED, Status.BREAKDOWN) and fresh_starts and items.null_space:
                # In single precision the constants of closed regions have grown.
                fresh_starts -= 1
                state.x = items.null_space.remove(state.x)
                continue
            r = items.residual(state.x)
            if end is not None:
                items.end(torch.ones_like(items.running), end)
                break
            items.observe(state.x, r, is_true=True)
            if state.steps >= settings.max_iterations:
                break
        outcome = items.finish(state.x, r)
        counts = {**outcome.counts, "restarts": torch.tensor(deaths)}
        return Outcome(
            value=outcome.value,
            status=outcome.status,
            iterations=outcome.iterations,
            residual=outcome.residual,
            counts=counts,
        )

    def _iterate(self, state: _Iterate, b: Tensor, limit: float, unit: float) -> Status | None:
        """Iterate from ``state.x`` until the residual meets the limit; keep copies in ``state``.

        Returns:
            How the iteration failed; None if it met the limit or ran out of steps.
        """
        method = self._method
        start = (method.deflate(state.x, b), b)
        begun = self._everywhere(
            "start", *([slab_window(u, slab, method.halo) for slab in method.slabs] for u in start)
        )
        before, steps, is_true = math.inf, 0, True
        pace = _Pace(method.renew_below, is_singular=method.is_singular)
        while True:
            squares, stages = zip(*begun, strict=True)
            norm = math.sqrt(sum(squares))
            if norm <= limit and not is_true and method.renew_below > 0:
                begun = self._everywhere("advance", 0.0, True)
                before, is_true = math.inf, True
                continue
            if self._settings.watch is not None:
                self._settings.watch(state.steps, norm / unit)
            if not math.isfinite(norm):
                return Status.NON_FINITE
            is_stalled = pace.observe(norm, is_true=is_true)
            is_over = norm <= limit or is_stalled or state.steps >= state.most
            if is_over or (steps and steps % self._settings.keep_every == 0):
                state.x = torch.cat(self._everywhere("iterate"))
            if is_over:
                return Status.STALLED if is_stalled and norm > limit else None
            halos, overlap = method.finish(self._everywhere, list(stages))
            if not overlap > 0:
                return Status.BREAKDOWN
            beta = 0.0 if before == math.inf else overlap / before
            curvature = sum(self._everywhere("turn", beta, halos))
            if not curvature > 0:
                return Status.BREAKDOWN
            is_true = pace.is_renewal_due
            begun = self._everywhere("advance", overlap / curvature, is_true)
            before = overlap
            steps += 1
            state.steps += 1

    def _everywhere(self, method: str, *arguments: Any) -> list[Any]:
        """Call a method of all slabs; a list among the arguments has one entry for each."""
        sent = [
            actor.call(method, *(a[part] if isinstance(a, list) else a for a in arguments))
            for part, actor in enumerate(self._actors)
        ]
        results, lost = [], None
        for pending in sent:
            try:
                results.append(pending.result())
            except WorkerLostError as error:
                # All must have answered before anything is sent again.
                lost = lost or error
        if lost is not None:
            raise lost
        return results


@dataclass(slots=True)
class _Iterate:
    """The last iterate that the caller has, and the steps made so far."""

    x: Tensor
    most: int
    steps: int = 0


class _Pace:
    """When to compute the residual of single precision anew, and when it gets no smaller.

    Args:
        renew_below: Part of the last true residual below which there is too much rounding; 0 if
            there is none.
        is_singular: Whether the operator has a null space, in which rounding may gather.
    """

    def __init__(self, renew_below: float, *, is_singular: bool):
        self._renew_below = renew_below
        self._most_growth = 10.0 if is_singular else math.inf
        self._renewed = self._halved = self._least = self._last = math.inf
        self._fruitless = 0
        self.is_renewal_due = False

    def observe(self, norm: float, *, is_true: bool) -> bool:
        """Take the next norm; whether the iteration has stalled.

        Args:
            norm: Of the residual.
            is_true: Whether it was computed anew.
        """
        is_stalled = norm > self._most_growth * self._least
        if is_true:
            self._renewed = norm
            self._fruitless += 1
            if norm <= 0.5 * self._halved:
                self._halved, self._fruitless = norm, 0
            is_stalled = is_stalled or self._fruitless >= RATE_STEPS
        if self._renew_below > 0 and self._last < math.inf:
            expected = norm * min(norm / self._last, 1.0)
            self.is_renewal_due = expected <= self._renew_below * self._renewed
        self._last, self._least = norm, min(norm, self._least)
        return is_stalled


def _longest_open_axis(operator: PoissonOperator) -> int:
    open_axes = [axis for axis, closed in enumerate(operator.periodic) if not closed]
    if not open_axes:
        raise SettingsError(
            "DistributedConjugateGradient: the grid is periodic along every axis, expected one "
            "that is not, to cut it there"
        )
    return max(open_axes, key=lambda axis: operator.domain[axis])


def _turned(operator: PoissonOperator, axis: int) -> PoissonOperator:
    """The same grid with another axis first."""
    order = [axis, *(other for other in range(len(operator.couplings)) if other != axis)]
    couplings = [operator.couplings[place].movedim(axis, 0).contiguous() for place in order]
    boundary = operator.boundary.movedim(axis, 0).contiguous()
    mass = None if operator.mass is None else operator.mass.movedim(axis, 0).contiguous()
    return PoissonOperator(couplings, boundary, mass)
