"""The compiled solver: layout, memory and one launch for a whole batch."""

from __future__ import annotations

import threading
from array import array
from functools import lru_cache
from struct import Struct

import torch
from torch import Tensor

from solvers.nonlinear.interior_point._native import (
    Layout,
    Op,
    Slot,
    interior_point_kernel,
    kernel_lanes,
)
from solvers.nonlinear.interior_point._program import ConeProgramData, SolvedPrograms

__all__ = ["CompiledInteriorPoint"]

_ACROSS_SIZE = 48
"""Largest number of unknowns for which a problem in each lane is faster than one in all lanes."""
_ACROSS_BATCH = 4
_write = Struct(f"@{len(Slot)}q").pack_into


class _Scratch(threading.local):
    """Memory of the calling thread: the table, and what grows with the programs."""

    def __init__(self) -> None:
        self.table = array("q", bytes(8 * len(Slot)))
        self.table_address = self.table.buffer_info()[0]
        self._size = -1

    def reserve(self, size: int) -> int:
        """Address of a number of doubles."""
        if self._size < size:
            self._work, self._address = _aligned(size)
            self._size = size
        return self._address


_scratch = _Scratch()


class _Plan:
    """Layout and memory of batches of some shapes.

    Attributes:
        kernel: The native text in this layout.
        threads: Among which the batch is split; none for an empty batch.
        fixed: First entries of the table.
        work: Numbers of scratch memory for all threads, whole cache lines each.
        factor: Numbers that the backward pass takes over, whole cache lines.
        points: Shapes of x, y, z and s.
        places: Where y, z and s begin, and where s ends.
    """

    def __init__(
        self,
        shapes: tuple[torch.Size, ...],
        cones: tuple[int, ...],
        batch: int,
        threads: int,
        layout: Layout | None,
    ):
        n, m, p = (shape[-1] for shape in shapes[1::2])
        if layout is None:
            is_small = n <= _ACROSS_SIZE and batch >= _ACROSS_BATCH
            layout = "across" if is_small else "within"
        lanes = kernel_lanes()
        group, side = (lanes, 4) if layout == "across" else (1, lanes)
        columns, rows = _round_up(n, side), _round_up(p + m, max(4, lanes))
        groups = -(-batch // group)
        numbers = 2 * columns**2 + 2 * rows * columns + 8 * columns + 23 * rows
        work = _round_up(numbers * group, 8)
        axes = (2, 1, 2, 1, 2, 1)
        steps = [
            shape[1:].numel() if len(shape) > own else 0
            for shape, own in zip(shapes, axes, strict=True)
        ]
        self._cones = array("q", cones)
        self.kernel = interior_point_kernel(layout)
        self.threads = min(threads, groups)
        self.fixed = (
            *(n, p, m, batch, self.threads),
            *(len(cones), self._cones.buffer_info()[0]),
            *(8 * work, *steps),
        )
        self.work = self.threads * work
        self.factor = _round_up((columns**2 + columns + 2 * rows) * group * groups, 8)
        self.points = ((batch, n), (batch, p), (batch, m), (batch, m))
        self.places = (0, batch * p, batch * (p + m), batch * (p + 2 * m))


_plan = lru_cache(maxsize=256)(_Plan)


class CompiledInteriorPoint(SolvedPrograms):
    """A batch solved by the native text, with what its adjoint needs.

    Args:
        data: The programs, float64 on the CPU, contiguous.
        max_iterations: Steps at most.
        threads: Threads among which the batch is split.
        differentiable: Keep the factors for `adjoint`.
        layout: Which layout; chosen by size if None.
    """

    def __init__(
        self,
        data: ConeProgramData,
        *,
        max_iterations: int,
        threads: int = 1,
        differentiable: bool = True,
        layout: Layout | None = None,
    ):
        self.data = data
        Q, q, G, h, A, b, cones, batch = data
        shapes = (Q.shape, q.shape, G.shape, h.shape, A.shape, b.shape)
        self._plan = plan = _plan(shapes, cones, batch, threads, layout)
        self._start = plan.factor if differentiable else 0
        self._kept, address = _aligned(self._start + plan.places[3])
        self._factor = address if differentiable else 0
        self._addresses = (Q.data_ptr(), G.data_ptr(), h.data_ptr(), A.data_ptr(), b.data_ptr())
        self.x = x = torch.empty(plan.points[0], dtype=torch.float64)
        self.status = status = torch.empty(batch, dtype=torch.int64)
        self.iterations = iterations = torch.empty(batch, dtype=torch.int64)
        self.residual = residual = torch.empty(batch, dtype=torch.float64)
        self._ended = status
        y, z, s = (address + 8 * (self._start + place) for place in plan.places[:3])
        points = (x.data_ptr(), y, z, s)
        endings = (iterations.data_ptr(), residual.data_ptr())
        self.has_failures = self._run(Op.SOLVE, max_iterations, q.data_ptr(), points, endings)

    @property
    def y(self) -> Tensor:
        """Multipliers of the equalities."""
        return self._view(1)

    @property
    def z(self) -> Tensor:
        """Multipliers of the cones."""
        return self._view(2)

    @property
    def s(self) -> Tensor:
        """Slacks ``h - Gx``."""
        return self._view(3)

    def _view(self, which: int) -> Tensor:
        kept, (batch, width) = self._kept, self._plan.points[which]
        skipped = (_round_up(kept.data_ptr(), 64) - kept.data_ptr()) // 8
        start = skipped + self._start + self._plan.places[which - 1]
        return kept.as_strided((batch, width), (width, 1), start)

    def adjoint(self, cotangent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Solve the linearised optimality conditions with ``cotangent`` on the right."""
        g = cotangent if cotangent.is_contiguous() else cotangent.contiguous()
        x, y, z, _ = self._plan.points
        to_q, to_b, to_h = (torch.empty(shape, dtype=torch.float64) for shape in (x, y, z))
        points = (to_q.data_ptr(), to_b.data_ptr(), to_h.data_ptr(), 0)
        self._run(Op.ADJOINT, 0, g.data_ptr(), points, (0, 0))
        return to_q, to_h, to_b

    def _run(
        self,
        op: Op,
        limit: int,
        linear: int,
        points: tuple[int, int, int, int],
        endings: tuple[int, int],
    ) -> bool:
        plan, scratch = self._plan, _scratch
        if plan.threads == 0:
            return False
        Q, G, h, A, b = self._addresses
        work, table = scratch.reserve(plan.work), scratch.table
        data = (op, limit, Q, linear, G, h, A, b, work)
        ended = self._ended.data_ptr()
        _write(table, 0, *plan.fixed, *data, *points, ended, *endings, self._factor, 0)
        plan.kernel.launch_trusted(plan.threads, plan.threads, scratch.table_address)
        return table[Slot.FAILED] != 0


def _aligned(size: int) -> tuple[Tensor, int]:
    """Memory, and the address of the first cache line in it."""
    raw = torch.empty(size + 8, dtype=torch.float64)
    return raw, _round_up(raw.data_ptr(), 64)


def _round_up(a: int, k: int) -> int:
    return -(-a // k) * k
