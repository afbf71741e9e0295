"""From the model's parameters to the flat vector of numbers that the equations read.

Everything here is ordinary torch on small tensors, hence differentiable by autograd: welding of
bodies, composite inertias, contact geometry in link axes, effective joint gains. The equations
and their adjoint only know the flat vector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from physim.model.tree import body_positions, rotate

if TYPE_CHECKING:
    from physim.collision import ContactGroup
    from physim.model import Model
    from physim.model.tree import Tree

Scalar = Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Slots of the flat vector: where each kind of number starts and how wide it is."""

    offsets: Mapping[str, int]
    widths: Mapping[str, int]
    size: int

    def slot(self, name: str, item: int = 0) -> slice:
        """Slice of item ``item`` of ``name``."""
        start = self.offsets[name] + item * self.widths[name]
        return slice(start, start + self.widths[name])


def build_layout(
    tree: Tree, joint_count: int, actuator_count: int, groups: Sequence[ContactGroup]
) -> Layout:
    """Place every number of a mechanism in one flat vector."""
    plan: list[tuple[str, int, int]] = [
        ("gravity", 1, 3),
        ("offset", len(tree.links), 3),
        ("mass", len(tree.links), 1),
        ("center", len(tree.links), 3),
        ("inertia", len(tree.links), 6),
        ("anchor", joint_count, 3),
    ]
    plan += [(name, tree.nv, 1) for name in DOF_NUMBERS]
    plan += [("actuator", actuator_count, ACTUATOR_WIDTH)]
    plan += [(group.name, group.count, group.width) for group in groups]
    offsets, widths, size = {}, {}, 0
    for name, count, width in plan:
        offsets[name], widths[name] = size, width
        size += count * width
    return Layout(offsets=offsets, widths=widths, size=size)


DOF_NUMBERS = (
    "armature",
    "damping",
    "stiffness",
    "spring_reference",
    "friction_loss",
    "limit_lower",
    "limit_upper",
)


ACTUATOR_WIDTH = 14
_FAR = 1e300


@dataclass(frozen=True, slots=True)
class ActuatorNumbers:
    """Numbers of an actuator: force ``gear (gain u + bias0 + bias1 l + bias2 l')``, two ranges."""

    gain: Scalar
    bias: list[Scalar]
    gear: list[Scalar]
    control_lower: Scalar
    control_upper: Scalar
    force_lower: Scalar
    force_upper: Scalar


class Numbers:
    """Reads the flat vector by meaning.

    Args:
        layout: Where each number stands.
        values: The numbers: a sequence of generic scalars (traced inputs, torch batches, or the
            python number 0 where a zero is part of the structure).
    """

    __slots__ = ("_layout", "_values")

    def __init__(self, layout: Layout, values: Sequence[Scalar]) -> None:
        self._layout = layout
        self._values = values

    def _read(self, name: str, item: int = 0) -> list[Scalar]:
        return list(self._values[self._layout.slot(name, item)])

    def gravity(self) -> list[Scalar]:
        """Gravitational acceleration [m/s^2]."""
        return self._read("gravity")

    def link_offset(self, link: int) -> list[Scalar]:
        """Origin of a link's frame in its parent link, joints at rest [m]."""
        return self._read("offset", link)

    def link_mass(self, link: int) -> Scalar:
        """Mass of a link [kg]."""
        return self._read("mass", link)[0]

    def link_center(self, link: int) -> list[Scalar]:
        """Centre of mass in link axes [m]."""
        return self._read("center", link)

    def link_inertia(self, link: int) -> list[list[Scalar]]:
        """Rotational inertia about the centre of mass in link axes [kg m^2]."""
        xx, yy, zz, xy, xz, yz = self._read("inertia", link)
        return [[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]

    def anchor(self, joint: int) -> list[Scalar]:
        """Pivot of a joint in link axes [m]."""
        return self._read("anchor", joint)

    def dof(self, name: str, dof: int) -> Scalar:
        """One of `DOF_NUMBERS` of a degree of freedom."""
        return self._read(name, dof)[0]

    def actuator(self, index: int) -> ActuatorNumbers:
        """One actuator."""
        gain, *rest = self._read("actuator", index)
        return ActuatorNumbers(gain, rest[:3], rest[3:9], *rest[9:])

    def contact(self, group: str, item: int) -> list[Scalar]:
        """Geometry and friction of a contact candidate."""
        return self._read(group, item)


def symmetric_matrix(entries: Tensor) -> Tensor:
    """(..., 6) in the order xx, yy, zz, xy, xz, yz to (..., 3, 3)."""
    return entries[..., [[0, 3, 4], [3, 1, 5], [4, 5, 2]]]


def symmetric_entries(matrix: Tensor) -> Tensor:
    """(..., 3, 3) to (..., 6) in the order xx, yy, zz, xy, xz, yz."""
    return matrix[..., [0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]]


def reduce_numbers(
    tree: Tree,
    model: Model,
    layout: Layout,
    groups: Sequence[ContactGroup],
    parameters: Mapping[str, Tensor],
) -> Tensor:
    """Flat vector of numbers of ``parameters``.

    Args:
        tree: Topology of ``model``.
        model: The model whose structure holds.
        layout: Slots of the flat vector.
        groups: Contact candidates.
        parameters: As `Model.parameters`, each tensor optionally with one leading batch
            dimension.

    Returns:
        Tensor of shape ``(..., layout.size)``, differentiable with respect to ``parameters``.
    """
    p = parameters
    places = body_positions(tree, model, p["body_position"])
    columns: list[Tensor] = [p["gravity"]]
    offsets, masses, centers, inertias = [], [], [], []
    for index, link in enumerate(tree.links):
        body = model.bodies[link.body]
        own = p["body_position"][..., body.index, :]
        if body.parent >= 0:
            rotation = tree.placements[body.parent].rotation
            own = places[body.parent] + rotate(rotation, own)
        offsets.append(own)
        mass, center, inertia = _weld(tree, model, index, places, p)
        masses.append(mass)
        centers.append(center)
        inertias.append(inertia)
    columns += offsets + masses + centers + inertias
    columns.append(p["joint_anchor"].flatten(-2))
    stiffness, reference, damping = _effective_gains(tree, model, p)
    dof_values = {
        "armature": p["armature"],
        "damping": damping,
        "stiffness": stiffness,
        "spring_reference": reference,
        "friction_loss": p["friction_loss"],
        "limit_lower": _per_dof(tree, p["limit_lower"]),
        "limit_upper": _per_dof(tree, p["limit_upper"]),
    }
    columns += [dof_values[name] for name in DOF_NUMBERS]
    if len(model.actuators):
        parts = [p["gain"][..., None], p["bias"], p["gear"]]
        ranges = ("control_lower", "control_upper", "force_lower", "force_upper")
        # Finite, so that what is not finite among the numbers is a fault.
        parts += [p[name][..., None].clamp(min=-_FAR, max=_FAR) for name in ranges]
        leading = torch.broadcast_shapes(*[x.shape[:-1] for x in parts])
        rows = torch.cat([x.expand(*leading, x.shape[-1]) for x in parts], dim=-1)
        columns.append(rows.flatten(-2))
    for group in groups:
        columns += group.numbers(tree, model, places, p)
    batch = torch.broadcast_shapes(*[c.shape[:-1] for c in columns])
    flat = torch.cat([c.expand(*batch, c.shape[-1]) for c in columns], dim=-1)
    if flat.shape[-1] != layout.size:
        raise RuntimeError(f"numbers: {flat.shape[-1]} values for {layout.size} slots")
    return flat


def _weld(
    tree: Tree, model: Model, link: int, places: Sequence[Tensor], p: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Mass (..., 1), centre (..., 3) and inertia (..., 6) of the bodies of one link."""
    parts = []
    for body in model.bodies:
        placement = tree.placements[body.index]
        if placement.link != link:
            continue
        mass = p["mass"][..., body.index, None]
        center = places[body.index] + rotate(
            placement.rotation, p["center_of_mass"][..., body.index, :]
        )
        own = symmetric_matrix(p["inertia"][..., body.index, :])
        turn = torch.as_tensor(placement.rotation, dtype=own.dtype, device=own.device)
        parts.append((mass, center, turn @ own @ turn.T))
    if len(parts) == 1:
        mass, center, inertia = parts[0]
        return mass, center, symmetric_entries(inertia)
    total: Tensor = torch.stack([mass for mass, _, _ in parts]).sum(0)
    mean: Tensor = torch.stack([mass * center for mass, center, _ in parts]).sum(0) / total
    eye = torch.eye(3, dtype=mean.dtype, device=mean.device)
    shifted = []
    for mass, center, inertia in parts:
        d = center - mean
        square = (d * d).sum(-1)[..., None, None]
        shifted.append(
            inertia + mass[..., None] * (square * eye - d[..., :, None] * d[..., None, :])
        )
    return total, mean, symmetric_entries(torch.stack(shifted).sum(0))


def _per_dof(tree: Tree, per_joint: Tensor) -> Tensor:
    """Spread a per-joint number over the joint's degrees of freedom."""
    source = [0] * tree.nv
    for joint in tree.joints:
        for dof in range(joint.v, joint.v + joint.width):
            source[dof] = joint.index
    return per_joint[..., source]


def _effective_gains(
    tree: Tree, model: Model, p: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Springs and dampers of joints and of affine actuators, per degree of freedom.

    An actuator force ``gain u + bias0 + bias1 l + bias2 l'`` with length ``l = gear q`` acts on
    its joint like a spring of stiffness ``-gear^2 bias1`` about 0 and a damper ``-gear^2 bias2``.
    """
    source = [0] * tree.nv
    for dof, coordinate in tree.scalar_dofs:
        source[dof] = coordinate
    reference = p["spring_reference"][..., source]
    stiffness, damping = p["stiffness"], p["damping"]
    moment = stiffness * reference
    for actuator in model.actuators:
        if actuator.is_force_limited or len(actuator.dofs) != 1:
            continue
        column = torch.zeros(tree.nv, dtype=stiffness.dtype, device=stiffness.device)
        column[actuator.dofs[0]] = 1.0
        squared = p["gear"][..., actuator.index, 0, None] ** 2
        stiffness = stiffness - column * squared * p["bias"][..., actuator.index, 1, None]
        damping = damping - column * squared * p["bias"][..., actuator.index, 2, None]
    # One spring of the summed stiffness; its rest position keeps the passive springs' moment.
    safe = torch.where(stiffness == 0, torch.ones_like(stiffness), stiffness)
    reference = torch.where(stiffness == 0, reference.expand_as(moment), moment / safe)
    return stiffness, reference, damping
