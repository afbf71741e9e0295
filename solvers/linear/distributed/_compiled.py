"""The cycle and the conjugate gradients on slabs in native code, with windows of the native levels.

Planes travel as they lie in memory, padding included. A window has its slab's planes, the core, and
`HALO` planes on both sides, zeros beyond the grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solvers.linear.distributed._slabs import HALO, Halo, Slab, slab_window, strips_of
from solvers.linear.operators._poisson import PoissonOperator
from solvers.linear.preconditioners._coarsening import REVISIT_BELOW
from solvers.linear.preconditioners._levels import GridLevels
from solvers.linear.preconditioners._native import (
    HEADER,
    ROW,
    Level,
    Number,
    Op,
    Slot,
    scratch_size,
    slab_kernel,
    zeros,
)

__all__ = ["CompiledHierarchy", "CompiledSlab"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelPlanes:
    """A window of a native level.

    Attributes:
        shape: Cells of the window.
        is_mask: Whether all couplings are equal.
        axes: Bits of the axes along which pairs merge on the way to the next level.
        fields: Planes of the coefficients.
        runs: First and last unknown of every plane.
        coarse: Cells of the next level as this window restricts to it.
    """

    shape: tuple[int, ...]
    is_mask: bool
    axes: int
    fields: dict[str, Tensor]
    runs: Tensor
    coarse: tuple[int, ...]


class CompiledHierarchy:
    """Native levels of the whole grid; the caller visits the small ones.

    Args:
        operator: Without gradients, not periodic.
        cycle: Visits of a coarser level, 1 (V) or 2 (W).
    """

    renew_below = 1e-3
    """Single precision has lost the residual after about so much; then it is computed anew."""

    def __init__(self, operator: PoissonOperator, *, cycle: int):
        self._levels = GridLevels(_solid(operator), cycle=cycle, threads=1, is_turned=False)
        self._cycle = cycle
        self.shapes = [level.shape for level in self._levels.levels]
        self.is_singular = self._levels.null_space is not None

    def merges(self, number: int) -> bool:
        """Whether planes merge on the way to the level after one."""
        return bool(self._axes(number) & 1)

    def visits(self, number: int) -> int:
        """Visits of the level after one."""
        fine, coarse = (math.prod(self.shapes[n]) for n in (number, number + 1))
        is_last = number + 1 == len(self.shapes) - 1
        return 1 if is_last or coarse > REVISIT_BELOW * fine else self._cycle

    def visit(self, number: int, parts: Sequence[Tensor], visits: int) -> Tensor:
        """Visit a gathered level.

        Args:
            number: Of the level.
            parts: Its right-hand side, planes of all slabs in order.
            visits: How often.

        Returns:
            Planes of the correction.
        """
        levels = self._levels
        torch.cat(list(parts), out=levels.levels[number].planes("b"))
        for visit in range(visits):
            levels.table[Slot.HAS_GUESS] = visit > 0
            levels.run(Op.VISIT, number)
        return levels.levels[number].planes("x")

    def recipe(self, slabs: Sequence[Slab]) -> tuple[Any, ...]:
        """Arguments of the worker of a slab.

        Args:
            slabs: The slab on every level that is distributed.
        """
        levels = self._levels
        doubles = None
        if not levels.is_mask:
            size = levels.levels[0].cells
            planes = levels._doubles[:, 0, :size].unflatten(1, (-1, levels.levels[0].plane))
            doubles = torch.stack([slab_window(part[1:-1], slabs[0], HALO) for part in planes])
        steps = [float(levels.numbers[n]) for n in (Number.FIRST_STEP, Number.SECOND_STEP)]
        windows = [self._window(number, slab) for number, slab in enumerate(slabs)]
        scale = math.sqrt(math.prod(self.shapes[0]))
        return windows, doubles, float(levels.units[0]), scale, steps

    def _window(self, number: int, slab: Slab) -> LevelPlanes:
        level, axes = self._levels.levels[number], self._axes(number)
        names = ("d8",) if level.is_mask else ("di", "cx", "cy", "cz", "e")
        planes = slab.stop - slab.start + 2 * HALO
        coarse = -(-planes // 2) if axes & 1 else planes
        return LevelPlanes(
            shape=(planes, *level.shape[1:]),
            is_mask=level.is_mask,
            axes=axes,
            fields={name: slab_window(level.planes(name), slab, HALO) for name in names},
            runs=slab_window(level.runs()[0].view(-1, 2)[1:-1], slab, HALO),
            coarse=(coarse, *self.shapes[number + 1][1:]),
        )

    def _axes(self, number: int) -> int:
        return int(self._levels.table[HEADER + ROW * number + 6])


class CompiledSlab:
    """Conjugate gradients and the distributed levels of the cycle on one slab.

    The cycle, its residual and the direction are in single precision, the iterate and the products
    in double; see `SlabWorker` for what the methods do.

    Args:
        windows: The levels, the finest first.
        doubles: Diagonal and couplings of the finest level in double precision; None if they are
            equal.
        unit: What the couplings were divided by.
        scale: What the residual is multiplied by.
        steps: Steps of the smoother, the smaller first.
    """

    def __init__(
        self,
        windows: Sequence[LevelPlanes],
        doubles: Tensor | None,
        unit: float,
        scale: float,
        steps: Sequence[float],
    ):
        self._kernel = slab_kernel()
        self._windows = windows
        self._unit, self._scale = unit, scale
        self._numbers = np.zeros(len(Number))
        self._numbers[[Number.FIRST_STEP, Number.SECOND_STEP]] = steps
        self._numbers[Number.SCALE] = scale
        self._report = np.zeros(16)
        self._table = np.zeros(HEADER + 2 * len(windows) * ROW, dtype=np.int64)
        for slot, array in (
            (Slot.NUMBERS, self._numbers),
            (Slot.REPORT, self._report),
        ):
            self._table[slot] = array.ctypes.data
        self._levels = [self._fill(window) for window in windows]
        last = windows[-1].coarse
        self._coarse = Level(last, 1, is_mask=True)
        for number, level in enumerate(self._levels):
            self._place(number, level)
        self._reserve(doubles)

    @property
    def _finest(self) -> Level:
        return self._levels[0]

    # Memory

    def _fill(self, window: LevelPlanes) -> Level:
        level = Level(window.shape, 1, is_mask=window.is_mask)
        level.row[6] = window.axes
        for name, planes in window.fields.items():
            level.planes(name).copy_(planes)
        level.runs()[0].view(-1, 2)[1:-1].copy_(window.runs)
        return level

    def _place(self, number: int, level: Level) -> None:
        """Two rows: the level, and the next one as this one's window meets it."""
        is_last = number + 1 == len(self._levels)
        coarse = self._coarse if is_last else self._levels[number + 1]
        ahead = 0 if is_last else HALO - self._planes(number)
        seen = coarse.row.copy()
        seen[9:11] += ahead * coarse.plane
        start = HEADER + 2 * number * ROW
        self._table[start : start + 2 * ROW] = np.concatenate([level.row, seen])

    def _reserve(self, doubles: Tensor | None) -> None:
        level, size = self._finest, self._finest.cells + 64
        self._work = zeros(1, scratch_size(*level.shape[1:]) // 2 + 8)
        self._directions = zeros(1, size, dtype=np.float32)
        self._iterates = zeros(1, size)
        self._table[Slot.WORK] = self._work.data_ptr()
        self._table[Slot.DIRECTIONS] = self._directions.data_ptr()
        self._table[Slot.ITERATES] = self._iterates.data_ptr()
        if doubles is not None:
            self._doubles = zeros(4, size)
            inner = slice(level.plane, level.plane + doubles[0].numel())
            self._doubles[:, inner] = doubles.flatten(1)
            for place, part in enumerate(self._doubles):
                self._table[Slot.DIAGONALS + place] = part.data_ptr()

    def _planes(self, number: int) -> int:
        """Planes of the next level in a halo of this one."""
        return HALO // 2 if self._windows[number].axes & 1 else HALO

    def _core(self, number: int) -> slice:
        return slice(HALO, self._windows[number].shape[0] - HALO)

    def _run(self, op: Op, number: int = 0, *, factor: float = 0.0, guess: bool = False) -> float:
        core = self._core(number)
        self._numbers[Number.FACTOR] = factor
        self._table[Slot.OP] = op
        self._table[Slot.LEVEL] = 2 * number
        self._table[Slot.HAS_GUESS] = guess
        self._table[Slot.FIRST_PLANE], self._table[Slot.LAST_PLANE] = core.start + 1, core.stop
        self._kernel(1, torch.from_numpy(self._table.view(np.float64)))
        return float(self._report[0])

    # Conjugate gradients

    def start(self, x: Tensor, b: Tensor) -> tuple[float, Any]:
        """Begin from an iterate, given like the right-hand side on the window."""
        level = self._finest
        self._b = b.reshape(level.shape).contiguous()
        steps = (*self._b.stride()[:2], 1)
        self._table[Slot.RIGHT : Slot.RIGHT + 4] = (self._b.data_ptr(), *steps)
        self._shape = tuple(x.shape)
        self._x = level.view(self._iterates)[0]
        self._x.copy_(self._unit * x.reshape(level.shape))
        self._directions.zero_()
        return self.advance(0.0, True)

    def turn(self, beta: float, halo: Halo) -> float:
        """Make the new direction; this slab's part of ``p . A p``."""
        self._surround(self._finest, "x", halo)
        return self._run(Op.TURN, factor=beta)

    def advance(self, alpha: float, renew: bool) -> tuple[float, Any]:
        """Step along the direction, then begin to precondition."""
        square = self._run(Op.RENEW if renew else Op.ADVANCE, factor=alpha)
        return square / self._scale**2, self.descend(0, None, None)

    def iterate(self) -> Tensor:
        """The iterate on the slab."""
        core = self._x[self._core(0)] / self._unit
        return core.reshape(-1, *self._shape[1:])

    # The cycle

    def descend(self, number: int, b: Halo | None, x: Halo | None) -> Any:
        """Smooth a level and restrict its residual, see `MultigridSlab.descend`."""
        level = self._levels[number]
        if b is not None:
            self._surround(level, "b", b)
        if x is not None:
            self._surround(level, "x", x)
        self._run(Op.DESCEND, number, guess=x is not None)
        if number + 1 < len(self._levels):
            core = self._levels[number + 1].planes("b")[self._core(number + 1)]
            return strips_of(core, HALO)
        planes = self._planes(number)
        return self._coarse.planes("b")[planes : self._coarse.shape[0] - planes].clone()

    def ascend(self, number: int, coarse: Tensor | Halo) -> Any:
        """Add the correction of the next level and smooth, see `MultigridSlab.ascend`."""
        if isinstance(coarse, Tensor):
            self._coarse.planes("x")[: len(coarse)] = coarse
        else:
            self._surround(self._levels[number + 1], "x", coarse)
        overlap = self._run(Op.ASCEND, number)
        strips = strips_of(self._levels[number].planes("x")[self._core(number)], HALO)
        return strips if number > 0 else (strips, overlap)

    def _surround(self, level: Level, name: str, halo: Halo) -> None:
        planes = level.planes(name)
        before, after = halo
        if before is not None:
            planes[:HALO] = before
        if after is not None:
            planes[-HALO:] = after


def _solid(operator: PoissonOperator) -> PoissonOperator:
    """The same grid with three axes, the first one left in its place."""
    missing = 3 - len(operator.domain)
    if missing == 0:
        return operator
    flat = operator.boundary.reshape(len(operator.boundary), *(1,) * missing, *operator.domain[1:])

    def stretched(field: Tensor) -> Tensor:
        return field.reshape(len(field), *(1,) * missing, *field.shape[1:])

    none = [
        flat.new_zeros([0 if axis == place else size for axis, size in enumerate(flat.shape)])
        for place in range(1, 1 + missing)
    ]
    first, *others = map(stretched, operator.couplings)
    mass = None if operator.mass is None else stretched(operator.mass)
    return PoissonOperator([first, *none, *others], flat, mass)
