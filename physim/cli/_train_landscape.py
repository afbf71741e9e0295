"""``physim train landscape``: the loss around a network, in the fixed and the moving frame."""

from __future__ import annotations

import math
import os
import platform
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from physim.cli._report import installed, write_json
from physim.cli._train import (
    Json,
    Picture,
    ProblemName,
    Seed,
    Settings,
    check_files,
    parse_settings,
)

if TYPE_CHECKING:
    from solvers.pde import Problem
    from solvers.pinn import LossLandscape

__all__ = ["landscape"]

_FRAMES = ("pinn", "lpinn")
_VERSIONS = ("torch", "warp-lang", "numpy", "scipy")
_VISIBLE = 1e-3
"""Eigenvalues above this share of the largest one are counted."""


def landscape(
    frame: Annotated[str, typer.Argument(help="pinn, lpinn, or both.")],
    problem: ProblemName,
    *,
    settings: Settings = None,
    budget: Annotated[
        float, typer.Option(help="Seconds to train before; 0 looks at the first parameters.")
    ] = 0.0,
    width: Annotated[int, typer.Option(help="Units of a hidden layer.")] = 20,
    depth: Annotated[int, typer.Option(help="Hidden layers.")] = 2,
    points: Annotated[int, typer.Option(help="Collocation points.")] = 800,
    count: Annotated[int, typer.Option(help="Eigenvalues of each matrix.")] = 10,
    directions: Annotated[
        str, typer.Option(help="Of the surface: eigenvectors or random.")
    ] = "eigenvectors",
    reach: Annotated[
        float, typer.Option(help="Half width of the surface, over the length of the parameters.")
    ] = 0.5,
    resolution: Annotated[int, typer.Option(help="Points of the surface a direction.")] = 31,
    natural: Annotated[
        bool, typer.Option("--natural", help="Scale residuals as training does by default.")
    ] = False,
    seed: Seed = 0,
    picture: Picture = None,
    json: Json = None,
) -> None:
    """Compare curvature and surfaces of the loss: Gauss-Newton and Hessian spectra by Lanczos.

    Residuals are those of the equation as it is written, unless --natural. Both frames have the
    same network and number of points. Exit code 2 for bad input, 130 after Ctrl-C.
    """
    from solvers.core import check_choice, check_positive
    from solvers.pde.problems import find_problem

    check_files(checkpoint=None, save=None, picture=picture, json=json)
    check_choice("frame", frame, (*_FRAMES, "both"))
    check_choice("directions", directions, ("eigenvectors", "random"))
    chosen = parse_settings(settings or [])

    check_positive("budget", budget, allow_zero=True)
    made = find_problem(problem, **chosen)
    frames = {}
    seen: dict[str, LossLandscape] = {}
    for name in _FRAMES if frame == "both" else (frame,):
        frames[name], seen[name] = _look(
            name, made, budget, seed, is_natural=natural,
            shape={"width": width, "depth": depth}, points=points,
            options={"count": count, "directions": directions, "reach": reach,
                     "resolution": resolution},
        )  # fmt: skip
    record = _describe(made, frames, {
        "frame": frame, "problem": problem, "set": chosen, "budget": budget, "width": width,
        "depth": depth, "points": points, "count": count, "directions": directions,
        "reach": reach, "resolution": resolution, "natural": natural, "seed": seed,
    })  # fmt: skip
    if picture is not None:
        record["picture"] = str(_draw(made.name, seen, picture))
    if json is not None:
        write_json(record, json)
    _show(record, stream=sys.stderr if str(json) == "-" else sys.stdout)


def _look(
    name: str,
    problem: Problem,
    budget: float,
    seed: int,
    *,
    is_natural: bool,
    shape: Mapping[str, int],
    points: int,
    options: Mapping[str, Any],
) -> tuple[dict[str, Any], LossLandscape]:
    """Train in one frame and look around."""
    from solvers.pinn import MLP, PINN, LagrangianPINN, loss_landscape

    network = MLP(**shape)
    scales = None if is_natural else (1.0,) * len(problem.term_names)
    solver: PINN | LagrangianPINN
    if name == "pinn":
        solver = PINN(problem, network, points=points, seed=seed, residual_scales=scales)
    else:
        solver = LagrangianPINN(problem, network, points=points, seed=seed)
    theta, trained = None, {}
    if budget:
        result = solver.fit(budget, on_failure="mask")
        theta = result.network.theta.detach()
        trained = {
            "steps": int(result.report.iterations),
            "held_out": float(result.report.residual),
        }
    found = loss_landscape(solver, theta, seed=seed, **options)
    top, largest = found.gauss_newton, float(found.gauss_newton.values[0])
    return {
        **trained,
        "parameters": found.directions.shape[1],
        "loss": found.loss,
        "gauss_newton": _pairs(top),
        "hessian": _pairs(found.hessian),
        "visible": found.density.size * found.density.share(_VISIBLE * largest, math.inf),
        "offsets": found.offsets.tolist(),
        "surface": found.surface.tolist(),
    }, found


def _pairs(pairs: Any) -> dict[str, Any]:
    return {
        "eigenvalues": pairs.values.tolist(),
        "residuals": pairs.report.residual.tolist(),
        "converged": pairs.report.converged.tolist(),
    }


def _describe(
    problem: Problem, frames: Mapping[str, Any], settings: Mapping[str, Any]
) -> dict[str, Any]:
    import physim

    return {
        "physim": physim.__version__,
        "command": "train landscape",
        "settings": dict(settings),
        "problem": {"name": problem.name, "coefficients": dict(problem.coefficients)},
        "frames": dict(frames),
        "versions": {"python": platform.python_version(), **installed(_VERSIONS)},
        "machine": {"platform": platform.platform(), "cpus": os.cpu_count()},
    }


def _show(record: Mapping[str, Any], *, stream: TextIO) -> None:
    """Print the table, one column a frame."""
    from rich.console import Console
    from rich.table import Table

    problem, frames = record["problem"], record["frames"]
    numbers = ", ".join(f"{name}={value:g}" for name, value in problem["coefficients"].items())
    table = Table("", *frames, title=f"{problem['name']}: {numbers}")
    shown: dict[str, Callable[[Any], str]] = {
        "loss": lambda f: f"{f['loss']:.3g}",
        "largest of Gauss-Newton": lambda f: f"{f['gauss_newton']['eigenvalues'][0]:.4g}",
        "largest of the Hessian": lambda f: f"{f['hessian']['eigenvalues'][0]:.4g}",
        f"above {_VISIBLE:g} of the largest": lambda f: f"{f['visible']:.1f} of {f['parameters']}",
        "eigenvalues not converged": lambda f: str(
            sum(not ok for name in ("gauss_newton", "hessian") for ok in f[name]["converged"])
        ),
        "loss at most on the surface": lambda f: f"{max(map(max, f['surface'])):.3g}",
    }
    for title, form in shown.items():
        table.add_row(title, *(form(frame) for frame in frames.values()))
    Console(file=stream).print(table)
    if "picture" in record:
        Console(file=stream).print(record["picture"], highlight=False)


def _draw(name: str, seen: Mapping[str, LossLandscape], path: Path) -> Path:
    """Draw the spectra of all frames, and the surface of each."""
    import torch

    from solvers.figures import draw_curves, open_figure, save_figure

    figure, axes = open_figure(width=5.0 * (1 + len(seen)), heights=[4.2], columns=1 + len(seen))
    rank = 1.0 + torch.arange(max(len(s.gauss_newton.values) for s in seen.values()))
    curves = {}
    for frame, found in seen.items():
        curves[f"{frame}, Gauss-Newton"] = found.gauss_newton.values.clamp(min=1e-300).numpy()
        curves[f"{frame}, Hessian in size"] = found.hessian.values.abs().numpy()
    draw_curves(
        axes[0], rank.numpy(), curves, x_label="rank", y_label="eigenvalue", is_logarithmic=True
    )
    axes[0].set_title(name)
    low = min(float(s.surface.log10().min()) for s in seen.values())
    high = max(float(s.surface.log10().max()) for s in seen.values())
    for place, (frame, found) in zip(axes[1:], seen.items(), strict=True):
        offsets = found.offsets.numpy()
        mesh = place.pcolormesh(
            offsets, offsets, found.surface.log10().T.numpy(), shading="gouraud", vmin=low,
            vmax=high, rasterized=True,
        )  # fmt: skip
        figure.colorbar(mesh, ax=place)
        place.set_title(f"{frame}: log10 of the loss")
        place.set_xlabel("first direction")
        place.set_ylabel("second direction")
    return save_figure(figure, path)
