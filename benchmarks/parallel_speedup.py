"""Do two workers of Ray solve systems as fast as two processes that know nothing of each other?

The same pressure solves one after the other, by two independent processes that get half each, and
by `executor.map`. The three take turns; wall-clock time, and the ratios of the same round.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from typing import Any

import torch
from linear_scenes import build_scene
from record import Column, Result, Size
from torch import Tensor

from solvers.linear import ConjugateGradient, Multigrid, PoissonOperator
from solvers.parallel import RayExecutor

__all__ = ["run"]

TITLE = "Many pressure solves: two workers of Ray against two independent processes"
# Cells a side, systems, solves of each.
LADDER = {
    "tiny": ((12, 2, 2),),
    "small": ((32, 4, 40), (64, 4, 8)),
    "full": ((32, 8, 100), (64, 8, 20), (96, 4, 12)),
}
ROUNDS = {"tiny": 2, "small": 5, "full": 9}

_System = tuple[PoissonOperator, Tensor]


def run(size: Size, seed: int = 0) -> Result:
    """Time the three in turns at a ladder of sizes."""
    rows = []
    with RayExecutor(workers=2) as executor:
        executor.start()
        for side, count, solves in LADDER[size]:
            rows.append(_contest(executor, side, count, solves, ROUNDS[size], seed))
    worst = min(row["share"] for row in rows)
    return Result(
        title=TITLE,
        columns=(
            Column("side", "side", "d"),
            Column("item", "a system [ms]", ".4g"),
            Column("serial", "one process [ms]", ".4g"),
            Column("processes", "two processes", ".4g"),
            Column("ray", "Ray", ".4g"),
            Column("gain_processes", "speed-up, processes", ".2f"),
            Column("gain_ray", "speed-up, Ray", ".2f"),
            Column("share", "Ray / processes", ".2f"),
        ),
        rows=rows,
        settings={"ladder": LADDER[size], "rounds": ROUNDS[size], "seed": seed},
        verdict=[f"Ray reaches at least {worst:.2f} of the speed-up of independent processes."],
    )


def solve_systems(systems: list[_System], solves: int) -> float:
    """Solve every system many times; the sum of the solutions' norms."""
    solver = ConjugateGradient(preconditioner=Multigrid())
    total = 0.0
    for operator, b in systems:
        prepared = solver.prepare(operator)
        total += sum(float(prepared.solve(b).value.norm()) for _ in range(solves))
    return total


def _contest(
    executor: RayExecutor, side: int, count: int, solves: int, rounds: int, seed: int
) -> dict[str, Any]:
    systems = [build_scene("smoke", side, seed + number) for number in range(count)]
    shared = [executor.share([system]) for system in systems]
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for part in range(2):
        ours, theirs = context.Pipe()
        half = systems[part::2]
        arguments = (theirs, [(A.couplings, A.boundary, b) for A, b in half], solves)
        process = context.Process(target=_independent, args=arguments, daemon=True)
        process.start()
        processes.append(process)
        pipes.append(ours)

    def two_processes() -> float:
        for pipe in pipes:
            pipe.send(True)
        return sum(pipe.recv() for pipe in pipes)

    def in_ray() -> float:
        return sum(executor.map(_one_more_time(solves), shared))

    work = {
        "serial": lambda: solve_systems(systems, solves),
        "processes": two_processes,
        "ray": in_ray,
    }
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for number in range(rounds + 1):
        answers = []
        for name, call in work.items():
            start = time.perf_counter()
            answers.append(call())
            if number:
                seconds[name].append(time.perf_counter() - start)
        assert max(answers) - min(answers) <= 1e-9 * max(answers)
    for pipe, process in zip(pipes, processes, strict=True):
        pipe.send(False)
        process.join()
    gains = {
        name: statistics.median(
            one / many for one, many in zip(seconds["serial"], seconds[name], strict=True)
        )
        for name in ("processes", "ray")
    }
    share = statistics.median(
        one / other for one, other in zip(seconds["processes"], seconds["ray"], strict=True)
    )
    middle = {name: 1e3 * statistics.median(times) for name, times in seconds.items()}
    return {
        "side": side,
        "item": middle["serial"] / count,
        **middle,
        "gain_processes": gains["processes"],
        "gain_ray": gains["ray"],
        "share": share,
    }


def _one_more_time(solves: int) -> Any:
    """The work as a closure, which travels to workers that do not know this file."""

    def solve(systems: list[_System]) -> float:
        solver = ConjugateGradient(preconditioner=Multigrid())
        prepared = [(solver.prepare(operator), b) for operator, b in systems]
        return sum(float(p.solve(b).value.norm()) for p, b in prepared for _ in range(solves))

    return solve


def _independent(pipe: Any, parts: list[Any], solves: int) -> None:
    torch.set_num_threads(1)
    systems = [(PoissonOperator(couplings, boundary), b) for couplings, boundary, b in parts]
    while pipe.recv():
        pipe.send(solve_systems(systems, solves))
