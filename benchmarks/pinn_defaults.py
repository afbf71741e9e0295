"""Does every named problem reach, with default settings, the error that its docstring states?

``PINN(problems.X()).fit()``, or the solver that the docstring names, and nothing else, but that
training ends where the stated error is reached, and that a minute is one of CPU time, so that what
runs beside does not count.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable
from typing import Any

import torch
from record import Column, Result, Size

from solvers.pde import Problem, problems
from solvers.pinn import PINN, DeepRitz, LagrangianPINN

__all__ = ["makers", "run", "statement"]

TITLE = "Named problems with default settings, one thread, at most a minute of CPU time each"
MINUTE = 60.0
SEEDS = {"tiny": 1, "small": 1, "full": 3}
QUICK = ("Poisson", "Heat")
SOLVERS = {"PINN": PINN, "LagrangianPINN": LagrangianPINN, "DeepRitz": DeepRitz}
_STATEMENT = re.compile(r"A\s+default\s+`(\w+)`\s+reaches\s+([\d.e-]+\d)\s+in\s+a\s+minute")


def makers() -> dict[str, Callable[[], Problem]]:
    """All named problems."""
    return {name: getattr(problems, name) for name in problems.__all__ if name[0].isupper()}


def statement(maker: Callable[[], Problem]) -> tuple[str, float]:
    """The solver and the relative L2 error that a docstring states.

    Raises:
        ValueError: If it states none.
    """
    found = _STATEMENT.search(maker.__doc__ or "")
    if found is None:
        raise ValueError(f"{maker.__name__}: its docstring states no error of a default network")
    return found[1], float(found[2])


def one_run(
    solver: Callable[..., Any], maker: Callable[[], Problem], seed: int, stated: float
) -> dict[str, float]:
    """Error and CPU seconds after compilation where training ends."""
    solver(maker(), seed=seed).fit(10.0, steps=2, progress=False)
    last = solver(maker(), seed=seed).fit(
        20 * MINUTE, cpu_budget=MINUTE, target=stated, on_failure="mask", progress=False
    )
    return {"end": last.history[-1]["relative_l2"], "spent": last.history[-1]["cpu_seconds"]}


def run(size: Size, seed: int) -> Result:
    rows: list[dict[str, Any]] = []
    for name, maker in makers().items():
        if size == "tiny" and name not in QUICK:
            continue
        solver, stated = statement(maker)
        runs = [one_run(SOLVERS[solver], maker, seed + k, stated) for k in range(SEEDS[size])]
        worst = max(each["end"] for each in runs)
        rows.append(
            {
                "name": name,
                "solver": solver,
                "stated": stated,
                "worst": worst,
                "spent": statistics.median(each["spent"] for each in runs),
                "holds": worst <= stated,
                "runs": runs,
            }
        )
    missed = [row["name"] for row in rows if not row["holds"]]
    return Result(
        title=TITLE,
        columns=(
            Column("name", "problem"),
            Column("solver", "solver"),
            Column("stated", "stated error", ".0e"),
            Column("worst", "reached", ".1e"),
            Column("spent", "after [s]", ".1f"),
        ),
        rows=rows,
        settings={"seeds": SEEDS[size], "torch": torch.__version__},
        verdict=[
            f"Not reached: {', '.join(missed)}."
            if missed
            else f"All {len(rows)} reach what they state; the worst of {SEEDS[size]} seeds counts."
        ],
    )
