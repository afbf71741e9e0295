"""The compiled solver: layout, memory and one launch for a whole batch."""

from __future__ import annotations

import threading
from functools import lru_cache

import numpy as np
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
_local = threading.local()


class _Plan:
    """Layout and memory of batches of one size.

    Attributes:
        kernel: The native text in this layout.
        cones: Sizes of the second-order cones, kept where the kernel reads them.
        head: First entries of the table.
        work: Numbers of scratch memory for one thread, whole cache lines.
        factor: Numbers that the backward pass takes over.
        groups: Pieces into which the batch may be split.
    """

    def __init__(
        self,
        sizes: tuple[int, int, int, int],
        cones: tuple[int, ...],
        threads: int,
        layout: Layout | None,
    ):
        n, p, m, batch = sizes
        if layout is None:
            is_small = n <= _ACROSS_SIZE and batch >= _ACROSS_BATCH
            layout = "across" if is_small else "within"
        lanes = kernel_lanes()
        group, side = (lanes, 4) if layout == "across" else (1, lanes)
        columns, rows = _round_up(n, side), _round_up(p + m, max(4, lanes))
        self.groups = -(-batch // group)
        self.threads = max(1, min(threads, self.groups))
        self.kernel = interior_point_kernel(layout)
        self.cones = np.array(cones, dtype=np.int64)
        self.head = (n, p, m, batch, self.threads)
        self.tail = (len(cones), self.cones.ctypes.data)
        numbers = 2 * columns**2 + 2 * rows * columns + 8 * columns + 19 * rows
        self.work = _round_up(numbers * group, 8)
        self.factor = (columns**2 + columns + 2 * rows) * group * self.groups
        # In the order of the outputs: x, y, z, s, status, iterations, residual.
        widths = (n, p, m, m, 1, 1, 1)
        self.offsets = tuple(batch * sum(widths[:i]) for i in range(len(widths)))
        self.size = batch * sum(widths)
        self.bytes = tuple(8 * offset for offset in self.offsets)


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
        self._plan = plan = _plan(data.sizes, data.cones, threads, layout)
        n, batch = data.q.shape[-1], data.batch
        # The memory and where its first whole cache line starts.
        self._factor = _aligned(plan.factor) if differentiable else (None, 0)
        self._out = out = torch.empty(plan.size, dtype=torch.float64)
        self._places = (
            *_place(data.Q, 2),
            *_place(data.q, 1),
            *_place(data.G, 2),
            *_place(data.h, 1),
            *_place(data.A, 2),
            *_place(data.b, 1),
        )
        start = out.data_ptr()
        targets = [start + offset for offset in plan.bytes]
        self.has_failures = self._run(Op.SOLVE, self._places, max_iterations, targets)
        self.x = out.as_strided((batch, n), (n, 1))
        status, iterations, residual = plan.offsets[4:]
        integers = out.view(torch.int64)
        self.status = integers.as_strided((batch,), (1,), status)
        self.iterations = integers.as_strided((batch,), (1,), iterations)
        self.residual = out.as_strided((batch,), (1,), residual)

    @property
    def y(self) -> Tensor:
        """Multipliers of the equalities."""
        return self._part(1)

    @property
    def z(self) -> Tensor:
        """Multipliers of the cones."""
        return self._part(2)

    @property
    def s(self) -> Tensor:
        """Slacks ``h - Gx``."""
        return self._part(3)

    def adjoint(self, cotangent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Solve the linearised optimality conditions with ``cotangent`` on the right."""
        n, p, m, batch = self.data.sizes
        g = cotangent if cotangent.is_contiguous() else cotangent.contiguous()
        out = torch.empty(batch * (n + p + m), dtype=torch.float64)
        start, after = out.data_ptr(), batch * n
        status = self._out.data_ptr() + self._plan.bytes[4]
        targets = [start, start + 8 * after, start + 8 * (after + batch * p), 0, status, 0, 0]
        places = (*self._places[:2], g.data_ptr(), n, *self._places[4:])
        self._run(Op.ADJOINT, places, 0, targets)
        return (
            out.as_strided((batch, n), (n, 1)),
            out.as_strided((batch, p), (p, 1), after),
            out.as_strided((batch, m), (m, 1), after + batch * p),
        )

    def _part(self, index: int) -> Tensor:
        start, end = self._plan.offsets[index : index + 2]
        return self._out[start:end].view(self.data.batch, -1 if self.data.batch else 0)

    def _run(self, op: Op, places: tuple[int, ...], limit: int, targets: list[int]) -> bool:
        plan = self._plan
        if plan.groups == 0:
            return False
        table, address = _scratch(plan.threads * plan.work)
        integers, tensor = table
        integers[:] = (
            op,
            *plan.head,
            limit,
            *plan.tail,
            *places,
            address,
            8 * plan.work,
            *targets,
            self._factor[1],
            0,
        )
        plan.kernel.launch_trusted(plan.threads, plan.threads, tensor)
        return bool(integers[Slot.FAILED])


def _place(tensor: Tensor, axes: int) -> tuple[int, int]:
    return tensor.data_ptr(), tensor.stride(0) if tensor.ndim > axes else 0


def _scratch(size: int) -> tuple[tuple[np.ndarray, Tensor], int]:
    """Table and working memory of the calling thread."""
    try:
        if _local.size >= size:
            return _local.table, _local.address
    except AttributeError:
        table = np.zeros(len(Slot), dtype=np.int64)
        _local.table = (table, torch.from_numpy(table.view(np.float64)))
    _local.work, _local.address = _aligned(size)
    _local.size = size
    return _local.table, _local.address


def _aligned(size: int) -> tuple[Tensor, int]:
    """Memory, and the address of the first cache line in it."""
    raw = torch.empty(size + 8, dtype=torch.float64)
    return raw, _round_up(raw.data_ptr(), 64)


def _round_up(a: int, k: int) -> int:
    return -(-a // k) * k
