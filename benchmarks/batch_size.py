"""How does the cost of a step fall with the batch?

A call costs the same for one environment and for many, and compiled lanes fill with eight, so small
batches pay most per environment. MuJoCo steps one environment after the other.
"""

from __future__ import annotations

from contact_step import TIMESTEP, build_contest
from record import Column, Result, Size
from timing import alternate

__all__ = ["run"]

TITLE = "CPU time per environment step by batch size [µs], hopper settled, one thread"
LADDER = {"tiny": (1, 64), "small": (1, 8, 64, 512), "full": (1, 8, 64, 512, 4096)}


def run(size: Size, seed: int = 0) -> Result:
    """Time the hopper at a ladder of batch sizes."""
    steps, repetitions = 20, 2 if size == "tiny" else 5
    ahead = 0.1 if size == "tiny" else None
    rows = []
    for batch in LADDER[size]:
        # So small a piece of work needs repeating to be seen by the clock.
        many = steps * max(1, 64 // batch)
        contest = build_contest(
            "hopper", regime="settled", batch=batch, steps=many, seed=seed, ahead=ahead
        )
        timings = alternate(contest.work, repetitions=repetitions)
        unit = 1e6 / (batch * many)
        rows.append(
            {
                "batch": batch,
                "physim": unit * timings.median("physim"),
                "elliptic": unit * timings.median("elliptic"),
                "ratio": timings.ratio("physim", "elliptic"),
                "call": unit * batch * timings.median("physim"),
            }
        )
    last = rows[-1]
    return Result(
        title=TITLE,
        columns=(
            Column("batch", "batch", "d"),
            Column("physim", "physim", ".4g"),
            Column("elliptic", "MuJoCo elliptic"),
            Column("ratio", "physim / MuJoCo", ".2f"),
            Column("call", "physim per step of the batch", ".4g"),
        ),
        rows=rows,
        settings={"timestep": TIMESTEP, "repetitions": repetitions, "model": "hopper"},
        verdict=[
            f"One environment costs {rows[0]['ratio']:.0f} times MuJoCo's time, "
            f"{last['batch']} at once {last['ratio']:.2f} times."
        ],
    )
