"""The compiled multigrid as preconditioner, and one call for a whole solve."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solvers.core import Status
from solvers.linear._prepared import Outcome
from solvers.linear.operators._operator import LinearOperator, NullSpace
from solvers.linear.operators._poisson import PoissonOperator
from solvers.linear.preconditioners._levels import GridLevels
from solvers.linear.preconditioners._native import Level, Number, Op, Slot, rest_address
from solvers.linear.preconditioners._preconditioner import PreparedPreconditioner
from solvers.linear.preconditioners._trail import Directions, Trail

__all__ = ["CompiledMultigrid"]

_SMALL = 1e-120
_FRESH_STARTS = 3
# Of the square of a residual, from its least value on: rounding of a drift has taken over.
_GROWTH = 100.0
# Threads of a team wait for each other: two teams at once could starve.
_team_lock = threading.Lock()


class CompiledMultigrid(PreparedPreconditioner):
    """Native levels of a grid operator, and the solves that run on them.

    Args:
        operator: Operator without gradients, float64 on the CPU, not periodic.
        make: Makes the levels of an operator.
        levels: Those of this operator, if they are at hand.
    """

    def __init__(
        self,
        operator: PoissonOperator,
        make: Callable[[PoissonOperator], GridLevels],
        levels: GridLevels | None = None,
    ):
        self._operator = operator
        self._make = make
        self._held: GridLevels | None = make(operator) if levels is None else levels
        self.label = self._held.label
        self.is_mask = self._held.is_mask
        self.is_worn = self._held.is_worn
        self._lead = 3 - len(operator.domain)
        self._systems = math.prod(operator.batch)
        self._weighed: tuple[Directions, Directions, np.ndarray[Any, Any]] | None = None
        # Table and memory serve one call at a time; every public call takes it.
        self._lock = threading.RLock()

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy makes levels of its own: native memory does not travel."""
        return type(self), (self._operator, self._make)

    def update(self, operator: LinearOperator) -> PreparedPreconditioner | None:
        """Move the levels to another operator; if this one is asked again, it makes its own anew.

        Levels of grids are those that a new preparation would make, to the last bit.
        """
        if not isinstance(operator, PoissonOperator):
            return None
        with self._lock:
            levels, self._held = self._held, None
        if levels is None or not levels.fits(operator) or not levels.refill(operator):
            return None
        return CompiledMultigrid(operator, self._make, levels)

    def _levels(self) -> GridLevels:
        """The levels; call with the lock held."""
        if self._held is None:
            self._held = self._make(self._operator)
        return self._held

    # Application

    def apply(self, r: Tensor) -> Tensor:
        """One cycle in single precision."""
        operator = self._operator
        axes = tuple(range(-len(operator.domain), 0))
        size = torch.linalg.vector_norm(r, dim=axes, keepdim=True)
        scale = torch.where(size > 0, math.sqrt(operator.size) / size, 1.0)
        rows = self._by_system(operator.mask(r * scale))
        z = torch.empty_like(rows)
        with self._lock:
            levels = self._levels()
            back = [0, *(1 + levels.order.index(axis) for axis in range(3))]
            finest = levels.levels[0]
            for index in range(rows.shape[1]):
                part = rows[:, index].reshape(self._systems, *(1,) * self._lead, *operator.domain)
                finest.field("b").copy_(part.permute(0, *(1 + axis for axis in levels.order)))
                levels.run(Op.CYCLE, 0)
                turned = finest.field("x").permute(back)
                z[:, index] = turned.reshape(self._systems, *operator.domain)
            units = torch.from_numpy(levels.units).reshape(-1, 1, *(1,) * len(operator.domain))
        return self._to_batch(z / units, r.shape[: r.ndim - len(axes)]) / scale

    def conjugate_gradient(
        self,
        b: Tensor,
        x0: Tensor | None,
        *,
        rtol: float,
        max_iterations: int,
        patience: int | None = None,
    ) -> Outcome:
        """Solve every right-hand side; one native call."""
        with self._lock:
            levels = self._levels()
            levels.numbers[Number.PATIENCE] = patience or 0
            levels.numbers[Number.GROWTH] = 0 if levels.null_space is None else _GROWTH
            if levels.null_space is None:
                return self._solve(b, x0, rtol, max_iterations)
            return self._solve_in_range(b, x0, rtol, max_iterations, levels.null_space)

    def _solve_in_range(
        self, b: Tensor, x0: Tensor | None, rtol: float, max_iterations: int, free: NullSpace
    ) -> Outcome:
        """Solve between walls; what is not in the range of the operator stays as residual."""
        axes = tuple(range(-len(self._operator.domain), 0))
        b = self._operator.mask(b)
        inside = free.remove(b)
        norm = torch.linalg.vector_norm(b, dim=axes)
        outside = torch.linalg.vector_norm(b - inside, dim=axes)
        outcome = self._solve_free(inside, x0, rtol, max_iterations, free)
        total = torch.hypot(outcome.residual * torch.linalg.vector_norm(inside, dim=axes), outside)
        is_outside = (outcome.status == Status.CONVERGED) & (outside > rtol * norm)
        return Outcome(
            value=free.remove(outcome.value),
            status=torch.where(is_outside, int(Status.INFEASIBLE), outcome.status),
            iterations=outcome.iterations,
            residual=total / torch.where(norm > 0, norm, 1.0),
            counts=outcome.counts,
        )

    def recycled_conjugate_gradient(
        self,
        b: Tensor,
        x0: Tensor | None,
        *,
        rtol: float,
        max_iterations: int,
        directions: Directions | None,
        kept: int,
        keeps_vectors: bool,
    ) -> tuple[Outcome, Trail] | None:
        """Solve with earlier directions, and keep the first steps."""
        with self._lock:
            levels = self._levels()
            if levels.threads > 1 or self._operator.batch:
                return None
            levels.reserve_iterates()
            vectors = _trail_memory(kept if keeps_vectors else 0, int(levels.table[Slot.CELLS]))
            numbers = np.zeros((max(kept, 1), 3))
            layout = ("compiled", self._operator.domain, levels.order)
            if directions is not None and directions.layout == layout:
                fitted, weights = self._weigh(levels, directions)
                levels.set(Slot.RECYCLED, len(weights), fitted.vectors.data_ptr())
                levels.table[Slot.RECYCLED_WEIGHTS] = weights.ctypes.data
            address = vectors.data_ptr() if keeps_vectors else 0
            levels.set(Slot.TRAIL, address, kept, numbers.ctypes.data)
            try:
                outcome = self.conjugate_gradient(b, x0, rtol=rtol, max_iterations=max_iterations)
            finally:
                levels.table[Slot.RECYCLED] = levels.table[Slot.TRAIL_MOST] = 0
            steps = min(kept, int((numbers[:, 0] > 0).sum()))
            vectors[:steps, levels.levels[0].cells :] = 0.0
        trail = Trail(
            vectors=vectors[:steps],
            lengths=numbers[:steps, 0],
            overlaps=numbers[:steps, 1],
            sizes=numbers[:steps, 2],
            layout=layout,
        )
        return outcome, trail

    def _weigh(
        self, levels: GridLevels, directions: Directions
    ) -> tuple[Directions, np.ndarray[Any, Any]]:
        """Directions and weights for this operator, kept as long as the directions are the same."""
        if self._weighed is None or self._weighed[0] is not directions:
            fitted = _without_solids(directions, levels.levels[0])
            energies = np.zeros(len(fitted.shares))
            levels.set(Slot.RECYCLED, len(energies), fitted.vectors.data_ptr())
            levels.table[Slot.RECYCLED_WEIGHTS] = energies.ctypes.data
            levels.run(Op.ENERGIES, 0)
            self._weighed = directions, fitted, fitted.weights(energies)
        return self._weighed[1:]

    def _solve_free(
        self, b: Tensor, x0: Tensor | None, rtol: float, max_iterations: int, free: NullSpace
    ) -> Outcome:
        """Solve between walls, where the iterate drifts along constants.

        A large drift leaves rounding in the residual that only a fresh start without it removes.
        """
        outcome = self._solve(b, x0, rtol, max_iterations)
        for _ in range(_FRESH_STARTS):
            drifted = (outcome.status == Status.BREAKDOWN) | (outcome.status == Status.STALLED)
            drifted &= outcome.residual.isfinite()
            if not bool(drifted.any()):
                break
            start = free.remove(outcome.value)
            again = self._solve(b, start, rtol, max_iterations)
            better = drifted & (again.residual < outcome.residual)
            shape = (*better.shape, *(1,) * (b.ndim - better.ndim))
            outcome = replace(
                again,
                value=torch.where(better.reshape(shape), again.value, outcome.value),
                status=torch.where(better, again.status, outcome.status),
                iterations=outcome.iterations + torch.where(drifted, again.iterations, 0),
                residual=torch.where(better, again.residual, outcome.residual),
            )
            if not bool(better.any()):
                break
        return outcome

    def _solve(self, b: Tensor, x0: Tensor | None, rtol: float, max_iterations: int) -> Outcome:
        """Solve, once more in other units where squares leave the range of numbers."""
        outcome = self._solve_once(b, x0, rtol, max_iterations)
        if bool(((outcome.iterations == 0) & ~(outcome.residual > 0)).any()):
            axes = tuple(range(-len(self._operator.domain), 0))
            size = self._operator.mask(b).abs().amax(axes, keepdim=True)
            is_extreme = ((size > 0) & (size < _SMALL)) | ((size > 1 / _SMALL) & size.isfinite())
            if bool(is_extreme.any()):
                unit = torch.where(is_extreme, size, 1.0)
                guess = None if x0 is None else x0 / unit
                outcome = self._solve_once(b / unit, guess, rtol, max_iterations)
                outcome = replace(outcome, value=outcome.value * unit)
        return outcome

    def _solve_once(
        self, b: Tensor, x0: Tensor | None, rtol: float, max_iterations: int
    ) -> Outcome:
        levels = self._levels()
        rows = self._by_system(b)
        count = rows.shape[1]
        x = torch.empty(rows.shape, dtype=torch.float64)
        if x0 is not None:
            x.copy_(self._by_system(x0.expand_as(b)))
        report = np.zeros((self._systems, count, 4))
        levels.reserve_iterates()
        team = levels.threads if self._systems == 1 else 1
        counter = np.zeros(1, dtype=np.int64)
        sums = np.zeros(128)
        levels.numbers[Number.RTOL] = rtol
        table = levels.table
        table[Slot.OP] = Op.SOLVE
        levels.set(Slot.TEAM, team, count, counter.ctypes.data, sums.ctypes.data, rest_address())
        table[Slot.LIMIT], table[Slot.REPORT] = max_iterations, report.ctypes.data
        table[Slot.HAS_GUESS] = x0 is not None
        for start, tensor in ((Slot.RIGHT, rows), (Slot.SOLUTION, x)):
            steps = (0,) * self._lead + tensor.stride()[2:]
            turned = [steps[axis] for axis in levels.order]
            levels.set(start, tensor.data_ptr(), *turned, tensor.stride(0), tensor.stride(1))
        if team > 1:
            with _team_lock:
                levels.launch(team)
        else:
            levels.launch(self._systems)
        table[Slot.REPORT] = levels.report.ctypes.data
        batch = b.shape[: b.ndim - len(self._operator.domain)]
        status, iterations, residual, refreshes = (
            self._to_batch(torch.from_numpy(report[..., part].copy()), batch) for part in range(4)
        )
        return Outcome(
            value=self._to_batch(x, batch),
            status=status.to(torch.int64),
            iterations=iterations.to(torch.int64),
            residual=residual,
            counts={"refreshes": refreshes.to(torch.int64)},
        )

    def _by_system(self, b: Tensor) -> Tensor:
        """Bring a batch into the shape ``(systems, right-hand sides, *grid)``."""
        axes = len(self._operator.domain)
        own, shared = self._batch_axes(b.ndim - axes)
        grid = b.shape[b.ndim - axes :]
        batch = torch.broadcast_shapes(b.shape[: b.ndim - axes], self._operator.batch)
        rows = b.expand(*batch, *grid).permute(*own, *shared, *range(b.ndim - axes, b.ndim))
        return rows.reshape(self._systems, math.prod(batch[axis] for axis in shared), *grid)

    def _to_batch(self, rows: Tensor, batch: tuple[int, ...]) -> Tensor:
        """The way back."""
        own, shared = self._batch_axes(len(batch))
        order = own + shared
        parts = rows.reshape([*(batch[axis] for axis in order), *rows.shape[2:]])
        back = [order.index(axis) for axis in range(len(batch))]
        return parts.permute([*back, *range(len(batch), parts.ndim)])

    def _batch_axes(self, count: int) -> tuple[list[int], list[int]]:
        """Axes of a batch along which systems differ, and those along which they are shared."""
        sizes = (1,) * (count - len(self._operator.batch)) + self._operator.batch
        own = [axis for axis, size in enumerate(sizes) if size != 1]
        return own, [axis for axis in range(count) if axis not in own]


def _trail_memory(kept: int, cells: int) -> Tensor:
    return torch.from_numpy(np.empty((kept, cells), dtype=np.float32))


def _without_solids(directions: Directions, finest: Level) -> Directions:
    """The directions with zeros in cells that have become solid since they were found."""
    solid = ~finest.unknowns()[0]
    if not bool(solid.any()):
        return directions
    vectors = directions.vectors.clone()
    finest.view(vectors).masked_fill_(solid, 0)
    return replace(directions, vectors=vectors)
