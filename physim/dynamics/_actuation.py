"""From controls to generalized forces.

Only the part of an actuator that does not follow the state acts here: ``gear (gain u + bias0)``,
clamped to the control range. Position and velocity feedback of affine actuators acts inside the
step as a spring and a damper (see `_numbers._effective_gains`), implicitly, so that a stiff servo
is stable at any time step. A servo with a force range cannot be split that way: its whole force is
taken from the state at the start of the step and clamped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from solvers.kernels import scalar as sc

if TYPE_CHECKING:
    from physim.dynamics._numbers import Numbers
    from physim.model import Model

Scalar = Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Actuator:
    """What of an actuator is structure.

    Attributes:
        dofs: Degrees of freedom that it drives.
        coordinate: Coordinate of its joint.
        is_force_limited: Whether its force is clamped.
    """

    dofs: tuple[int, ...]
    coordinate: int
    is_force_limited: bool


def actuators_of(model: Model) -> tuple[Actuator, ...]:
    """Structure of all actuators of a model."""
    return tuple(
        Actuator(
            dofs=tuple(actuator.dofs),
            coordinate=model.joints[actuator.joint].q_index,
            is_force_limited=actuator.is_force_limited,
        )
        for actuator in model.actuators
    )


def actuator_forces(
    actuators: Sequence[Actuator],
    numbers: Numbers,
    q: Sequence[Scalar],
    v: Sequence[Scalar],
    control: Sequence[Scalar],
) -> list[Scalar]:
    """Generalized force of all actuators, held over the coming interval [N or N m], nv scalars.

    Args:
        actuators: Their structure.
        numbers: The mechanism's numbers.
        q: Configuration (nq scalars).
        v: Velocity (nv scalars).
        control: Controls (nu scalars).
    """
    force: list[Scalar] = [0] * len(v)
    for index, (actuator, u) in enumerate(zip(actuators, control, strict=True)):
        item = numbers.actuator(index)
        u = sc.minimum(sc.maximum(u, item.control_lower), item.control_upper)
        push = sc.add(sc.multiply(item.gain, u), item.bias[0])
        if actuator.is_force_limited:
            if len(actuator.dofs) == 1:
                length = sc.multiply(item.gear[0], q[actuator.coordinate])
                rate = sc.multiply(item.gear[0], v[actuator.dofs[0]])
                push = sc.add(push, sc.multiply(item.bias[1], length))
                push = sc.add(push, sc.multiply(item.bias[2], rate))
            push = sc.minimum(sc.maximum(push, item.force_lower), item.force_upper)
        for k, dof in enumerate(actuator.dofs):
            force[dof] = sc.add(force[dof], sc.multiply(item.gear[k], push))
    return force
