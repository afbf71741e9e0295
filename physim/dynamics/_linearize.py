"""Jacobians of a step in tangent coordinates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from physim.dynamics._conversion import as_tensor
from physim.dynamics._inputs import finite_items, normalise_quaternions
from physim.dynamics._kernel import KernelSolver
from physim.dynamics._reports import done_report, step_smoothing
from physim.dynamics._state import State
from physim.model.tree import Tree
from solvers.core import OnFailure, apply_on_failure
from solvers.kernels.algebra import quaternion_product

if TYPE_CHECKING:
    from physim.dynamics._inputs import Parameters
    from physim.dynamics._simulator import Simulator


def linearize_step(
    simulator: Simulator,
    state: State,
    control: Tensor,
    parameters: Parameters | None,
    on_failure: OnFailure,
) -> tuple[Tensor, Tensor]:
    """The work behind `Simulator.linearize`.

    Compiled, it is one step, one factorisation and one solve per column. Items that were taken in
    parts differentiate through all of them, row by row.
    """
    solver = simulator._solver
    if not isinstance(solver, KernelSolver):
        return linearize_by_rows(simulator, state, control, parameters, on_failure)
    start = State(
        q=normalise_quaternions(simulator.mechanism.tree, state.q.detach().to(torch.float64)),
        v=state.v.detach().to(torch.float64),
        interval=None if state.interval is None else state.interval.detach(),
        impulses=state.impulses,
    )
    given = {name: as_tensor(name, x).detach() for name, x in (parameters or {}).items()}
    data, _ = simulator._data(start, control.detach(), given)
    smoothing = step_smoothing(simulator, simulator.smoothing, with_gradient=True)
    done = solver.advance(
        data,
        smoothing,
        impulses=start.impulses,
        most_parts=simulator.settings.max_substeps,
    )
    totals = done.totals()
    if totals.status:
        report = done_report(done, finite_items(data, on_failure, parameters))
        ended = (State(q=done.q, v=done.v, impulses=done.impulses), report)
        apply_on_failure(report, on_failure, solution=ended, what="Simulator.linearize")
    kappa = smoothing.state if smoothing.gradient is None else smoothing.gradient
    x = done.q if done.soft is None else done.soft
    by_state, by_control = solver.linearize(data, x, done.impulses, kappa)
    good = (done.column("status") == 0.0) & (done.column("gradient_solved") > 0.5)
    whole = done.column("parts") < 1.5
    direct = good & whole
    if not bool(direct.all()):
        by_state[~direct], by_control[~direct] = 0.0, 0.0
        chosen = ((done.column("status") == 0.0) & ~whole).nonzero()[:, 0]
        if len(chosen):
            own = simulator.parameters()
            some = {
                name: x[chosen] if x.dim() > own[name].dim() and len(x) > 1 else x
                for name, x in given.items()
            }
            by_state[chosen], by_control[chosen] = linearize_by_rows(
                simulator, start[chosen], control[chosen], some, on_failure
            )
    return by_state, by_control


def linearize_by_rows(
    simulator: Simulator,
    state: State,
    control: Tensor,
    parameters: Parameters | None,
    on_failure: OnFailure,
) -> tuple[Tensor, Tensor]:
    """One step, one pull-back per row."""
    batch, nv, nu = state.batch, simulator.model.nv, simulator.model.nu
    tree = simulator.mechanism.tree
    with torch.enable_grad():
        shift = torch.zeros(batch, nv, dtype=torch.float64, requires_grad=True)
        v = state.v.detach().to(torch.float64).clone().requires_grad_()
        u = control.detach().clone().requires_grad_()
        q = simulator.retract(state.q.detach().to(torch.float64), shift)
        start = State(q=q, v=v, interval=state.interval, impulses=state.impulses)
        following, _ = simulator.step(start, u, parameters=parameters, on_failure=on_failure)
        rows = tangent_rows(tree, following.q.detach())
        moved = torch.einsum("bij,bj->bi", rows, following.q)
        out = torch.cat([moved, following.v], dim=-1)
        leaves = [shift, v, u] if nu else [shift, v]
        jacobian = [
            torch.autograd.grad(out[:, i].sum(), leaves, retain_graph=True) for i in range(2 * nv)
        ]
    columns = [torch.stack([row[k] for row in jacobian], dim=1) for k in range(len(leaves))]
    if not nu:
        columns.append(torch.zeros(batch, 2 * nv, 0, dtype=torch.float64))
    return torch.cat(columns[:2], dim=-1), columns[2]


def tangent_rows(tree: Tree, q: Tensor) -> Tensor:
    """Rows that read a tangent step off a small change of ``q`` (B, nv, nq)."""
    rows = torch.zeros(q.shape[0], tree.nv, tree.nq, dtype=q.dtype)
    for joint in tree.joints:
        q0, v0 = joint.q, joint.v
        if joint.kind in ("hinge", "slide"):
            rows[:, v0, q0] = 1.0
            continue
        if joint.kind == "free":
            for k in range(3):
                rows[:, v0 + k, q0 + k] = 1.0
            q0, v0 = q0 + 3, v0 + 3
        quaternion = list(q[:, q0 : q0 + 4].unbind(-1))
        for k in range(3):
            unit = [0.0, *[1.0 if i == k else 0.0 for i in range(3)]]
            turned = quaternion_product(quaternion, unit)
            rows[:, v0 + k, q0 : q0 + 4] = 2.0 * torch.stack(turned, dim=-1)
    return rows
