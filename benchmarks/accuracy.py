"""How accurate is smooth motion for its cost?

Work and precision together: a hopper flies without contacts and limits, joint damping on, from
random velocities. The truth is MuJoCo's Runge-Kutta at a tiny time step. A method of fourth order
must win here; what counts with contact is another question, see `penetration.py`.

A semi-implicit step moves with the velocity at its end. Started with the velocity at the node it is
off by half a kick for good, so a second row starts it half a step earlier ("shifted").
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable

import numpy as np
import torch
from record import Column, Result, Size
from scenes import MujocoBatch, load_quietly, locomotion_file
from timing import alternate

import physim

__all__ = ["run"]

TITLE = "Contact-free flight of the hopper: position error at the end against CPU time"
METHODS = ("physim", "implicitfast", "implicitfast, shifted", "RK4")


def run(size: Size, seed: int = 0) -> Result:
    """Error against time at several time steps."""
    batch = {"tiny": 2, "small": 32, "full": 256}[size]
    duration, fine = (0.2, 1e-3) if size == "tiny" else (0.4, 2e-4)
    timesteps = (0.02, 0.01) if size == "tiny" else (0.02, 0.01, 0.005, 0.0025)
    repetitions = 2 if size == "tiny" else 5
    text = flying(locomotion_file("hopper"))
    model = load_quietly(text)
    rng = np.random.default_rng(seed)
    q = model.initial_q.numpy() + np.zeros((batch, model.nq))
    v = rng.normal(scale=1.0, size=(batch, model.nv))
    truth = _mujoco(text, "RK4", fine, q, v, duration)()
    coarser = _mujoco(text, "RK4", 2 * fine, q, v, duration)()
    rows = []
    for timestep in timesteps:
        work = {"physim": _physim(model, timestep, q, v, duration)}
        for method in METHODS[1:]:
            work[method] = _mujoco(text, method, timestep, q, v, duration)
        timings = alternate(work, repetitions=repetitions)
        for method in METHODS:
            errors = np.abs(work[method]() - truth).max(axis=-1)
            rows.append(
                {
                    "method": method,
                    "timestep": timestep,
                    "error_median": float(np.median(errors)),
                    "error_worst": float(errors.max()),
                    "time": 1e6 * timings.median(method) / (batch * duration),
                }
            )
    rows.sort(key=lambda row: METHODS.index(row["method"]))
    _add_orders(rows)
    return Result(
        title=TITLE,
        columns=(
            Column("method", "method"),
            Column("timestep", "step [s]"),
            Column("error_median", "median error [m, rad]", ".2e"),
            Column("error_worst", "worst error [m, rad]", ".2e"),
            Column("order", "order", ".2f"),
            Column("time", "µs per simulated s", ".4g"),
        ),
        rows=rows,
        settings={
            "batch": batch,
            "duration": duration,
            "reference": f"MuJoCo RK4, time step {fine:g} s",
            "reference_error": float(np.abs(coarser - truth).max()),
            "repetitions": repetitions,
        },
        verdict=_verdict(rows),
    )


def flying(path: object) -> str:
    """Text of a model in which nothing touches and every joint turns freely."""
    import mujoco

    spec = mujoco.MjSpec.from_file(str(path))
    for joint in spec.joints:
        joint.limited = mujoco.mjtLimited.mjLIMITED_FALSE
    for geom in spec.geoms:
        geom.contype = geom.conaffinity = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spec.compile()
        return str(spec.to_xml())


def _mujoco(
    text: str, method: str, timestep: float, q: np.ndarray, v: np.ndarray, duration: float
) -> Callable[[], np.ndarray]:
    engine = MujocoBatch.load(text, timestep=timestep, integrator=method.split(",", maxsplit=1)[0])
    if method.endswith("shifted"):
        v = v - 0.5 * timestep * _accelerations(engine, q, v)
    start = engine.start(q, v)
    controls = np.zeros((len(q), round(duration / timestep), engine.model.nu))
    return lambda: engine.split(engine.run(start, controls)[:, -1])[0]


def _accelerations(engine: MujocoBatch, q: np.ndarray, v: np.ndarray) -> np.ndarray:
    import mujoco

    rows = []
    for position, velocity in zip(q, v, strict=True):
        engine.data.qpos[:], engine.data.qvel[:] = position, velocity
        mujoco.mj_forward(engine.model, engine.data)
        rows.append(engine.data.qacc.copy())
    return np.stack(rows)


def _physim(
    model: physim.Model, timestep: float, q: np.ndarray, v: np.ndarray, duration: float
) -> Callable[[], np.ndarray]:
    sim = physim.Simulator(model, timestep=timestep)
    start = sim.initial_state(q=torch.as_tensor(q), v=torch.as_tensor(v), at="node")
    steps = round(duration / timestep)

    def work() -> np.ndarray:
        return sim.rollout(start, steps=steps).q[-1].numpy()

    return work


def _add_orders(rows: list[dict[str, object]]) -> None:
    """Order between a row and the next coarser one of its method."""
    for coarse, fine in itertools.pairwise(rows):
        if coarse["method"] == fine["method"]:
            errors = float(coarse["error_median"]) / float(fine["error_median"])
            steps = float(coarse["timestep"]) / float(fine["timestep"])
            fine["order"] = float(np.log(errors) / np.log(steps))


def _verdict(rows: list[dict[str, object]]) -> list[str]:
    """Who reaches physim's finest error at least cost."""
    finest = [row for row in rows if row["method"] == "physim"][-1]
    goal = float(finest["error_median"])
    lines = []
    for method in METHODS[1:]:
        good = [r for r in rows if r["method"] == method and float(r["error_median"]) <= goal]
        if good:
            best = min(float(r["time"]) for r in good)
            lines.append(
                f"{method} reaches physim's finest error, {goal:.1e}, in "
                f"{best / float(finest['time']):.2f} of its time or less."
            )
        else:
            lines.append(f"{method} does not reach physim's finest error, {goal:.1e}, here.")
    return lines
