"""What the equations of one model are made of, fixed once: topology, slots, candidates, scales."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from physim.collision import ContactGroup, build_groups, shape_frame
from physim.dynamics._actuation import Actuator, actuators_of
from physim.dynamics._contact import Recovery
from physim.dynamics._numbers import Layout, build_layout, reduce_numbers
from physim.model.tree import Tree, body_positions, build_tree

if TYPE_CHECKING:
    from physim.model import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class Scales:
    """Units in which a model's tolerances and smoothing are meant.

    Attributes:
        mass: Total moving mass [kg].
        length: Size of the model, its radius about the centre of mass at rest [m].
        gravity: Gravitational acceleration, 9.81 where the model has none [m/s^2].
        velocity: sqrt(gravity length) [m/s].
    """

    mass: float
    length: float
    gravity: float

    @property
    def velocity(self) -> float:
        """Speed of a fall from the model's own half height [m/s]."""
        return float((self.gravity * self.length) ** 0.5)

    @property
    def energy(self) -> float:
        """Mass times speed squared [J]."""
        return self.mass * self.gravity * self.length

    def impulse(self, timestep: float) -> float:
        """Weight times the time step [N s]."""
        return self.mass * self.gravity * timestep

    def kappa(self, smoothing: float, timestep: float) -> float:
        """Central-path parameter [J] of a dimensionless smoothing."""
        return smoothing * self.impulse(timestep) * self.velocity


@dataclass(frozen=True, slots=True, kw_only=True)
class Mechanism:
    """Structure of one model's equations.

    Attributes:
        tree: Links and degrees of freedom.
        groups: Contact candidates by kind.
        layout: Slots of the flat numbers.
        limits: (dof, coordinate) of limited joints.
        rubbing: (dof, coordinate) of joints with dry friction.
        actuators: Structure of the actuators.
        scales: Units of tolerances and smoothing.
        recovery: Treatment of violations at the start of a step.
    """

    tree: Tree
    groups: tuple[ContactGroup, ...]
    layout: Layout
    limits: tuple[tuple[int, int], ...]
    rubbing: tuple[tuple[int, int], ...]
    actuators: tuple[Actuator, ...]
    scales: Scales
    recovery: Recovery

    @property
    def contact_count(self) -> int:
        """Number of contact candidates."""
        return sum(group.count for group in self.groups)

    @property
    def impulse_count(self) -> int:
        """Number of constraint impulses: limits, dry friction, three per contact candidate."""
        return 2 * len(self.limits) + len(self.rubbing) + 3 * self.contact_count


def build_mechanism(
    model: Model, *, shapes: Sequence[str] | None = None, prune: bool = True
) -> Mechanism:
    """Fix the structure of ``model``'s equations.

    Args:
        model: The model.
        shapes: Names of the shapes that may touch something; all if None.
        prune: Drop candidates that can never touch first.
    """
    tree = build_tree(model)
    groups = build_groups(tree, model, shapes=shapes, prune=prune)
    parameters = model.parameters()
    limited = {j.v_index for j in model.joints if j.is_limited and j.kind in ("hinge", "slide")}
    rubbing = {dof for dof in range(model.nv) if float(parameters["friction_loss"][dof]) > 0.0}
    layout = build_layout(tree, len(model.joints), len(model.actuators), groups)
    scales = measure(tree, model, layout, groups)
    return Mechanism(
        tree=tree,
        groups=groups,
        layout=layout,
        limits=tuple(pair for pair in tree.scalar_dofs if pair[0] in limited),
        rubbing=tuple(pair for pair in tree.scalar_dofs if pair[0] in rubbing),
        actuators=actuators_of(model),
        scales=scales,
        recovery=Recovery(dead_band=1e-5 * scales.length, share=0.2, speed=0.2 * scales.velocity),
    )


def measure(tree: Tree, model: Model, layout: Layout, groups: Sequence[ContactGroup]) -> Scales:
    """Mass, size and gravity of a model in its initial configuration."""
    from physim.dynamics._kinematics import forward_kinematics
    from physim.dynamics._numbers import Numbers

    parameters = {name: value.detach() for name, value in model.parameters().items()}
    flat = reduce_numbers(tree, model, layout, groups, parameters)
    numbers = Numbers(layout, list(flat.unbind(-1)))
    poses = forward_kinematics(tree, list(model.initial_q.unbind(-1)), numbers)
    masses = torch.stack([numbers.link_mass(i) for i in range(len(tree.links))])
    centers = torch.stack([_vector(c) for c in poses.center])
    middle = (masses[:, None] * centers).sum(0) / masses.sum()
    places = body_positions(tree, model, parameters["body_position"])
    distances = (centers - middle).norm(dim=-1)
    radius = float(distances.max())
    for index, link in enumerate(tree.links):
        center = _vector(numbers.link_center(index))
        spread = _vector([numbers.link_inertia(index)[k][k] for k in range(3)]).sum()
        own = [float((0.5 * spread / masses[index].clamp(min=1e-300)).sqrt())]
        own += [
            float((center - _vector(numbers.anchor(joint.index))).norm())
            for joint in link.joints
            if joint.kind in ("hinge", "ball")
        ]
        radius = max(radius, float(distances[index]) + max(own))
    for shape in model.shapes:
        carrier = tree.placements[shape.body].link if shape.body >= 0 else -1
        if carrier < 0 or shape.kind == "plane":
            continue
        _, place = shape_frame(tree, model, places, parameters, shape)
        offset = float((place - _vector(numbers.link_center(carrier))).norm())
        extent = parameters["shape_size"][shape.index]
        reach = float(extent.sum() if shape.kind == "capsule" else extent.norm())
        radius = max(radius, float(distances[carrier]) + offset + reach)
    gravity = float(parameters["gravity"].norm())
    return Scales(
        mass=float(masses.sum()),
        length=max(radius, 1e-6),
        gravity=gravity if gravity > 0 else 9.81,
    )


def _vector(values: Sequence[object]) -> torch.Tensor:
    return torch.stack([torch.as_tensor(x, dtype=torch.float64) for x in values])
