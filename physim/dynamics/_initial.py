"""The state that a simulation starts from, checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from physim.dynamics._inputs import (
    Parameters,
    as_rows,
    batch_rows,
    check_quaternions,
    check_rotation,
    normalise_quaternions,
    report_overlap,
)
from physim.dynamics._state import State
from physim.dynamics._transforms import is_transformed
from solvers.core import SettingsError, check_choice, check_count, check_finite, is_mapped

if TYPE_CHECKING:
    from physim.dynamics._simulator import Simulator


def make_initial_state(
    simulator: Simulator,
    batch: int,
    *,
    q: Tensor | Sequence[float] | None,
    v: Tensor | Sequence[float] | None,
    keyframe: str | None,
    at: Literal["interval", "node"],
    control: Tensor | Sequence[float] | None,
    parameters: Parameters | None,
    on_penetration: Literal["warn", "raise", "ignore"],
) -> State:
    """The work behind `Simulator.initial_state`."""
    check_count("batch", batch)
    check_choice("at", at, ("interval", "node"))
    check_choice("on_penetration", on_penetration, ("warn", "raise", "ignore"))
    q0, v0 = simulator.model.initial_q, torch.zeros(simulator.model.nv, dtype=torch.float64)
    if keyframe is not None:
        record = simulator.model.keyframe(keyframe)
        q0, v0 = record.q, record.v
    q_rows = as_rows("q", q0 if q is None else q, simulator.model.nq)
    v_rows = as_rows("v", v0 if v is None else v, simulator.model.nv)
    if is_mapped(q_rows, v_rows) or (at == "node" and is_transformed(q_rows, v_rows)):
        raise SettingsError(
            "initial_state: got q or v of a torch.func transform, expected numbers that it can "
            "check; make the state outside, or inside take physim.State(q=q[None], v=v[None])"
        )
    batch = max(batch, q_rows.shape[0], v_rows.shape[0])
    q_rows = batch_rows("q", q_rows, simulator.model.nq, batch)
    v_rows = batch_rows("v", v_rows, simulator.model.nv, batch)
    tree = simulator.mechanism.tree
    names = [joint.name for joint in simulator.model.joints]
    check_quaternions(tree, names, q_rows)
    state = State(q=normalise_quaternions(tree, q_rows).clone(), v=v_rows.clone())
    check_finite("q", state.q)
    check_finite("v", state.v)
    check_rotation(tree, names, state.v, simulator.timestep)
    if at == "node":
        data, _ = simulator._data(state, control, parameters)
        force = simulator._solver.reference.assembly.driven_force(data)
        past, found = simulator._queries.interval_velocity(
            state.q, state.v, data.past_timestep, force, data.numbers
        )
        if not bool(found.all()):
            worst = int((~found).nonzero()[0])
            raise SettingsError(
                f"v: item {worst} is too fast for a time step of {simulator.timestep:g} s (a body "
                "would turn by more than 90 degrees in it); use a smaller timestep"
            )
        state = State(q=state.q, v=past)
    if on_penetration != "ignore" and simulator.mechanism.contact_count:
        depth = simulator.mechanism.recovery.dead_band
        report_overlap(
            simulator.contact_gaps(state, parameters=parameters),
            simulator.contact_pairs(),
            depth,
            on_penetration,
        )
    return state
