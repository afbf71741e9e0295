"""What does a step with contact cost, beside MuJoCo's?

The same files, time step and controls on one thread: physim solves hard contact exactly for all
candidates of the file, self-collision included; MuJoCo solves its soft contact for what touches.
Their motions diverge, so contacts are alike in number only. Each engine brings its own batch into
contact: under full random torques, or until it has settled.
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
REGIMES = {"random": (1.0, 1.0), "settled": (0.1, 2.0)}
"""Share of the control range, and how long the motion goes on before it is timed [s]."""
ENGINES = {
    "elliptic": {"integrator": "implicitfast", "cone": "elliptic"},
    "pyramidal": {"integrator": "implicitfast", "cone": "pyramidal"},
    "own": {"integrator": None, "cone": "elliptic"},
}
"""MuJoCo's sides; "own" keeps the integrator of the model's file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """Both engines at the start of the timed motion.

    Attributes:
        simulator: physim's side.
        state: Its start.
        controls: Controls of both (T, B, nu).
        motion: What physim did in the last timed run.
        work: The runs to time, by name of the engine.
        engines: MuJoCo's sides, by name.
    """

    simulator: physim.Simulator
    state: physim.State
    controls: torch.Tensor
    motion: list[physim.Trajectory]
    work: dict[str, Callable[[], object]]
    engines: dict[str, MujocoBatch]


def build_contest(
    name: str, *, regime: str, batch: int, steps: int, seed: int, ahead: float | None = None
) -> Contest:
    """Both engines, each where its own batch has come to.

    Args:
        name: Robot.
        regime: One of `REGIMES`.
        batch: Environments.
        steps: Steps to time.
        seed: Of start and controls.
        ahead: How long the motion goes on before it is timed [s]; the regime's own by default.
    """
    file = locomotion_file(name)
    model = load_quietly(file)
    sim = physim.Simulator(model, timestep=TIMESTEP)
    rng = np.random.default_rng(seed)
    start = sim.initial_state(batch=batch, on_penetration="ignore")
    v = torch.as_tensor(rng.normal(scale=0.1, size=(batch, model.nv)))
    start = sim.initial_state(q=start.q, v=v, on_penetration="ignore")
    scale, before = REGIMES[regime]
    first = round((before if ahead is None else ahead) / TIMESTEP)
    controls = random_controls(
        model, steps=first + steps, batch=batch, hold=HOLD, scale=scale, seed=seed
    )
    waiting, timed = controls[:first], controls[first:].contiguous()
    state = sim.rollout(start, waiting, on_failure="mask").state(-1)
    motion: list[physim.Trajectory] = []

    def ours() -> None:
        motion[:] = [sim.rollout(state, timed, on_failure="mask")]

    work: dict[str, Callable[[], object]] = {"physim": ours}
    engines = {}
    for label, options in ENGINES.items():
        engine = MujocoBatch.load(file, timestep=TIMESTEP, **options)
        fresh = engine.start(start.q.numpy(), start.v.numpy())
        settled = engine.run(fresh, _batch_first(waiting))[:, -1]
        work[label] = _theirs(engine, settled, _batch_first(timed))
        engines[label] = engine
    return Contest(
        simulator=sim, state=state, controls=timed, motion=motion, work=work, engines=engines
    )


def _batch_first(controls: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(controls.transpose(0, 1).numpy())


def _theirs(engine: MujocoBatch, start: np.ndarray, controls: np.ndarray) -> Callable[[], object]:
    return lambda: engine.run(start, controls)


def run(size: Size, seed: int = 0) -> Result:
    """Time every robot in both regimes."""
    batch, steps = {"tiny": (16, 5), "small": (256, 20), "full": (1024, 50)}[size]
    robots = {"tiny": LOCOMOTION[:1], "small": LOCOMOTION[:3], "full": LOCOMOTION}[size]
    repetitions = 2 if size == "tiny" else 5
    ahead = 0.1 if size == "tiny" else None
    rows = []
    for name in robots:
        for regime in REGIMES:
            contest = build_contest(
                name, regime=regime, batch=batch, steps=steps, seed=seed, ahead=ahead
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
            Column("own", "own"),
            Column("gain_elliptic", "times faster", ".2f"),
            Column("gain_pyramidal", "/ pyramidal", ".2f"),
            Column("gain_own", "/ own", ".2f"),
            Column("iterations", "iterations", ".1f"),
            Column("rescue_share", "rescued [%]", ".2f"),
            Column("failures", "failed"),
        ),
        rows=rows,
        settings={
            "batch": batch,
            "steps": steps,
            "timestep": TIMESTEP,
            "repetitions": repetitions,
            "controls": f"uniform, held {HOLD} steps",
            "regimes": f"share of the control range, time before [s]: {REGIMES}",
            "mujoco": f"mujoco.rollout, Newton, one MjData; {ENGINES}",
            "physim": "Simulator.rollout without gradients, exact contact",
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
        **{f"gain_{engine}": timings.ratio(engine, "physim") for engine in ENGINES},
        **{f"spread_{engine}": timings.spread(engine) for engine in contest.work},
        "iterations": summary["iterations_mean"],
        "failures": summary["failures"],
        "half_steps": summary["half_steps"],
        "rescues": summary["rescues"],
        "rescue_share": 100 * summary["rescues"] / summary["item_steps"],
        "unverified": summary["unverified"],
        "mujoco_warnings": {name: e.warnings() for name, e in contest.engines.items()},
    }


def _verdict(rows: list[dict[str, object]]) -> list[str]:
    lines = []
    for engine in ENGINES:
        gains = sorted(float(row[f"gain_{engine}"]) for row in rows)
        ours = sum(gain > 1.0 for gain in gains)
        lines.append(
            f"{engine}: physim is {gains[0]:.2f} to {gains[-1]:.2f} times faster than MuJoCo; it "
            f"is faster in {ours} of {len(gains)} rows, MuJoCo in {len(gains) - ours}."
        )
    return lines
