"""The compiled multigrid: levels in padded flat arrays, and one call for a whole solve.

The native text stands in three files beside this one, in the order of its parts: the cycle, the
conjugate gradients around it, the set-up. Addresses and sizes travel in one table of integers.
"""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solvers.core import Status
from solvers.kernels import Kernel, build_kernel
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
from solvers.linear.preconditioners._preconditioner import PreparedPreconditioner

__all__ = ["CompiledMultigrid", "multigrid_kernel"]

_TEXTS = ("multigrid_cycle.cpp", "multigrid_solve.cpp", "multigrid_setup.cpp")
_HEADER, _ROW = 128, 24
_SMALL = 1e-120
_SCAN, _FILL_MASK, _FILL, _COARSEN, _SOLVE, _CYCLE, _IS_HELD, _FIND_RUNS = range(8)
# Threads of a team wait for each other without sleep: two teams at once could starve.
_team_lock = threading.Lock()


@cache
def multigrid_kernel() -> Kernel:
    """Compile the native text, or load it from the cache of kernels."""
    folder = Path(__file__).parent
    body = "".join((folder / name).read_text() for name in _TEXTS)
    return build_kernel("multigrid", body, [("table", "double*")], lanes=1)


class _Level:
    """One level of all systems: a row of the table and the memory that it points into."""

    def __init__(self, shape: tuple[int, ...], systems: int, *, is_mask: bool, has_mass: bool):
        nx, ny, nz = self.shape = shape
        self.pitch = nz + 1
        self.plane = (ny + 1) * self.pitch
        self.cells = (nx + 2) * self.plane
        names = ["x", "b"] if is_mask else ["x", "b", "di", "cx", "cy", "cz", "e"]
        sizes = dict.fromkeys(names, self.cells)
        if is_mask:
            sizes["d8"] = self.cells // 4 + 1
        elif has_mass:
            sizes["m"] = self.cells
        sizes["run"] = 2 * (nx + 2)
        self.offsets: dict[str, int] = {}
        total = 0
        for name, size in sizes.items():
            self.offsets[name] = total
            # Vector loads may look a little beyond the last row.
            total += (size + 63) // 16 * 16
        self.memory = _zeros(systems, total, dtype=np.float32)
        self.row = np.zeros(_ROW, dtype=np.int64)
        self.row[:9] = (
            nx,
            ny,
            nz,
            self.pitch,
            self.plane,
            is_mask,
            0,
            self.memory.data_ptr(),
            total,
        )
        for place, name in enumerate(("x", "b", "di", "cx", "cy", "cz", "e", "m", "d8", "run")):
            missing = -1 if name == "m" else 0
            self.row[9 + place] = self.offsets.get(name, missing)

    def field(self, name: str) -> Tensor:
        """A view of the cells of one array, shape ``(systems, *shape)``."""
        nx, ny, nz = self.shape
        start = self.offsets[name] + self.plane
        stride = (self.memory.stride(0), self.plane, self.pitch, 1)
        return self.memory.as_strided((len(self.memory), nx, ny, nz), stride, start)

    def runs(self) -> Tensor:
        """A view of the first and last unknowns of all planes."""
        start = self.offsets["run"]
        return self.memory[:, start : start + 2 * (self.shape[0] + 2)].view(torch.int32)

    def diagonal(self) -> Tensor:
        """A view of the bytes of a mask level, shape ``(systems, *shape)``."""
        start = self.offsets["d8"]
        memory = self.memory[:, start : start + self.cells // 4 + 1].view(torch.uint8)
        nx, ny, nz = self.shape
        stride = (memory.stride(0), self.plane, self.pitch, 1)
        offset = memory.storage_offset() + self.plane
        return memory.as_strided((len(memory), nx, ny, nz), stride, offset)


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
        self._numbers[:2] = sorted(chebyshev_steps(2, CHEBYSHEV_INTERVAL[0], CHEBYSHEV_INTERVAL[1]))
        self._table = np.zeros(_HEADER + 32 * _ROW, dtype=np.int64)
        self._table[1] = self._numbers.ctypes.data
        self._table[9] = cycle
        self._report = np.zeros((self._systems, 16))
        self._table[22] = self._report.ctypes.data
        self._work = torch.zeros(0, dtype=torch.float64)
        self._inputs: list[Tensor] = []
        self._order: tuple[int, int, int] = (0, 1, 2)
        self._levels: list[_Level] = []
        self._set_up()
        self._iterates: tuple[Tensor, ...] | None = None

    # Set-up

    def _set_up(self) -> None:
        shape = (1,) * self._lead + self._operator.domain
        self._describe_inputs()
        self._reserve_work(shape)
        finest = _Level(shape, self._systems, is_mask=True, has_mass=False)
        self._place(finest)
        self._units = np.ones(self._systems)
        self._table[39] = self._units.ctypes.data
        self.is_mask = bool((self._run(_FILL_MASK, 0)[:, 0] != 0).all())
        if self.is_mask:
            order = self._emptiest_first(finest)
            if order != (0, 1, 2):
                self._permute(finest, order)
        else:
            report = self._run(_SCAN, 0)
            if not np.isfinite(report[:, 2]).all() or (report[:, 1] < 0).any():
                self._operator.check()
            self._units[:] = np.where(report[:, 0] > 0, report[:, 0], 1.0)
            self._levels = []
            has_mass = self._operator.mass is not None
            self._place(_Level(shape, self._systems, is_mask=False, has_mass=has_mass))
            cells = self._levels[0].cells
            self._doubles = _zeros(4, self._systems, cells + 64)
            self._table[16:20] = [part.data_ptr() for part in self._doubles]
            self._table[20] = cells + 64
        stats = None if self.is_mask else self._run(_FILL, 0)
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
        self._table[41:44] = (most, memory.ctypes.data, size)
        return bool((self._run(_IS_HELD, 0)[:, 0] != 0).all())

    def _describe_inputs(self) -> None:
        operator, axes = self._operator, len(self._operator.domain)
        dummy = operator.boundary.new_zeros((1, 1, 1))
        fields: list[Tensor | None] = [None] * self._lead
        fields += [*operator.couplings, operator.boundary, operator.mass]
        self._table[64:89] = 0
        for place, field in enumerate(fields):
            tensor = dummy if field is None else field
            if field is not None and field.ndim > axes:
                tensor = tensor.expand(*self.batch, *field.shape[field.ndim - axes :])
                tensor = tensor.reshape(self._systems, *field.shape[field.ndim - axes :])
            steps = (0,) * (3 - min(axes, tensor.ndim)) + tensor.stride()[-axes:]
            start = 64 + 5 * place
            self._inputs.append(tensor)
            self._table[start : start + 4] = (tensor.data_ptr(), *steps[-3:])
            self._table[start + 4] = tensor.stride(0) if tensor.ndim > axes else 0
        if operator.mass is None:
            self._table[84] = 0

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
        self._work = _zeros(self._parts, size // 2 + 8)
        self._table[6:8] = (self._work.data_ptr(), self._work.stride(0))

    def _place(self, level: _Level) -> None:
        start = _HEADER + _ROW * len(self._levels)
        self._table[start : start + _ROW] = level.row
        self._levels.append(level)

    def _emptiest_first(self, level: _Level) -> tuple[int, int, int]:
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

    def _permute(self, level: _Level, order: tuple[int, int, int]) -> None:
        """Turn the finest level, which is a mask, so that an axis with empty planes comes first."""
        self._order = order
        shape = tuple(level.shape[axis] for axis in order)
        turned = _Level(shape, self._systems, is_mask=True, has_mass=False)
        turned.diagonal().copy_(level.diagonal().permute(0, *(1 + axis for axis in order)))
        self._levels = []
        self._place(turned)
        self._run(_FIND_RUNS, 0)

    def _coarsen(self, stats: np.ndarray | None) -> None:
        level = 0
        while math.prod(self._levels[-1].shape) > COARSEST_CELLS:
            shape = self._levels[-1].shape
            strengths = [1.0, 1.0, 1.0]
            if stats is not None:
                sums = stats.sum(0)
                strengths = list(sums[:3] / np.maximum(sums[3:6], 1.0))
            axes = choose_axes(shape, strengths)
            start = _HEADER + _ROW * level
            self._table[start + 6] = sum(1 << axis for axis in axes)
            has_mass = self._operator.mass is not None and not self.is_mask
            coarse = coarse_shape(shape, axes)
            self._place(_Level(coarse, self._systems, is_mask=False, has_mass=has_mass))
            self._numbers[3] = wall_factor(level, shape, axes)
            self._report[:] = 0.0
            stats = self._run(_COARSEN, level)
            level += 1
        self._inverse = self._invert_coarsest()
        self._table[10:12] = (self._inverse.data_ptr(), self._inverse.stride(0))

    def _invert_coarsest(self) -> Tensor:
        level = self._levels[-1]
        if level.row[5]:
            return self._invert_mask(level)
        inverse = level.field("di").double()
        couplings = [level.field(name).double() for name in ("cx", "cy", "cz")]
        return _invert(inverse, couplings)

    def _invert_mask(self, level: _Level) -> Tensor:
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

    def _run(self, op: int, level: int) -> np.ndarray:
        self._table[0] = op
        self._table[8] = level
        if op != _COARSEN:
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
        self._table[40] = len(self._levels)
        for index in range(rows.shape[1]):
            part = rows[:, index].reshape(self._systems, *(1,) * self._lead, *operator.domain)
            finest.field("b").copy_(part.permute(0, *(1 + axis for axis in self._order)))
            self._run(_CYCLE, 0)
            z[:, index] = finest.field("x").permute(back).reshape(self._systems, *operator.domain)
        units = torch.from_numpy(self._units).reshape(-1, 1, *(1,) * len(operator.domain))
        return self._to_batch(z / units, r.shape[: r.ndim - len(axes)]) / scale

    def conjugate_gradient(
        self, b: Tensor, x0: Tensor | None, *, rtol: float, max_iterations: int
    ) -> Outcome | None:
        """Solve every right-hand side; one native call."""
        free = self._null_space
        if free is None:
            return self._solve(b, x0, rtol, max_iterations)
        axes = tuple(range(-len(self._operator.domain), 0))
        b = self._operator.mask(b)
        inside = free.remove(b)
        norm = torch.linalg.vector_norm(b, dim=axes)
        outside = torch.linalg.vector_norm(b - inside, dim=axes)
        outcome = self._solve(inside, x0, rtol, max_iterations)
        total = torch.hypot(outcome.residual * torch.linalg.vector_norm(inside, dim=axes), outside)
        is_outside = (outcome.status == Status.CONVERGED) & (outside > rtol * norm)
        return Outcome(
            value=free.remove(outcome.value),
            status=torch.where(is_outside, int(Status.INFEASIBLE), outcome.status),
            iterations=outcome.iterations,
            residual=total / torch.where(norm > 0, norm, 1.0),
            counts=outcome.counts,
        )

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
        rows = self._by_system(b)
        count = rows.shape[1]
        x = torch.empty(rows.shape, dtype=torch.float64)
        if x0 is not None:
            x.copy_(self._by_system(x0.expand_as(b)))
        report = np.zeros((self._systems, count, 4))
        self._reserve_iterates()
        team = self._threads if self._systems == 1 else 1
        counter = np.zeros(1, dtype=np.int64)
        slots = np.zeros(128)
        self._numbers[2] = rtol
        table = self._table
        table[0], table[2], table[3] = _SOLVE, team, count
        table[4], table[5] = counter.ctypes.data, slots.ctypes.data
        table[8], table[21], table[22] = len(self._levels), max_iterations, report.ctypes.data
        for start, tensor in ((24, rows), (32, x)):
            steps = (0,) * self._lead + tensor.stride()[2:]
            table[start] = tensor.data_ptr()
            table[start + 1 : start + 4] = [steps[axis] for axis in self._order]
            table[start + 4 : start + 6] = (tensor.stride(0), tensor.stride(1))
        table[38] = x0 is not None
        if team > 1:
            with _team_lock:
                self._launch(team)
        else:
            self._launch(self._systems)
        table[22] = self._report.ctypes.data
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
            directions = _zeros(self._systems, size, dtype=np.float32)
            iterates = _zeros(self._systems, size)
            self._iterates = (directions, iterates)
            self._table[12:15] = (directions.data_ptr(), size, iterates.data_ptr())

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


def _zeros(*shape: int, dtype: type = np.float64) -> Tensor:
    """Memory from numpy, which asks the system for large pages."""
    array: np.ndarray[Any, Any] = np.empty(shape, dtype=dtype)
    array.fill(0)
    return torch.from_numpy(array)


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
