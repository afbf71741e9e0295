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
        factor: Numbers that the backward pass takes over.
        size: Numbers of all results: x, y, z, s, status, iterations and residual of all items.
        endings: Where the last three begin.
        points: Shapes, strides and places of x, y, z and s.
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
        numbers = 2 * columns**2 + 2 * rows * columns + 8 * columns + 19 * rows
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
        self.factor = (columns**2 + columns + 2 * rows) * group * groups
        widths = (n, p, m, m)
        self.points = tuple(
            ((batch, width), (width, 1), batch * sum(widths[:i])) for i, width in enumerate(widths)
        )
        self.endings = batch * sum(widths)
        self.size = self.endings + 3 * batch


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
        # The memory and where its first whole cache line starts.
        self._factor = _aligned(plan.factor) if differentiable else (None, 0)
        self._out = out = torch.empty(plan.size, dtype=torch.float64)
        self._addresses = (Q.data_ptr(), G.data_ptr(), h.data_ptr(), A.data_ptr(), b.data_ptr())
        self.has_failures = self._run(Op.SOLVE, max_iterations, q.data_ptr(), out.data_ptr())
        integers, shape, stride, start = out.view(torch.int64), (batch,), (1,), plan.endings
        self.status = integers.as_strided(shape, stride, start)
        self.iterations = integers.as_strided(shape, stride, start + batch)
        self.residual = out.as_strided(shape, stride, start + 2 * batch)

    @property
    def x(self) -> Tensor:
        """Unknowns."""
        return self._out.as_strided(*self._plan.points[0])

    @property
    def y(self) -> Tensor:
        """Multipliers of the equalities."""
        return self._out.as_strided(*self._plan.points[1])

    @property
    def z(self) -> Tensor:
        """Multipliers of the cones."""
        return self._out.as_strided(*self._plan.points[2])

    @property
    def s(self) -> Tensor:
        """Slacks ``h - Gx``."""
        return self._out.as_strided(*self._plan.points[3])

    def adjoint(self, cotangent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Solve the linearised optimality conditions with ``cotangent`` on the right."""
        g = cotangent if cotangent.is_contiguous() else cotangent.contiguous()
        points = self._plan.points
        out = torch.empty(points[3][2], dtype=torch.float64)
        self._run(Op.ADJOINT, 0, g.data_ptr(), out.data_ptr())
        return out.as_strided(*points[0]), out.as_strided(*points[2]), out.as_strided(*points[1])

    def _run(self, op: Op, limit: int, linear: int, points: int) -> bool:
        plan, scratch = self._plan, _scratch
        if plan.threads == 0:
            return False
        Q, G, h, A, b = self._addresses
        work, endings = scratch.reserve(plan.work), self._out.data_ptr() + 8 * plan.endings
        table = scratch.table
        entries = (op, limit, Q, linear, G, h, A, b, work, points, endings, self._factor[1], 0)
        _write(table, 0, *plan.fixed, *entries)
        plan.kernel.launch_trusted(plan.threads, plan.threads, scratch.table_address)
        return table[Slot.FAILED] != 0


def _aligned(size: int) -> tuple[Tensor, int]:
    """Memory, and the address of the first cache line in it."""
    raw = torch.empty(size + 8, dtype=torch.float64)
    return raw, _round_up(raw.data_ptr(), 64)


def _round_up(a: int, k: int) -> int:
    return -(-a // k) * k
