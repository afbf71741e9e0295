"""The native text, and the table of integers through which it is called.

One driver serves two layouts: the lanes hold one problem each, or one problem fills them all.
Addresses and sizes travel in one table with named slots.
"""

from __future__ import annotations

from enum import IntEnum, auto
from functools import cache
from pathlib import Path
from typing import Final, Literal

from solvers.core import Status
from solvers.kernels import Kernel, build_kernel, lane_count

__all__ = ["Layout", "Op", "Slot", "interior_point_kernel", "kernel_lanes"]

Layout = Literal["within", "across"]


class Op(IntEnum):
    """What a call does."""

    SOLVE = 0
    ADJOINT = auto()


class Slot(IntEnum):
    """Places of the table; ``_STEP`` is the distance from one item of the batch to the next.

    What the sizes determine comes first.
    """

    N = 0
    P = auto()
    M = auto()
    BATCH = auto()
    BLOCKS = auto()
    CONES = auto()
    SIZES = auto()
    WORK_STEP = auto()
    Q_STEP = auto()
    LINEAR_STEP = auto()
    G_STEP = auto()
    H_STEP = auto()
    A_STEP = auto()
    B_STEP = auto()
    OP = auto()
    LIMIT = auto()
    Q = auto()
    LINEAR = auto()
    G = auto()
    H = auto()
    A = auto()
    B = auto()
    WORK = auto()
    X = auto()
    Y = auto()
    Z = auto()
    S = auto()
    STATUS = auto()
    ITERATIONS = auto()
    RESIDUAL = auto()
    FACTOR = auto()
    FAILED = auto()  # set to one where an item did not converge


CONSTANTS: Final = {
    "PENALTY": 1e6,  # weight of an active row against a Hessian of size one
    "SHIFT": 1e-10,
    "DOWNWARD": 1e-7,  # curvature, times the size of Q and its order, that may be rounding
    "TINY_PIVOT": 1e-30,
    "HUGE_PIVOT": 1e64,  # what replaces a pivot that is not positive: its unknown stays
    "TO_THE_BOUNDARY": 0.995,
    "EXACT": 1e-12,  # where iterations end
    "NEAR": 1e-4,  # where the active set is tried
    "NEAR_CONES": 1e-2,  # the same without orthant: a smooth cone is found from further away
    "NEARER": 1e-7,  # where it is tried without waiting for the others
    "CLOSE": 1e-6,
    "FAR": 1e8,  # distance that no feasible point has
    "POLISHED": 1e-11,
    "ROUNDED": 1e-4,  # part of x below which POLISHED is less than the rounding of K x
    "POLISH_FLOOR": 1e-14,
    **{status.name: float(status) for status in Status},
}
POLISH_ROUNDS = 10
PATIENCE = 8
FEW = 4  # one over the part of the columns that a row with few entries reaches at most
_MACROS = """\
#define INLINED static inline __attribute__((always_inline))
#define OUTLINED static __attribute__((noinline))
#define FUSED _Pragma("clang fp contract(fast)")
#define UNROLL _Pragma("unroll")
typedef long long L;
typedef void (*Turn)(V*);
"""


def kernel_lanes() -> int:
    """Lanes of the kernels of this room, at least 2."""
    return max(2, lane_count())


@cache
def interior_point_kernel(layout: Layout) -> Kernel:
    """Compile the native text for a layout, or load it from the cache of kernels."""
    folder, lanes = Path(__file__).parent, kernel_lanes()
    slots = ", ".join(f"SLOT_{slot.name} = {slot.value}" for slot in Slot)
    counts = f"POLISH_ROUNDS = {POLISH_ROUNDS}, PATIENCE = {PATIENCE}, FEW = {FEW}"
    texts = [
        (folder / name).read_text()
        for name in (f"layout_{layout}.cpp", "cones.cpp", "rows.cpp", "interior_point.cpp")
    ]
    body = "".join(
        [
            _MACROS,
            f"enum {{ {slots}, {counts} }};\n",
            *(f"constexpr double {name} = {value!r};\n" for name, value in CONSTANTS.items()),
            "struct InteriorPoint {\n",
            _halving("sum", "a + b", lanes),
            _halving("max", "a > b ? a : b", lanes),
            *texts,
            "};\nInteriorPoint::run((const long long*)table, block, vturn);",
        ]
    )
    return build_kernel(f"interior_point_{layout}", body, [("table", "double*")], lanes=lanes)


def _halving(name: str, operation: str, lanes: int) -> str:
    """Reduction of a vector to a number, in steps that halve it."""
    lines, stride = [], lanes // 2
    while stride:
        order = ", ".join(str(lane ^ stride) for lane in range(lanes))
        lines.append(f"{{ const V b = __builtin_shufflevector(a, a, {order}); a = {operation}; }}")
        stride //= 2
    return f"INLINED double halve_{name}(V a) {{ {' '.join(lines)} return a[0]; }}\n"
