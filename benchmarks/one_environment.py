"""What does one environment cost that is stepped from Python?

A loop in Python takes one step of one environment at a time: `Simulator.step`, without a graph and
with one, beside `mj_step`. Everybody starts from rest on the floor.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch
from contact_step import ENGINES, TIMESTEP
from record import Column, Result, Size
from scenes import LOCOMOTION, MujocoBatch, load_quietly, locomotion_file

import physim

__all__ = ["run"]

TITLE = "Time of one step of one settled environment from Python [µs]"
SETTLE = 200
CALLS = 50
"""Calls in one piece of timing: short enough to fall between what else the machine does."""


def run(size: Size, seed: int = 0) -> Result:
    """Time every robot."""
    robots = {"tiny": LOCOMOTION[:1], "small": LOCOMOTION[:3], "full": LOCOMOTION}[size]
    pieces = {"tiny": 3, "small": 60, "full": 120}[size]
    rows = [_row(name, pieces) for name in robots]
    within = sum(row["step"] <= row["step_goal"] for row in rows)
    graphs = sum(row["graph"] <= row["graph_goal"] for row in rows)
    return Result(
        title=TITLE,
        columns=(
            Column("model", "model"),
            Column("mujoco", "mj_step"),
            Column("step", "step"),
            Column("step_goal", "2 mj_step + 10"),
            Column("graph", "with graph"),
            Column("graph_goal", "2 mj_step + 30"),
            Column("backward", "and backward"),
        ),
        rows=rows,
        settings={
            "timestep": TIMESTEP,
            "seed": seed,
            "pieces": pieces,
            "calls": CALLS,
            "settle": f"{SETTLE} steps without controls",
            "mujoco": f"mj_step of one MjData, {ENGINES['elliptic']}",
            "timing": "smallest mean of a piece, all sides in turns",
        },
        verdict=[
            f"Without a graph a step takes at most 2 mj_step + 10 µs in {within} of {len(rows)} "
            f"rows, with a graph at most 2 mj_step + 30 µs in {graphs}. MuJoCo is faster for one "
            f"environment in {sum(row['mujoco'] < row['step'] for row in rows)}."
        ],
    )


def _row(name: str, pieces: int) -> dict[str, object]:
    import mujoco

    file = locomotion_file(name)
    sim = physim.Simulator(load_quietly(file), timestep=TIMESTEP)
    state = sim.initial_state(on_penetration="ignore")
    control = torch.zeros(1, sim.model.nu, dtype=torch.float64)
    engine = MujocoBatch.load(file, timestep=TIMESTEP, **ENGINES["elliptic"])
    for _ in range(SETTLE):
        state, _ = sim.step(state, control)
        mujoco.mj_step(engine.model, engine.data)
    leaf = physim.State(
        q=state.q.clone().requires_grad_(),
        v=state.v.clone().requires_grad_(),
        impulses=state.impulses,
    )

    def with_backward() -> None:
        after, _ = sim.step(leaf, control)
        (after.q.sum() + after.v.sum()).backward()

    times = _smallest(
        {
            "mujoco": lambda: mujoco.mj_step(engine.model, engine.data),
            "step": lambda: sim.step(state, control),
            "graph": lambda: sim.step(leaf, control),
            "backward": with_backward,
        },
        pieces,
    )
    return {
        "model": name,
        **times,
        "step_goal": 2 * times["mujoco"] + 10,
        "graph_goal": 2 * times["mujoco"] + 30,
        "contacts": int(engine.data.ncon),
    }


def _smallest(work: Mapping[str, Callable[[], object]], pieces: int) -> dict[str, float]:
    """Smallest mean time of a call [µs]; what disturbs a piece only ever makes it longer."""
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(pieces):
        for name, call in work.items():
            call()
            start = time.perf_counter()
            for _ in range(CALLS):
                call()
            times[name].append(1e6 * (time.perf_counter() - start) / CALLS)
    return {name: min(values) for name, values in times.items()}
