"""What do learned directions reach by themselves? The published method beside classical ones.

Directions to relative residuals of 1e-2 and 1e-4, without any fallback: on the matrix that the
network was trained on, on other sizes of the same box, and on scenes that it has never seen.
One thread; the time of a solve to 1e-2 with set-up.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import scipy.sparse.linalg
import torch
from linear_scenes import build_scene
from record import Column, Result, Size
from torch import Tensor

from solvers.core import Status
from solvers.dcdm import DeepConjugateDirection
from solvers.linear import ConjugateGradient, LinearSolver, Multigrid, PoissonOperator

__all__ = ["run"]

TITLE = "Directions to 1e-2 and 1e-4, and time of a solve to 1e-2 [ms], one thread"
SIDES = {"tiny": (8,), "small": (16, 32), "full": (16, 32, 48, 64)}
LIMIT = 60


def run(size: Size, seed: int = 0) -> Result:
    """Count directions on every problem."""
    rows = []
    for name, side, A, b in _problems(SIDES[size], seed):
        row: dict[str, Any] = {"problem": name, "side": side}
        for key, solver in (
            ("dcdm", DeepConjugateDirection(max_iterations=LIMIT)),
            ("cg", ConjugateGradient()),
            ("multigrid", ConjugateGradient(preconditioner=Multigrid())),
        ):
            row |= _measure(key, solver, A, b)
        row["ic0"] = _incomplete(A, b, 1e-2)
        rows.append(row)
    own = [row for row in rows if row["problem"] == "own box, noise" and row["side"] == 32]
    missed = [f"{r['problem']} {r['side']}" for r in rows if r["dcdm_2"] is None]
    return Result(
        title=TITLE,
        columns=(
            Column("problem", "problem"),
            Column("side", "side", "d"),
            Column("dcdm_2", "network to 1e-2", "d"),
            Column("dcdm_4", "to 1e-4", "d"),
            Column("cg_2", "CG to 1e-2", "d"),
            Column("cg_4", "to 1e-4", "d"),
            Column("ic0", "ILU-CG to 1e-2", "d"),
            Column("multigrid_2", "multigrid to 1e-2", "d"),
            Column("multigrid_4", "to 1e-4", "d"),
            Column("dcdm_time", "network [ms]", ".4g"),
            Column("cg_time", "CG [ms]", ".4g"),
            Column("multigrid_time", "multigrid [ms]", ".4g"),
        ),
        rows=rows,
        settings={"sides": SIDES[size], "limit": LIMIT},
        verdict=[
            *(f"Own matrix: 1e-2 after {row['dcdm_2']} directions." for row in own),
            f"Not reached within {LIMIT} directions: " + (", ".join(missed) or "none") + ".",
        ],
    )


def _measure(key: str, solver: LinearSolver, A: PoissonOperator, b: Tensor) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for digits in (2, 4):
        start = time.process_time()
        outcome = replace(solver, rtol=10.0**-digits).prepare(A).run(b, None)  # type: ignore[type-var]
        elapsed = 1e3 * (time.process_time() - start)
        is_good = int(outcome.status) == Status.CONVERGED
        found[f"{key}_{digits}"] = int(outcome.iterations) if is_good else None
        if digits == 2:
            found[f"{key}_time"] = elapsed
            if not is_good:
                return {**found, f"{key}_4": None}
    return found


def _incomplete(A: PoissonOperator, b: Tensor, rtol: float) -> int | None:
    """Conjugate gradients with SciPy's incomplete factors, made symmetric by their mean."""
    inside = A.active.numpy().ravel()
    matrix = A.to_scipy()[inside][:, inside].tocsc()
    # No fill-in beyond the pattern and no pivoting: for this matrix the factors of IC(0).
    factors = scipy.sparse.linalg.spilu(
        matrix, drop_tol=1e-1, fill_factor=1.0, permc_spec="NATURAL", diag_pivot_thresh=0.0
    )
    steps = 0

    def count(_: np.ndarray) -> None:
        nonlocal steps
        steps += 1

    def apply(r: np.ndarray) -> np.ndarray:
        return 0.5 * (factors.solve(r) + factors.solve(r, "T"))

    right = b.numpy().ravel()[inside]
    inverse = scipy.sparse.linalg.LinearOperator(matrix.shape, apply)
    _, failed = scipy.sparse.linalg.cg(
        matrix, right, rtol=rtol, maxiter=1000, M=inverse, callback=count
    )
    return None if failed else steps


def _problems(
    sides: tuple[int, ...], seed: int
) -> Iterator[tuple[str, int, PoissonOperator, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    for n in sides:
        A = PoissonOperator.from_cells(torch.zeros(n, n, n), outside=2)
        noise = torch.randn(n, n, n, dtype=torch.float64, generator=generator)
        yield "own box, noise", n, A, noise
        x, y, z = x_y_z(n)
        yield "own box, smooth", n, A, (x + y * z).exp()
    n = sides[-1] if sides[-1] < 32 else 32
    ball = (x_y_z(n).square().sum(0) < 0.2).long()
    A = PoissonOperator.from_cells(ball, outside=2)
    yield "solid ball in the box", n, A, A.mask(noise_like(n, generator))
    walls = PoissonOperator.from_cells(torch.zeros(n, n, n), outside=((1, 1), (1, 1), (1, 2)))
    yield "walls, open above", n, walls, noise_like(n, generator)
    for kind in ("smoke", "tank", "jumps"):
        A, b = build_scene(kind, n, seed)
        yield kind, n, A, b


def x_y_z(n: int) -> Tensor:
    """Coordinates of the cells from -1 to 1."""
    at = torch.linspace(-1.0, 1.0, n, dtype=torch.float64)
    return torch.stack(torch.meshgrid(at, at, at, indexing="ij"))


def noise_like(n: int, generator: torch.Generator) -> Tensor:
    """White noise."""
    return torch.randn(n, n, n, dtype=torch.float64, generator=generator)
