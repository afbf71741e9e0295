"""Which optimizer trains a physics-informed network, and in what time?

The problem is -u'' = (k pi)^2 sin(k pi x) on [0, 1] with zero ends: residuals at equal points and
a tanh network in float64. First-order methods run at several learning rates, each with its own
row: at one rate alone diffGrad would be compared with Adam at twice its effective rate.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from record import Column, Result, Size
from torch import Tensor, nn

from solvers.optim import GNS, DiffGrad

__all__ = ["run"]

TITLE = "Training a PINN for -u'' = (k pi)^2 sin(k pi x): error and CPU time [s], one thread"
LEVELS = {"tiny": 0.5, "small": 1e-3, "full": 1e-3}
# First-order steps, second-order steps and width.
WORK = {"tiny": (20, 3, 8), "small": (3000, 120, 16), "full": (10_000, 200, 20)}
WAVES = {"tiny": (1,), "small": (1, 4), "full": (1, 4)}
SEEDS = {"tiny": 1, "small": 3, "full": 5}


class Poisson:
    """Network and residuals; errors are relative in the L2 norm at 201 points."""

    def __init__(self, waves: int, width: int, seed: int) -> None:
        torch.manual_seed(seed)
        self.waves = waves
        self.net = nn.Sequential(
            nn.Linear(1, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1)
        ).double()
        with torch.no_grad():
            self.net[0].weight.mul_(2.0 * waves)
        self.x = torch.linspace(0, 1, 60, dtype=torch.float64)[:, None].requires_grad_()
        self.source = (waves * math.pi) ** 2 * torch.sin(waves * math.pi * self.x.detach())

    def residual(self) -> Tensor:
        u = self.net(self.x)
        (slope,) = torch.autograd.grad(u.sum(), self.x, create_graph=True)
        (second,) = torch.autograd.grad(slope.sum(), self.x, create_graph=True)
        inner = (second + self.source)[:, 0] / self.source.norm()
        return torch.cat([inner, 3 * torch.stack([u[0, 0], u[-1, 0]])])

    def loss(self) -> Tensor:
        return 0.5 * self.residual().square().sum()

    @torch.no_grad()
    def error(self) -> float:
        x = torch.linspace(0, 1, 201, dtype=torch.float64)[:, None]
        exact = torch.sin(self.waves * math.pi * x)
        return float((self.net(x) - exact).norm() / exact.norm())


def first_order(
    make: Callable[[Any], torch.optim.Optimizer],
) -> Callable[[Poisson], Iterator[None]]:
    def steps(problem: Poisson) -> Iterator[None]:
        optimizer = make(problem.net.parameters())
        while True:
            for _ in range(20):
                optimizer.zero_grad()
                problem.loss().backward()
                optimizer.step()
            yield

    return steps


def quasi_newton(problem: Poisson) -> Iterator[None]:
    optimizer = torch.optim.LBFGS(
        problem.net.parameters(), max_iter=10, history_size=50, line_search_fn="strong_wolfe",
        tolerance_grad=0.0, tolerance_change=0.0,
    )  # fmt: skip

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = problem.loss()
        loss.backward()
        return loss

    while True:
        optimizer.step(closure)
        yield


def damped(**options: Any) -> Callable[[Poisson], Iterator[None]]:
    def steps(problem: Poisson) -> Iterator[None]:
        optimizer = GNS(problem.net.parameters(), **options)
        while True:
            optimizer.step(problem.residual)
            yield

    return steps


def methods(size: Size) -> dict[str, tuple[Callable[[Poisson], Iterator[None]], bool]]:
    """Steps of each method, and whether it is of first order (20 steps a turn)."""
    rates = (1e-2,) if size == "tiny" else (1e-3, 3e-3, 1e-2, 3e-2)
    table: dict[str, tuple[Callable[[Poisson], Iterator[None]], bool]] = {}
    for rate in rates:
        table[f"Adam, rate {rate:g}"] = (
            first_order(lambda p, r=rate: torch.optim.Adam(p, lr=r)),
            True,
        )
    for rate in rates:
        table[f"diffGrad, rate {rate:g}"] = first_order(lambda p, r=rate: DiffGrad(p, lr=r)), True
    best = rates[len(rates) // 2]
    table[f"diffGrad relative, rate {best:g}"] = (
        first_order(lambda p: DiffGrad(p, lr=best, relative=True)), True,
    )  # fmt: skip
    table["L-BFGS"] = quasi_newton, False
    table["Levenberg-Marquardt"] = damped(damping="nielsen", gamma=1e2), False
    table["GNS, gain ratio"] = damped(damping="gain"), False
    table["GNS, progress test"] = damped(damping="progress"), False
    return table


def train(
    problem: Poisson, turns: Iterator[None], *, count: int, level: float
) -> tuple[float, float | None, float]:
    """Error at the end, CPU time to the level (None if missed), and CPU time of all turns."""
    spent, reached = 0.0, None
    for _ in range(count):
        begun = time.process_time()
        next(turns)
        spent += time.process_time() - begun
        if reached is None and problem.error() < level:
            reached = spent
    return problem.error(), reached, spent


def run(size: Size, seed: int = 0) -> Result:
    """Train by every method on every problem."""
    first, second, width = WORK[size]
    level = LEVELS[size]
    rows = []
    for waves in WAVES[size]:
        for name, (make, is_first) in methods(size).items():
            count = max(1, first // 20) if is_first else second
            ends = []
            for s in range(SEEDS[size]):
                problem = Poisson(waves, width, seed + s)
                ends.append(train(problem, make(problem), count=count, level=level))
            times = [reached for _, reached, _ in ends if reached is not None]
            rows.append({
                "waves": waves,
                "method": name,
                "error": statistics.median(error for error, _, _ in ends),
                "worst": max(error for error, _, _ in ends),
                "reached": len(times),
                "time": sum(times) / len(times) if len(times) == len(ends) else None,
                "total": sum(total for _, _, total in ends) / len(ends),
            })  # fmt: skip
    return Result(
        title=TITLE,
        columns=(
            Column("waves", "k", "d"),
            Column("method", "method"),
            Column("error", "median error", ".1e"),
            Column("worst", "worst error", ".1e"),
            Column("reached", f"seeds below {level:g}", "d"),
            Column("time", "time to there", ".2f"),
            Column("total", "time of all steps", ".2f"),
        ),
        rows=rows,
        settings={"first_order_steps": first, "other_steps": second, "width": width,
                  "seeds": SEEDS[size], "level": level},
        verdict=verdict(rows, level),
    )  # fmt: skip


def verdict(rows: list[dict[str, Any]], level: float) -> list[str]:
    lines = []
    for waves in dict.fromkeys(row["waves"] for row in rows):
        here = [row for row in rows if row["waves"] == waves]
        gain, progress = (
            next(row for row in here if row["method"] == f"GNS, {kind}")
            for kind in ("gain ratio", "progress test")
        )
        lines.append(
            f"k = {waves}: the paper's progress test ends at {progress['error']:.1e}, the gain "
            f"ratio with the same update at {gain['error']:.1e}."
        )
        adam, marquardt = (
            [row["time"] for row in here if row["method"].startswith(kind) and row["time"]]
            for kind in ("Adam", "Levenberg")
        )
        if adam and marquardt:
            lines.append(
                f"k = {waves}: Levenberg-Marquardt is {min(adam) / min(marquardt):.1f} times as "
                f"fast to {level:g} as Adam at its best rate."
            )
        elif marquardt:
            lines.append(f"k = {waves}: Adam misses {level:g} for a seed at every rate.")
    return lines
