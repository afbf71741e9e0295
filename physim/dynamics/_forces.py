"""Forces of contacts, joint limits and dry friction, from the impulses that a state carries."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from physim.dynamics._assembly import dense
from physim.dynamics._inputs import Parameters, item_rows
from physim.dynamics._state import State
from solvers.core import SettingsError

if TYPE_CHECKING:
    from physim.dynamics._simulator import Simulator


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ConstraintForces:
    """What constraints did in the step that led to a state: impulses over its length.

    A candidate that does not touch has zero force. After a step in parts, this is the last part.

    Attributes:
        contact: Force of the first shape of every candidate on the second, in world axes [N],
            shape ``(B, C, 3)``. The order is that of `Simulator.contact_pairs`.
        normal: Unit normals, from the first shape to the second, shape ``(B, C, 3)``.
        point: Where the forces act [m], shape ``(B, C, 3)``.
        generalized: Sum of contacts, joint limits and dry joint friction on every degree of
            freedom [N or N m], shape ``(B, nv)``.
    """

    contact: Float[Tensor, "batch candidate 3"]
    normal: Float[Tensor, "batch candidate 3"]
    point: Float[Tensor, "batch candidate 3"]
    generalized: Float[Tensor, "batch nv"]


@torch.no_grad()
def read_forces(
    simulator: Simulator, state: State, parameters: Parameters | None
) -> ConstraintForces:
    """The work behind `Simulator.constraint_forces`."""
    if state.impulses is None:
        raise SettingsError(
            "state.impulses is None, expected those of a step: take a state that one left, or "
            "roll out with keep_impulses=True"
        )
    mechanism, reference = simulator.mechanism, simulator._solver.reference
    data, _ = simulator._data(state, None, parameters)
    impulses = item_rows("state.impulses", state.impulses, mechanism.impulse_count, state.batch)
    length = data.past_timestep
    # Impulses act at the node that the step started from.
    begin = simulator._queries.retract(data.q, -length[:, None] * data.v)
    node = reference.assembly.node(replace(data, q=begin))
    limits, rubs = 2 * len(mechanism.limits), len(mechanism.rubbing)
    limit, rub, contacts = impulses.split([limits, rubs, 3 * mechanism.contact_count], dim=-1)
    # Normal first in memory; the equations order both tangents, then the normal.
    strengths = contacts.reshape(state.batch, mechanism.contact_count, 3)[..., [1, 2, 0]]
    held = torch.einsum("brci,bcr->bi", node.impulse_rows, strengths)
    held = held + reference.joint_force(limit, rub, held)
    frames, points = [begin.new_zeros(state.batch, 0, 3, 3)], [begin.new_zeros(state.batch, 0, 3)]
    for own in node.contacts:
        frames.append(torch.stack([dense(axis, own.gap) for axis in own.frame], dim=-2))
        points.append(dense(own.point, own.gap))
    # The equations push link a away from b; which shape is first, the model says.
    pairs = [(simulator.model.pairs[c.pair], c) for g in mechanism.groups for c in g.candidates]
    signs = [1.0 if c.shapes[0] == pair.shape_b else -1.0 for pair, c in pairs]
    frame = torch.cat(frames, dim=1) * begin.new_tensor(signs)[:, None, None]
    return ConstraintForces(
        contact=torch.einsum("bcr,bcrk->bck", strengths, frame) / length[:, None, None],
        normal=frame[:, :, 2],
        point=torch.cat(points, dim=1),
        generalized=held / length[:, None],
    )
