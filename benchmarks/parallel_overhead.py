"""What does a differentiable step over workers cost beyond its computation?

Four items share 50 KB of parameters; a step maps, adds up and goes backward. The items compute next
to nothing, so that the time of a step is that of messages and bookkeeping. Wall-clock time.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from record import Column, Result, Size
from torch import Tensor

from solvers.parallel import (
    Executor,
    RayExecutor,
    SerialExecutor,
    ThreadExecutor,
    differentiable_map,
)

__all__ = ["run"]

TITLE = "Time of a step over two workers beyond its computation [ms]"
ITEMS = 4
PARAMETERS = 6250
REPETITIONS = {"tiny": 5, "small": 60, "full": 300}


def run(size: Size, seed: int = 0) -> Result:
    """Time a call, a forward pass and a whole step of each executor."""
    rows = []
    serial = 0.0
    executors: dict[str, Callable[[], Executor]] = {
        "serial": lambda: SerialExecutor(2),
        "threads": lambda: ThreadExecutor(2),
        "ray": lambda: RayExecutor(2),
    }
    for name, make in executors.items():
        with make() as executor:
            row = _measure(executor, REPETITIONS[size], seed)
        serial = serial or row["step"]
        rows.append({"executor": name, **row, "beyond": row["step"] - serial})
    return Result(
        title=TITLE,
        columns=(
            Column("executor", "executor"),
            Column("call", "empty call", ".3f"),
            Column("forward", "forward", ".2f"),
            Column("step", "forward and backward", ".2f"),
            Column("least", "least of all", ".2f"),
            Column("beyond", "beyond serial", ".2f"),
        ),
        rows=rows,
        settings={"items": ITEMS, "parameters": PARAMETERS, "repetitions": REPETITIONS[size]},
        verdict=[f"A step with Ray takes {rows[-1]['beyond']:.1f} ms more than in this thread."],
    )


def _measure(executor: Executor, repetitions: int, seed: int) -> dict[str, float]:
    generator = torch.Generator().manual_seed(seed)
    theta = torch.randn(PARAMETERS, generator=generator, dtype=torch.float64).requires_grad_()
    items = [torch.randn(3, generator=generator, dtype=torch.float64) for _ in range(ITEMS)]

    def forward() -> list[Tensor]:
        return differentiable_map(_scaled_norm, items, parameters=theta, executor=executor)

    def step() -> None:
        torch.stack(forward()).sum().backward()

    steps = _times(step, repetitions)
    return {
        "call": statistics.median(_times(lambda: executor.submit(abs, 1).result(), repetitions)),
        "forward": statistics.median(_times(forward, repetitions)),
        "step": statistics.median(steps),
        "least": min(steps),
    }


def _scaled_norm(item: Tensor, theta: Tensor) -> Tensor:
    return item.sum() * theta.square().sum()


def _times(work: Callable[[], object], repetitions: int) -> list[float]:
    for _ in range(3):
        work()
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        work()
        times.append(1e3 * (time.perf_counter() - start))
    return times
