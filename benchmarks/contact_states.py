"""Do steps fail, and are gradients right, in a great many random contact states?

Five robots tumble on the floor under full random torques from random starts. Every few steps all
environments take a step that is differentiated: the gradient must be a number, and along a random
direction it must be what finite differences of the same smoothed step give. Counted are states,
steps that failed after every rescue, failures without a status, values that are not numbers, and
gradients that miss.
"""

from __future__ import annotations

from typing import Any

import torch
from record import Column, Result, Size
from scenes import LOCOMOTION, load_quietly, locomotion_file, random_controls

import physim

__all__ = ["count_states", "run"]

TITLE = "Random contact states under full torques: failures and gradients"
TIMESTEP = 0.01
HOLD = 5
APART = 5
"""Steps between two states that count."""
SMOOTHING = 1e-4
"""Of the step whose gradient is compared."""
SAMPLE = 8
"""Environments per visit whose gradient is compared with finite differences."""
CHANGE = 1e-6
"""Half width of the finite difference."""


def count_states(name: str, *, states: int, batch: int, seed: int) -> dict[str, Any]:
    """Visit states of one robot.

    Args:
        name: Robot.
        states: How many states to visit, rounded up to whole batches.
        batch: Environments at once.
        seed: Of starts, controls and directions.
    """
    model = load_quietly(locomotion_file(name))
    sim = physim.Simulator(model, timestep=TIMESTEP, gradient_smoothing=SMOOTHING)
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    visits = -(-states // batch)
    controls = random_controls(
        model, steps=100 + visits * APART, batch=batch, hold=HOLD, scale=1.0, seed=seed
    )
    state = sim.initial_state(v=draw(batch, model.nv), on_penetration="ignore")
    motion = sim.rollout(state, controls[:100], on_failure="mask")
    row: dict[str, Any] = {"robot": name, "states": visits * batch, "touching": 0}
    row.update(failed=0, silent=0, not_finite=0, rescued=0, compared=0, missed=0, worst=0.0)
    for visit in range(visits):
        state = motion.state(-1)
        ahead = controls[100 + visit * APART : 100 + (visit + 1) * APART]
        v, u = state.v.clone().requires_grad_(), ahead[0].clone().requires_grad_()
        start = physim.State(q=state.q, v=v, interval=state.interval, impulses=state.impulses)
        following, report = sim.step(start, u, on_failure="mask")
        gradients = torch.autograd.grad(following.q.sum() + following.v.sum(), [v, u])
        failed = ~report.converged
        row["failed"] += int(failed.sum())
        row["silent"] += int((failed & (report.status == 0)).sum())
        row["rescued"] += int((report.counts["rescues"] > 0).sum())
        row["touching"] += int((report.counts["min_gap"] < 1e-6).sum())
        for values in (following.q, following.v, *gradients):
            row["not_finite"] += int((~torch.isfinite(values)).any(-1).sum())
        _compare(sim, state, ahead[0], [draw(SAMPLE, model.nv), draw(SAMPLE, model.nu)], row)
        motion = sim.rollout(following.detach(), ahead[1:].contiguous(), on_failure="mask")
    return row


def _compare(
    sim: physim.Simulator,
    state: physim.State,
    control: torch.Tensor,
    directions: list[torch.Tensor],
    row: dict[str, Any],
) -> None:
    """Gradient of a smoothed step along a direction against its central difference."""
    rows = slice(0, SAMPLE)

    def step(v: torch.Tensor, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        start = physim.State(q=state.q[rows], v=v, interval=state.interval[rows])
        following, report = sim.step(start, u, smoothing=SMOOTHING, on_failure="mask")
        return following.v.sum(-1), report.converged & (report.counts["parts"] == 1)

    at = [state.v[rows].clone().requires_grad_(), control[rows].clone().requires_grad_()]
    total, usable = step(*at)
    gradients = torch.autograd.grad(total.sum(), at)
    pairs = list(zip(gradients, directions, strict=True))
    slope = torch.stack([(g * d).sum(-1) for g, d in pairs]).sum(0)
    with torch.no_grad():
        ends = [
            step(*(x + sign * CHANGE * d for x, d in zip(at, directions, strict=True)))
            for sign in (1.0, -1.0)
        ]
        difference = (ends[0][0] - ends[1][0]) / (2.0 * CHANGE)
        usable = usable & ends[0][1] & ends[1][1]
        size = torch.stack([(g * d).abs().sum(-1) for g, d in pairs]).sum(0)
        error = ((slope - difference).abs() / (1e-6 + size))[usable]
    row["compared"] += error.numel()
    row["missed"] += int((error > 1e-3).sum())
    row["worst"] = max([row["worst"], *error.tolist()])


def run(size: Size, seed: int = 0) -> Result:
    """Visit 100,000 states in all at full size."""
    states, batch = {"tiny": (16, 16), "small": (1000, 200), "full": (20_000, 500)}[size]
    robots = LOCOMOTION[:1] if size == "tiny" else LOCOMOTION
    rows = [count_states(name, states=states, batch=batch, seed=seed) for name in robots]
    total = {key: sum(row[key] for row in rows) for key in rows[0] if key != "robot"}
    return Result(
        title=TITLE,
        columns=(
            Column("robot", "robot"),
            Column("states", "states", "d"),
            Column("touching", "touching", "d"),
            Column("rescued", "rescued", "d"),
            Column("failed", "failed", "d"),
            Column("silent", "without status", "d"),
            Column("not_finite", "not finite", "d"),
            Column("compared", "gradients compared", "d"),
            Column("missed", "off by 1e-3", "d"),
            Column("worst", "worst", ".1e"),
        ),
        rows=rows,
        settings={"timestep": TIMESTEP, "batch": batch, "smoothing": SMOOTHING, "seed": seed},
        verdict=[
            f"{total['failed']} of {total['states']} steps failed after every rescue, "
            f"{total['silent']} without a status; {total['not_finite']} results were not finite; "
            f"{total['missed']} of {total['compared']} gradients missed finite differences."
        ],
    )
