"""What do gradients, batches and prepared solvers cost?

The backward pass is one more solve with the same set-up. A batch of systems is one native call.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch
from linear_scenes import build_scene
from record import Column, Result, Size
from torch import Tensor

from solvers.linear import ConjugateGradient, Multigrid, PoissonOperator, linear_solve

__all__ = ["run"]

TITLE = "CPU time of gradients and of batches [ms], one thread"
SIDE = {"tiny": 12, "small": 48, "full": 128}
BATCH = {"tiny": (4, 6), "small": (64, 16), "full": (64, 16)}
SOLVER = ConjugateGradient(preconditioner=Multigrid())


def run(size: Size, seed: int = 0) -> Result:
    """Time forward and backward passes, and a batch against the loop over its items."""
    rows = []
    repetitions = 2 if size == "tiny" else 5
    for scene in ("smoke", "jumps"):
        A, b = build_scene(scene, SIDE[size], seed)
        for wanted in ("b", "b and coefficients"):
            rows.append(_gradient_row(scene, A, b, wanted, repetitions))
    rows.append(_batch_row(*BATCH[size], seed, repetitions))
    backward = max(row["ratio"] for row in rows[:-1])
    return Result(
        title=TITLE,
        columns=(
            Column("what", "what"),
            Column("first", "forward, or loop", ".4g"),
            Column("second", "backward, or batch", ".4g"),
            Column("ratio", "second / first", ".2f"),
        ),
        rows=rows,
        settings={"side": SIDE[size], "batch": BATCH[size]},
        verdict=[
            f"The backward pass costs at most {backward:.2f} times the forward one.",
            f"A batch takes {1 / rows[-1]['ratio']:.1f} times less than the loop.",
        ],
    )


def _best(work: Callable[[], object], repetitions: int) -> float:
    times = []
    for _ in range(repetitions):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return 1e3 * min(times)


def _gradient_row(
    scene: str, A: PoissonOperator, b: Tensor, wanted: str, repetitions: int
) -> dict[str, object]:
    leaves = {name: tensor.clone() for name, tensor in A.coefficients.items()}
    if wanted != "b":
        for leaf in leaves.values():
            leaf.requires_grad_()
    right = b.clone().requires_grad_()
    forward, backward = [], []
    for _ in range(repetitions):
        operator = A.with_coefficients(leaves)
        start = time.process_time()
        x = linear_solve(operator, right, SOLVER).value
        middle = time.process_time()
        weight = torch.ones_like(x)
        begun = time.process_time()
        x.backward(weight)
        forward.append(middle - start)
        backward.append(time.process_time() - begun)
    return {
        "what": f"{scene}, {wanted}",
        "first": 1e3 * min(forward),
        "second": 1e3 * min(backward),
        "ratio": min(backward) / min(forward),
    }


def _batch_row(count: int, n: int, seed: int, repetitions: int) -> dict[str, object]:
    generator = torch.Generator().manual_seed(seed)
    draw = torch.rand(count, n, n, n, dtype=torch.float64, generator=generator)
    b = torch.randn(count, n, n, n, dtype=torch.float64, generator=generator)
    cells = torch.zeros(n, n, n, dtype=torch.long)
    A = PoissonOperator.from_cells(cells, density=draw + 0.5, outside=2)
    alone = [PoissonOperator(tuple(c[i] for c in A.couplings), A.boundary[i]) for i in range(count)]
    together = linear_solve(A, b, SOLVER).value
    one = linear_solve(alone[-1], b[-1], SOLVER).value
    pairs = [
        (
            _best(lambda: [linear_solve(M, r, SOLVER) for M, r in zip(alone, b, strict=True)], 1),
            _best(lambda: linear_solve(A, b, SOLVER), 1),
        )
        for _ in range(3 * repetitions)
    ]
    return {
        "what": f"batch of {count} systems of {n}^3, in turns",
        "first": median(loop for loop, _ in pairs),
        "second": median(batch for _, batch in pairs),
        "ratio": median(batch / loop for loop, batch in pairs),
        "difference": float((together[-1] - one).abs().max()),
    }
