r"""Gradient of one step by the implicit function theorem.

The next configuration x solves ``F(x; theta) = 0``, where F is the balance with every cone on its
central path: there impulses are explicit functions of velocities (`solvers.nonlinear.cones`), so F
is an ordinary smooth function. A cotangent g of the outputs then gives

.. math:: A^T y = g, \quad A = \partial F / \partial x, \qquad
          \bar\theta = -y^T \partial F / \partial\theta + \text{direct terms}.

Written with differentiable torch operations, hence right to any order: this is the oracle of the
compiled adjoint and the path for second derivatives.
"""

from __future__ import annotations

from dataclasses import fields

import torch
from torch import Tensor

from physim.dynamics import _contact as contact
from physim.dynamics._assembly import StepData
from physim.dynamics._kinematics import difference, retract
from physim.dynamics._reference import ReferenceSolver
from solvers.nonlinear import cones


def central_balance(solver: ReferenceSolver, data: StepData, x: Tensor, kappa: Tensor) -> Tensor:
    """The balance F at ``x`` with every cone on the central path of ``kappa`` (B, nv)."""
    assembly = solver.assembly
    item = assembly.node(data)
    trial = assembly.trial(item, x, with_matrix=False)
    k = kappa[:, None]
    with torch.no_grad():
        near = trial.gap < solver.pruning_gap(data)[:, None]
        active = solver.active(item) | near
    # A candidate left out keeps a harmless velocity, so that no gradient turns into NaN.
    velocity = torch.where(active, trial.velocity, torch.ones_like(trial.velocity))
    z = contact.contact_central(list(velocity), item.mu, k)
    impulse = torch.stack([z[2], z[3], z[0]], dim=1)
    impulse = torch.where(active[:, None], impulse, torch.zeros_like(impulse))
    balance = trial.residual - torch.einsum("brci,brc->bi", item.impulse_rows, impulse)
    limit = cones.orthant_central(trial.limit_velocity, k)
    _, rub = cones.second_order_central(item.friction_bound, [trial.slip], k)
    return balance - solver.joint_force(limit, rub[0], balance)


def outputs(solver: ReferenceSolver, data: StepData, x: Tensor) -> tuple[Tensor, Tensor]:
    """Next configuration and velocity of the interval that ends there."""
    cayley, _ = difference(solver.mechanism.tree, list(x.unbind(-1)), list(data.q.unbind(-1)))
    return x, torch.stack(cayley, dim=-1) / data.timestep[:, None]


def reference_adjoint(
    solver: ReferenceSolver,
    data: StepData,
    x: Tensor,
    kappa: Tensor,
    cotangent_q: Tensor,
    cotangent_v: Tensor,
) -> StepData:
    """Cotangents of all inputs of a step, differentiable if gradients are enabled.

    Args:
        solver: Solver of the mechanism.
        data: Inputs of the step.
        x: Its solution at ``kappa`` (B, nq).
        kappa: Central-path parameter of the gradient (B,).
        cotangent_q: Cotangent of the next configuration (B, nq).
        cotangent_v: Cotangent of the next velocity (B, nv).
    """
    is_higher_order = torch.is_grad_enabled()
    with torch.enable_grad():
        names = [field.name for field in fields(StepData)]
        values = [getattr(data, name) for name in names]
        # Views cut x's own dependence on the inputs off: what counts here is at fixed x.
        values = [
            y.view_as(y) if is_higher_order and y.requires_grad else y.detach().requires_grad_()
            for y in values
        ]
        x = x if is_higher_order else x.detach()
        inputs = StepData(**dict(zip(names, values, strict=True)))
        step = torch.zeros_like(cotangent_v).requires_grad_()
        columns = retract(
            solver.mechanism.tree,
            list(x.unbind(-1)),
            list((step * inputs.timestep[:, None]).unbind(-1)),
        )
        moved = torch.stack(columns, dim=-1)
        balance = central_balance(solver, inputs, moved, kappa)
        rows = [
            torch.autograd.grad(
                balance[:, i].sum(), step, create_graph=is_higher_order, retain_graph=True
            )[0]
            for i in range(balance.shape[-1])
        ]
        matrix = torch.stack(rows, dim=-2)
        out_q, out_v = outputs(solver, inputs, moved)
        direct = (cotangent_q * out_q).sum() + (cotangent_v * out_v).sum()
        right = torch.autograd.grad(direct, step, create_graph=is_higher_order, retain_graph=True)[
            0
        ]
        y = torch.linalg.solve(matrix.transpose(-1, -2), right[..., None])[..., 0]
        fixed = outputs(solver, inputs, x)
        total = (cotangent_v * fixed[1]).sum() - (
            y * central_balance(solver, inputs, x, kappa)
        ).sum()
        gradients = torch.autograd.grad(
            total, values, create_graph=is_higher_order, allow_unused=True
        )
    filled = [
        torch.zeros_like(value) if g is None else g
        for g, value in zip(gradients, values, strict=True)
    ]
    return StepData(**dict(zip(names, filled, strict=True)))
