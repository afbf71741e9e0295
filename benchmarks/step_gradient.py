"""What does the gradient of a step cost?

Forward is one step without gradients. With gradients the step is solved at the gradient's smoothing
too, and the vector-Jacobian product is one adjoint solve for states and controls, timed on a graph
that is there. `Simulator.linearize` gives all of the Jacobian; MuJoCo's `mjd_transitionFD` gets the
same size by finite differences of its soft contact, one environment at a time.
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
    batch = {"tiny": 8, "small": 64, "full": 1024}[size]
    robots = {"tiny": LOCOMOTION[:1], "small": LOCOMOTION[:2], "full": LOCOMOTION}[size]
    repetitions = 5
    rows = [_row(name, batch, repetitions, seed, is_tiny=size == "tiny") for name in robots]
    gains = [row["gain_linearize"] for row in rows]
    shares = [row["ratio_adjoint"] for row in rows]
    soft = [row["ratio_adjoint_graph"] for row in rows]
    return Result(
        title=TITLE,
        columns=(
            Column("model", "model"),
            Column("forward", "step"),
            Column("graph", "with graph"),
            Column("adjoint", "vector-Jacobian"),
            Column("ratio_adjoint", "/ step", ".2f"),
            Column("ratio_adjoint_graph", "/ with graph", ".2f"),
            Column("mass", "all, of masses"),
            Column("linearize", "linearize"),
            Column("transition_fd", "transitionFD"),
            Column("gain_linearize", "times cheaper", ".1f"),
        ),
        rows=rows,
        settings={
            "batch": batch,
            "timestep": TIMESTEP,
            "repetitions": repetitions,
            "transition_fd": f"one-sided, eps {EPSILON:g}, implicitfast, elliptic",
            "cotangents": "ones on the next q and v; of q, v and control",
            "mass": "step, graph and gradient of the sum of q and v, of masses too",
        },
        verdict=[
            f"A vector-Jacobian product costs {min(shares):.2f} to {max(shares):.2f} of a step, "
            f"{min(soft):.2f} to {max(soft):.2f} of one with a graph; linearize is "
            f"{min(gains):.1f} to {max(gains):.1f} times cheaper than mjd_transitionFD."
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
        "graph": lambda: _graph(sim, state, control),
        "adjoint": _adjoint(sim, state, control),
        "mass": lambda: _loss(sim, state, control).backward(),
        "linearize": lambda: sim.linearize(state, control),
        "transition_fd": _finite_differences(engine, state, control.numpy()),
    }
    timings = alternate(work, repetitions=repetitions)
    return {
        "model": name,
        **{key: 1e6 * timings.median(key) / state.batch for key in work},
        "ratio_graph": timings.ratio("graph", "forward"),
        "ratio_adjoint": timings.ratio("adjoint", "forward"),
        "ratio_adjoint_graph": timings.ratio("adjoint", "graph"),
        "ratio_mass": timings.ratio("mass", "forward"),
        "gain_linearize": timings.ratio("transition_fd", "linearize"),
        "left_out": batch - state.batch,
        "tangent_rows": 2 * sim.model.nv,
    }


def _graph(
    sim: physim.Simulator,
    state: physim.State,
    control: torch.Tensor,
    parameters: dict[str, torch.Tensor] | None = None,
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Next q and v, and the leaves that they depend on."""
    leaves = [x.detach().requires_grad_() for x in (state.q, state.v, control)]
    start = physim.State(q=leaves[0], v=leaves[1], interval=state.interval, impulses=state.impulses)
    following, _ = sim.step(start, leaves[2], parameters=parameters, on_failure="mask")
    return [following.q, following.v], leaves


def _adjoint(
    sim: physim.Simulator, state: physim.State, control: torch.Tensor
) -> Callable[[], object]:
    outputs, leaves = _graph(sim, state, control)
    ones = [torch.ones_like(y) for y in outputs]
    return lambda: torch.autograd.grad(outputs, leaves, ones, retain_graph=True)


def _loss(sim: physim.Simulator, state: physim.State, control: torch.Tensor) -> torch.Tensor:
    mass = {"mass": sim.parameters()["mass"].requires_grad_()}
    outputs, _ = _graph(sim, state, control, mass)
    return outputs[0].sum() + outputs[1].sum()


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
