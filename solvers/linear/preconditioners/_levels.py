"""Grids of a multigrid hierarchy in native memory: made once, refilled when coefficients move."""

from __future__ import annotations

import math
import os

import numpy as np
import torch
from torch import Tensor

from solvers.linear.operators._operator import NullSpace
from solvers.linear.operators._poisson import PoissonOperator
from solvers.linear.preconditioners._coarsening import (
    CHEBYSHEV_INTERVAL,
    COARSEST_CELLS,
    LEAST_PIVOT,
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
    scratch_size,
    zeros,
)

__all__ = ["GridLevels"]

_IN_ORDER = (0, 1, 2)
_MOST_LEVELS = 32
# Couplings further from one than this are brought back to it: their squares stay in range.
_FAR = 1e6
# Slots of the sums that a team makes.
_MOST_THREADS = 64


class GridLevels:
    """Levels in padded flat arrays, for one system or a batch, and the table that names them.

    Args:
        operator: Operator without gradients, float64 on the CPU, not periodic.
        cycle: Visits of a coarser level, 1 (V) or 2 (W).
        threads: Threads that share one system, or among which a batch of systems is split; no more
            than there are processors, as threads of a team wait for each other.
        is_turned: Whether an axis with empty planes may come first.

    Attributes:
        table: Integers that native calls read.
        numbers: Floating-point arguments of native calls.
        levels: The levels, finest first.
        units: What the couplings of every system were divided by.
        order: Axis of the operator that each native axis is.
        is_mask: Whether all couplings are equal, so that a byte a cell is enough.
        null_space: Of the operator, if every cell is not held by known values.
    """

    label = "multigrid (compiled)"
    is_worn = False

    def __init__(
        self, operator: PoissonOperator, *, cycle: int, threads: int, is_turned: bool = True
    ):
        self._kernel = multigrid_kernel()
        self._shape = (1,) * (3 - len(operator.domain)) + operator.domain
        self._has_mass = operator.mass is not None
        self._batch = operator.batch
        self._is_turned = is_turned
        self.threads = min(threads, os.cpu_count() or 1, _MOST_THREADS)
        self.systems = math.prod(operator.batch)
        self.numbers = np.zeros(len(Number))
        self.numbers[[Number.FIRST_STEP, Number.SECOND_STEP]] = sorted(
            chebyshev_steps(2, *CHEBYSHEV_INTERVAL)
        )
        self.numbers[Number.LEAST_PIVOT] = LEAST_PIVOT
        self.table = np.zeros(HEADER + _MOST_LEVELS * ROW, dtype=np.int64)
        self.report = np.zeros((self.systems, 16))
        self.units = np.ones(self.systems)
        self.table[Slot.NUMBERS] = self.numbers.ctypes.data
        self.table[Slot.VISITS] = cycle
        self.table[Slot.REPORT] = self.report.ctypes.data
        self.table[Slot.UNITS] = self.units.ctypes.data
        self._reserve_work()
        self.levels: list[Level] = []
        self._spare: list[Level] = []
        self._iterates: tuple[Tensor, ...] = ()
        self._make(operator)

    def fits(self, operator: PoissonOperator) -> bool:
        """Whether `refill` may be tried: the same grid, batch and kinds of numbers."""
        shape = (1,) * (3 - len(operator.domain)) + operator.domain
        kind = (shape, operator.batch, operator.mass is not None)
        is_native = operator.dtype == torch.float64 and operator.device.type == "cpu"
        is_open = not any(operator.periodic)
        return is_native and is_open and kind == (self._shape, self._batch, self._has_mass)

    def refill(self, operator: PoissonOperator) -> bool:
        """Make the levels of another operator in the memory of these.

        Args:
            operator: One that fits.

        Returns:
            Whether that is done. If not (couplings that were equal are so no more), these levels
            serve no operator.
        """
        self._describe_inputs(operator)
        if self.is_mask:
            report = self._fill_sketch()
            if report is None:
                return False
            if not report[:, 1].any():
                return True
        stats = None
        before = [level.runs().clone() for level in self.levels]
        used = self._reuse_levels()
        if self.is_mask:
            self._turn_sketch(self.order)
        else:
            stats = self._fill_couplings(operator)
        self._complete(operator, stats)
        for level, runs in zip(used, before, strict=True):
            if level in self.levels and not _covers(level.runs(), runs):
                self._forget(level)
        return True

    # Finest level

    def _make(self, operator: PoissonOperator) -> None:
        self._describe_inputs(operator)
        stats = None
        self._sketch = Level(self._shape, self.systems, is_mask=True, is_sketch=True)
        self.order = _IN_ORDER
        self.is_mask = self._fill_sketch() is not None
        if self.is_mask:
            self._turn_sketch(_emptiest_first(self._sketch) if self._is_turned else _IN_ORDER)
        else:
            del self._sketch
            self._place(self._shape, is_mask=False)
            cells = self.levels[0].cells
            self._doubles = zeros(4, self.systems, cells + 64)
            addresses = [part.data_ptr() for part in self._doubles]
            self.set(Slot.DIAGONALS, *addresses)
            self.table[Slot.CELLS] = cells + 64
            # Powers of two leave all digits as they are.
            self.units[:] = _power_of_two(self.units)
            stats = self._fill_couplings(operator)
        self._complete(operator, stats)

    def _describe_inputs(self, operator: PoissonOperator) -> None:
        axes = len(operator.domain)
        lead = 3 - axes
        dummy = operator.boundary.new_zeros((1, 1, 1))
        fields: list[Tensor | None] = [None] * lead
        fields += [*operator.couplings, operator.boundary, operator.mass]
        self._inputs: list[Tensor] = []
        for place, field in enumerate(fields):
            tensor = dummy if field is None else field
            if field is not None and field.ndim > axes:
                tensor = tensor.expand(*self._batch, *field.shape[field.ndim - axes :])
                tensor = tensor.reshape(self.systems, *field.shape[field.ndim - axes :])
            steps = (0,) * (3 - min(axes, tensor.ndim)) + tensor.stride()[-axes:]
            start = Slot.INPUTS + 5 * place
            self._inputs.append(tensor)
            address = 0 if field is None else tensor.data_ptr()
            self.set(start, address, *steps[-3:], tensor.stride(0) if tensor.ndim > axes else 0)

    def _fill_sketch(self) -> np.ndarray | None:
        """Diagonals in bytes; None if couplings are not equal."""
        finest = self.table[HEADER : HEADER + ROW]
        row = finest.copy()
        finest[:] = self._sketch.row
        report = self.run(Op.FILL_MASK, 0)
        finest[:] = row
        return report if bool((report[:, 0] != 0).all()) else None

    def _turn_sketch(self, order: tuple[int, int, int]) -> None:
        """The finest level from its sketch, with an axis that has empty planes first."""
        self.order = order
        self._place(tuple(self._shape[axis] for axis in order), is_mask=True)
        turned = self._sketch.diagonal().permute(0, *(1 + axis for axis in order))
        self.levels[0].diagonal().copy_(turned)

    def _fill_couplings(self, operator: PoissonOperator) -> np.ndarray:
        """The finest level with couplings of its own; statistics of every system."""
        if not self.levels:
            self._place(self._shape, is_mask=False)
        stats = self.run(Op.FILL, 0).copy()
        if not np.isfinite(stats[:, 9]).all() or (stats[:, 8] < 0).any():
            operator.check()
        largest = np.where(stats[:, 7] > 0, stats[:, 7], 1.0)
        is_far = (largest > _FAR) | (largest < 1 / _FAR)
        if is_far.any():
            self.units *= np.where(is_far, _power_of_two(largest), 1.0)
            changed = stats[:, 6]
            stats = self.run(Op.FILL, 0).copy()
            stats[:, 6] += changed
        return stats

    # The rest of the hierarchy

    def _complete(self, operator: PoissonOperator, stats: np.ndarray | None) -> None:
        self.run(Op.FIND_RUNS, 0)
        is_new = stats is None or bool(stats[:, 6].any())
        if not self.levels[0].runs().any():
            operator.check()
        self._coarsen(stats, is_new)
        self._spare = []
        if is_new:
            is_held = self._is_held_whole(stats) or self._is_held()
            self.null_space: NullSpace | None = None if is_held else operator.null_space()

    def _coarsen(self, stats: np.ndarray | None, is_new: bool) -> None:
        level = 0
        while math.prod(self.levels[-1].shape) > COARSEST_CELLS:
            shape = self.levels[-1].shape
            strengths = [1.0, 1.0, 1.0]
            if stats is not None:
                sums = stats.sum(0)
                strengths = list(sums[:3] / np.maximum(sums[3:6], 1.0))
            axes = choose_axes(shape, strengths)
            self.table[HEADER + ROW * level + 6] = sum(1 << axis for axis in axes)
            self._place(coarse_shape(shape, axes), is_mask=False)
            self.numbers[Number.WALL] = wall_factor(level, shape, axes)
            stats = self.run(Op.COARSEN, level)
            level += 1
        self.table[Slot.LEVELS] = len(self.levels)
        self._invert_coarsest()

    def _invert_coarsest(self) -> None:
        level = self.levels[-1]
        size = math.prod(level.shape)
        self._inverse = np.empty((self.systems, size, size))
        self.set(Slot.INVERSE, self._inverse.ctypes.data, size * size)
        if not self.run(Op.INVERT, len(self.levels) - 1)[:, 0].all():
            self._inverse[:] = symmetric_inverse(_matrices(level)).numpy()

    def _is_held_whole(self, stats: np.ndarray | None) -> bool:
        """Whether all neighbours couple, in every system, and some cell is held."""
        if stats is None:
            return False
        shape = self.levels[0].shape
        size = math.prod(shape)
        faces = [size - size // cells for cells in shape]
        return bool((stats[:, 3:6] == faces).all() and (stats[:, 10] > 0).all())

    def _is_held(self) -> bool:
        """Whether every region is connected to a known value or has mass."""
        nx, ny, nz = self.levels[0].shape
        most = nx * ny * (nz // 2 + 1)
        size = 4 * most + nx * ny + 1
        # Touched only as far as there are runs of cells.
        memory = np.empty((self.systems, size), dtype=np.int32)
        self.set(Slot.MOST_RUNS, most, memory.ctypes.data, size)
        return bool((self.run(Op.IS_HELD, 0)[:, 0] != 0).all())

    # Memory

    def _reserve_work(self) -> None:
        """Scratch memory: for rows in the set-up, for planes in the cycle, one part a thread."""
        shape = self._shape
        largest = max(
            scratch_size(shape[order[1]], shape[order[2]])
            for order in (_IN_ORDER, (2, 0, 1), (1, 0, 2))
        )
        size = max(largest, 16 * (max(shape) + 64))
        parts = max(1 if self._is_shared() else self.systems, self.threads)
        self._work = zeros(parts, size // 2 + 8)
        step = 0 if self._is_shared() else self._work.stride(0)
        self.set(Slot.WORK, self._work.data_ptr(), step)

    def _is_shared(self) -> bool:
        """Whether one thread takes system after system, so that they can share scratch memory."""
        return self.threads == 1 and self.systems > 1

    def reserve_iterates(self) -> None:
        """Directions in single, iterates in double precision, kept between solves."""
        if not self._iterates:
            size = self.levels[0].cells + 64
            parts = 1 if self._is_shared() else self.systems
            directions = zeros(parts, size, dtype=np.float32)
            iterates = zeros(parts, size)
            self._iterates = (directions, iterates)
            self.table[Slot.CELLS] = size
            self.set(Slot.DIRECTIONS, directions.data_ptr(), iterates.data_ptr())
            self.table[Slot.ITERATES_STEP] = 0 if self._is_shared() else size

    def _place(self, shape: tuple[int, ...], *, is_mask: bool) -> None:
        """Put a level below the others, in spare memory if some is of its kind."""
        has_mass = self._has_mass and not is_mask
        kind = (shape, is_mask)
        level = next((one for one in self._spare if (one.shape, one.is_mask) == kind), None)
        if level is None:
            level = Level(shape, self.systems, is_mask=is_mask, has_mass=has_mass)
        else:
            self._spare.remove(level)
        start = HEADER + ROW * len(self.levels)
        self.table[start : start + ROW] = level.row
        self.levels.append(level)

    def _reuse_levels(self) -> list[Level]:
        used, self.levels = self.levels, []
        self._spare = list(used)
        return used

    def _forget(self, level: Level) -> None:
        """Clear vectors that hold numbers where there is no unknown any more."""
        level.field("x").zero_()
        level.field("b").zero_()
        if level is self.levels[0]:
            for part in self._iterates:
                part.zero_()

    # Calls

    def set(self, start: int, *entries: int) -> None:
        """Write consecutive slots of the table."""
        self.table[start : start + len(entries)] = entries

    def run(self, op: Op, level: int) -> np.ndarray:
        """Do something to one level of every system."""
        self.table[Slot.OP] = op
        self.table[Slot.LEVEL] = level
        self.report[:] = 0.0
        self.launch(self.systems)
        return self.report

    def launch(self, blocks: int) -> None:
        """Call the native text as the table stands."""
        table = torch.from_numpy(self.table.view(np.float64))
        if self.threads > 1 and blocks > 1:
            self._kernel.launch_threads(blocks, self.threads, table)
        else:
            self._kernel(blocks, table)


def _emptiest_first(sketch: Level) -> tuple[int, int, int]:
    """The order of axes that leaves out most planes."""
    cells = sketch.diagonal()
    rows = cells.amax(dim=(0, 1)) > 0
    empty = [
        1.0 - float(line.double().mean())
        for line in (cells.amax(dim=(0, 2, 3)) > 0, rows.any(1), rows.any(0))
    ]
    axis = int(np.argmax(empty))
    if empty[axis] < empty[0] + 0.1:
        return _IN_ORDER
    return (_IN_ORDER, (1, 0, 2), (2, 0, 1))[axis]


def _power_of_two(numbers: np.ndarray) -> np.ndarray:
    """The power of two at or above positive numbers."""
    power: np.ndarray = np.ldexp(1.0, np.frexp(numbers)[1])
    return power


def _covers(runs: Tensor, before: Tensor) -> bool:
    """Whether the runs of all planes hold what they held before."""
    first, last = runs[:, 0::2], runs[:, 1::2]
    first_before, last_before = before[:, 0::2], before[:, 1::2]
    is_inside = (first <= first_before) & (last_before <= last)
    return bool((is_inside | (first_before == last_before)).all())


def _matrices(level: Level) -> Tensor:
    """The matrices of a small level, shape ``(systems, n, n)``."""
    if level.is_mask:
        diagonal = level.diagonal().double()
        couplings = [_both_on(diagonal > 0, axis) for axis in (1, 2, 3)]
    else:
        diagonal = level.field("e").double()
        couplings = [level.field(name).double() for name in ("cx", "cy", "cz")]
    systems, *shape = diagonal.shape
    n = math.prod(shape)
    matrix = torch.diag_embed(diagonal.reshape(systems, n))
    index = torch.arange(n).reshape(shape)
    for axis, coupling in enumerate(couplings):
        size = shape[axis] - 1
        low = index.narrow(axis, 0, size).flatten()
        high = index.narrow(axis, 1, size).flatten()
        between = coupling.narrow(axis + 1, 0, size).reshape(systems, -1)
        matrix[:, low, high] -= between
        matrix[:, high, low] -= between
        if not level.is_mask:
            # Summed in double precision, so that closed regions stay singular.
            matrix[:, low, low] += between
            matrix[:, high, high] += between
    return matrix


def _both_on(on: Tensor, axis: int) -> Tensor:
    """One where a cell and the next along an axis are unknowns."""
    ahead = torch.zeros_like(on)
    size = on.shape[axis] - 1
    ahead.narrow(axis, 0, size).copy_(on.narrow(axis, 1, size))
    return (on & ahead).double()
