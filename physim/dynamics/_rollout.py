"""Many steps: in long native calls where all that happens in between is known, else one by one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from physim.dynamics._assembly import StepData
from physim.dynamics._conversion import as_double
from physim.dynamics._inputs import as_controls, as_state, check_controls, normalise_quaternions
from physim.dynamics._policy import LayeredPolicy
from physim.dynamics._state import State
from physim.dynamics._trajectory import Trajectory
from physim.dynamics._transforms import is_differentiated, is_recorded
from physim.dynamics._unroll import Unroll
from solvers.core import (
    NonFiniteError,
    NotConvergedError,
    OnFailure,
    Report,
    SettingsError,
    ShapeError,
    check_count,
    is_mapped,
    open_progress,
)

if TYPE_CHECKING:
    from physim.dynamics._simulator import Simulator


def roll_out(
    simulator: Simulator,
    state: State,
    controls: Tensor | Sequence[Sequence[float]] | Callable[[State, int], Tensor] | None,
    steps: int | None,
    *,
    parameters: Any,
    on_failure: OnFailure,
    checkpoint_every: int | None,
    keep_impulses: bool,
    progress: bool,
) -> Trajectory:
    """The work behind `Simulator.rollout`."""
    state = as_state(state, simulator.model.nq, simulator.model.nv)
    if controls is not None and not callable(controls):
        controls = as_controls(controls, simulator.model.nu, state.batch)
    elif controls is not None:
        _check_policy(controls)
    steps = _count(controls, steps)
    if checkpoint_every is not None:
        check_count("checkpoint_every", checkpoint_every)
    interval = state.interval
    if interval is None:
        interval = torch.full((state.batch,), simulator.timestep, dtype=torch.float64)
        if parameters and "timestep" in parameters:
            interval = torch.as_tensor(parameters["timestep"]).double().expand(state.batch)
    start = replace(state, interval=interval)
    layers = None
    if isinstance(controls, LayeredPolicy):
        layers = controls.layers(simulator.model, steps, state.batch)
    given = controls if isinstance(controls, Tensor) else None
    if not callable(controls) or layers is not None:
        drive = layers.flat() if layers else _given(simulator, given, steps, state.batch)
        data, _ = simulator._data(start, None, parameters)
        watched = [*(getattr(data, name) for name in StepData.__slots__), drive]
        with_gradient = is_differentiated(*watched)
        is_kernel = simulator.backend == "kernel" and (layers is None or layers.fits)
        if (is_kernel and (not with_gradient or is_recorded(*watched))) or (
            not with_gradient and layers is None
        ):
            if simulator.backend == "reference":
                data = replace(data, q=normalise_quaternions(simulator.mechanism.tree, data.q))
            plan = Unroll(
                simulator=simulator,
                layers=layers,
                steps=steps,
                checkpoint_every=checkpoint_every,
                on_failure=on_failure,
                parameters=parameters,
                progress=progress,
                keep_impulses=keep_impulses,
            )
            return _launched(plan, data, drive, state.impulses, with_gradient=with_gradient)
    return _stepped(
        simulator,
        start,
        controls,
        steps,
        parameters=parameters,
        on_failure=on_failure,
        checkpoint_every=checkpoint_every,
        keep_impulses=keep_impulses,
        progress=progress,
    )


def _count(controls: Tensor | Callable[[State, int], Tensor] | None, steps: int | None) -> int:
    """Number of steps."""
    if steps is None and isinstance(controls, Tensor):
        steps = controls.shape[0]
    if steps is None:
        raise SettingsError("steps is None, expected a number of steps where no controls are given")
    check_count("steps", steps)
    if isinstance(controls, Tensor) and steps > controls.shape[0]:
        raise ShapeError(f"steps is {steps} but controls hold only {controls.shape[0]}")
    return int(steps)


def _check_policy(policy: Callable[[State, int], Tensor]) -> None:
    """Refuse what cannot be called with a state and the number of a step."""
    called = policy.forward if isinstance(policy, torch.nn.Module) else policy
    try:
        inspect.signature(called).bind(None, 0)
    except ValueError:
        return  # Builtins do not say what they take.
    except TypeError as error:
        raise SettingsError(
            f"controls: the policy {type(policy).__name__} does not take (state, step): {error}; "
            "wrap a network as in lambda state, step: network(torch.cat([state.q, state.v], -1)), "
            "or take MLPPolicy"
        ) from error


def _given(simulator: Simulator, controls: Tensor | None, steps: int, batch: int) -> Tensor:
    """Given controls (T, B, nu); zero if None."""
    shape = (steps, batch, simulator.model.nu)
    if controls is None:
        return torch.zeros(1, 1, 1, dtype=torch.float64).expand(shape)
    controls = controls[:steps]
    return (controls[:, None] if controls.dim() == 2 else controls).expand(shape)


def _launched(
    plan: Unroll, data: StepData, drive: Tensor, impulses: Tensor | None, *, with_gradient: bool
) -> Trajectory:
    """All steps in native calls, and one sweep for the gradient."""
    run, probe = plan(data, drive, impulses, with_gradient=with_gradient)

    def state_gradients(scalar: Tensor) -> tuple[Tensor, Tensor]:
        plan.wants_states, plan.states = True, None
        try:
            torch.autograd.grad(scalar, probe, retain_graph=True, allow_unused=True)
            found = plan.states
        finally:
            plan.wants_states, plan.states = False, None
        if found is None:
            return torch.zeros_like(run.q), torch.zeros_like(run.v)
        return found

    return Trajectory(
        q=run.q,
        v=run.v,
        interval=run.interval,
        control=run.control,
        report=run.report,
        timestep=plan.simulator.timestep,
        state_gradients=state_gradients if with_gradient else None,
        impulses=run.impulses,
    )


def _stepped(
    simulator: Simulator,
    start: State,
    controls: Tensor | Callable[[State, int], Tensor] | None,
    steps: int,
    *,
    parameters: Any,
    on_failure: OnFailure,
    checkpoint_every: int | None,
    keep_impulses: bool,
    progress: bool,
) -> Trajectory:
    """One call a step: whatever gives the controls, however it is differentiated."""
    nu, batch = simulator.model.nu, start.batch

    def control_at(now: State, step: int) -> Tensor:
        if controls is None:
            return torch.zeros(batch, nu, dtype=torch.float64)
        if isinstance(controls, Tensor):
            return controls[step].expand(batch, nu)
        seen = _without_bad(now, simulator.model.initial_q)
        chosen = as_double("what the policy gave", controls(seen, step))
        try:
            taken = chosen.expand(batch, nu)
        except RuntimeError as error:
            raise ShapeError(
                f"the policy gave controls of shape {tuple(chosen.shape)} at step {step}, expected "
                f"({nu},) or ({batch}, {nu})"
            ) from error
        if not is_mapped(taken):
            check_controls(taken.detach()[None], on_failure, step)
        return taken

    def run(start: list[Any], first: int, last: int) -> list[list[Any]]:
        now = State(q=start[0], v=start[1], interval=start[2], impulses=start[5])
        rows = []
        for step in range(first, last):
            u = control_at(now, step)
            try:
                now, report = simulator.step(now, u, parameters=parameters, on_failure=on_failure)
            except (NonFiniteError, NotConvergedError) as error:
                error.add_note(f"This was step {step} of a rollout.")
                raise
            assert now.interval is not None
            rows.append([now.q, now.v, now.interval, u, report, now.impulses])
        return rows

    rows: list[list[Any]] = [[start.q, start.v, start.interval, None, None, start.impulses]]
    span = checkpoint_every or 1
    with open_progress(steps, description="rollout", show=progress) as bar:
        for first in range(0, steps, span):
            last = min(first + span, steps)
            if checkpoint_every:
                chunk = checkpoint(run, rows[-1], first, last, use_reentrant=False)
            else:
                chunk = run(rows[-1], first, last)
            rows += chunk
            if progress:
                bar.update(last, iterations=float(rows[-1][4].iterations.double().mean()))

    def state_gradients(scalar: Tensor) -> tuple[Tensor, Tensor]:
        leaves = [y for row in rows for y in row[:2] if y.requires_grad]
        grads = torch.autograd.grad(scalar, leaves, retain_graph=True, allow_unused=True)
        found = {id(y): g for y, g in zip(leaves, grads, strict=True) if g is not None}
        q, v = (
            torch.stack([found.get(id(row[k]), torch.zeros_like(row[k])) for row in rows])
            for k in range(2)
        )
        return q, v

    carries = any(y.requires_grad for row in rows for y in row[:2])
    return Trajectory(
        q=torch.stack([row[0] for row in rows]),
        v=torch.stack([row[1] for row in rows]),
        interval=torch.stack([row[2] for row in rows]),
        control=torch.stack([row[3] for row in rows[1:]]),
        report=Report.stack([row[4] for row in rows[1:]]),
        timestep=simulator.timestep,
        state_gradients=state_gradients if carries else None,
        impulses=torch.stack([row[5] for row in (rows[1:] if keep_impulses else rows[-1:])]),
    )


def _without_bad(state: State, q: Tensor) -> State:
    """The state as a policy sees it: NaN would spoil the gradient of numbers that items share."""
    if is_mapped(state.q, state.v):
        return state
    is_good = torch.isfinite(state.q).all(1) & torch.isfinite(state.v).all(1)
    if bool(is_good.all()):
        return state
    rows = is_good[:, None]
    return replace(
        state,
        q=torch.where(rows, state.q, q),
        v=torch.where(rows, state.v, torch.zeros_like(state.v)),
    )
