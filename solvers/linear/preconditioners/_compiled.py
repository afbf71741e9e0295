"""The compiled multigrid: levels in padded flat arrays, and one call for a whole solve."""

from __future__ import annotations

import math
import threading
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from solvers.core import Status
from solvers.linear._prepared import Outcome
from solvers.linear.operators._poisson import PoissonOperator
from solvers.linear.preconditioners._coarsening import (
    CHEBYSHEV_INTERVAL,
    COARSEST_CELLS,
    choose_axes,
    coarse_shape,
    symmetric_inverse,
    wall_factor,
)
from solvers.linear.preconditioners._jacobi import chebyshev_steps
from solvers.linear.preconditioners._native import (
    HEADER,
    ROW,
    Level,
    Number,
    Op,
    Slot,
    multigrid_kernel,
    rest_address,
    zeros,
)
from solvers.linear.preconditioners._preconditioner import PreparedPreconditioner
from solvers.linear.preconditioners._trail import Directions, Trail

__all__ = ["CompiledMultigrid"]

_SMALL = 1e-120
_FRESH_STARTS = 3
# Threads of a team wait for each other: two teams at once could starve.
_team_lock = threading.Lock()


class CompiledMultigrid(PreparedPreconditioner):
    """Levels of a grid operator in native memory.

    Args:
        operator: Operator without gradients, float64 on the CPU, not periodic.
        cycle: Visits of a coarser level, 1 (V) or 2 (W).
        threads: Threads that share one system, or among which a batch of systems is split.
    """

    label = "multigrid (compiled)"

    def __init__(self, operator: PoissonOperator, *, cycle: int, threads: int):
        self._operator = operator
        self._kernel = multigrid_kernel()
        self._threads = threads
        self.batch = operator.batch
        self._systems = math.prod(self.batch)
        self._lead = 3 - len(operator.domain)
        self._numbers = np.zeros(8)
        self._numbers[[Number.FIRST_STEP, Number.SECOND_STEP]] = sorted(
            chebyshev_steps(2, CHEBYSHEV_INTERVAL[0], CHEBYSHEV_INTERVAL[1])
        )
        self._table = np.zeros(HEADER + 32 * ROW, dtype=np.int64)
        self._table[Slot.NUMBERS] = self._numbers.ctypes.data
        self._table[Slot.VISITS] = cycle
        self._report = np.zeros((self._systems, 16))
        self._table[Slot.REPORT] = self._report.ctypes.data
        self._work = torch.zeros(0, dtype=torch.float64)
        self._inputs: list[Tensor] = []
        self._order: tuple[int, int, int] = (0, 1, 2)
        self._levels: list[Level] = []
        self._set_up()
        self._iterates: tuple[Tensor, ...] | None = None
        self._weighed: tuple[Directions, np.ndarray] | None = None
        # Table and memory serve one call at a time.
        self._lock = threading.Lock()

    # Set-up

    def _set_up(self) -> None:
        shape = (1,) * self._lead + self._operator.domain
        self._describe_inputs()
        self._reserve_work(shape)
        finest = Level(shape, self._systems, is_mask=True, has_mass=False)
        self._place(finest)
        self._units = np.ones(self._systems)
        self._table[Slot.UNITS] = self._units.ctypes.data
        self.is_mask = bool((self._run(Op.FILL_MASK, 0)[:, 0] != 0).all())
        if self.is_mask:
            order = self._emptiest_first(finest)
            if order != (0, 1, 2):
                self._permute(finest, order)
        else:
            report = self._run(Op.SCAN, 0)
            if not np.isfinite(report[:, 2]).all() or (report[:, 1] < 0).any():
                self._operator.check()
            self._units[:] = np.where(report[:, 0] > 0, report[:, 0], 1.0)
            self._levels = []
            has_mass = self._operator.mass is not None
            self._place(Level(shape, self._systems, is_mask=False, has_mass=has_mass))
            cells = self._levels[0].cells
            self._doubles = zeros(4, self._systems, cells + 64)
            start = Slot.DIAGONALS
            self._table[start : start + 4] = [part.data_ptr() for part in self._doubles]
            self._table[Slot.CELLS] = cells + 64
        stats = None if self.is_mask else self._run(Op.FILL, 0)
        if not self._levels[0].runs().any():
            self._operator.check()
        self._coarsen(stats.copy() if stats is not None else None)
        self._null_space = None if self._is_held() else self._operator.null_space()

    def _is_held(self) -> bool:
        """Whether every region is connected to a known value or has mass."""
        nx, ny, nz = self._levels[0].shape
        most = nx * ny * (nz // 2 + 1)
        size = 4 * most + nx * ny + 1
        # Touched only as far as there are runs of cells.
        memory = np.empty((self._systems, size), dtype=np.int32)
        self._set(Slot.MOST_RUNS, most, memory.ctypes.data, size)
        return bool((self._run(Op.IS_HELD, 0)[:, 0] != 0).all())

    def _describe_inputs(self) -> None:
        operator, axes = self._operator, len(self._operator.domain)
        dummy = operator.boundary.new_zeros((1, 1, 1))
        fields: list[Tensor | None] = [None] * self._lead
        fields += [*operator.couplings, operator.boundary, operator.mass]
        for place, field in enumerate(fields):
            tensor = dummy if field is None else field
            if field is not None and field.ndim > axes:
                tensor = tensor.expand(*self.batch, *field.shape[field.ndim - axes :])
                tensor = tensor.reshape(self._systems, *field.shape[field.ndim - axes :])
            steps = (0,) * (3 - min(axes, tensor.ndim)) + tensor.stride()[-axes:]
            start = Slot.INPUTS + 5 * place
            self._inputs.append(tensor)
            address = 0 if field is None else tensor.data_ptr()
            self._set(start, address, *steps[-3:], tensor.stride(0) if tensor.ndim > axes else 0)

    def _reserve_work(self, shape: tuple[int, ...]) -> None:
        """Scratch memory: for rows in the set-up, for planes in the cycle, one part a thread."""
        largest = 0
        for order in ((0, 1, 2), (2, 0, 1), (1, 0, 2)):
            ny, nz = shape[order[1]], shape[order[2]]
            pitch, plane = nz + 1, (ny + 1) * (nz + 1)
            largest = max(largest, 6 * (pitch + 64 + 3 * plane) + pitch + 64 + 4 * pitch + 256)
        longest = max(shape) + 64
        size = max(largest, 16 * longest)
        self._parts = max(self._systems, self._threads)
        self._work = zeros(self._parts, size // 2 + 8)
        self._set(Slot.WORK, self._work.data_ptr(), self._work.stride(0))

    def _place(self, level: Level) -> None:
        start = HEADER + ROW * len(self._levels)
        self._table[start : start + ROW] = level.row
        self._levels.append(level)

    def _emptiest_first(self, level: Level) -> tuple[int, int, int]:
        """The order of axes that leaves out most planes."""
        cells = level.diagonal()
        rows = cells.amax(dim=(0, 1)) > 0
        empty = [
            1.0 - float(line.double().mean())
            for line in (cells.amax(dim=(0, 2, 3)) > 0, rows.any(1), rows.any(0))
        ]
        axis = int(np.argmax(empty))
        if empty[axis] < empty[0] + 0.1:
            return (0, 1, 2)
        return ((0, 1, 2), (1, 0, 2), (2, 0, 1))[axis]

    def _permute(self, level: Level, order: tuple[int, int, int]) -> None:
        """Turn the finest level, which is a mask, so that an axis with empty planes comes first."""
        self._order = order
        shape = tuple(level.shape[axis] for axis in order)
        turned = Level(shape, self._systems, is_mask=True, has_mass=False)
        turned.diagonal().copy_(level.diagonal().permute(0, *(1 + axis for axis in order)))
        self._levels = []
        self._place(turned)
        self._run(Op.FIND_RUNS, 0)

    def _coarsen(self, stats: np.ndarray | None) -> None:
        level = 0
        while math.prod(self._levels[-1].shape) > COARSEST_CELLS:
            shape = self._levels[-1].shape
            strengths = [1.0, 1.0, 1.0]
            if stats is not None:
                sums = stats.sum(0)
                strengths = list(sums[:3] / np.maximum(sums[3:6], 1.0))
            axes = choose_axes(shape, strengths)
            start = HEADER + ROW * level
            self._table[start + 6] = sum(1 << axis for axis in axes)
            has_mass = self._operator.mass is not None and not self.is_mask
            coarse = coarse_shape(shape, axes)
            self._place(Level(coarse, self._systems, is_mask=False, has_mass=has_mass))
            self._numbers[Number.WALL] = wall_factor(level, shape, axes)
            self._report[:] = 0.0
            stats = self._run(Op.COARSEN, level)
            level += 1
        self._inverse = self._invert_coarsest()
        self._set(Slot.INVERSE, self._inverse.data_ptr(), self._inverse.stride(0))
        self._table[Slot.LEVELS] = len(self._levels)

    def _invert_coarsest(self) -> Tensor:
        level = self._levels[-1]
        if level.is_mask:
            return self._invert_mask(level)
        inverse = level.field("di").double()
        couplings = [level.field(name).double() for name in ("cx", "cy", "cz")]
        return _invert(inverse, couplings)

    def _invert_mask(self, level: Level) -> Tensor:
        """A grid so small that it is the coarsest level itself."""
        d = level.diagonal().double()
        on = (d > 0).double()
        couplings = []
        for axis in range(3):
            ahead = torch.zeros_like(on)
            size = on.shape[axis + 1] - 1
            ahead.narrow(axis + 1, 0, size).copy_(on.narrow(axis + 1, 1, size))
            couplings.append(on * ahead)
        return _invert(torch.where(d > 0, 1.0 / d.clamp(min=1), 0.0), couplings)

    def _set(self, start: int, *entries: int) -> None:
        """Write consecutive slots."""
        self._table[start : start + len(entries)] = entries

    def _run(self, op: int, level: int) -> np.ndarray:
        self._table[Slot.OP] = op
        self._table[Slot.LEVEL] = level
        if op != Op.COARSEN:
            self._report[:] = 0.0
        self._launch(self._systems)
        return self._report

    def _launch(self, blocks: int) -> None:
        table = torch.from_numpy(self._table.view(np.float64))
        if self._threads > 1 and blocks > 1:
            self._kernel.launch_threads(blocks, self._threads, table)
        else:
            self._kernel(blocks, table)

    # Application

    def apply(self, r: Tensor) -> Tensor:
        """One cycle in single precision."""
        operator = self._operator
        axes = tuple(range(-len(operator.domain), 0))
        size = torch.linalg.vector_norm(r, dim=axes, keepdim=True)
        scale = torch.where(size > 0, math.sqrt(operator.size) / size, 1.0)
        rows = self._by_system(operator.mask(r * scale))
        back = [0, *(1 + self._order.index(axis) for axis in range(3))]
        z = torch.empty_like(rows)
        finest = self._levels[0]
        for index in range(rows.shape[1]):
            part = rows[:, index].reshape(self._systems, *(1,) * self._lead, *operator.domain)
            with self._lock:
                finest.field("b").copy_(part.permute(0, *(1 + axis for axis in self._order)))
                self._run(Op.CYCLE, 0)
                turned = finest.field("x").permute(back)
                z[:, index] = turned.reshape(self._systems, *operator.domain)
        units = torch.from_numpy(self._units).reshape(-1, 1, *(1,) * len(operator.domain))
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
        self._numbers[Number.PATIENCE] = patience or 0
        free = self._null_space
        if free is None:
            return self._solve(b, x0, rtol, max_iterations)
        axes = tuple(range(-len(self._operator.domain), 0))
        b = self._operator.mask(b)
        inside = free.remove(b)
        norm = torch.linalg.vector_norm(b, dim=axes)
        outside = torch.linalg.vector_norm(b - inside, dim=axes)
        outcome = self._solve_free(inside, x0, rtol, max_iterations)
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
    ) -> tuple[Outcome, Trail] | None:
        """Solve with earlier directions, and keep the first steps."""
        if self._threads > 1 or self._systems > 1 or self.batch:
            return None
        self._reserve_iterates()
        cells = int(self._table[Slot.CELLS])
        vectors = _trail_memory(kept, cells)
        numbers = np.zeros((max(kept, 1), 3))
        if directions is not None and directions.layout == self._layout():
            weights = self._weigh(directions)
            self._set(Slot.RECYCLED, len(weights), directions.vectors.data_ptr())
            self._table[Slot.RECYCLED_WEIGHTS] = weights.ctypes.data
        self._set(Slot.TRAIL, vectors.data_ptr(), kept, numbers.ctypes.data)
        try:
            outcome = self.conjugate_gradient(b, x0, rtol=rtol, max_iterations=max_iterations)
        finally:
            self._table[Slot.RECYCLED] = self._table[Slot.TRAIL_MOST] = 0
        steps = min(kept, int((numbers[:, 0] > 0).sum()))
        vectors[:steps, self._levels[0].cells :] = 0.0
        trail = Trail(
            vectors=vectors[:steps],
            lengths=numbers[:steps, 0],
            overlaps=numbers[:steps, 1],
            sizes=numbers[:steps, 2],
            layout=self._layout(),
        )
        return outcome, trail

    def _weigh(self, directions: Directions) -> np.ndarray:
        """Weights for this operator, kept as long as the directions are the same."""
        if self._weighed is None or self._weighed[0] is not directions:
            energies = np.zeros(len(directions.shares))
            self._set(Slot.RECYCLED, len(energies), directions.vectors.data_ptr())
            self._table[Slot.RECYCLED_WEIGHTS] = energies.ctypes.data
            with self._lock:
                self._run(Op.ENERGIES, 0)
            self._weighed = directions, directions.weights(energies)
        return self._weighed[1]

    def _layout(self) -> tuple[object, ...]:
        return ("compiled", self._operator.domain, self._order)

    def _solve_free(
        self, b: Tensor, x0: Tensor | None, rtol: float, max_iterations: int
    ) -> Outcome:
        """Solve between walls, where the iterate drifts along constants.

        A large drift leaves rounding in the residual that only a fresh start without it removes.
        """
        free = self._null_space
        assert free is not None
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
        with self._lock:
            outcome = self._solve_once(b, x0, rtol, max_iterations)
        if bool(((outcome.iterations == 0) & ~(outcome.residual > 0)).any()):
            axes = tuple(range(-len(self._operator.domain), 0))
            size = self._operator.mask(b).abs().amax(axes, keepdim=True)
            is_extreme = ((size > 0) & (size < _SMALL)) | ((size > 1 / _SMALL) & size.isfinite())
            if bool(is_extreme.any()):
                unit = torch.where(is_extreme, size, 1.0)
                guess = None if x0 is None else x0 / unit
                with self._lock:
                    outcome = self._solve_once(b / unit, guess, rtol, max_iterations)
                outcome = replace(outcome, value=outcome.value * unit)
        return outcome

    def _solve_once(
        self, b: Tensor, x0: Tensor | None, rtol: float, max_iterations: int
    ) -> Outcome:
        rows = self._by_system(b)
        count = rows.shape[1]
        x = torch.empty(rows.shape, dtype=torch.float64)
        if x0 is not None:
            x.copy_(self._by_system(x0.expand_as(b)))
        report = np.zeros((self._systems, count, 4))
        self._reserve_iterates()
        team = self._threads if self._systems == 1 else 1
        counter = np.zeros(1, dtype=np.int64)
        sums = np.zeros(128)
        self._numbers[Number.RTOL] = rtol
        table = self._table
        table[Slot.OP] = Op.SOLVE
        self._set(Slot.TEAM, team, count, counter.ctypes.data, sums.ctypes.data, rest_address())
        table[Slot.LIMIT], table[Slot.REPORT] = max_iterations, report.ctypes.data
        table[Slot.HAS_GUESS] = x0 is not None
        for start, tensor in ((Slot.RIGHT, rows), (Slot.SOLUTION, x)):
            steps = (0,) * self._lead + tensor.stride()[2:]
            turned = [steps[axis] for axis in self._order]
            self._set(start, tensor.data_ptr(), *turned, tensor.stride(0), tensor.stride(1))
        if team > 1:
            with _team_lock:
                self._launch(team)
        else:
            self._launch(self._systems)
        table[Slot.REPORT] = self._report.ctypes.data
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

    def _reserve_iterates(self) -> None:
        """Directions in single, iterates in double precision, kept between solves."""
        if self._iterates is None:
            size = self._levels[0].cells + 64
            directions = zeros(self._systems, size, dtype=np.float32)
            iterates = zeros(self._systems, size)
            self._iterates = (directions, iterates)
            self._table[Slot.CELLS] = size
            self._set(Slot.DIRECTIONS, directions.data_ptr(), iterates.data_ptr(), size)

    def _by_system(self, b: Tensor) -> Tensor:
        """Bring a batch into the shape ``(systems, right-hand sides, *grid)``."""
        axes = len(self._operator.domain)
        batch = b.shape[: b.ndim - axes]
        extra = len(batch) - len(self.batch)
        grid = b.shape[b.ndim - axes :]
        if not self.batch:
            return b.reshape(1, -1, *grid)
        rows = b.expand(*batch[:extra], *self.batch, *grid)
        return rows.reshape(-1, self._systems, *grid).transpose(0, 1)

    def _to_batch(self, rows: Tensor, batch: tuple[int, ...]) -> Tensor:
        """The way back."""
        return rows.transpose(0, 1).reshape((*batch, *rows.shape[2:]))


def _trail_memory(kept: int, cells: int) -> Tensor:
    return torch.from_numpy(np.empty((kept, cells), dtype=np.float32))


def _invert(inverse_diagonal: Tensor, couplings: list[Tensor]) -> Tensor:
    """Inverse matrices of small grids, shape ``(systems, n * n)``."""
    systems, *shape = inverse_diagonal.shape
    n = math.prod(shape)
    matrix = torch.zeros(systems, n, n, dtype=torch.float64)
    flat = inverse_diagonal.reshape(systems, n)
    matrix.diagonal(dim1=1, dim2=2).copy_(torch.where(flat > 0, 1.0 / flat, 0.0))
    index = torch.arange(n).reshape(shape)
    for axis, coupling in enumerate(couplings):
        size = shape[axis] - 1
        low = index.narrow(axis, 0, size).flatten()
        high = index.narrow(axis, 1, size).flatten()
        between = coupling.narrow(axis + 1, 0, size).reshape(systems, -1)
        matrix[:, low, high] -= between
        matrix[:, high, low] -= between
    return symmetric_inverse(matrix).reshape(systems, n * n).contiguous()
