"""What does it cost to follow an operator whose numbers move?

A sequence of operators is prepared anew each time, and updated; both take turns, and the first
solve with each counts, since new memory is paid for when it is touched. Rows: solids on their way
through the fluid, densities and coefficients that move by a tenth, a batch of small systems. The
last row follows the backward pass of a slowly moving problem, from zero and from the last adjoint.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from dcdm_families import build_family
from linear_scenes import build_scene
from record import Column, Result, Size
from torch import Tensor

from solvers.linear import (
    AdjointStart,
    AggregationMultigrid,
    ConjugateGradient,
    LinearSolver,
    Multigrid,
    PoissonOperator,
    Prepared,
    linear_solve,
)

__all__ = ["run"]

TITLE = "CPU time to follow moving operators [ms], one thread"
SIDE = {"tiny": 12, "small": 48, "full": 128}
BATCH = {"tiny": (4, 6), "small": (64, 16), "full": (64, 16)}
LENGTH = {"tiny": 3, "small": 6, "full": 8}
GRID = ConjugateGradient(preconditioner=Multigrid())
PAIRS = ConjugateGradient(preconditioner=AggregationMultigrid())

Sequence = Iterator[PoissonOperator]


def run(size: Size, seed: int = 0) -> Result:
    """Time preparations against updates, and backward passes against those with a start."""
    n, length = SIDE[size], LENGTH[size]
    jumps, _ = build_scene("jumps", n, seed)
    channels, _ = build_family("channels", min(n, 64), seed)
    rows = [
        _follow("a solid on its way", GRID, _moving_ball(n, length)),
        _follow("density jumps that move", GRID, _moved(jumps, length, seed)),
        _follow("channels, aggregates", PAIRS, _moved(channels, length, seed)),
        _follow("batch", GRID, _batches(*BATCH[size], length, seed)),
        _backward(n, length, seed),
    ]
    return Result(
        title=TITLE,
        columns=(
            Column("what", "what"),
            Column("new", "new", ".4g"),
            Column("updated", "updated", ".4g"),
            Column("ratio", "new / updated", ".2f"),
            Column("steps_new", "steps, new", ".3g"),
            Column("steps", "steps, updated", ".3g"),
            Column("solve", "of it solve", ".4g"),
        ),
        rows=rows,
        settings={"side": n, "batch": BATCH[size], "length": length},
        verdict=[
            "Set-up alone: "
            + ", ".join(
                f"{row['what']} {row['setup_new'] / row['setup']:.1f}x"
                for row in rows
                if row["setup"]
            )
            + " less by update.",
        ],
    )


def _moving_ball(n: int, length: int) -> Sequence:
    at = (torch.arange(n) + 0.5) / n
    x, y, z = torch.meshgrid(at, at, at, indexing="ij")
    for step in range(length):
        center = 0.4 + 0.5 * step / n
        inside = (x - center) ** 2 + (y - 0.5) ** 2 + (z - 0.5) ** 2 < 0.04
        yield PoissonOperator.from_cells(inside.long(), outside=((1, 1), (1, 1), (1, 2)))


def _moved(A: PoissonOperator, length: int, seed: int) -> Sequence:
    rng = np.random.default_rng(seed)
    for _ in range(length):
        yield A
        changed = {
            name: c * torch.from_numpy(np.exp(0.1 * rng.normal(size=tuple(c.shape))))
            for name, c in A.coefficients.items()
        }
        A = A.with_coefficients(changed)


def _batches(count: int, n: int, length: int, seed: int) -> Sequence:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(length):
        density = 0.5 + torch.rand(count, n, n, n, dtype=torch.float64, generator=generator)
        yield PoissonOperator.from_cells(torch.zeros(n, n, n), density=density, outside=2)


def _follow(what: str, solver: LinearSolver, operators: Sequence) -> dict[str, object]:
    """Median times from the second operator on."""
    generator = torch.Generator().manual_seed(0)
    records: list[tuple[float, ...]] = []
    prepared: Prepared | None = None
    for A in operators:
        b = A.mask(torch.randn(*A.batch, *A.domain, dtype=torch.float64, generator=generator))

        if prepared is None:
            prepared = solver.prepare(A)
            prepared.run(b, None)
            continue
        new = _timed(solver.prepare, A, b)
        old = _timed(prepared.update, A, b)
        prepared = old[-1]
        records.append((*new[:-1], *old[:-1]))
    table = np.median(np.array(records), axis=0)
    setup_new, solve_new, steps_new, setup, solve, steps = map(float, table)
    return {
        "what": what,
        "new": setup_new + solve_new,
        "updated": setup + solve,
        "ratio": (setup_new + solve_new) / (setup + solve),
        "solve": solve,
        "setup_new": setup_new,
        "setup": setup,
        "steps_new": steps_new,
        "steps": steps,
    }


def _timed(
    prepare: Callable[[PoissonOperator], Prepared], A: PoissonOperator, b: Tensor
) -> tuple[float, float, float, Prepared]:
    start = time.process_time()
    prepared = prepare(A)
    middle = time.process_time()
    outcome = prepared.run(b, None)
    solve = time.process_time() - middle
    return 1e3 * (middle - start), 1e3 * solve, float(outcome.iterations.double().mean()), prepared


def _backward(n: int, length: int, seed: int) -> dict[str, object]:
    """Backward passes of a moving problem; the last adjoint is known to one of them."""
    A, b = build_scene("smoke", n, seed)
    weight = A.mask(torch.randn(A.domain, dtype=torch.float64))
    known = AdjointStart()
    times, steps = np.zeros((2, length)), np.zeros((2, length))
    for k in range(length):
        changed = {name: c * (1 + 1e-3 * k) for name, c in A.coefficients.items()}
        turned = weight + 1e-3 * k * A.mask(torch.randn(A.domain, dtype=torch.float64))
        for place, start in enumerate((AdjointStart(), known)):
            right = b.clone().requires_grad_()
            x = linear_solve(A.with_coefficients(changed), right, GRID, adjoint=start).value
            begun = time.process_time()
            x.backward(turned)
            times[place, k] = 1e3 * (time.process_time() - begun)
            steps[place, k] = start.iterations
    cold, warm = np.median(times[:, 1:], axis=1)
    return {
        "what": "backward pass from the last adjoint",
        "new": cold,
        "updated": warm,
        "ratio": cold / warm,
        "solve": None,
        "setup": 0.0,
        "setup_new": 0.0,
        "steps_new": float(np.median(steps[0, 1:])),
        "steps": float(np.median(steps[1, 1:])),
    }
