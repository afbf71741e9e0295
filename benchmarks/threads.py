"""Do two threads work as fast as two processes that know nothing of each other?

The same work by one thread, by two threads, and by two independent processes that get half each.
The three take turns; wall-clock time, and the ratios of the same round.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from contact_step import HOLD, TIMESTEP
from linear_scenes import build_scene
from pinn_engine import NU, exact_ends, residual
from record import Column, Result, Size
from scenes import load_quietly, locomotion_file, random_controls

import physim
from solvers.derivatives import CompiledEngine, Layers, ResidualProgram
from solvers.linear import ConjugateGradient, Multigrid

__all__ = ["run"]

TITLE = "The same work by one thread, two threads and two independent processes, wall time [ms]"
# Kind of work, what of, how much of it, times in a row.
WORK = {
    "tiny": (("rollout", "hopper", 64, 1), ("engine", "8x8", 200, 2)),
    "small": (
        ("rollout", "hopper", 1024, 1),
        ("rollout", "ant", 512, 1),
        ("engine", "20x20x20", 10_000, 10),
        ("pressure", "smoke", 64, 5),
    ),
    "full": (
        ("rollout", "hopper", 4096, 1),
        ("rollout", "half_cheetah", 4096, 1),
        ("rollout", "ant", 2048, 1),
        ("rollout", "humanoid", 512, 1),
        ("engine", "20x20x20", 2500, 200),
        ("engine", "20x20x20", 10_000, 50),
        ("engine", "64x64x64x64", 10_000, 5),
        ("pressure", "smoke", 128, 2),
    ),
}
ROUNDS = {"tiny": 1, "small": 5, "full": 9}
STEPS = 50

Repeat = Callable[[int], object]


def run(size: Size, seed: int = 0) -> Result:
    """Time the three in turns for every kind of work."""
    rows = [_contest(*work, rounds=ROUNDS[size], seed=seed) for work in WORK[size]]
    return Result(
        title=TITLE,
        columns=(
            Column("what", "work"),
            Column("amount", "amount", "d"),
            Column("one", "one thread", ".4g"),
            Column("two", "two threads", ".4g"),
            Column("processes", "two processes", ".4g"),
            Column("gain_two", "speed-up, threads", ".2f"),
            Column("gain_processes", "speed-up, processes", ".2f"),
            Column("share", "threads / processes", ".2f"),
        ),
        rows=rows,
        settings={"rounds": ROUNDS[size], "steps": STEPS, "timestep": TIMESTEP, "seed": seed},
        verdict=[
            f"Two threads reach {min(row['share'] for row in rows):.2f} to "
            f"{max(row['share'] for row in rows):.2f} of what two processes do."
        ],
    )


def _contest(
    kind: str, name: str, amount: int, repeats: int, *, rounds: int, seed: int
) -> dict[str, Any]:
    one = MAKERS[kind](name, amount, 1, seed)
    two = MAKERS[kind](name, amount, 2, seed)
    # a system of equations is not cut in two: each process solves it half as often
    whole = kind == "pressure"
    share = (amount, repeats / 2) if whole else (amount / 2, repeats)
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for part in range(2):
        ours, theirs = context.Pipe()
        arguments = (theirs, kind, name, int(share[0]), seed + part)
        process = context.Process(target=_independent, args=arguments, daemon=True)
        process.start()
        processes.append(process)
        pipes.append(ours)

    def independent() -> None:
        for part, pipe in enumerate(pipes):
            pipe.send(max(1, int(share[1] + 0.5 * part)))
        for pipe in pipes:
            pipe.recv()

    work: dict[str, Callable[[], object]] = {
        "one": lambda: one(repeats),
        "two": lambda: two(repeats),
        "processes": independent,
    }
    seconds: dict[str, list[float]] = {key: [] for key in work}
    for number in range(rounds + 1):
        for key, call in work.items():
            start = time.perf_counter()
            call()
            if number:
                seconds[key].append(time.perf_counter() - start)
    for pipe, process in zip(pipes, processes, strict=True):
        pipe.send(0)
        process.join()

    def ratio(over: str, under: str) -> float:
        pairs = zip(seconds[over], seconds[under], strict=True)
        return statistics.median(a / b for a, b in pairs)

    return {
        "what": f"{kind}, {name}",
        "amount": amount,
        **{key: 1e3 * statistics.median(times) / repeats for key, times in seconds.items()},
        "gain_two": ratio("one", "two"),
        "gain_processes": ratio("one", "processes"),
        "share": ratio("processes", "two"),
    }


def _independent(pipe: Any, kind: str, name: str, amount: int, seed: int) -> None:
    torch.set_num_threads(1)
    work = MAKERS[kind](name, amount, 1, seed)
    while repeats := pipe.recv():
        work(repeats)
        pipe.send(True)


def make_rollout(name: str, batch: int, threads: int, seed: int) -> Repeat:
    """Steps of a robot in contact under random torques."""
    model = load_quietly(locomotion_file(name))
    simulator = physim.Simulator(model, timestep=TIMESTEP, threads=threads)
    state = simulator.initial_state(batch=batch, on_penetration="ignore")
    first = round(1.0 / TIMESTEP)
    controls = random_controls(
        model, steps=first + STEPS, batch=batch, hold=HOLD, scale=1.0, seed=seed
    )
    state = simulator.rollout(state, controls[:first], on_failure="mask").state(-1)
    rest = controls[first:].contiguous()
    return lambda repeats: [
        simulator.rollout(state, rest, on_failure="mask") for _ in range(repeats)
    ]


def make_engine(name: str, points: int, threads: int, seed: int) -> Repeat:
    """Loss and gradient of a network on the equation of Burgers."""
    at = torch.rand(points, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    at[:, 0] = 2 * at[:, 0] - 1
    program = ResidualProgram(
        residual, Layers((2, *map(int, name.split("x")), 1)), fields=["u"],
        coordinates=["x", "t"], probe=at, coefficients={"nu": NU}, transform=exact_ends,
        embedding=lambda x: [x[0], 2.0 * x[1] - 1.0],
    )  # fmt: skip
    engine, theta = CompiledEngine(program, at, threads=threads), program.layers.initial(0)
    return lambda repeats: [engine.loss_and_gradient(theta) for _ in range(repeats)]


def make_pressure(name: str, side: int, threads: int, seed: int) -> Repeat:
    """Solves of a prepared pressure equation."""
    operator, b = build_scene(name, side, seed)
    prepared = ConjugateGradient(preconditioner=Multigrid(threads=threads)).prepare(operator)
    return lambda repeats: [prepared.solve(b) for _ in range(repeats)]


MAKERS: dict[str, Callable[[str, int, int, int], Repeat]] = {
    "rollout": make_rollout,
    "engine": make_engine,
    "pressure": make_pressure,
}
