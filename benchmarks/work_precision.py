"""How accurate is motion in contact for its cost?

Error against time per simulated second, time steps from 1 to 50 ms: a hopper falls on its foot and
tumbles, without controls. Hard and soft contact are different problems, so every engine is measured
against its own limit, itself at a tiny time step. Impacts limit every method to first order.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from record import Column, Result, Size
from scenes import MujocoBatch, load_quietly, locomotion_file
from timing import alternate

import physim

__all__ = ["run"]

TITLE = "Hopper in contact: distance from the engine's own limit against CPU time"
METHODS = ("physim", "implicitfast", "euler", "RK4")
TIMESTEPS = (0.05, 0.02, 0.01, 0.005, 0.002, 0.001)


def run(size: Size, seed: int = 0) -> Result:
    """Error against time at several time steps."""
    batch = {"tiny": 64, "small": 64, "full": 512}[size]
    timesteps = TIMESTEPS[1:4:2] if size == "tiny" else TIMESTEPS
    fine = 1e-3 if size == "tiny" else 1e-4
    repetitions = 2 if size == "tiny" else 5
    duration = 0.5
    file = locomotion_file("hopper")
    model = load_quietly(file)
    rng = np.random.default_rng(seed)
    q = model.initial_q.numpy() + np.zeros((batch, model.nq))
    v = rng.normal(scale=0.5, size=(batch, model.nv))
    makers: dict[str, Callable[[float], Callable[[], np.ndarray]]] = {
        "physim": lambda h: _physim(model, h, q, v, duration)
    }
    for method in METHODS[1:]:
        makers[method] = lambda h, method=method: _mujoco(file, method, h, q, v, duration)
    limits = {method: make(fine)() for method, make in makers.items()}
    rows = []
    for timestep in timesteps:
        work = {method: make(timestep) for method, make in makers.items()}
        timings = alternate(work, repetitions=repetitions)
        for method in METHODS:
            errors = np.abs(work[method]() - limits[method]).max(axis=-1)
            rows.append(
                {
                    "method": method,
                    "timestep": timestep,
                    "error_median": float(np.median(errors)),
                    "error_upper": float(np.quantile(errors, 0.9)),
                    "time": 1e6 * timings.median(method) / (batch * duration),
                }
            )
    rows.sort(key=lambda row: METHODS.index(row["method"]))
    return Result(
        title=TITLE,
        columns=(
            Column("method", "method"),
            Column("timestep", "step [s]"),
            Column("error_median", "median error [m, rad]", ".2e"),
            Column("error_upper", "90 % below", ".2e"),
            Column("time", "µs per simulated s", ".4g"),
        ),
        rows=rows,
        settings={
            "batch": batch,
            "duration": duration,
            "reference": f"the same engine at a time step of {fine:g} s",
            "repetitions": repetitions,
        },
        verdict=_verdict(rows),
        draw=lambda path: _draw(rows, path),
    )


def _mujoco(
    file: Path, method: str, timestep: float, q: np.ndarray, v: np.ndarray, duration: float
) -> Callable[[], np.ndarray]:
    engine = MujocoBatch.load(file, timestep=timestep, integrator=method)
    start = engine.start(q, v)
    controls = np.zeros((len(q), round(duration / timestep), engine.model.nu))
    return lambda: engine.split(engine.run(start, controls)[:, -1])[0]


def _physim(
    model: physim.Model, timestep: float, q: np.ndarray, v: np.ndarray, duration: float
) -> Callable[[], np.ndarray]:
    sim = physim.Simulator(model, timestep=timestep)
    start = sim.initial_state(
        q=torch.as_tensor(q), v=torch.as_tensor(v), at="node", on_penetration="ignore"
    )
    steps = round(duration / timestep)

    def fly() -> np.ndarray:
        return sim.rollout(start, steps=steps, on_failure="mask").q[-1].numpy()

    return fly


def _cheapest(rows: list[dict[str, float]], method: str, error: float) -> float:
    """Least time at which a method's median error is small enough, between its time steps."""
    own = [row for row in rows if row["method"] == method]
    for coarse, fine in itertools.pairwise(own):
        if fine["error_median"] <= error <= coarse["error_median"]:
            span = np.log(coarse["error_median"] / fine["error_median"])
            share = np.log(coarse["error_median"] / error) / span
            return float(coarse["time"] * (fine["time"] / coarse["time"]) ** share)
    return float("nan")


def _verdict(rows: list[dict[str, float]]) -> list[str]:
    lines = []
    for error in (1e-2, 1e-3):
        times = {method: _cheapest(rows, method, error) for method in METHODS}
        shown = ", ".join(
            f"{method} {time:.0f}" if np.isfinite(time) else f"{method} outside these steps"
            for method, time in times.items()
        )
        lines.append(f"µs per simulated second for a median error of {error:g}: {shown}.")
    return lines


def _draw(rows: list[dict[str, float]], path: Path) -> None:
    from solvers.figures import open_figure, save_figure

    figure, (axes,) = open_figure(width=7.0)
    for method in METHODS:
        own = [row for row in rows if row["method"] == method]
        axes.loglog(
            [row["time"] for row in own],
            [row["error_median"] for row in own],
            marker="o",
            label=method,
        )
    axes.set_xlabel("CPU time per simulated second [µs]")
    axes.set_ylabel("median error [m, rad]")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(frameon=False)
    save_figure(figure, path)
