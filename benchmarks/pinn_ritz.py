"""What error does an energy made least by a network reach in what time, and what limits it?

Methods in two dimensions, widths, dimensions up to ten with the error bar of sampled integrals, and
the rate of descent in H1 beside what theory foresees. CPU seconds of one thread after compilation;
relative L2 errors. "As published" is the deep Ritz method of E and Yu (2018) but for the walls,
which hold by construction in all rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from record import Column, Result, Size

from solvers.figures import draw_curves, open_figure, save_figure
from solvers.pde import problems
from solvers.pinn import MLP, PINN, DeepRitz, SobolevDescent, UnrolledDescent, gauss_legendre

__all__ = ["run"]

TITLE = "Energies made least: relative L2 error against CPU time [s], one thread"
LEVELS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
METHODS: dict[str, dict[str, Any]] = {
    "natural gradient, H1": {},
    "natural gradient, second derivative": {"metric": "energy"},
    "self-scaled Broyden": {"optimizer": "self-scaled-broyden"},
    "L-BFGS": {"optimizer": "lbfgs"},
    "Adam": {"optimizer": "adam"},
    "as published: Adam, sampled points": {"optimizer": "adam", "rule": "sobol", "points": 1024},
}
SECONDS = {2: 2.0, 5: 4.0, 10: 20.0}
WIDTHS = (4, 8, 16, 32, 64)
BLOCKS = (8, 16, 32, 64, 128)
STEP = 0.2
STEPS = 50


def train(name: str, solver: Any, seconds: float) -> dict[str, Any]:
    """CPU seconds to each level, and the error at the end with its bar."""
    solver.fit(60.0, steps=2, on_failure="mask")
    result = solver.fit(20 * seconds, cpu_budget=seconds, measure=True, on_failure="mask")
    rows = result.history
    times = {
        f"{level:.0e}": next(
            (row["cpu_seconds"] for row in rows if row["relative_l2"] < level), None
        )
        for level in LEVELS
    }
    error = result.relative_l2
    value, bar = float(error), getattr(error, "error", 0.0)
    return {
        "name": name,
        "parameters": solver.parameter_count,
        **times,
        "end": value,
        "bar": bar or None,
        "spent": rows[-1]["cpu_seconds"],
        "curve": [(row["cpu_seconds"], row["relative_l2"]) for row in rows],
    }


def early_rate(norms: torch.Tensor) -> float:
    """Factor a step from the second to the eighth, where blocks of any width still follow."""
    return float((norms[8] / norms[2]) ** (1 / 6))


def descend(widths: Sequence[int]) -> list[dict[str, Any]]:
    """Descent on sines, and with a network for every iterate."""
    problem = problems.NonlinearDiffusion(2)
    exact = SobolevDescent(problem, modes=10, step=STEP).solve()
    rows: list[dict[str, Any]] = [
        {
            "name": "descent on sines",
            "rate": exact.rate,
            "theory": exact.contraction,
            "curve": list(enumerate((exact.gradient_norms / exact.gradient_norms[0]).tolist())),
        }
    ]
    rule = gauss_legendre(problem.domain, 40)
    reference = problem.reference_values(rule.points)["u"]
    for width in widths:
        found = UnrolledDescent(problem, width=width, step=STEP, rule=rule).run(STEPS)
        with torch.no_grad():
            error = (found.network(rule.points)[:, 0] - reference) * rule.weights.sqrt()
        norms = found.gradient_norms / found.gradient_norms[0]
        rows.append(
            {
                "name": f"descent with networks, {width} neurons a step",
                "parameters": len(found.value),
                "end": float(error.norm() / (reference * rule.weights.sqrt()).norm()),
                "rate": early_rate(norms),
                "theory": early_rate(exact.gradient_norms),
                "curve": list(enumerate(norms.tolist())),
            }
        )
    return rows


def run(size: Size, seed: int) -> Result:
    share = {"tiny": 0.1, "small": 1.0, "full": 3.0}[size]
    plane = problems.NonlinearElliptic(2)
    rows = [
        train(name, DeepRitz(plane, seed=seed, **options), 2.0 * share)
        for name, options in METHODS.items()
    ]
    rows.append(train("residual instead of energy (PINN)", PINN(plane, seed=seed), 2.0 * share))
    rows += [
        train(f"width {w}", DeepRitz(plane, MLP(w, 1), seed=seed), 2.0 * share) for w in WIDTHS
    ]
    for d, seconds in SECONDS.items():
        problem = problems.NonlinearElliptic(d)
        solver = DeepRitz(problem, MLP(16, 1), seed=seed)
        rows.append(train(f"{d} dimensions", solver, seconds * share))
    methods = len(METHODS) + 1
    descents = descend(BLOCKS[:3] if size == "tiny" else BLOCKS)
    return Result(
        title=TITLE,
        columns=(
            Column("name", "energy of -Lap u + u^3 = f, or descent"),
            Column("parameters", "parameters", "d"),
            *(Column(f"{level:.0e}", f"to {level:.0e}", ".2f") for level in LEVELS),
            Column("end", "error at the end", ".1e"),
            Column("bar", "+-", ".0e"),
            Column("spent", "after", ".1f"),
            Column("rate", "rate a step", ".3f"),
            Column("theory", "foreseen", ".3f"),
        ),
        rows=[*rows, *descents],
        settings={"seed": seed, "torch": torch.__version__, "step": STEP},
        verdict=[
            f"In ten dimensions the error is {100 * rows[-1]['end']:.1f} % "
            f"+- {100 * (rows[-1]['bar'] or 0.0):.2g} %.",
            "A classical solver has the two-dimensional field to 1e-9 in a fraction of a second; "
            "the network is for many dimensions and for what is differentiated further.",
        ],
        draw=lambda path: _draw(path, rows[:methods], descents),
    )


def _draw(path: Path, methods: list[dict[str, Any]], descents: list[dict[str, Any]]) -> None:
    """Error against time by method, gradient norm against steps by width."""
    figure, axes = open_figure(width=13.0, heights=[5.0], columns=2)
    times = torch.logspace(math.log10(0.05), math.log10(2.0), 40, dtype=torch.float64)
    curves = {
        row["name"]: [
            next((e for t, e in reversed(row["curve"]) if t <= float(now)), math.nan)
            for now in times
        ]
        for row in methods
    }
    draw_curves(
        axes[0], times.numpy(), {k: torch.tensor(v).numpy() for k, v in curves.items()},
        x_label="CPU time [s]", is_logarithmic=True,
    )  # fmt: skip
    steps = min(len(row["curve"]) for row in descents)
    norms = {row["name"]: [y for _, y in row["curve"][:steps]] for row in descents}
    draw_curves(
        axes[1], torch.arange(steps).numpy(),
        {name: torch.tensor(values).numpy() for name, values in norms.items()},
        x_label="step", is_logarithmic=True,
    )  # fmt: skip
    save_figure(figure, path)
