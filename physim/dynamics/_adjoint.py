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
from physim.dynamics._inputs import rotation_spans
from physim.dynamics._kinematics import difference, retract
from physim.dynamics._reference import ReferenceSolver
from physim.model.tree import Tree
from solvers.kernels.algebra import quaternion_product
from solvers.nonlinear import cones, projections


def transport_cotangent(tree: Tree, q: Tensor, x: Tensor, cotangent: Tensor) -> Tensor:
    """Carry a cotangent of ``q`` to ``x``, its tangent components kept.

    The next state and the solution of the gradient differ by what the smoothings differ.
    Components along a unit quaternion mean nothing and are dropped.
    """
    pieces, last = [], 0
    for _, start, _ in sorted(rotation_spans(tree), key=lambda span: span[1]):
        here, there, g = (list(y[:, start : start + 4].unbind(-1)) for y in (q, x, cotangent))
        turn = quaternion_product(there, [here[0], *[-y for y in here[1:]]])
        # Left multiplication is an isometry that takes the tangent space at q to that at x.
        radial = sum(a * b for a, b in zip(here, g, strict=True))
        flat = [a - radial * b for a, b in zip(g, here, strict=True)]
        moved = torch.stack(quaternion_product(turn, flat), dim=-1)
        pieces += [cotangent[:, last:start], moved]
        last = start + 4
    return torch.cat([*pieces, cotangent[:, last:]], dim=-1) if pieces else cotangent


def central_balance(
    solver: ReferenceSolver, data: StepData, x: Tensor, impulses: Tensor, kappa: float
) -> Tensor:
    """The balance F at ``x`` (B, nv), with impulses as functions of the motion.

    Every cone is on the central path of ``kappa``; if that is zero, impulses
    are affine functions with the derivative of exact contact.
    """
    if kappa == 0.0:
        return exact_balance(solver, data, x, impulses)
    assembly = solver.assembly
    item = assembly.node(data)
    trial = assembly.trial(item, x, with_matrix=False)
    k = torch.full_like(data.timestep, kappa)[:, None]
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


def exact_balance(solver: ReferenceSolver, data: StepData, x: Tensor, impulses: Tensor) -> Tensor:
    """The balance at an exact solution, right to first derivatives."""
    from physim.dynamics._adjoint_phases import EXACT_CAP

    mechanism, assembly = solver.mechanism, solver.assembly
    item = assembly.node(data)
    trial = assembly.trial(item, x, with_matrix=False)
    weights = solver.weights
    limits, rubs = 2 * len(mechanism.limits), len(mechanism.rubbing)
    shape = (len(x), mechanism.contact_count, 3)
    b = impulses[:, limits + rubs :].reshape(shape).permute(2, 0, 1)[[1, 2, 0]]
    with torch.no_grad():
        normal = torch.tensor([w for group in weights.contacts for w in group[0]]).to(x)
        tangent = torch.tensor([w for group in weights.contacts for w in group[1]]).to(x)
        law = contact.natural_response(
            list(trial.velocity), list(b), item.mu, (normal, tangent), EXACT_CAP
        )
        gain = torch.stack([torch.stack([g + 0 * item.gap for g in row]) for row in law.gain])
        per_bound = torch.stack([g + 0 * item.gap for g in law.per_bound])
        joints = torch.tensor(weights.joints).to(x)
        low = [dof for dof, _ in mechanism.limits]
        limit = projections.orthant_newton(
            impulses[:, :limits], trial.limit_velocity, joints[[*low, *low]], EXACT_CAP
        )
        dry = projections.disc_newton(
            [impulses[:, limits : limits + rubs]],
            [trial.slip],
            item.friction_bound,
            joints[[dof for dof, _ in mechanism.rubbing]],
            EXACT_CAP,
        )
        motion = (trial.velocity, item.mu, trial.limit_velocity, trial.slip, item.friction_bound)
        at = [y.detach() for y in motion]
    change = -torch.einsum("rsbc,sbc->rbc", gain, trial.velocity - at[0])
    friction = change[:2] + per_bound * (b[2] * (item.mu - at[1]))
    impulse = torch.cat([friction, change[2:]]) + b
    balance = trial.residual - torch.einsum("brci,rbc->bi", item.impulse_rows, impulse)
    push = -limit.gain * (trial.limit_velocity - at[2])
    rub = dry.b_p[0] * (item.friction_bound - at[4]) - dry.b_y[0][0] * (trial.slip - at[3])
    return balance - solver.joint_force(push, rub, balance)


def outputs(solver: ReferenceSolver, data: StepData, x: Tensor) -> tuple[Tensor, Tensor]:
    """Next configuration and velocity of the interval that ends there."""
    cayley, _ = difference(solver.mechanism.tree, list(x.unbind(-1)), list(data.q.unbind(-1)))
    return x, torch.stack(cayley, dim=-1) / data.timestep[:, None]


def reference_adjoint(
    solver: ReferenceSolver,
    data: StepData,
    x: Tensor,
    impulses: Tensor,
    kappa: float,
    cotangent_q: Tensor,
    cotangent_v: Tensor,
) -> StepData:
    """Cotangents of all inputs of a step, differentiable if gradients are enabled.

    Args:
        solver: Solver of the mechanism.
        data: Inputs of the step.
        x: Its solution at the gradient's smoothing (B, nq).
        impulses: Impulses there (B, w); read if ``kappa`` is zero.
        kappa: Central-path parameter of the gradient [J].
        cotangent_q: Cotangent of the next configuration (B, nq).
        cotangent_v: Cotangent of the next velocity (B, nv).
    """
    is_higher_order = torch.is_grad_enabled()
    if is_higher_order and kappa == 0.0:
        raise RuntimeError(
            "second derivatives need a smooth law; exact contact has none where it slides or "
            "switches. Build the simulator with gradient_smoothing above 0"
        )
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
        balance = central_balance(solver, inputs, moved, impulses, kappa)
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
            y * central_balance(solver, inputs, x, impulses, kappa)
        ).sum()
        gradients = torch.autograd.grad(
            total, values, create_graph=is_higher_order, allow_unused=True
        )
    filled = [
        torch.zeros_like(value) if g is None else g
        for g, value in zip(gradients, values, strict=True)
    ]
    return StepData(**dict(zip(names, filled, strict=True)))
