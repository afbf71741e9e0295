"""Multigrid on aggregates where the W-cycle is weak, beside PyAMG's Ruge-Stüben solver.

Iterations and CPU time of set-up and solve to 1e-8; one thread, one run of each in turns.
"""

from __future__ import annotations

import time
from typing import Any

from dcdm_families import FAMILIES, build_family
from linear_hard import ruge_stuben
from record import Column, Result, Size

from solvers.core import Status
from solvers.linear import AggregationMultigrid, ConjugateGradient, LinearSolver, Multigrid

__all__ = ["run"]

TITLE = "Iterations and CPU time on families with strong couplings [ms], one thread"
SIDE = {"tiny": 12, "small": 32, "full": 64}
SEEDS = {"tiny": (0,), "small": (0, 1), "full": (0, 1)}
RTOL = 1e-8


def run(size: Size, seed: int = 0) -> Result:
    """Time the W-cycle, aggregates and PyAMG on every family."""
    n = SIDE[size]
    rows = []
    # The first solve pays for the compiler.
    _time(ConjugateGradient(preconditioner=AggregationMultigrid()), *build_family("sheets", 8, 0))
    for family in FAMILIES:
        for own in SEEDS[size]:
            A, b = build_family(family, n, 1000 * seed + own)
            grid = ConjugateGradient(preconditioner=Multigrid(), rtol=RTOL, max_iterations=400)
            sums = ConjugateGradient(preconditioner=AggregationMultigrid(), rtol=RTOL)
            steps, grid_time = _time(grid, A, b)
            few, sums_time = _time(sums, A, b)
            peer_steps, peer = ruge_stuben(A, b)
            rows.append(
                {
                    "family": family,
                    "seed": 1000 * seed + own,
                    "grid_steps": steps,
                    "grid": grid_time,
                    "steps": few,
                    "time": sums_time,
                    "peer_steps": peer_steps,
                    "peer": peer,
                    "ratio": None if peer is None else peer / sums_time,
                }
            )
    over = [
        f"{r['family']} ({r['steps']})"
        for r in rows
        if r["steps"] is None or r["steps"] > (60 if r["family"].endswith("1e6") else 35)
    ]
    leads = [r["ratio"] for r in rows if r["ratio"] is not None]
    return Result(
        title=TITLE,
        columns=(
            Column("family", "coefficients"),
            Column("seed", "seed", "d"),
            Column("grid_steps", "W-cycle steps", "d"),
            Column("grid", "W-cycle", ".4g"),
            Column("steps", "aggregates steps", "d"),
            Column("time", "aggregates", ".4g"),
            Column("peer_steps", "RS steps", "d"),
            Column("peer", "PyAMG RS", ".4g"),
            Column("ratio", "x PyAMG RS", ".3g"),
        ),
        rows=rows,
        settings={"side": n, "rtol": RTOL},
        verdict=[
            "More than 35 steps (60 at 1e6): " + (", ".join(over) or "none") + ".",
            f"Smallest lead over PyAMG: {min(leads):.2f}." if leads else "PyAMG is not installed.",
        ],
    )


def _time(solver: LinearSolver, A: Any, b: Any) -> tuple[int | None, float]:
    start = time.process_time()
    outcome = solver.prepare(A.with_coefficients(A.coefficients)).run(b, None)
    elapsed = 1e3 * (time.process_time() - start)
    is_good = int(outcome.status) == Status.CONVERGED
    return int(outcome.iterations) if is_good else None, elapsed
