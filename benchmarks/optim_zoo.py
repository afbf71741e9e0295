"""Which optimizer trains the networks of the zoo, Burgers with its front and a reaction?

Every method has the same compiled residuals, gradient and Jacobian, the same CPU time, and points
drawn anew by residual at the same pace. First-order methods run at several learning rates, each
with its own row. Errors are relative, in the L2 norm against the reference.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from record import Column, Result, Size
from torch import Tensor

from solvers.curvature import Objective
from solvers.optim import DiffGrad, SelfScaledBroyden, minimize_gns
from solvers.pde import Problem, problems
from solvers.pinn import MLP, PINN

__all__ = ["run"]

TITLE = "Training on zoo problems: error, and CPU time [s] to an error, one thread"
LEVELS = (1e-2, 1e-3)
PROBLEMS: dict[str, Callable[[], Problem]] = {
    "Burgers": problems.Burgers,
    "reaction": problems.Reaction,
}
# Seconds of a training, seeds, hidden layers, points.
WORK = {"tiny": (0.1, 1, 2, 200), "small": (3.0, 2, 3, 1500), "full": (30.0, 5, 3, 1500)}
WIDTH = 16
PACE = 0.5
"""CPU time between two draws of points [s]."""

LOOK = 0.05
"""CPU time of training between two looks at the error [s]."""

Turns = Callable[[PINN, Tensor], Iterator[Tensor]]


def first_order(make: Callable[[list[Tensor]], torch.optim.Optimizer]) -> Turns:
    def turns(pinn: PINN, theta: Tensor) -> Iterator[Tensor]:
        x = theta.clone().requires_grad_()
        optimizer = make([x])
        while True:
            for _ in range(50):
                x.grad = pinn.collocation.loss_and_gradient(x.detach())[1]
                optimizer.step()
            yield x.detach()

    return turns


def limited_memory(pinn: PINN, theta: Tensor) -> Iterator[Tensor]:
    x = theta.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [x], max_iter=20, history_size=50, line_search_fn="strong_wolfe",
        tolerance_grad=0.0, tolerance_change=0.0,
    )  # fmt: skip

    def closure() -> float:
        loss, x.grad = pinn.collocation.loss_and_gradient(x.detach())
        return loss

    while True:
        optimizer.step(closure)
        yield x.detach()


def broyden(pinn: PINN, theta: Tensor) -> Iterator[Tensor]:
    search = SelfScaledBroyden(pinn.collocation.loss_and_gradient, theta)
    while True:
        search.refresh()
        for _ in range(50):
            search.step()
        yield search.point


def damped(damping: Literal["gain", "progress", "nielsen"], gamma: float = 1.0) -> Turns:
    def turns(pinn: PINN, theta: Tensor) -> Iterator[Tensor]:
        radius = gamma
        while True:
            found = minimize_gns(
                Objective.of_source(pinn.collocation, theta), damping=damping, gamma=radius,
                iterations=3, tolerance=0.0, on_failure="mask",
            )  # fmt: skip
            theta, radius = found.value, found.steps[-1].gamma
            yield theta

    return turns


def methods(size: Size) -> dict[str, Turns]:
    rates = (1e-2,) if size == "tiny" else (1e-3, 3e-3, 1e-2, 3e-2)
    table: dict[str, Turns] = {}
    for rate in rates:
        table[f"Adam, rate {rate:g}"] = first_order(lambda p, r=rate: torch.optim.Adam(p, lr=r))
    for rate in rates:
        table[f"diffGrad, rate {rate:g}"] = first_order(lambda p, r=rate: DiffGrad(p, lr=r))
    table["diffGrad relative, rate 0.01"] = first_order(
        lambda p: DiffGrad(p, lr=1e-2, relative=True)
    )
    table["L-BFGS"] = limited_memory
    table["self-scaled Broyden"] = broyden
    table["Levenberg-Marquardt"] = damped("nielsen", 1e2)
    table["GNS, gain ratio"] = damped("gain")
    table["GNS, progress test"] = damped("progress")
    return table


def train(pinn: PINN, turns: Turns, seconds: float) -> dict[str, Any]:
    """Error at the end, and CPU time to each level; looking at the error is not counted."""
    meter = pinn.meter()
    steps = turns(pinn, pinn.initial())
    reached: dict[float, float] = {}
    spent, drawn, looked, error = 0.0, 0.0, 0.0, math.inf
    while spent < seconds:
        begun = time.process_time()
        theta = next(steps)
        if spent - drawn > PACE:
            drawn = spent
            pinn.collocation.move(theta)
        spent += time.process_time() - begun
        if spent - looked < LOOK and spent < seconds:
            continue
        looked, error = spent, meter(pinn.field(theta))
        if not math.isfinite(error):
            return {"error": math.inf, "reached": {}}
        for level in LEVELS:
            if error < level:
                reached.setdefault(level, spent)
    return {"error": error, "reached": reached}


def run(size: Size, seed: int = 0) -> Result:
    """Train by every method on every problem."""
    seconds, seeds, depth, points = WORK[size]
    rows = []
    for name, problem in PROBLEMS.items():
        for method, turns in methods(size).items():
            ends = []
            for k in range(seeds):
                pinn = PINN(problem(), MLP(WIDTH, depth), seed=seed + k, points=points)
                ends.append(train(pinn, turns, seconds))
            row: dict[str, Any] = {
                "problem": name,
                "method": method,
                "error": statistics.median(end["error"] for end in ends),
                "worst": max(end["error"] for end in ends),
            }
            for level in LEVELS:
                times = [end["reached"][level] for end in ends if level in end["reached"]]
                row[f"{level:g}"] = statistics.mean(times) if len(times) == seeds else None
            rows.append(row)
    return Result(
        title=TITLE,
        columns=(
            Column("problem", "problem"),
            Column("method", "method"),
            Column("error", "median error", ".1e"),
            Column("worst", "worst error", ".1e"),
            *(Column(f"{level:g}", f"time to {level:g}, all seeds", ".2f") for level in LEVELS),
        ),
        rows=rows,
        settings={"seconds": seconds, "seeds": seeds, "hidden": [WIDTH] * depth, "points": points,
                  "pace": PACE},
        verdict=verdict(rows),
    )  # fmt: skip


def verdict(rows: list[dict[str, Any]]) -> list[str]:
    lines = []
    for problem in dict.fromkeys(row["problem"] for row in rows):
        here = {row["method"]: row for row in rows if row["problem"] == problem}
        marquardt, gain, progress = (
            here[name]["error"]
            for name in ("Levenberg-Marquardt", "GNS, gain ratio", "GNS, progress test")
        )
        lines.append(
            f"{problem}: GNS ends at {progress:.1e} with the paper's progress test and at "
            f"{gain:.1e} with the gain ratio, Levenberg-Marquardt at {marquardt:.1e}."
        )
        rates = [name.removeprefix("Adam") for name in here if name.startswith("Adam")]
        better = [r for r in rates if here[f"diffGrad{r}"]["error"] < here[f"Adam{r}"]["error"]]
        best = {
            kind: min(here[f"{kind}{r}"]["error"] for r in rates) for kind in ("Adam", "diffGrad")
        }
        lines.append(
            f"{problem}: diffGrad is ahead of Adam at {len(better)} of {len(rates)} rates; at the "
            f"best rate of each it ends at {best['diffGrad']:.1e}, Adam at {best['Adam']:.1e}."
        )
        winner = min(here.values(), key=lambda row: row["error"])
        lines.append(f"{problem}: least error {winner['error']:.1e}, by {winner['method']}.")
    return lines
