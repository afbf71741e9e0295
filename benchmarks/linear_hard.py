"""Where is multigrid weak? Hard coefficients, beside PyAMG's Ruge-Stüben solver.

Log-normal fields, anisotropy, stretched grids, porous rock, slits, layers, thin channels, noise.
One thread, CPU time of set-up and solve. What multigrid alone does not solve is timed with the
method that `linear_solve` picks, which hands it over.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from record import Column, Result, Size
from scipy import ndimage
from torch import Tensor

from solvers.core import Status
from solvers.linear import ConjugateGradient, Multigrid, PoissonOperator, linear_solve

__all__ = ["ruge_stuben", "run"]

TITLE = "CPU time of hard problems [ms], one thread"
SIDE = {"tiny": 12, "small": 32, "full": 64}
RTOL = 1e-8


def run(size: Size, seed: int = 0) -> Result:
    """Time ours and PyAMG's on every family."""
    n = SIDE[size]
    rows = []
    for name, A in _families(n, seed):
        generator = torch.Generator().manual_seed(seed)
        b = A.mask(torch.randn(n, n, n, dtype=torch.float64, generator=generator))
        rows.append(_contest(name, A, b, repetitions=2 if size == "tiny" else 3))
    compared = [row for row in rows if row["ratio"] is not None]
    slowest = min(compared, key=lambda row: row["ratio"], default=None)
    failed = [row["family"] for row in rows if row["status"] != "CONVERGED"]
    return Result(
        title=TITLE,
        columns=(
            Column("family", "coefficients"),
            Column("iterations", "iterations", "d"),
            Column("total", "ours", ".4g"),
            Column("peer_iterations", "RS iterations", "d"),
            Column("peer", "PyAMG RS", ".4g"),
            Column("ratio", "x PyAMG RS", ".3g"),
            Column("status", "multigrid alone"),
        ),
        rows=rows,
        settings={"side": n, "rtol": RTOL},
        verdict=[
            "Not solved by multigrid alone: " + (", ".join(failed) or "none") + ".",
            "PyAMG is not installed."
            if slowest is None
            else f"Smallest lead over PyAMG: {slowest['ratio']:.1f} ({slowest['family']}).",
        ],
    )


def _contest(name: str, A: PoissonOperator, b: Tensor, *, repetitions: int) -> dict[str, Any]:
    solver = ConjugateGradient(preconditioner=Multigrid(), rtol=RTOL, max_iterations=250)
    alone = linear_solve(A, b, solver, on_failure="mask")
    status = Status(int(alone.status))
    chosen = solver if status is Status.CONVERGED else None
    times = []
    for _ in range(repetitions):
        fresh = A.with_coefficients(A.coefficients)
        start = time.process_time()
        solution = linear_solve(fresh, b, chosen, on_failure="mask")
        times.append(1e3 * (time.process_time() - start))
    peer_iterations, peer = ruge_stuben(A, b)
    return {
        "family": name,
        "iterations": int(solution.iterations),
        "residual": float(solution.residual_norm),
        "total": min(times),
        "status": status.name,
        "peer_iterations": peer_iterations,
        "peer": peer,
        "ratio": None if peer is None else peer / min(times),
    }


def ruge_stuben(A: PoissonOperator, b: Tensor) -> tuple[int | None, float | None]:
    """Iterations and CPU time of PyAMG's Ruge-Stüben solver; None where it is not installed."""
    try:
        import pyamg
    except ImportError:
        return None, None
    inside = A.active.numpy().ravel()
    matrix = A.to_scipy()[inside][:, inside].tocsr()
    matrix.indices = matrix.indices.astype(np.int32)
    matrix.indptr = matrix.indptr.astype(np.int32)
    history: list[float] = []
    start = time.process_time()
    pyamg.ruge_stuben_solver(matrix).solve(
        b.numpy().ravel()[inside], tol=RTOL, accel="cg", maxiter=200, residuals=history
    )
    return len(history) - 1, 1e3 * (time.process_time() - start)


def _families(n: int, seed: int) -> Iterator[tuple[str, PoissonOperator]]:
    rng = np.random.default_rng(seed)
    ones = np.ones((n, n, n))
    smooth = ndimage.gaussian_filter(rng.normal(size=ones.shape), n / 20)
    smooth /= smooth.std()
    for sigma in (1, 2, 3):
        yield f"log-normal {sigma}", _box(np.exp(sigma * smooth))
    yield "log-normal 2, white", _box(np.exp(2 * rng.normal(size=ones.shape)))
    rock = ndimage.gaussian_filter(rng.normal(size=ones.shape), n / 32)
    yield "porous, half solid", _box(ones, (rock < np.median(rock)).astype(int))
    yield "anisotropic x 0.01", _box(ones, spacing=(1.0, 1.0, 10.0))
    yield "anisotropic x 100", _box(ones, spacing=(1.0, 1.0, 0.1))
    yield "anisotropic 1:30:1000", _box(ones, spacing=(1.0, 30**-0.5, 1000**-0.5))
    yield "stretched 1:100", _stretched(n)
    slits = np.zeros(ones.shape, dtype=int)
    for k in range(4, n, 6):
        slits[:, :, k] = 1
        slits[rng.integers(n), :, k] = 0
    yield "slits", _box(ones, slits)
    yield "layers 2.5", _box(ones * np.exp(2.5 * rng.normal(size=n)))
    channels = ones.copy()
    for _ in range(n):
        index: list[Any] = [int(i) for i in rng.integers(n, size=3)]
        index[rng.integers(3)] = slice(None)
        channels[tuple(index)] = 1e5
    yield "channels 1e5", _box(channels)
    for contrast in (1e3, 1e6):
        noise = np.where(rng.random(ones.shape) < 0.3, contrast, 1.0)
        yield f"binary noise {contrast:.0e}", _box(noise)


def _box(beta: np.ndarray, cells: np.ndarray | None = None, **options: Any) -> PoissonOperator:
    """A box open above; pockets of fluid without a way up become solid."""
    kinds = np.zeros(beta.shape, dtype=int) if cells is None else cells
    parts, count = ndimage.label(kinds == 0)
    reached = np.zeros(count + 1, dtype=bool)
    reached[parts[..., -1]] = True
    kinds = np.where((kinds == 0) & ~reached[parts], 1, kinds)
    coefficient = torch.from_numpy(np.ascontiguousarray(beta))
    outside = ((1, 1), (1, 1), (1, 2))
    return PoissonOperator.from_cells(kinds, coefficient=coefficient, outside=outside, **options)


def _stretched(n: int) -> PoissonOperator:
    """Cells that grow along the last axis by a factor of 100 in all; known value above."""
    size = torch.logspace(0, 2, n, dtype=torch.float64)
    side = size.expand(n, n, n)
    across = (2.0 / (size[1:] + size[:-1])).expand(n, n, n - 1)
    above = torch.zeros(n, n, n, dtype=torch.float64)
    above[..., -1] = 1.0 / size[-1]
    return PoissonOperator([side[1:], side[:, 1:], across], above)
