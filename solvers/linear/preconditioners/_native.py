"""The native multigrid text, and the table of integers through which it is called.

The text stands in files beside this one, in the order of its parts: the cycle on grids, that on
aggregates, the conjugate gradients around them, then the inverse of the coarsest level and the
set-up or, in a kernel of its own, the same steps on a slab of a grid. Addresses and sizes travel in
one table: named slots, then a row for each level. Both languages take the names from here.
"""

from __future__ import annotations

from enum import IntEnum, auto
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solvers.kernels import Kernel, build_kernel
from solvers.linear.krylov._items import RATE_STEPS

__all__ = [
    "HEADER",
    "ROW",
    "Level",
    "Number",
    "Op",
    "Slot",
    "multigrid_kernel",
    "rest_address",
    "scratch_size",
    "slab_kernel",
    "zeros",
]

HEADER, ROW = 128, 24
"""Slots before the rows of the levels, and slots of a row."""

_TEXTS = (
    "multigrid_cycle.cpp",
    "multigrid_graph.cpp",
    "multigrid_solve.cpp",
)


class Op(IntEnum):
    """What a call does."""

    FILL_MASK = 0
    FILL = auto()
    FIND_RUNS = auto()
    COARSEN = auto()
    INVERT = auto()
    IS_HELD = auto()
    SOLVE = auto()
    CYCLE = auto()
    ENERGIES = auto()
    VISIT = auto()
    DESCEND = auto()
    ASCEND = auto()
    TURN = auto()
    ADVANCE = auto()
    RENEW = auto()


class Slot(IntEnum):
    """Places of the table; ``_STEP`` is the distance from one system or thread to the next."""

    OP = 0
    NUMBERS = auto()  # address of what `Number` names
    TEAM = auto()  # threads that share one system
    COUNT = auto()  # right-hand sides of a system
    COUNTER = auto()  # address of the integer that a team counts its steps in
    SUMS = auto()  # address of the partial sums of a team
    REST = auto()  # address of a function that lets other programs run, or 0
    WORK = auto()
    WORK_STEP = auto()
    LEVEL = auto()  # the level that an operation is about
    LEVELS = auto()
    VISITS = auto()
    INVERSE = auto()
    INVERSE_STEP = auto()
    DIRECTIONS = auto()
    ITERATES = auto()
    CELLS = auto()  # distance of the next four
    DIAGONALS = auto()
    COUPLINGS_X = auto()
    COUPLINGS_Y = auto()
    COUPLINGS_Z = auto()
    LIMIT = auto()
    REPORT = auto()
    UNITS = auto()
    HAS_GUESS = auto()
    MOST_RUNS = auto()
    RUNS = auto()
    RUNS_STEP = auto()
    ITERATES_STEP = auto()  # 0 where systems share them
    FIRST_PLANE = auto()  # of a slab within its window
    LAST_PLANE = auto()
    # Address, three steps, distance of systems, distance of right-hand sides.
    RIGHT = 32
    SOLUTION = 40
    # Couplings of three axes, boundary, mass: address, three steps, distance of systems.
    INPUTS = 64
    AGGREGATES = 96  # address of the rows of levels without a grid, see `multigrid_graph.cpp`
    AGGREGATE_LEVELS = auto()  # 0 where all levels are grids
    PARENT = auto()  # row of the first of them for every cell
    FIRST_VISITS = auto()
    RECYCLED = auto()  # number of directions of earlier solves
    RECYCLED_DIRECTIONS = auto()
    RECYCLED_WEIGHTS = auto()
    TRAIL = auto()  # where the preconditioned residuals of a solve are kept
    TRAIL_MOST = auto()
    TRAIL_NUMBERS = auto()


class Number(IntEnum):
    """Places of the floating-point arguments."""

    FIRST_STEP = 0
    SECOND_STEP = auto()
    RTOL = auto()
    WALL = auto()
    PATIENCE = auto()
    GROWTH = auto()
    LEAST_PIVOT = auto()
    FACTOR = auto()  # of the old direction, or of the step
    SCALE = auto()  # of the residual of a slab


@cache
def multigrid_kernel() -> Kernel:
    """Compile the native text, or load it from the cache of kernels."""
    return _build("multigrid", "multigrid_inverse.cpp", "multigrid_setup.cpp")


@cache
def slab_kernel() -> Kernel:
    """Compile the native text for slabs, or load it from the cache of kernels."""
    return _build("multigrid_slab", "multigrid_slab.cpp")


def _build(name: str, *last: str) -> Kernel:
    names = [f"{kind.__name__.upper()}_{m.name} = {m.value}" for kind in _NAMED for m in kind]
    names += [f"HEADER = {HEADER}", f"ROW = {ROW}", f"RATE_STEPS = {RATE_STEPS}"]
    folder = Path(__file__).parent
    texts = [(folder / text).read_text() for text in (*_TEXTS, *last)]
    body = f"enum {{ {', '.join(names)} }};\n" + "".join(texts)
    return build_kernel(name, body, [("table", "double*")], lanes=1)


_NAMED: tuple[type[IntEnum], ...] = (Op, Slot, Number)


class Level:
    """One level of all systems: a row of the table and the memory that it points into.

    Args:
        shape: Cells along three axes.
        systems: Number of systems.
        is_mask: Whether all couplings are equal, so that a byte a cell is enough.
        has_mass: Whether there is a mass term.
        is_sketch: Whether vectors are left out.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        systems: int,
        *,
        is_mask: bool,
        has_mass: bool = False,
        is_sketch: bool = False,
    ):
        nx, ny, nz = self.shape = shape
        self.is_mask = is_mask
        self.pitch = nz + 1
        self.plane = (ny + 1) * self.pitch
        self.cells = (nx + 2) * self.plane
        names = ["x", "b"] if is_mask else ["x", "b", "di", "cx", "cy", "cz", "e"]
        sizes = dict.fromkeys(() if is_sketch else names, self.cells)
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
        self.memory = zeros(systems, total, dtype=np.float32)
        start = (nx, ny, nz, self.pitch, self.plane, is_mask, 0, self.memory.data_ptr(), total)
        places = [
            self.offsets.get(name, -1 if name == "m" else 0)
            for name in ("x", "b", "di", "cx", "cy", "cz", "e", "m", "d8", "run")
        ]
        self.row = np.zeros(ROW, dtype=np.int64)
        self.row[: len(start) + len(places)] = (*start, *places)

    def field(self, name: str) -> Tensor:
        """A view of the cells of one array, shape ``(systems, *shape)``."""
        return self.view(self.memory, self.offsets[name])

    def planes(self, name: str) -> Tensor:
        """A view of the planes of one array of the first system, without those of zeros."""
        memory, start = self.memory[0], self.offsets[name]
        if name == "d8":
            memory, start = memory.view(torch.uint8), 4 * start
        return memory[start : start + self.cells].view(-1, self.plane)[1:-1]

    def diagonal(self) -> Tensor:
        """A view of the bytes of a mask level, shape ``(systems, *shape)``."""
        return self.view(self.memory.view(torch.uint8), 4 * self.offsets["d8"])

    def runs(self) -> Tensor:
        """A view of the first and last unknowns of all planes."""
        start = self.offsets["run"]
        return self.memory[:, start : start + 2 * (self.shape[0] + 2)].view(torch.int32)

    def unknowns(self) -> Tensor:
        """Which cells are unknowns, shape ``(systems, *shape)``."""
        return (self.diagonal() if self.is_mask else self.field("di")) > 0

    def view(self, memory: Tensor, start: int = 0) -> Tensor:
        """The cells of arrays that lie in rows of memory from some place on."""
        stride = (memory.stride(0), self.plane, self.pitch, 1)
        return memory.as_strided((len(memory), *self.shape), stride, start + self.plane)


def scratch_size(rows: int, cells: int) -> int:
    """Floats that a thread of the cycle needs beside the vectors.

    Args:
        rows: Rows of a plane.
        cells: Cells of a row.
    """
    pitch, plane = cells + 1, (rows + 1) * (cells + 1)
    return 6 * (pitch + 64 + 3 * plane) + pitch + 64 + 4 * pitch + 256


@cache
def rest_address() -> int:
    """Address of the C library's ``sched_yield``; 0 where there is none."""
    import ctypes

    try:
        function = ctypes.CDLL(None).sched_yield
    except (AttributeError, OSError, TypeError):
        return 0
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def zeros(*shape: int, dtype: type = np.float64) -> Tensor:
    """Memory from numpy, which asks the system for large pages."""
    array: np.ndarray[Any, Any] = np.empty(shape, dtype=dtype)
    array.fill(0)
    return torch.from_numpy(array)
