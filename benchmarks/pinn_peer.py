"""How much sooner is our network where DeepXDE's ends, and what does one step of each cost?

DeepXDE runs in a second environment, see ``peers.py``, with torch, one thread and one seed; without
it the rows say why they are empty.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers import Peer, PeerError, find_peer
from record import Column, Result, Size

from solvers.pde import evaluation_grid, problems
from solvers.pde.problems import forget_references
from solvers.pinn import MLP, PINN

__all__ = ["run"]

TITLE = "Burgers, nu = 0.01/pi: DeepXDE and physim, CPU time of one thread"
SCHEDULES: dict[str, dict[str, Any]] = {
    "tiny": {"adam": [20], "lbfgs": 20},
    "small": {"adam": [1000, 4000], "lbfgs": 1500},
    "full": {"adam": [5000, 5000, 5000], "lbfgs": 15000},
}
SHAPES = {"20x20x20": (20, 3, 20), "64x64x64x64": (64, 4, 4)}
POINTS = {"tiny": 200, "small": 2500, "full": 10_000}
ROUNDS = {"tiny": 1, "small": 3, "full": 5}
SCRIPT = "deepxde_burgers"


def train_peer(peer: Peer, size: Size, seed: int, reference: Path) -> list[dict[str, Any]]:
    """Errors and CPU times of DeepXDE on its way."""
    schedule = SCHEDULES[size]
    settings = {"mode": "train", "seed": seed, "reference": str(reference), **schedule}
    with peer.start(SCRIPT, settings) as deepxde:
        return [deepxde.answer() for _ in range(len(schedule["adam"]) + 1)]


def train_ours(error: float, seed: int) -> dict[str, float]:
    """CPU time at which our error is the same or less, the kernel compiled before."""
    solver = PINN(problems.Burgers(), seed=seed)
    solver.fit(10.0, steps=2, progress=False)
    last = solver.fit(600.0, cpu_budget=60.0, target=error, on_failure="mask", progress=False)
    return dict(last.history[-1])


def classical_seconds() -> float:
    """CPU time of the closed form on the grid of the errors [s]."""
    problem = problems.Burgers()
    points = evaluation_grid(problem, 256, 101)
    forget_references()
    began = time.process_time()
    problem.reference_values(points)
    return time.process_time() - began


def time_steps(
    peer: Peer, width: int, depth: int, *, points: int, steps: int, rounds: int
) -> dict[str, float]:
    """Milliseconds of one step of each, in turns."""
    solver = PINN(problems.Burgers(), MLP(width, depth), points=points)
    theta = solver.initial()
    settings = {
        "mode": "step", "seed": 0, "points": points, "width": width, "depth": depth, "steps": steps,
    }  # fmt: skip
    times: list[tuple[float, float]] = []
    with peer.start(SCRIPT, settings) as deepxde:
        for _ in range(rounds):
            deepxde.ask()
            theirs = deepxde.answer()["seconds"]
            ours = repeated(lambda: solver.collocation.loss_and_gradient(theta), 5 * steps)
            times.append((theirs, ours))
    return {
        "peer": 1e3 * statistics.median(theirs for theirs, _ in times),
        "ours": 1e3 * statistics.median(ours for _, ours in times),
        "ratio": statistics.median(theirs / ours for theirs, ours in times),
    }


def repeated(work: Callable[[], object], count: int) -> float:
    """CPU time of one call [s]."""
    work()
    began = time.process_time()
    for _ in range(count):
        work()
    return (time.process_time() - began) / count


def compare(peer: Peer, size: Size, seed: int) -> list[dict[str, Any]]:
    """The rows, with both sides in this run."""
    problem = problems.Burgers()
    points = evaluation_grid(problem, 256, 101)
    with tempfile.TemporaryDirectory() as folder:
        reference = Path(folder) / "burgers.npz"
        np.savez(reference, points=points.numpy(), u=problem.reference_values(points)["u"].numpy())
        parts = train_peer(peer, size, seed, reference)
    theirs = parts[-1]
    ours = train_ours(theirs["error"], seed)
    reached = ours["relative_l2"] <= theirs["error"]
    rows: list[dict[str, Any]] = [
        {
            "name": f"to DeepXDE's last error, {theirs['error']:.1e} [s]",
            "peer": theirs["cpu"],
            "ours": ours["cpu_seconds"] if reached else None,
            "ratio": theirs["cpu"] / ours["cpu_seconds"] if reached else None,
            "classical": classical_seconds(),
            "parts": parts,
            "error": ours["relative_l2"],
        }
    ]
    for name, (width, depth, steps) in SHAPES.items():
        points = POINTS[size]
        found = time_steps(
            peer, width, depth, points=points, steps=steps if size != "tiny" else 2,
            rounds=ROUNDS[size],
        )  # fmt: skip
        rows.append({"name": f"a step of {name} on {points} points [ms]", **found})
    return rows


def run(size: Size, seed: int) -> Result:
    peer = find_peer("deepxde")
    reason = peer.reason
    rows: list[dict[str, Any]] = []
    if not reason:
        try:
            rows = compare(peer, size, seed)
        except PeerError as error:
            reason = f"{peer.name} {peer.version} failed: {error}"
    schedule = "the schedule of its documentation"
    if size != "full":
        schedule = "a shortened form of " + schedule
    verdict = [
        f"DeepXDE follows {schedule} (float32, conditions in the loss); ours "
        "is the default (float64, conditions exact, self-scaled Broyden): the ratio is that of the "
        "whole recipes. Steps have the same network, points, precision and exact conditions; "
        "DeepXDE's include Adam's update. The closed form needs no network at all."
    ]
    if reason:
        rows = [{"name": f"DeepXDE is left out: {reason}"}]
        verdict = []
    return Result(
        title=TITLE,
        columns=(
            Column("name", "what"),
            Column("peer", "DeepXDE", ".3g"),
            Column("ours", "physim", ".3g"),
            Column("ratio", "ratio", ".1f"),
            Column("classical", "classical solver [s]", ".2g"),
        ),
        rows=rows,
        settings={
            "schedule": SCHEDULES[size], "peer": f"{peer.name} {peer.version}".strip(),
            "torch": torch.__version__,
        },
        verdict=verdict,
    )  # fmt: skip
