"""Effective masses: how much impulse a unit of constraint velocity is worth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from physim.dynamics._assembly import Assembly, StepData

if TYPE_CHECKING:
    from physim.dynamics._mechanism import Mechanism


@dataclass(frozen=True, slots=True)
class Weights:
    """Effective masses of a mechanism in its initial configuration.

    They set the units in which Newton's method compares impulses with velocities; the solution
    does not depend on them.

    Attributes:
        contacts: Per kind of candidate, along the normal and along the tangents [kg].
        joints: Per degree of freedom [kg or kg m^2].
    """

    contacts: list[tuple[list[float], list[float]]]
    joints: list[float]


def effective_masses(mechanism: Mechanism, q: Tensor, numbers: Tensor, timestep: float) -> Weights:
    """Evaluate the effective masses of all constraints.

    Args:
        mechanism: Structure of the equations.
        q: Configuration (nq,).
        numbers: Flat numbers (n,).
        timestep: Length of a step [s].
    """
    nv = mechanism.tree.nv
    step = torch.full((1,), timestep, dtype=torch.float64)
    still = torch.zeros(1, nv, dtype=torch.float64)
    control = torch.zeros(1, len(mechanism.actuators), dtype=torch.float64)
    data = StepData(q[None], still, control, still, step, step, numbers[None])
    assembly = Assembly(mechanism)
    with torch.no_grad():
        node = assembly.node(data)
        trial = assembly.trial(node, data.q)
        inverse = torch.linalg.pinv(trial.matrix[0])
        rows = trial.rows[0]
        mobility = torch.einsum("rci,ij,rcj->rc", rows, inverse, rows)
    # Directions in which a contact hardly moves now may be others later.
    mean = mobility.mean(0).clamp(min=1e-9 / mechanism.scales.mass)
    contacts, first = [], 0
    for group in mechanism.groups:
        own = slice(first, first + group.count)
        least = (1.0 if group.is_between_links else 0.1) * mean[own]
        normal = torch.maximum(mobility[2, own], least)
        tangent = torch.maximum(0.5 * (mobility[0, own] + mobility[1, own]), least)
        if group.is_between_links:
            normal = tangent = least
        contacts.append(((1.0 / normal).tolist(), (1.0 / tangent).tolist()))
        first += group.count
    joints = (1.0 / inverse.diagonal().clamp(min=1e-300)).tolist()
    return Weights(contacts, joints)
