"""Which ways out of a failed training help, with Adam and with self-scaled Broyden?

Every row is one change to the same plain network: conditions by construction, a curriculum in the
coefficient, time marching, causal weights, weights by gradient norm or tangent kernel, subdomains,
points drawn or added by residual. Each gets the same CPU seconds of one thread with either
optimizer; errors are relative, in the L2 norm against the exact solution.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from record import Column, Result, Size

from solvers.pde import Problem, problems
from solvers.pinn import (
    MLP,
    PINN,
    XPINN,
    CausalWeights,
    Curriculum,
    GradientNormWeights,
    TangentKernelWeights,
    TimeMarching,
)

__all__ = ["run"]

TITLE = "Relative L2 error of each arm after the same CPU time, one thread"
SECONDS = {"tiny": 0.05, "small": 5.0, "full": 30.0}
SEEDS = {"tiny": 1, "small": 1, "full": 3}
OPTIMIZERS = {"adam": "adam", "broyden": "self-scaled-broyden"}
SOLVED = 5e-2


@dataclass(frozen=True)
class Case:
    """An equation at a setting where the plain network fails, and how its coefficient is raised."""

    name: str
    problem: Callable[[], Problem]
    coefficient: str
    values: tuple[float, ...]
    is_quick: bool = True


CASES = (
    Case("convection 30", lambda: problems.Convection(beta=30.0), "beta", (7.5, 15.0, 22.5)),
    Case("reaction 10", lambda: problems.Reaction(rho=10.0), "rho", (2.5, 5.0, 7.5)),
    Case(
        "convection 60",
        lambda: problems.Convection(beta=60.0),
        "beta",
        (15.0, 30.0, 45.0),
        is_quick=False,
    ),
)

Arm = Callable[[Case, dict[str, Any]], Any]

ARMS: dict[str, Arm] = {
    "plain": lambda case, plain: PINN(case.problem(), **plain),
    "exact conditions": lambda case, plain: PINN(case.problem(), **{**plain, "exact": "all"}),
    "curriculum": lambda case, plain: Curriculum(
        case.problem(), coefficient=case.coefficient, values=case.values, **plain
    ),
    "time marching": lambda case, plain: TimeMarching(
        case.problem(), windows=10, **{**plain, "points": 500, "most_points": 500}
    ),
    "causal weights": lambda case, plain: PINN(
        case.problem(), **plain, weights=CausalWeights(), reweight_every=20
    ),
    "gradient-norm weights": lambda case, plain: PINN(
        case.problem(), **plain, weights=GradientNormWeights(), reweight_every=100
    ),
    "tangent-kernel weights": lambda case, plain: PINN(
        case.problem(), **plain, weights=TangentKernelWeights(), reweight_every=100
    ),
    "subdomains (XPINN)": lambda case, plain: XPINN(
        case.problem(), pieces={"t": 4},
        **{**plain, "points": 500, "most_points": 500, "network": MLP(12, 3)},
    ),
    "points by residual (RAD)": lambda case, plain: PINN(
        case.problem(), **{**plain, "sampling": "adaptive"}
    ),
    "points added (RAR)": lambda case, plain: PINN(
        case.problem(), **{**plain, "sampling": "refined"}
    ),
}  # fmt: skip


def one_run(arm: Arm, case: Case, optimizer: str, seed: int, budget: float) -> dict[str, float]:
    """Error and CPU seconds of one training."""
    plain = {
        "network": MLP(20, 3), "points": 2000, "most_points": 2000, "exact": "periodic",
        "sampling": "even", "condition_weight": 100.0, "seed": seed,
    }  # fmt: skip
    solver = arm(case, plain)
    result = solver.fit(1000 * budget, cpu_budget=budget, optimizer=optimizer, on_failure="mask")
    return {"error": result.relative_l2, "seconds": result.history[-1]["cpu_seconds"]}


def run(size: Size, seed: int) -> Result:
    budget, seeds = SECONDS[size], range(seed, seed + SEEDS[size])
    quick = [case for case in CASES if case.is_quick]
    cases = {"tiny": quick[:1], "small": quick, "full": CASES}[size]
    rows = []
    for case in cases:
        for name, arm in ARMS.items():
            row: dict[str, Any] = {"problem": case.name, "name": name}
            for key, optimizer in OPTIMIZERS.items():
                runs = [one_run(arm, case, optimizer, each, budget) for each in seeds]
                row[key] = statistics.median(each["error"] for each in runs)
                row[f"{key}_seconds"] = statistics.median(each["seconds"] for each in runs)
                row[f"{key}_runs"] = runs
            rows.append(row)
    return Result(
        title=TITLE,
        columns=(
            Column("problem", "problem"),
            Column("name", "arm"),
            Column("adam", "Adam", ".1e"),
            Column("adam_seconds", "after", ".1f"),
            Column("broyden", "self-scaled Broyden", ".1e"),
            Column("broyden_seconds", "after", ".1f"),
        ),
        rows=rows,
        settings={"seconds": budget, "seeds": len(seeds), "torch": torch.__version__},
        verdict=[_verdict(case, rows) for case in cases],
    )


def _verdict(case: Case, rows: list[dict[str, Any]]) -> str:
    mine = [row for row in rows if row["problem"] == case.name]
    solved = {key: [row["name"] for row in mine if row[key] < SOLVED] for key in OPTIMIZERS}
    return (
        f"{case.name}: below {SOLVED:.0e} with Adam: {', '.join(solved['adam']) or 'none'}; with "
        f"self-scaled Broyden: {', '.join(solved['broyden']) or 'none'}."
    )
