"""From controls to generalized forces.

Only the part of an actuator that does not follow the state acts here: ``gear (gain u + bias0)``,
clamped to the control range. Position and velocity feedback of affine actuators acts inside the
step as a spring and a damper (see `_numbers._effective_gains`), implicitly, so that a stiff servo
is stable at any time step. A servo with a force range cannot be split that way: its whole force is
taken from the state at the start of the step and clamped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from physim.model import Model


def actuator_forces(
    model: Model, parameters: Mapping[str, Tensor], q: Tensor, v: Tensor, control: Tensor
) -> Tensor:
    """Generalized force of all actuators, held over the coming interval.

    Args:
        model: The model.
        parameters: Its parameters, each tensor optionally with a leading batch dimension.
        q: Configuration (B, nq).
        v: Velocity (B, nv).
        control: Controls (B, nu).

    Returns:
        Force [N or N m], shape (B, nv).
    """
    p = parameters
    force = torch.zeros_like(v)
    if model.nu == 0:
        return force
    control = torch.minimum(torch.maximum(control, p["control_lower"]), p["control_upper"])
    columns = [torch.zeros_like(v[:, 0]) for _ in range(model.nv)]
    for actuator in model.actuators:
        a = actuator.index
        gear = p["gear"][..., a, :]
        push = p["gain"][..., a] * control[:, a] + p["bias"][..., a, 0]
        if len(actuator.dofs) == 1:
            dof = actuator.dofs[0]
            if actuator.is_force_limited:
                joint = model.joints[actuator.joint]
                length, rate = gear[..., 0] * q[:, joint.q_index], gear[..., 0] * v[:, dof]
                push = push + p["bias"][..., a, 1] * length + p["bias"][..., a, 2] * rate
        if actuator.is_force_limited:
            push = torch.minimum(
                torch.maximum(push, p["force_lower"][..., a]), p["force_upper"][..., a]
            )
        for k, dof in enumerate(actuator.dofs):
            columns[dof] = columns[dof] + gear[..., k] * push
    return torch.stack(columns, dim=-1)
