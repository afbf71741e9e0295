"""What error does a physics-informed network reach in what time, and a classical solver beside it?

CPU seconds of one thread after compilation, median over seeds; errors are relative, in the L2 norm
against a reference that nobody trained on. A run that does not get there counts as infinite.
``--only REGEX`` trains the problems whose names match.
"""

from __future__ import annotations

import math
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from record import Column, Result, Size

from solvers.pde import Problem, evaluation_grid, problems
from solvers.pinn import MLP, PINN, LagrangianPINN, TwoBranchMLP

__all__ = ["run"]

TITLE = "Relative L2 error against CPU time [s], one thread"
LEVELS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
SEEDS = {"tiny": 1, "small": 1, "full": 3}


@dataclass(frozen=True)
class Case:
    """One line: a problem, a solver and the seconds that it gets."""

    name: str
    problem: Callable[[], Problem]
    seconds: float
    solver: type = PINN
    options: dict[str, Any] = field(default_factory=dict)
    is_quick: bool = True


EVEN = {"sampling": "even", "resample_every": 500}
CASES = (
    Case("Burgers 0.01/pi", problems.Burgers, 30.0),
    Case(
        "Burgers 0.01/pi, 4x24",
        problems.Burgers,
        120.0,
        options={"network": MLP(24, 4), "points": 5000},
        is_quick=False,
    ),
    Case(
        "convection 30",
        lambda: problems.Convection(beta=30.0),
        20.0,
        options={"network": MLP(20, 3), "points": 2000, **EVEN},
    ),
    Case(
        "convection 50",
        lambda: problems.Convection(beta=50.0),
        30.0,
        options={"network": MLP(20, 4), "points": 4000, "exact": "boundary", **EVEN},
        is_quick=False,
    ),
    Case("reaction 5", lambda: problems.Reaction(rho=5.0), 16.0),
    Case("reaction 10", lambda: problems.Reaction(rho=10.0), 40.0, is_quick=False),
    Case("reaction and diffusion", problems.ReactionDiffusion, 12.0, is_quick=False),
    Case("Allen-Cahn", problems.AllenCahn, 100.0, is_quick=False),
    Case("Korteweg-de Vries", problems.KortewegDeVries, 240.0, is_quick=False),
    Case("wave 5", problems.Wave, 60.0, is_quick=False),
    Case("labels: convection 30", lambda: problems.Convection(beta=30.0), 1.0, LagrangianPINN),
    Case("labels: convection 1000", lambda: problems.Convection(beta=1000.0), 1.0, LagrangianPINN),
    Case("labels: variable speed 5", problems.VariableConvection, 3.0, LagrangianPINN),
    Case("labels: convection-diffusion 50", problems.ConvectionDiffusion, 2.0, LagrangianPINN),
    Case(
        "labels: moving Burgers 50",
        problems.MovingBurgers,
        5.0,
        LagrangianPINN,
        {"network": MLP(20, 2), "points": 1500},
    ),
    Case(
        "labels: moving Burgers 50, two branches",
        problems.MovingBurgers,
        5.0,
        LagrangianPINN,
        {"network": TwoBranchMLP(20, 2, 3), "points": 1500},
        is_quick=False,
    ),
    Case(
        "labels: moving Burgers 50, past the shock",
        lambda: problems.MovingBurgers(duration=2.0),
        8.0,
        LagrangianPINN,
        {"network": MLP(20, 3), "points": 3000},
        is_quick=False,
    ),
    Case(
        "labels: the same as published",
        problems.MovingBurgers,
        3.0,
        LagrangianPINN,
        {"network": MLP(20, 2), "points": 1500, "formulation": "published"},
    ),
    Case("labels: rotation", problems.Rotation, 6.0, LagrangianPINN),
    Case("rotation", problems.Rotation, 12.0, is_quick=False),
    Case("labels: swirl and back", problems.Swirl, 15.0, LagrangianPINN),
    Case("swirl and back", problems.Swirl, 30.0, is_quick=False),
    Case("labels: shear and diffusion", problems.ShearDiffusion, 15.0, LagrangianPINN),
    Case("shear and diffusion", problems.ShearDiffusion, 15.0, is_quick=False),
    Case(
        "labels: shear as published",
        problems.ShearDiffusion,
        5.0,
        LagrangianPINN,
        {"formulation": "published"},
        is_quick=False,
    ),
)
GRIDS = {2: (256, 101), 3: (41, 41, 21)}
"""Points along each axis at which the classical solver answers."""


def classical_seconds(problem: Problem) -> float:
    """CPU time of the reference solver for a whole grid [s]."""
    points = evaluation_grid(problem, *GRIDS[problem.domain.dimension])
    start = time.process_time()
    problem.reference_values(points)
    return time.process_time() - start


def one_run(case: Case, seed: int, share: float) -> dict[str, float]:
    """CPU seconds to each level, and the error at the end."""
    points = case.options.get("points")
    options = case.options | ({} if points is None else {"most_points": points})
    solver = case.solver(case.problem(), seed=seed, **options)
    solver.fit(10.0, steps=3)
    budget = case.seconds * share
    history = solver.fit(10 * budget, cpu_budget=budget, measure=True, on_failure="mask").history
    found = {
        f"{level:.0e}": next(
            (row["cpu_seconds"] for row in history if row["relative_l2"] < level), math.inf
        )
        for level in LEVELS
    }
    return {**found, "end": history[-1]["relative_l2"], "spent": history[-1]["cpu_seconds"]}


def run(size: Size, seed: int, *, only: str = "") -> Result:
    share = 0.05 if size == "tiny" else 1.0
    rows = []
    for case in CASES:
        if not (case.is_quick or size == "full") or not re.search(only, case.name):
            continue
        runs = [one_run(case, seed + k, share) for k in range(SEEDS[size])]
        medians = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        rows.append(
            {
                "name": case.name,
                **{k: v if math.isfinite(v) else None for k, v in medians.items()},
                "classical": classical_seconds(case.problem()),
                "runs": runs,
            }
        )
        for each in runs:
            each.update({k: -1.0 for k, v in each.items() if not math.isfinite(v)})
    if not rows:
        raise SystemExit(f"--only {only!r} matches no problem")
    slower = [row for row in rows if (row["1e-03"] or math.inf) > row["classical"]]
    return Result(
        title=TITLE,
        columns=(
            Column("name", "problem"),
            *(Column(f"{level:.0e}", f"to {level:.0e}", ".2f") for level in LEVELS),
            Column("end", "error at the end", ".1e"),
            Column("spent", "after", ".1f"),
            Column("classical", "classical solver", ".3f"),
        ),
        rows=rows,
        settings={"seeds": SEEDS[size], "only": only, "torch": torch.__version__},
        verdict=[
            f"In {len(slower)} of {len(rows)} problems the classical solver has the whole grid "
            "before the network is at 1e-3. A network is for unknown coefficients, many "
            "parameters and fields that must be differentiated, not for one forward problem.",
        ],
    )
