"""What does the gradient of a step cost?

Forward is one step without gradients. With gradients the step is solved at the gradient's smoothing
too, and ``backward`` is one adjoint solve for states and controls. `Simulator.linearize` gives all
rows of the Jacobian; MuJoCo's `mjd_transitionFD` gets the same size by finite differences of its
soft contact, one environment at a time.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from contact_step import TIMESTEP, build_contest
from record import Column, Result, Size
from scenes import LOCOMOTION, MujocoBatch
from timing import alternate

import physim

__all__ = ["run"]

TITLE = "Cost of derivatives, settled batch, per environment [µs]"
EPSILON = 1e-6


def run(size: Size, seed: int = 0) -> Result:
    """Time gradients and linearisations of every robot."""
    batch = {"tiny": 8, "small": 64, "full": 256}[size]
    robots = {"tiny": LOCOMOTION[:1], "small": LOCOMOTION[:2], "full": LOCOMOTION}[size]
    repetitions = 2 if size == "tiny" else 5
    rows = [_row(name, batch, repetitions, seed, is_tiny=size == "tiny") for name in robots]
    ratios = [row["ratio_linearize"] for row in rows]
    wins = sum(r < 1.0 for r in ratios)
    return Result(
        title=TITLE,
        columns=(
            Column("model", "model"),
            Column("forward", "step"),
            Column("graph", "with graph"),
            Column("gradient", "+ backward"),
            Column("mass", "and of masses"),
            Column("ratio_gradient", "all, steps", ".2f"),
            Column("ratio_mass", "masses, steps", ".2f"),
            Column("linearize", "linearize"),
            Column("transition_fd", "transitionFD"),
            Column("ratio_linearize", "ratio", ".2f"),
        ),
        rows=rows,
        settings={
            "batch": batch,
            "timestep": TIMESTEP,
            "repetitions": repetitions,
            "transition_fd": f"one-sided, eps {EPSILON:g}, implicitfast, elliptic",
            "loss": "sum of the next q and v; gradients of q, v and control, then of masses too",
        },
        verdict=[
            f"Step and backward cost {min(r['ratio_gradient'] for r in rows):.1f} to "
            f"{max(r['ratio_gradient'] for r in rows):.1f} steps; linearize takes "
            f"{min(ratios):.2f} to {max(ratios):.2f} times mjd_transitionFD's time and is faster "
            f"in {wins} of {len(ratios)} rows."
        ],
    )


def _row(name: str, batch: int, repetitions: int, seed: int, *, is_tiny: bool) -> dict[str, object]:
    contest = build_contest(
        name,
        regime="settled",
        batch=batch,
        steps=1,
        seed=seed,
        ahead=0.1 if is_tiny else None,
    )
    sim, state, control = contest.simulator, contest.state, contest.controls[0]
    # An item that fails is retried in many parts, and `linearize` refuses it.
    good = _solvable(sim, state, control)
    state, control = state[good], control[good]
    engine = contest.engines["elliptic"]
    work = {
        "forward": lambda: sim.step(state, control, on_failure="mask"),
        "graph": lambda: _loss(sim, state, control),
        "gradient": lambda: _loss(sim, state, control).backward(),
        "mass": lambda: _loss(sim, state, control, has_mass=True).backward(),
        "linearize": lambda: sim.linearize(state, control),
        "transition_fd": _finite_differences(engine, state, control.numpy()),
    }
    timings = alternate(work, repetitions=repetitions)
    return {
        "model": name,
        **{key: 1e6 * timings.median(key) / state.batch for key in work},
        "ratio_graph": timings.ratio("graph", "forward"),
        "ratio_gradient": timings.ratio("gradient", "forward"),
        "ratio_mass": timings.ratio("mass", "forward"),
        "ratio_linearize": timings.ratio("linearize", "transition_fd"),
        "left_out": batch - state.batch,
        "tangent_rows": 2 * sim.model.nv,
    }


def _loss(
    sim: physim.Simulator, state: physim.State, control: torch.Tensor, *, has_mass: bool = False
) -> torch.Tensor:
    q, v = state.q.detach().requires_grad_(), state.v.detach().requires_grad_()
    u = control.detach().requires_grad_()
    parameters = {"mass": sim.parameters()["mass"].requires_grad_()} if has_mass else None
    start = physim.State(q=q, v=v, interval=state.interval)
    following, _ = sim.step(start, u, parameters=parameters, on_failure="mask")
    return following.q.sum() + following.v.sum()


def _solvable(sim: physim.Simulator, state: physim.State, control: torch.Tensor) -> torch.Tensor:
    """Which items converge at the gradient's smoothing as well."""
    v = state.v.detach().requires_grad_()
    start = physim.State(q=state.q, v=v, interval=state.interval)
    return sim.step(start, control, on_failure="mask")[1].converged


def _finite_differences(
    engine: MujocoBatch, state: physim.State, controls: np.ndarray
) -> Callable[[], object]:
    """Full A and B of every item by `mjd_transitionFD`, from physim's states."""
    import mujoco

    model, data = engine.model, engine.data
    nv, nu = model.nv, model.nu
    a, b = np.zeros((2 * nv, 2 * nv)), np.zeros((2 * nv, nu))
    rows = list(zip(state.q.numpy(), state.v.numpy(), controls, strict=True))

    def work() -> None:
        for q, v, u in rows:
            data.qpos[:], data.qvel[:], data.ctrl[:] = q, v, u
            mujoco.mjd_transitionFD(model, data, EPSILON, 0, a, b, None, None)

    return work
