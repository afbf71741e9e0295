"""The compiled solver: layout, memory and one launch for a whole batch."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from solvers.kernels import Kernel
from solvers.nonlinear.interior_point._native import (
    Layout,
    Op,
    Slot,
    interior_point_kernel,
    kernel_lanes,
)
from solvers.nonlinear.interior_point._program import ConeProgramData, Iterate

__all__ = ["CompiledInteriorPoint"]

_ACROSS_SIZE = 40
"""Largest number of unknowns for which a problem in each lane is faster than one in all lanes."""
_ACROSS_BATCH = 4
_local = threading.local()


@dataclass(frozen=True, slots=True)
class _Shape:
    """Sizes of one batch in one layout."""

    layout: Layout
    n: int
    p: int
    m: int
    batch: int

    @property
    def group(self) -> int:
        """Problems that are solved at once."""
        return kernel_lanes() if self.layout == "across" else 1

    @property
    def groups(self) -> int:
        return -(-self.batch // self.group)

    @property
    def columns(self) -> int:
        return _round_up(self.n, 4 if self.layout == "across" else kernel_lanes())

    @property
    def rows(self) -> int:
        return _round_up(self.p + self.m, max(4, kernel_lanes()))

    @property
    def work(self) -> int:
        """Numbers of scratch memory for one thread."""
        n, rows = self.columns, self.rows
        return (2 * n * n + 2 * rows * n + 8 * n + 19 * rows) * self.group + 8

    @property
    def factor(self) -> int:
        """Numbers that the backward pass takes over, all groups."""
        n = self.columns
        return (n * n + n + 2 * self.rows) * self.group * self.groups


class CompiledInteriorPoint:
    """A batch solved by the native text, with what its adjoint needs.

    Args:
        data: The programs, float64 on the CPU, contiguous.
        max_iterations: Steps at most.
        threads: Threads among which the batch is split.
        differentiable: Keep the factors for `adjoint`.
        layout: Which layout; chosen by size if None.
    """

    __slots__ = ("_factor", "_kernel", "_shape", "_sizes", "_threads", "iterate")

    def __init__(
        self,
        data: ConeProgramData,
        *,
        max_iterations: int,
        threads: int,
        differentiable: bool,
        layout: Layout | None = None,
    ):
        n, p, m, batch = data.sizes
        if layout is None:
            is_small = n <= _ACROSS_SIZE and batch >= _ACROSS_BATCH
            layout = "across" if is_small else "within"
        self._shape = shape = _Shape(layout, n, p, m, batch)
        self._threads = min(threads, shape.groups)
        self._kernel: Kernel = interior_point_kernel(layout)
        self._sizes = np.array(data.cones, dtype=np.int64) if data.cones else None
        self._factor = _aligned(shape.factor) if differentiable else None
        out = torch.empty(batch * (n + p + 2 * m + 3), dtype=torch.float64)
        parts = out.split([batch * k for k in (n, p, m, m, 1, 1, 1)])
        address = out.data_ptr()
        places = []
        for size in (n, p, m, m, 1, 1, 1):
            places.append(address)
            address += 8 * batch * size
        self._run(Op.SOLVE, data, data.q, max_iterations, places)
        self.iterate = Iterate(
            x=parts[0].view(batch, n),
            y=parts[1].view(batch, p),
            z=parts[2].view(batch, m),
            s=parts[3].view(batch, m),
            status=parts[4].view(torch.int64),
            iterations=parts[5].view(torch.int64),
            residual=parts[6],
        )

    def adjoint(self, data: ConeProgramData, cotangent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Solve the linearised optimality conditions with ``cotangent`` on the right.

        Args:
            data: The same programs.
            cotangent: Gradient of a loss with respect to x, shape ``(B, n)``.

        Returns:
            Adjoint of stationarity ``(B, n)``, of equalities ``(B, p)``, of cone rows ``(B, m)``;
            zero where the solve failed.
        """
        _, n, p, m, batch = (getattr(self._shape, k) for k in ("layout", "n", "p", "m", "batch"))
        out = torch.empty(batch * (n + p + m), dtype=torch.float64)
        u, v, w = out.split([batch * n, batch * p, batch * m])
        start = out.data_ptr()
        places = [start, start + 8 * batch * n, start + 8 * batch * (n + p), 0]
        places += [self.iterate.status.data_ptr(), 0, 0]
        self._run(Op.ADJOINT, data, cotangent.contiguous(), 0, places)
        return u.view(batch, n), v.view(batch, p), w.view(batch, m)

    def _run(
        self, op: Op, data: ConeProgramData, linear: Tensor, limit: int, places: list[int]
    ) -> None:
        shape = self._shape
        if shape.batch == 0:
            return
        table, work = _scratch(self._threads * shape.work)
        table[0][:31] = (
            op,
            shape.n,
            shape.p,
            shape.m,
            shape.batch,
            self._threads,
            limit,
            len(data.cones),
            0 if self._sizes is None else self._sizes.ctypes.data,
            *_place(data.Q, 2),
            *_place(linear, 1),
            *_place(data.G, 2),
            *_place(data.h, 1),
            *_place(data.A, 2),
            *_place(data.b, 1),
            -(-work.data_ptr() // 64) * 64,
            8 * (-(-shape.work // 8) * 8),
            *places,
            0 if self._factor is None else self._factor.data_ptr(),
        )
        self._kernel.launch_trusted(self._threads, self._threads, table[1])


def _place(tensor: Tensor, axes: int) -> tuple[int, int]:
    return tensor.data_ptr(), tensor.stride(0) if tensor.ndim > axes else 0


def _scratch(size: int) -> tuple[tuple[np.ndarray, Tensor], Tensor]:
    """Table and working memory of the calling thread."""
    if not hasattr(_local, "table"):
        table = np.zeros(len(Slot), dtype=np.int64)
        _local.table = (table, torch.from_numpy(table.view(np.float64)))
        _local.work = torch.empty(0, dtype=torch.float64)
    if _local.work.numel() < size + 64:
        _local.work = torch.empty(size + 64, dtype=torch.float64)
    return _local.table, _local.work


def _aligned(size: int) -> Tensor:
    raw = torch.empty(size + 8, dtype=torch.float64)
    skip = -raw.data_ptr() % 64 // 8
    return raw[skip : skip + size]


def _round_up(a: int, k: int) -> int:
    return -(-a // k) * k
