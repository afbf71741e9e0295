"""How long and how much memory does a pressure solve of millions of cells take?

Smoke to 1e-6, set-up and solve, one thread, CPU time; memory is the largest that the process held
during it beyond what it held before, the solution included. The memory bound is that of
`linear_solve`, at the rate of the triad of the same run.
"""

from __future__ import annotations

import contextlib
import ctypes
import time
from pathlib import Path
from typing import Any

from linear_scenes import build_scene
from linear_solve import BYTES, triad_rate
from record import Column, Result, Size

from solvers.linear import ConjugateGradient, Multigrid

__all__ = ["run"]

TITLE = "One large pressure solve to 1e-6, set-up included, one thread"
LADDER = {"tiny": (12,), "small": (96,), "full": (128, 256)}
RTOL = 1e-6
_STATUS, _FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def run(size: Size, seed: int = 0) -> Result:
    """Solve smoke at growing sizes."""
    rate = triad_rate(size)
    rows = [_solve(n, seed, rate) for n in LADDER[size]]
    last = rows[-1]
    return Result(
        title=TITLE,
        columns=(
            Column("n", "side", "d"),
            Column("iterations", "iterations", "d"),
            Column("setup", "set-up [s]"),
            Column("solve", "solve [s]"),
            Column("total", "together [s]"),
            Column("bound", "solve / memory bound", ".2f"),
            Column("bytes", "bytes a cell", ".3g"),
        ),
        rows=rows,
        settings={"rtol": RTOL, "triad_bytes_per_second": rate},
        verdict=[
            f"{last['n']} a side: {last['total']:.2f} s of CPU where the triad reaches "
            f"{rate / 1e9:.0f} GB/s."
        ],
    )


def _solve(n: int, seed: int, rate: float) -> dict[str, Any]:
    solver = ConjugateGradient(preconditioner=Multigrid(), rtol=RTOL)
    # The first solve pays for the compiler.
    small, right = build_scene("smoke", 12, seed)
    solver.prepare(small).solve(right)
    A, b = build_scene("smoke", n, seed)
    _give_back()
    before = _memory("VmRSS", forget=True)
    start = time.process_time()
    prepared = solver.prepare(A)
    middle = time.process_time()
    solution = prepared.solve(b)
    end = time.process_time()
    most = _memory("VmHWM")
    iterations, unknowns = int(solution.iterations), int(A.active.sum())
    return {
        "n": n,
        "iterations": iterations,
        "residual": float(solution.residual_norm),
        "setup": middle - start,
        "solve": end - middle,
        "total": end - start,
        "bound": (end - middle) / (iterations * unknowns * BYTES[True] / rate),
        "bytes": None if before is None or most is None else (most - before) / n**3,
    }


def _give_back() -> None:
    """Hand memory that is free to the system, so that it counts when it is used again."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def _memory(name: str, *, forget: bool = False) -> int | None:
    """Bytes of this process by the name of Linux; None elsewhere."""
    try:
        if forget:
            _FORGET.write_text("5")
        for line in _STATUS.read_text().splitlines():
            if line.startswith(name + ":"):
                return 1024 * int(line.split()[1])
    except OSError:
        pass
    return None
