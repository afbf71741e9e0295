"""Sequences of ten solves with moving coefficients: directions recycled from the first one.

Each solve has its own right-hand side, and every cell its own factor exp(0.3 n). CPU time with
set-up, one thread; the plain W-cycle and the recycled one take turns at every solve.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from dcdm_families import FAMILIES, build_family, move_coefficients
from record import Column, Result, Size

from solvers.dcdm import RecycledConjugateGradient
from solvers.linear import ConjugateGradient, Multigrid, Outcome, Prepared

__all__ = ["run"]

TITLE = "Ten solves with moving coefficients: steps and CPU time from the second on, one thread"
SIDE = {"tiny": 12, "small": 32, "full": 64}
LENGTH = {"tiny": 3, "small": 10, "full": 10}
RTOL = 1e-8


def run(size: Size, seed: int = 0) -> Result:
    """Follow a sequence in every family that the W-cycle solves."""
    families = [name for name in FAMILIES if not name.endswith("1e6")]
    rows = [_follow(name, SIDE[size], LENGTH[size], seed) for name in families]
    used = [row for row in rows if row["directions"]]
    unused = [row["whole"] for row in rows if not row["directions"]]
    verdict = [
        f"{row['family']}: {row['fewer']:.2f} times fewer steps, {row['faster']:.2f} times less "
        "time from the second solve on."
        for row in used
    ]
    if unused:
        slowest = 100 * (1 / min(unused) - 1)
        verdict.append(f"Elsewhere the sequence takes at most {slowest:.0f} % longer.")
    return Result(
        title=TITLE,
        columns=(
            Column("family", "coefficients"),
            Column("directions", "directions", "d"),
            Column("plain_first", "first, W-cycle", "d"),
            Column("plain", "later, W-cycle", ".3g"),
            Column("recycled", "later, recycled", ".3g"),
            Column("fewer", "fewer steps", ".3g"),
            Column("faster", "less time, later", ".3g"),
            Column("whole", "less time, all ten", ".3g"),
        ),
        rows=rows,
        settings={"side": SIDE[size], "solves": LENGTH[size], "rtol": RTOL},
        verdict=verdict,
    )


def _follow(name: str, n: int, length: int, seed: int) -> dict[str, object]:
    A, _ = build_family(name, n, seed)
    rng = np.random.default_rng(seed)
    plain = ConjugateGradient(preconditioner=Multigrid(), rtol=RTOL)
    solvers = (plain, RecycledConjugateGradient(rtol=RTOL))
    plain.prepare(A)
    steps, times = np.zeros((2, length)), np.zeros((2, length))
    prepared: dict[int, Prepared] = {}
    outcomes: dict[int, Outcome] = {}
    directions = 0
    for k in range(length):
        moved = A if k == 0 else move_coefficients(A, rng)
        b = torch.from_numpy(rng.normal(size=A.domain))
        # Who goes first finds the numbers out of the cache.
        for turn in (0, 1) if k % 2 else (1, 0):
            start = time.process_time()
            if k == 0:
                prepared[turn] = solvers[turn].prepare(moved)
            else:
                prepared[turn] = prepared[turn].update(moved)
            outcomes[turn] = prepared[turn].run(b, None)
            times[turn, k] = time.process_time() - start
            steps[turn, k] = int(outcomes[turn].iterations)
        directions = int(outcomes[1].counts["directions"])
    return {
        "family": name,
        "directions": directions,
        "plain_first": int(steps[0, 0]),
        "plain": float(steps[0, 1:].mean()),
        "recycled": float(steps[1, 1:].mean()),
        "fewer": float(steps[0, 1:].mean() / steps[1, 1:].mean()),
        "faster": float(np.median(times[0, 1:] / times[1, 1:])),
        "whole": float(times[0].sum() / times[1].sum()),
    }
