"""How do ways of obeying an equation compare: softly, hard, by experts, or without a network?

Diffusion with sorption for initial values from 0 to 0.2. Errors are relative in the mean square
over space and time, against 1024 cells, for 8 initial values that no arm was trained on; mean and
spread over seeds. Arms of one group have the same number of coefficients. One thread, CPU time;
what workers cost is wall-clock time.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
from record import Column, Result, Size
from timing import alternate
from torch import Tensor

from constraints.systems import diffusion_sorption as ds
from constraints.systems import relative_errors
from solvers.parallel import Executor, RayExecutor, SerialExecutor

__all__ = ["run"]

TITLE = "Diffusion-sorption: error of arms and baselines"
STEPS = {"tiny": 1, "small": 20, "full": 300}
SEEDS = {"tiny": 1, "small": 1, "full": 3}
ARMS = {
    "soft": ds.Arm(functions=1),
    "hard, 64": ds.Arm(functions=64),
    "4 experts x 16, apart": ds.Arm(functions=16, experts=4, is_local=False),
    "4 experts x 16, held": ds.Arm(functions=16, experts=4, is_held=True),
    "hard, 128": ds.Arm(functions=128, width=128),
    "2 experts x 64, held": ds.Arm(functions=64, experts=2, is_held=True, width=128),
    "4 experts x 32, apart": ds.Arm(functions=32, experts=4, is_local=False),
    "4 experts x 32, held": ds.Arm(functions=32, experts=4, is_held=True),
}
SNAPSHOTS = (3, 9)


def run(size: Size, seed: int = 0) -> Result:
    """Train every arm, and put the baselines beside them."""
    test = torch.linspace(0.01, 0.19, 8, dtype=torch.float64)
    began = time.process_time()
    solution = ds.reference(test)
    classical = (time.process_time() - began) / len(test)
    rows: list[dict[str, Any]] = []
    for name, arm in ARMS.items():
        rows.append(_train(name, arm, size, seed, test, solution))
    for count in SNAPSHOTS:
        known = torch.linspace(0, 0.2, count, dtype=torch.float64)
        guess = ds.interpolate_snapshots(test, known, ds.reference(known))
        error = float(relative_errors(guess, solution).mean())
        label = f"{count} solutions, interpolated"
        rows.append({"arm": label, "trained": error, "train": count * classical})
    rows.append({"arm": "LSODA, 1024 cells", "trained": 0.0, "train": 0.0, "predict": classical})
    ratio = _time_of_holding(size)
    messages = _cost_of_workers(size)
    by_arm = {row["arm"]: row for row in rows}
    held, hard = by_arm["4 experts x 32, held"], by_arm["hard, 128"]
    apart = by_arm["4 experts x 32, apart"]
    best = min((row for row in rows if row["arm"] in ARMS), key=lambda row: row["trained"])
    return Result(
        title=TITLE,
        columns=(
            Column("arm", "arm"),
            Column("coefficients", "coefficients", "d"),
            Column("untrained", "error untrained", ".2%"),
            Column("trained", "error trained", ".2%"),
            Column("spread", "over seeds", ".2%"),
            Column("jump", "jump", ".1e"),
            Column("iterations", "iterations", ".1f"),
            Column("train", "training [s]", ".3g"),
            Column("predict", "one field [s]", ".2g"),
        ),
        rows=rows,
        settings={
            "steps": STEPS[size],
            "seeds": SEEDS[size],
            "held_over_apart": ratio,
            "workers": messages,
        },
        verdict=[
            f"Best arm: {best['arm']} with {best['trained']:.2%}. The family has one parameter: "
            f"{SNAPSHOTS[0]} solutions interpolated give {rows[-3]['trained']:.2%}.",
            f"Held experts are {held['trained'] / hard['trained']:.2f} times the error of one "
            f"problem with as many coefficients, and jump {apart['jump'] / held['jump']:.0f} times "
            f"less than experts apart at {ratio:.2f} times their time.",
            f"A step of four small experts takes {messages['apart']:.1f} ms more with Ray apart, "
            f"{messages['held']:.1f} ms more held: every iteration is a message.",
            f"The classical solver takes {1e3 * classical:.0f} ms for a field.",
        ],
    )


def _train(
    name: str, arm: ds.Arm, size: Size, seed: int, test: Tensor, solution: Tensor
) -> dict[str, Any]:
    errors, before, seconds, jumps, iterations = [], [], [], [], []
    for number in range(SEEDS[size]):
        untrained = ds.train(arm, steps=0, seed=seed + number)
        before.append(float(relative_errors(untrained.predict(test), solution).mean()))
        fit = ds.train(arm, steps=STEPS[size], seed=seed + number)
        errors.append(float(relative_errors(fit.predict(test), solution).mean()))
        seconds.append(fit.seconds)
        iterations += fit.iterations
        if fit.mixture is not None:
            with torch.no_grad():
                jumps.append(float(fit.solve(test).jump().mean()))
    began = time.process_time()
    fit.predict(test)
    return {
        "arm": name,
        "coefficients": arm.functions * arm.experts,
        "untrained": statistics.mean(before),
        "trained": statistics.mean(errors),
        "spread": statistics.pstdev(errors),
        "jump": statistics.mean(jumps) if jumps and arm.experts > 1 else None,
        "iterations": statistics.mean(iterations) if iterations else None,
        "train": statistics.mean(seconds),
        "predict": (time.process_time() - began) / len(test),
    }


def _step(arm: ds.Arm, executor: Executor | None = None) -> Any:
    """A fit and its gradient, always with the same points."""
    fit = ds.train(arm, steps=0, executor=executor)
    initial = torch.tensor([0.05, 0.1, 0.15, 0.2], dtype=torch.float64)
    x = torch.rand(64, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def step() -> None:
        fit.basis.zero_grad()
        fit.solve(initial, seed=1)(x, ("u",)).square().mean().backward()

    return step


def _time_of_holding(size: Size) -> float:
    timings = alternate(
        {name: _step(ARMS[f"4 experts x 32, {name}"]) for name in ("apart", "held")},
        repetitions=1 if size == "tiny" else 5,
    )
    return timings.ratio("held", "apart")


def _cost_of_workers(size: Size) -> dict[str, float]:
    """Wall-clock time of a step with Ray beyond one in this thread, for next to no work [ms]."""
    repetitions = 2 if size == "tiny" else 15
    found = {}
    for name, is_held in (("apart", False), ("held", True)):
        arm = ds.Arm(functions=4, experts=4, is_held=is_held, points=64, width=8)
        medians = []
        for make in (lambda: SerialExecutor(2), lambda: RayExecutor(2)):
            with make() as executor:
                step = _step(arm, executor)
                times = []
                for _ in range(repetitions + 3):
                    began = time.perf_counter()
                    step()
                    times.append(time.perf_counter() - began)
                medians.append(1e3 * statistics.median(times[3:]))
        found[name] = medians[1] - medians[0]
    return found
