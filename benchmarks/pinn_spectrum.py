"""How does the curvature of the loss depend on the speed of convection, in either frame?

The largest eigenvalue of the Gauss-Newton matrix, of the equation as it is written (residuals are
not scaled), before training and after so many steps. In a fixed frame the residual holds the speed
as a factor, so the eigenvalue must grow as its square; on labels the Gauss-Newton matrix of
``X_t - beta`` does not hold it at all, nor the residual, as labels start with the mean speed.
Lanczos on the rows of the engine; median over seeds.
"""

from __future__ import annotations

import math
import statistics
from pathlib import Path

import torch
from record import Column, Result, Size

from solvers.curvature import extreme_eigenpairs
from solvers.pde import problems
from solvers.pinn import MLP, PINN, LagrangianPINN, gauss_newton_operator, hessian_operator

__all__ = ["run"]

TITLE = "Largest curvature of the loss against the speed of convection"
SPEEDS = {
    "tiny": (30.0, 100.0, 300.0),
    "small": (1.0, 10.0, 30.0, 100.0, 300.0, 1000.0),
    "full": (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0),
}
SEEDS = {"tiny": 1, "small": 2, "full": 5}
STEPS = {"tiny": 20, "small": 500, "full": 2000}
NETWORK = MLP(width=20, depth=2)
POINTS = 800
ASYMPTOTIC = 30.0
"""Speed from which on it outweighs the time derivative."""

KEYS = ("pinn_start", "pinn_end", "lpinn_start", "lpinn_end")


def look(solver: PINN | LagrangianPINN, steps: int) -> dict[str, float]:
    """Largest eigenvalues before and after training, and the residual that it reached."""
    result = solver.fit(600.0, steps=steps, on_failure="mask")
    found = {"held_out": float(result.report.residual)}
    for when, theta in (("end", result.network.theta), ("start", None)):
        rows = gauss_newton_operator(solver, theta)
        pairs = extreme_eigenpairs(rows, tolerance=1e-8, on_failure="mask")
        found[when] = float(pairs.values[0])
        curved = extreme_eigenpairs(
            hessian_operator(solver, theta), which="magnitude", tolerance=1e-4, on_failure="mask"
        )
        found[f"hessian_{when}"] = abs(float(curved.values[0]))
    return found


def slope(rows: list[dict[str, float]], key: str) -> float:
    """Exponent of the speed, by least squares on logarithms."""
    known = [(math.log(r["speed"]), math.log(r[key])) for r in rows if r["speed"] >= ASYMPTOTIC]
    x, y = (torch.tensor(column, dtype=torch.float64) for column in zip(*known, strict=True))
    x, y = x - x.mean(), y - y.mean()
    return float(x @ y / (x @ x))


def run(size: Size, seed: int) -> Result:
    rows = []
    for speed in SPEEDS[size]:
        row: dict[str, float] = {"speed": speed}
        problem = problems.Convection(beta=speed)
        for frame in ("pinn", "lpinn"):
            runs = []
            for k in range(SEEDS[size]):
                solver = (
                    PINN(problem, NETWORK, points=POINTS, seed=seed + k, residual_scales=(1.0,))
                    if frame == "pinn"
                    else LagrangianPINN(problem, NETWORK, points=POINTS, seed=seed + k)
                )
                runs.append(look(solver, STEPS[size]))
            for key in runs[0]:
                row[f"{frame}_{key}"] = statistics.median(r[key] for r in runs)
        rows.append(row)
    slopes = {key: slope(rows, key) for key in KEYS}
    return Result(
        title=TITLE,
        columns=(
            Column("speed", "speed", ".0f"),
            Column("pinn_start", "PINN, first", ".3g"),
            Column("pinn_end", "PINN, trained", ".3g"),
            Column("pinn_hessian_end", "its Hessian", ".3g"),
            Column("lpinn_start", "labels, first", ".3g"),
            Column("lpinn_end", "labels, trained", ".3g"),
            Column("lpinn_hessian_end", "their Hessian", ".3g"),
        ),
        rows=rows,
        settings={
            "seeds": SEEDS[size],
            "steps": STEPS[size],
            "points": POINTS,
            "width": NETWORK.width,
            "depth": NETWORK.depth,
            "slopes": slopes,
        },
        verdict=[
            f"Exponent of the speed from {ASYMPTOTIC:g} on: PINN {slopes['pinn_start']:.2f} before "
            f"and {slopes['pinn_end']:.2f} after {STEPS[size]} steps, labels "
            f"{slopes['lpinn_start']:.2f} and {slopes['lpinn_end']:.2f}.",
            "Labels start with the mean speed, so a uniform speed drops out of the loss, curvature "
            "and training; a speed that varies does not.",
        ],
        draw=lambda path: _draw(rows, path),
    )


def _draw(rows: list[dict[str, float]], path: Path) -> None:
    from solvers.figures import draw_curves, open_figure, save_figure

    figure, (axes,) = open_figure(width=7.0, heights=[4.6])
    names = {
        "pinn_start": "PINN, first parameters",
        "pinn_end": "PINN, trained",
        "lpinn_start": "labels, first parameters",
        "lpinn_end": "labels, trained",
    }
    speeds = torch.tensor([row["speed"] for row in rows], dtype=torch.float64).numpy()
    curves = {
        name: torch.tensor([row[key] for row in rows], dtype=torch.float64).numpy()
        for key, name in names.items()
    }
    draw_curves(
        axes, speeds, curves, x_label="speed of convection",
        y_label="largest Gauss-Newton eigenvalue", is_logarithmic=True,
    )  # fmt: skip
    axes.set_xscale("log")
    save_figure(figure, path)
