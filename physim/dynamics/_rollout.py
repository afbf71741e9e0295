"""Many steps: in one native call where nothing has to be asked in between, else one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from physim.dynamics._advance import REPORT
from physim.dynamics._inputs import as_rows, check_controls, finite_items, normalise_quaternions
from physim.dynamics._reports import done_report, step_smoothing
from physim.dynamics._state import State
from physim.dynamics._trajectory import Trajectory
from physim.dynamics._transforms import is_differentiated
from solvers.core import (
    OnFailure,
    Report,
    SettingsError,
    ShapeError,
    apply_on_failure,
    open_progress,
)

if TYPE_CHECKING:
    from physim.dynamics._simulator import Simulator

STEPS_PER_LAUNCH = 100
"""Between calls a rollout shows its progress and can be stopped."""


def roll_out(
    simulator: Simulator,
    state: State,
    controls: Tensor | Callable[[State, int], Tensor] | None,
    steps: int | None,
    *,
    parameters: Any,
    on_failure: OnFailure,
    checkpoint_every: int | None,
    progress: bool,
) -> Trajectory:
    """The loop behind `Simulator.rollout`."""
    nu, batch = simulator.model.nu, state.batch
    if isinstance(controls, Tensor):
        if controls.dim() not in (2, 3) or controls.shape[-1] != nu:
            raise ShapeError(
                f"controls have shape {tuple(controls.shape)}, expected (steps, {nu}) or "
                f"(steps, {batch}, {nu})"
            )
        if steps is not None and steps > controls.shape[0]:
            raise ShapeError(f"steps is {steps} but controls hold only {controls.shape[0]}")
        steps = controls.shape[0] if steps is None else steps
    if steps is None or steps < 1:
        raise SettingsError(f"steps is {steps!r}, expected a positive number of steps")
    if checkpoint_every is not None and checkpoint_every < 1:
        raise SettingsError(f"checkpoint_every is {checkpoint_every}, expected 1 or more")

    def control_at(now: State, step: int) -> Tensor:
        if controls is None:
            return torch.zeros(batch, nu, dtype=torch.float64)
        chosen = controls[step] if isinstance(controls, Tensor) else controls(now, step)
        return chosen.to(torch.float64).expand(batch, nu)

    step_interval = torch.full((batch,), simulator.timestep, dtype=torch.float64)
    if parameters and "timestep" in parameters:
        step_interval = torch.as_tensor(parameters["timestep"]).double().expand(batch)

    interval = step_interval if state.interval is None else state.interval
    start = State(
        q=state.q.double(), v=state.v.double(), interval=interval, impulses=state.impulses
    )
    if not callable(controls) and not _is_watched(start, controls, parameters):
        if controls is None:
            controls = torch.zeros(steps, batch, nu, dtype=torch.float64)
        open_loop = controls[:steps].to(torch.float64)
        open_loop = open_loop[:, None] if open_loop.dim() == 2 else open_loop
        return _launched(
            simulator,
            start,
            open_loop.expand(steps, batch, nu),
            parameters=parameters,
            on_failure=on_failure,
            progress=progress,
        )

    def run(start: list[Any], first: int, last: int) -> list[list[Any]]:
        now = State(q=start[0], v=start[1], interval=start[2], impulses=start[5])
        rows = []
        for step in range(first, last):
            u = control_at(now, step)
            now, report = simulator.step(now, u, parameters=parameters, on_failure=on_failure)
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
            bar.update(last, iterations=float(rows[-1][4].iterations.double().mean()))
    states: Sequence[Sequence[Any]] = rows
    path = tuple(State(q=row[0], v=row[1], interval=row[2]) for row in states)
    return Trajectory(
        q=torch.stack([row[0] for row in states]),
        v=torch.stack([row[1] for row in states]),
        interval=torch.stack([row[2] for row in states]),
        control=torch.stack([row[3] for row in states[1:]]),
        report=Report.stack([row[4] for row in states[1:]]),
        timestep=simulator.timestep,
        path=path if any(state.q.requires_grad or state.v.requires_grad for state in path) else (),
        impulses=rows[-1][5],
    )


def _is_watched(state: State, controls: Tensor | None, parameters: Any) -> bool:
    tensors = [state.q, state.v, state.interval, controls, *(parameters or {}).values()]
    return is_differentiated(*(x for x in tensors if isinstance(x, Tensor)))


def _launched(
    simulator: Simulator,
    state: State,
    controls: Tensor,
    *,
    parameters: Any,
    on_failure: OnFailure,
    progress: bool,
) -> Trajectory:
    """A rollout with given controls and without gradients: many steps a call."""
    steps, model = len(controls), simulator.model
    q = as_rows("state.q", state.q, model.nq)
    if simulator.backend == "reference":
        q = normalise_quaternions(simulator.mechanism.tree, q)
    now = State(q=q, v=state.v, interval=state.interval, impulses=state.impulses)
    assert now.interval is not None
    states, reports = [(now.q[None], now.v[None], now.interval[None])], []
    with open_progress(steps, description="rollout", show=progress) as bar:
        for first in range(0, steps, STEPS_PER_LAUNCH):
            span = controls[first : first + STEPS_PER_LAUNCH]
            now, part, report = _launch(
                simulator, now, span, parameters=parameters, on_failure=on_failure
            )
            states.append(part)
            reports.append(report)
            bar.update(first + len(span), iterations=float(report.iterations.double().mean()))
    columns = [torch.cat(column) for column in zip(*states, strict=True)]
    return Trajectory(
        q=columns[0],
        v=columns[1],
        interval=columns[2],
        control=controls.clone(),
        report=Report(
            status=torch.cat([r.status for r in reports]),
            iterations=torch.cat([r.iterations for r in reports]),
            residual=torch.cat([r.residual for r in reports]),
            counts={
                name: torch.cat([r.counts[name] for r in reports]) for name in reports[0].counts
            },
        ),
        timestep=simulator.timestep,
        impulses=now.impulses,
    )


def _launch(
    simulator: Simulator,
    state: State,
    controls: Tensor,
    *,
    parameters: Any,
    on_failure: OnFailure,
) -> tuple[State, tuple[Tensor, Tensor, Tensor], Report]:
    """One call: the state after it, states and reports of its steps."""
    data, _ = simulator._data(state, controls[0], parameters)
    good = finite_items(data, on_failure, bool(parameters))
    check_controls(controls, on_failure)
    done = simulator._solver.advance(
        data,
        step_smoothing(simulator, simulator.smoothing, with_gradient=False),
        controls=controls,
        impulses=state.impulses,
        most_parts=simulator.settings.max_substeps,
    )
    report = done_report(done, good)
    interval = data.timestep / done.report[..., REPORT.index("parts")]
    after = State(q=done.q[-1], v=done.v[-1], interval=interval[-1], impulses=done.impulses)
    if on_failure != "mask" and not report.all_converged:
        step = int((~report.converged).any(-1).nonzero()[0])
        there = State(q=done.q[step], v=done.v[step], interval=interval[step])
        apply_on_failure(
            report[step], on_failure, solution=(there, report[step]), what="Simulator.rollout"
        )
    return after, (done.q, done.v, interval), report
