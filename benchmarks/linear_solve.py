"""How fast is a pressure solve, beside the solvers that Python users have?

Set-up and solve of one system, one thread, CPU time. Every answer is checked: the residual is
computed again in float64 with SciPy's product. The memory bound is what 104 bytes a cell and
iteration (equal couplings) or 180 (general) take at the rate of a triad measured in the same run.

AMGCL (``pip install pyamgcl``) is compiled where it is installed, with the headers of Boost: set
``CFLAGS="-O3 -DNDEBUG"`` for that, else it is several times slower, and OMP_NUM_THREADS=1 here.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from linear_scenes import SCENES, build_scene
from record import Column, Result, Size

from solvers.linear import ConjugateGradient, Multigrid

__all__ = ["BYTES", "run", "triad_rate"]

TITLE = "CPU time of one pressure solve, set-up included [ms], one thread"
LADDER = {"tiny": (12,), "small": (32, 64), "full": (32, 64, 128)}
RTOL = 1e-8
BYTES = {True: 104, False: 180}


def run(size: Size, seed: int = 0) -> Result:
    """Time ours, SciPy's Jacobi-CG and PyAMG's two on the scenes."""
    rows = []
    rate = triad_rate(size)
    for n in LADDER[size]:
        for scene in SCENES:
            rows.append(_contest(scene, n, seed, rate, repetitions=2 if size == "tiny" else 3))
    last = [row for row in rows if row["cells"] == rows[-1]["cells"]]
    return Result(
        title=TITLE,
        columns=(
            Column("scene", "scene"),
            Column("n", "side", "d"),
            Column("iterations", "iterations", "d"),
            Column("iterations_4", "to 1e-4", "d"),
            Column("total", "ours", ".4g"),
            Column("setup", "of it set-up"),
            Column("bound", "solve / memory bound", ".2f"),
            Column("scipy", "x SciPy", ".3g"),
            Column("ruge_stuben", "x PyAMG RS", ".3g"),
            Column("aggregation", "x PyAMG SA", ".3g"),
            Column("amgcl", "x AMGCL", ".3g"),
            Column("residual", "largest residual", ".1e"),
        ),
        rows=rows,
        settings={"rtol": RTOL, "triad_bytes_per_second": rate, "cycle": "W"},
        verdict=[
            f"{row['scene']}, {row['n']} a side: "
            + ", ".join(
                f"{row[key]:.0f} times the speed of {name}"
                for key, name in (
                    ("scipy", "SciPy's Jacobi-CG"),
                    ("ruge_stuben", "PyAMG's Ruge-Stüben"),
                    ("aggregation", "PyAMG's aggregation"),
                    ("amgcl", "AMGCL"),
                )
                if row[key] is not None
            )
            for row in last
        ],
    )


def _contest(scene: str, n: int, seed: int, rate: float, *, repetitions: int) -> dict[str, Any]:
    A, b = build_scene(scene, n, seed)
    inside = A.active.numpy().ravel()
    matrix = A.to_scipy().tocsr()[inside][:, inside]
    right = b.numpy().ravel()[inside]
    solver = ConjugateGradient(preconditioner=Multigrid(), rtol=RTOL)
    rough = ConjugateGradient(preconditioner=Multigrid(), rtol=1e-4)
    residuals = []
    setups, solves = [], []
    for _ in range(repetitions):
        fresh = A.with_coefficients(A.coefficients)
        start = time.process_time()
        prepared = solver.prepare(fresh)
        middle = time.process_time()
        solution = prepared.solve(b)
        setups.append(middle - start)
        solves.append(time.process_time() - middle)
    residuals.append(_residual(matrix, right, solution.value.numpy().ravel()[inside]))
    setup, solve = min(setups), min(solves)
    iterations = int(solution.iterations)
    is_mask = bool(prepared.preconditioner.is_mask)  # type: ignore[attr-defined]
    cells = int(inside.sum())
    row: dict[str, Any] = {
        "scene": scene,
        "n": n,
        "cells": n**3,
        "unknowns": cells,
        "iterations": iterations,
        "iterations_4": int(rough.prepare(A).solve(b).iterations),
        "setup": 1e3 * setup,
        "solve": 1e3 * solve,
        "total": 1e3 * (setup + solve),
        "bound": solve / (iterations * cells * BYTES[is_mask] / rate),
    }
    for name, peer in _peers().items():
        if peer is None:
            row[name] = None
            continue
        start = time.process_time()
        x = peer(matrix, right)
        row[f"{name}_total"] = 1e3 * (time.process_time() - start)
        row[name] = row[f"{name}_total"] / row["total"]
        residuals.append(_residual(matrix, right, x))
    row["residual"] = max(residuals)
    return row


def _residual(matrix: Any, b: np.ndarray, x: np.ndarray) -> float:
    return float(np.linalg.norm(b - matrix @ x) / np.linalg.norm(b))


def _peers() -> dict[str, Callable[[Any, np.ndarray], np.ndarray] | None]:
    """Solvers by name; None where the package is not installed."""
    pyamg, pyamgcl = _import("pyamg"), _import("pyamgcl")
    return {
        "scipy": _scipy_cg,
        "ruge_stuben": pyamg and _pyamg(pyamg.ruge_stuben_solver),
        "aggregation": pyamg and _pyamg(pyamg.smoothed_aggregation_solver),
        "amgcl": pyamgcl and partial(_amgcl, pyamgcl),
    }


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _scipy_cg(matrix: Any, b: np.ndarray) -> np.ndarray:
    from scipy.sparse.linalg import LinearOperator, cg

    inverse = 1.0 / matrix.diagonal()
    jacobi = LinearOperator(matrix.shape, lambda r: inverse * r.ravel(), dtype=float)
    return cg(matrix, b, rtol=RTOL, maxiter=20_000, M=jacobi)[0]


def _pyamg(build: Callable[[Any], Any]) -> Callable[[Any, np.ndarray], np.ndarray]:
    def solve(matrix: Any, b: np.ndarray) -> np.ndarray:
        x: np.ndarray = build(_narrow(matrix)).solve(b, tol=RTOL, accel="cg", maxiter=200)
        return x

    return solve


def _amgcl(pyamgcl: Any, matrix: Any, b: np.ndarray) -> np.ndarray:
    """Smoothed aggregation with a sparse approximate inverse as smoother, which is its default."""
    cycle = pyamgcl.amg(_narrow(matrix), {"relax.type": "spai0"})
    x: np.ndarray = pyamgcl.solver(cycle, {"type": "cg", "tol": RTOL, "maxiter": 500})(b)
    return x


def _narrow(matrix: Any) -> Any:
    """The same matrix with indices of 32 bits."""
    narrow = matrix.copy()
    narrow.indices = narrow.indices.astype(np.int32)
    narrow.indptr = narrow.indptr.astype(np.int32)
    return narrow


def triad_rate(size: Size) -> float:
    """Bytes a second of ``a = b + c`` on arrays beyond the caches, write-allocate counted."""
    n = 2**14 if size == "tiny" else 2**23
    a, b, c = (torch.ones(n, dtype=torch.float64) for _ in range(3))
    best = np.inf
    for _ in range(5):
        start = time.process_time()
        torch.add(b, c, out=a)
        best = min(best, time.process_time() - start)
    return 32.0 * n / max(best, 1e-9)
