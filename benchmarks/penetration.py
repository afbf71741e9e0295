"""How far do bodies sink, and do they creep?

A box falls tilted on a floor, and one is put on a slope of 20 degrees that friction should hold
(coefficient 0.5). physim's contact is hard, exactly or up to its smoothing. MuJoCo's is a spring
and damper by design, whose stiffness and slip are the user's choice: shown are its defaults,
elliptic cones, and its own means against slip (``impratio`` and the no-slip solver).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from record import Column, Result, Size
from scenes import MujocoBatch, load_quietly

import physim

__all__ = ["run"]

TITLE = "A falling box: overlap and rebound. A box on a slope of 20 degrees: creep"
ANGLE = math.radians(20.0)
HALF = np.array([0.2, 0.2, 0.1])
SCENE = """<mujoco><option {options}/><worldbody>
  <geom type="plane" size="10 10 1" friction="0.5" euler="0 {tilt} 0"/>
  <body><freejoint/>
    <geom type="box" size="0.2 0.2 0.1" mass="1" friction="0.5"/></body>
</worldbody></mujoco>"""
ENGINES = {
    "physim": "",
    "physim, smoothing 1e-9": "",
    "MuJoCo pyramidal": 'cone="pyramidal"',
    "MuJoCo elliptic": 'cone="elliptic"',
    "MuJoCo elliptic, no slip": 'cone="elliptic" impratio="100" noslip_iterations="20"',
}

Motion = Callable[[np.ndarray, int], np.ndarray]


def run(size: Size, seed: int = 0) -> Result:
    """Both scenes at three time steps in every engine; nothing here is random."""
    del seed
    timesteps = (0.01,) if size == "tiny" else (0.002, 0.01, 0.02)
    duration = 0.6 if size == "tiny" else 4.0
    rows = [
        {"engine": engine, "timestep": timestep, **_measure(engine, timestep, duration)}
        for engine in ENGINES
        for timestep in timesteps
    ]
    ours = [row for row in rows if row["engine"].startswith("physim")]
    theirs = [row for row in rows if not row["engine"].startswith("physim")]
    return Result(
        title=TITLE,
        columns=(
            Column("engine", "engine"),
            Column("timestep", "step [s]"),
            Column("impact", "impact [mm]", ".2e"),
            Column("rest", "at rest [mm]", ".2e"),
            Column("creep", "creep [mm/s]", ".2e"),
            Column("lift", "rebound [mm]", ".2e"),
        ),
        rows=rows,
        settings={
            "duration": duration,
            "drop": "lowest corner 0.3 m above the floor, tilted by 0.3 and 0.2 rad",
            "friction": 0.5,
            "rest": "depth at the end; negative is above the floor",
            "creep": "mean speed over the last half of the duration",
        },
        verdict=[
            f"Deepest overlap: physim {max(r['impact'] for r in ours):.1e} mm, MuJoCo "
            f"{min(r['impact'] for r in theirs):.1e} to {max(r['impact'] for r in theirs):.1e} mm; "
            f"creep: physim up to {max(r['creep'] for r in ours):.1e} mm/s, MuJoCo "
            f"{min(r['creep'] for r in theirs):.1e} to {max(r['creep'] for r in theirs):.1e} mm/s."
        ],
    )


def _measure(engine: str, timestep: float, duration: float) -> dict[str, float]:
    steps = round(duration / timestep)
    flat = _motion(engine, timestep, tilt=0.0)(_tilted_above_floor(0.3), steps)
    depth = -_lowest_corner(flat, np.array([0.0, 0.0, 1.0]))
    normal = np.array([math.sin(ANGLE), 0.0, math.cos(ANGLE)])
    resting = np.array([*(HALF[2] * normal), math.cos(ANGLE / 2), 0.0, math.sin(ANGLE / 2), 0.0])
    slope = _motion(engine, timestep, tilt=math.degrees(ANGLE))(resting, steps)
    half = steps // 2
    crept = np.linalg.norm(slope[-1, :3] - slope[half, :3])
    # One step later the fall has ended, whatever is left of it now.
    landed = int(np.argmax(depth > -1e-3)) + 1
    return {
        "impact": 1e3 * max(float(depth.max()), 0.0),
        "rest": 1e3 * float(depth[-1]),
        "creep": 1e3 * float(crept) / ((steps - half) * timestep),
        "lift": 1e3 * max(float(-depth[landed:].min()), 0.0),
    }


def _tilted_above_floor(height: float) -> np.ndarray:
    """Configuration of the box with its lowest corner at a height [m]."""
    a, b = 0.15, 0.1
    roll = np.array([math.cos(a), math.sin(a), 0.0, 0.0])
    pitch = np.array([math.cos(b), 0.0, math.sin(b), 0.0])
    w, x, _, _ = roll
    quaternion = np.array([w * pitch[0], x * pitch[0], w * pitch[2], x * pitch[2]])
    q = np.array([0.0, 0.0, 0.0, *quaternion])
    q[2] = height - _lowest_corner(q[None], np.array([0.0, 0.0, 1.0]))[0]
    return q


def _lowest_corner(q: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Signed distance of the lowest corner from the plane through the origin, per row [m]."""
    w, x, y, z = q[:, 3:7].T
    # Each box axis along the normal: rows of the rotation matrix's transpose times the normal.
    axes = np.stack(
        [
            np.stack([1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)], axis=-1),
            np.stack([2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)], axis=-1),
            np.stack([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], axis=-1),
        ],
        axis=1,
    )
    return q[:, :3] @ normal - np.abs(axes @ normal) @ HALF


def _motion(engine: str, timestep: float, *, tilt: float) -> Motion:
    """A function that runs the scene from a configuration and gives all configurations."""
    text = SCENE.format(options=ENGINES[engine], tilt=tilt)
    if engine.startswith("physim"):
        settings = {"smoothing": 1e-9} if "1e-9" in engine else {}
        sim = physim.Simulator(load_quietly(text), timestep=timestep, **settings)

        def ours(q: np.ndarray, steps: int) -> np.ndarray:
            start = sim.initial_state(q=torch.as_tensor(q))
            return sim.rollout(start, steps=steps).q[1:, 0].numpy()

        return ours
    cone = "pyramidal" if "pyramidal" in ENGINES[engine] else "elliptic"
    batch = MujocoBatch.load(text, timestep=timestep, cone=cone)

    def theirs(q: np.ndarray, steps: int) -> np.ndarray:
        start = batch.start(q[None], np.zeros((1, 6)))
        return batch.split(batch.run(start, np.zeros((1, steps, 0))))[0][0]

    return theirs
