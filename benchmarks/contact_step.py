"""What does a step with contact cost, beside MuJoCo's?

The same files, time step and controls on one thread: physim solves hard contact exactly for all
candidates of the file, self-collision included; MuJoCo solves its soft contact for what touches.
Their motions diverge, so contacts are alike in number only. Each engine settles its own batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from record import Column, Result, Size
from scenes import (
    LOCOMOTION,
    MujocoBatch,
    load_quietly,
    locomotion_file,
    random_controls,
)
from timing import alternate

import physim

__all__ = ["Contest", "build_contest", "run"]

TITLE = "CPU time per environment step with contact [µs]: physim and MuJoCo, and their ratio"
TIMESTEP = 0.01
HOLD = 5
SETTLING = 2.0
REGIMES = {"random": 1.0, "settled": 0.1}
CONES = ("elliptic", "pyramidal")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """Both engines at the start of the timed motion.

    Attributes:
        simulator: physim's side.
        state: Its start.
        controls: Controls of both (T, B, nu).
        motion: What physim did in the last timed run.
        work: The runs to time, by name of the engine.
        engines: MuJoCo's side, by cone.
    """

    simulator: physim.Simulator
    state: physim.State
    controls: torch.Tensor
    motion: list[physim.Trajectory]
    work: dict[str, Callable[[], object]]
    engines: dict[str, MujocoBatch]


def build_contest(
    name: str, *, regime: str, batch: int, steps: int, seed: int, settling: float = SETTLING
) -> Contest:
    """Both engines at the same drop, or each where its own batch has settled."""
    file = locomotion_file(name)
    model = load_quietly(file)
    sim = physim.Simulator(model, timestep=TIMESTEP)
    rng = np.random.default_rng(seed)
    start = sim.initial_state(batch=batch, on_penetration="ignore")
    v = torch.as_tensor(rng.normal(scale=0.1, size=(batch, model.nv)))
    start = sim.initial_state(q=start.q, v=v, on_penetration="ignore")
    scale = REGIMES[regime]
    ahead = round(settling / TIMESTEP) if regime == "settled" else HOLD
    controls = random_controls(
        model, steps=ahead + steps, batch=batch, hold=HOLD, scale=scale, seed=seed
    )
    waiting, timed = controls[:ahead], controls[ahead:].contiguous()
    state = sim.rollout(start, waiting, on_failure="mask").state(-1)
    motion: list[physim.Trajectory] = []

    def ours() -> None:
        motion[:] = [sim.rollout(state, timed, on_failure="mask")]

    work: dict[str, Callable[[], object]] = {"physim": ours}
    engines = {}
    for cone in CONES:
        engine = MujocoBatch.load(file, timestep=TIMESTEP, cone=cone)
        before = engine.start(start.q.numpy(), start.v.numpy())
        settled = engine.run(before, _batch_first(waiting))[:, -1]
        work[cone] = _theirs(engine, settled, _batch_first(timed))
        engines[cone] = engine
    return Contest(
        simulator=sim, state=state, controls=timed, motion=motion, work=work, engines=engines
    )


def _batch_first(controls: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(controls.transpose(0, 1).numpy())


def _theirs(engine: MujocoBatch, start: np.ndarray, controls: np.ndarray) -> Callable[[], object]:
    return lambda: engine.run(start, controls)


def run(size: Size, seed: int = 0) -> Result:
    """Time every robot in both regimes."""
    batch, steps = {"tiny": (16, 5), "small": (256, 20), "full": (256, 50)}[size]
    robots = {"tiny": LOCOMOTION[:1], "small": LOCOMOTION[:3], "full": LOCOMOTION}[size]
    repetitions = 2 if size == "tiny" else 5
    settling = 0.1 if size == "tiny" else SETTLING
    rows = []
    for name in robots:
        for regime in REGIMES:
            contest = build_contest(
                name, regime=regime, batch=batch, steps=steps, seed=seed, settling=settling
            )
            timings = alternate(contest.work, repetitions=repetitions)
            rows.append(_row(name, regime, contest, timings, 1e6 / (batch * steps)))
    return Result(
        title=TITLE,
        columns=(
            Column("model", "model"),
            Column("regime", "regime"),
            Column("candidates", "pairs"),
            Column("physim", "physim"),
            Column("elliptic", "elliptic"),
            Column("pyramidal", "pyramidal"),
            Column("ratio_elliptic", "/ elliptic", ".2f"),
            Column("ratio_pyramidal", "/ pyramidal", ".2f"),
            Column("iterations", "iterations", ".1f"),
            Column("failures", "failed"),
        ),
        rows=rows,
        settings={
            "batch": batch,
            "steps": steps,
            "timestep": TIMESTEP,
            "repetitions": repetitions,
            "controls": f"uniform, held {HOLD} steps; share of the range by regime: {REGIMES}",
            "settling": settling,
            "mujoco": "mujoco.rollout, implicitfast, Newton, one MjData",
            "physim": "Simulator.rollout without gradients, kernel backend, default smoothing",
        },
        verdict=_verdict(rows),
    )


def _row(name: str, regime: str, contest: Contest, timings, unit: float) -> dict[str, object]:
    summary = contest.motion[0].summary()
    return {
        "model": name,
        "regime": regime,
        "candidates": contest.simulator.mechanism.contact_count,
        **{engine: unit * timings.median(engine) for engine in contest.work},
        **{f"ratio_{cone}": timings.ratio("physim", cone) for cone in CONES},
        **{f"spread_{engine}": timings.spread(engine) for engine in contest.work},
        "iterations": summary["iterations_mean"],
        "failures": summary["failures"],
        "half_steps": summary["half_steps"],
        "rescues": summary["rescues"],
        "unverified": summary["unverified"],
        "mujoco_warnings": {c: engine.warnings() for c, engine in contest.engines.items()},
    }


def _verdict(rows: list[dict[str, object]]) -> list[str]:
    lines = []
    for cone in CONES:
        ratios = sorted(float(row[f"ratio_{cone}"]) for row in rows)
        ours = sum(r < 1.0 for r in ratios)
        lines.append(
            f"{cone}: physim takes {ratios[0]:.2f} to {ratios[-1]:.2f} times MuJoCo's time; "
            f"physim is faster in {ours} of {len(ratios)} rows, MuJoCo in {len(ratios) - ours}."
        )
    return lines
