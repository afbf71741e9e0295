"""Quantities of a state: kinematics, mass matrix, energy, momentum, on torch batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from physim.dynamics._assembly import dense, motion_tensor
from physim.dynamics._conversion import as_double
from physim.dynamics._integrator import past_momentum
from physim.dynamics._kinematics import Poses, forward_kinematics, project, retract
from physim.dynamics._mechanism import Mechanism
from physim.dynamics._numbers import Numbers, symmetric_matrix
from physim.model.tree import body_positions, rotate
from solvers.core import ShapeError

if TYPE_CHECKING:
    from physim.collision import ContactGroup
    from physim.model import Model


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BodyPoses:
    """Where all bodies of a model are.

    Attributes:
        position: Origins of the body frames [m], shape ``(B, nbody, 3)``.
        rotation: Body axes to world, shape ``(B, nbody, 3, 3)``.
        center: Centres of mass [m], shape ``(B, nbody, 3)``.
    """

    position: Float[Tensor, "batch body 3"]
    rotation: Float[Tensor, "batch body 3 3"]
    center: Float[Tensor, "batch body 3"]


class Queries:
    """Evaluates one mechanism's quantities; every function is differentiable by autograd.

    Args:
        mechanism: Structure of the equations.
        model: The model.
    """

    def __init__(self, mechanism: Mechanism, model: Model) -> None:
        self.mechanism = mechanism
        self.model = model

    def poses(self, q: Tensor, numbers: Tensor) -> Poses:
        """Generic kinematics of a batch."""
        values = Numbers(self.mechanism.layout, list(numbers.unbind(-1)))
        return forward_kinematics(self.mechanism.tree, list(q.unbind(-1)), values)

    def motion(self, q: Tensor, numbers: Tensor) -> Tensor:
        """Motions of the degrees of freedom about the world origin (B, nv, 6)."""
        return motion_tensor(self.poses(q, numbers), q[:, 0])

    def body_poses(self, q: Tensor, numbers: Tensor, parameters: Mapping[str, Tensor]) -> BodyPoses:
        """Positions, rotations and centres of mass of all bodies."""
        tree, like = self.mechanism.tree, q[:, 0]
        poses = self.poses(q, numbers)
        rotations = [
            torch.stack([dense(row, like) for row in rotation], dim=-2)
            for rotation in poses.rotation
        ]
        positions = [dense(position, like) for position in poses.position]
        places = body_positions(tree, self.model, parameters["body_position"])
        out: tuple[list[Tensor], list[Tensor], list[Tensor]] = ([], [], [])
        eye = torch.eye(3, dtype=q.dtype, device=q.device).expand(q.shape[0], 3, 3)
        for index, placement in enumerate(tree.placements):
            local = torch.as_tensor(placement.rotation, dtype=q.dtype, device=q.device)
            base = rotations[placement.link] if placement.link >= 0 else eye
            origin = positions[placement.link] if placement.link >= 0 else q.new_zeros(3)
            own = rotate(placement.rotation, parameters["center_of_mass"][..., index, :])
            position = origin + (base @ places[index][..., None])[..., 0]
            out[0].append(position)
            out[1].append(base @ local)
            out[2].append(position + (base @ own[..., None])[..., 0])
        return BodyPoses(
            position=torch.stack(out[0], dim=1),
            rotation=torch.stack(out[1], dim=1),
            center=torch.stack(out[2], dim=1),
        )

    def _link_blocks(self, q: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Spatial inertias of links about the world origin (B, L, 6, 6), and centres (B, L, 3)."""
        tree, like = self.mechanism.tree, q[:, 0]
        values = Numbers(self.mechanism.layout, list(numbers.unbind(-1)))
        poses = forward_kinematics(tree, list(q.unbind(-1)), values)
        blocks, centers = [], []
        for link in range(len(tree.links)):
            rotation = torch.stack([dense(row, like) for row in poses.rotation[link]], dim=-2)
            entries = numbers[..., self.mechanism.layout.slot("inertia", link)]
            inertia = rotation @ symmetric_matrix(entries) @ rotation.transpose(-1, -2)
            center = dense(poses.center[link], like)
            mass = dense([values.link_mass(link)], like)[..., None]
            lever = _skew(center)
            eye = torch.eye(3, dtype=q.dtype, device=q.device)
            top = torch.cat([inertia - mass * lever @ lever, mass * lever], dim=-1)
            bottom = torch.cat([-mass * lever, mass * eye.expand_as(lever)], dim=-1)
            blocks.append(torch.cat([top, bottom], dim=-2))
            centers.append(center)
        return torch.stack(blocks, dim=1), torch.stack(centers, dim=1)

    def _moves(self, like: Tensor) -> Tensor:
        tree = self.mechanism.tree
        moves = torch.zeros(len(tree.links), tree.nv, dtype=like.dtype, device=like.device)
        for link, chain in enumerate(tree.chain):
            moves[link, list(chain)] = 1.0
        return moves

    def link_rates(self, motion: Tensor, rate: Tensor) -> Tensor:
        """Sum of ``motion * rate`` over the degrees of freedom that move each link (B, L, 6)."""
        return torch.einsum("bik,li,bi->blk", motion, self._moves(motion), rate)

    def mass_matrix(self, q: Tensor, numbers: Tensor) -> Tensor:
        """Joint-space inertia with armature (B, nv, nv)."""
        blocks, _ = self._link_blocks(q, numbers)
        motion = self.motion(q, numbers)
        twists = motion[:, None] * self._moves(q)[None, :, :, None]
        matrix = torch.einsum("blik,blkm,bljm->bij", twists, blocks, twists)
        return matrix + torch.diag_embed(self._dof_numbers(numbers, "armature"))

    def _dof_numbers(self, numbers: Tensor, name: str) -> Tensor:
        start = self.mechanism.layout.offsets[name]
        return numbers[..., start : start + self.mechanism.tree.nv]

    def gravity_force(self, q: Tensor, numbers: Tensor) -> Tensor:
        """Generalized force of gravity (B, nv)."""
        poses = self.poses(q, numbers)
        tree, like = self.mechanism.tree, q[:, 0]
        values = Numbers(self.mechanism.layout, list(numbers.unbind(-1)))
        gravity = torch.stack([dense([g], like)[..., 0] for g in values.gravity()], dim=-1)
        wrenches = []
        for link in range(len(tree.links)):
            weight = gravity * dense([values.link_mass(link)], like)
            moment = torch.linalg.cross(dense(poses.center[link], like), weight)
            wrenches.append((list(moment.unbind(-1)), list(weight.unbind(-1))))
        return dense(project(tree, poses.motion, wrenches), like)

    def node_momentum(
        self, q: Tensor, v: Tensor, interval: Tensor, force: Tensor, numbers: Tensor
    ) -> Tensor:
        """Generalized momentum at the node, of second order (B, nv)."""
        tree, like = self.mechanism.tree, q[:, 0]
        values = Numbers(self.mechanism.layout, list(numbers.unbind(-1)))
        columns = list(q.unbind(-1))
        poses = forward_kinematics(tree, columns, values)
        wrenches, joint = past_momentum(tree, columns, list(v.unbind(-1)), interval, values, poses)
        momentum = dense(project(tree, poses.motion, wrenches), like) + dense(joint, like)
        kick = self.gravity_force(q, numbers) + force
        return momentum + 0.5 * interval[:, None] * kick

    def node_velocity(
        self, q: Tensor, v: Tensor, interval: Tensor, force: Tensor, numbers: Tensor
    ) -> Tensor:
        """Velocity at the node, of second order (B, nv)."""
        momentum = self.node_momentum(q, v, interval, force, numbers)
        velocity: Tensor = torch.linalg.solve(self.mass_matrix(q, numbers), momentum)
        return velocity

    def interval_velocity(
        self, q: Tensor, v_node: Tensor, interval: Tensor, force: Tensor, numbers: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Velocity of a fictitious past interval that gives ``v_node`` at the node, by Newton.

        Returns:
            The velocity (B, nv), and which items converged (B,).
        """
        matrix = self.mass_matrix(q, numbers)
        wanted = (matrix @ v_node[..., None])[..., 0]
        v = v_node.clone()
        scales = self.mechanism.scales
        least = 1e-3 * scales.mass * scales.velocity * min(1.0, scales.length)
        scale = wanted.abs().amax(-1).clamp(min=least)
        # Speeds are differences of places over the interval, which amplifies the places' rounding.
        place = self._link_blocks(q, numbers)[1].detach().norm(dim=-1).amax(-1) + scales.length
        amplified = scales.mass * place * place.clamp(min=1.0) / interval
        tolerance = 1e-10 + 16 * torch.finfo(q.dtype).eps * amplified / scale
        error = torch.full_like(scale, torch.inf)
        for _ in range(30):
            if bool((error < 1e-14).all()):
                break
            with torch.enable_grad():
                trial = v.detach().requires_grad_()
                momentum = self.node_momentum(q, trial, interval, force, numbers)
                rows = [
                    torch.autograd.grad(momentum[:, i].sum(), trial, retain_graph=True)[0]
                    for i in range(momentum.shape[-1])
                ]
            defect = momentum.detach() - wanted
            # A stiff damper may leave no past velocity; the error then stays and is told.
            step, _ = torch.linalg.solve_ex(torch.stack(rows, dim=1).detach(), defect)
            v = v - step
            error = defect.abs().amax(-1) / scale
        return v, error < tolerance

    def energy(
        self, q: Tensor, v_node: Tensor, numbers: Tensor, parameters: Mapping[str, Tensor]
    ) -> Tensor:
        """Kinetic plus potential energy of gravity and of the joints' own springs (B,) [J]."""
        matrix = self.mass_matrix(q, numbers)
        kinetic = 0.5 * torch.einsum("bi,bij,bj->b", v_node, matrix, v_node)
        values = Numbers(self.mechanism.layout, list(numbers.unbind(-1)))
        _, centers = self._link_blocks(q, numbers)
        mass = torch.stack(
            [values.link_mass(i).expand(q.shape[0]) for i in range(centers.shape[1])], dim=-1
        )
        gravity = numbers[..., self.mechanism.layout.slot("gravity")]
        height = (centers * gravity[..., None, :]).sum(-1)
        potential = -(mass * height).sum(-1)
        # The numbers' springs are those of the servos too, which work and do not store.
        for dof, coordinate in self.mechanism.tree.scalar_dofs:
            stretch = q[:, coordinate] - parameters["spring_reference"][..., coordinate]
            potential = potential + 0.5 * parameters["stiffness"][..., dof] * stretch**2
        return kinetic + potential

    def momentum(self, q: Tensor, v_node: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Linear and, about the world origin, angular momentum [N s, N m s], (B, 3) each."""
        blocks, _ = self._link_blocks(q, numbers)
        motion = self.motion(q, numbers)
        twists = self.link_rates(motion, v_node)
        wrench = torch.einsum("blkm,blm->bk", blocks, twists)
        return wrench[:, 3:], wrench[:, :3]

    def retract(self, q: Tensor, step: Tensor) -> Tensor:
        """Move configurations along tangent steps (B, nv)."""
        columns = retract(self.mechanism.tree, list(q.unbind(-1)), list(step.unbind(-1)))
        return torch.stack(columns, dim=-1)

    def jacobian(
        self, q: Tensor, numbers: Tensor, point: Tensor, link: int
    ) -> tuple[Tensor, Tensor]:
        """Linear and angular Jacobian (B, 3, nv) of a world point (B, 3) carried by a link."""
        motion = self.motion(q, numbers)
        if link < 0:
            return torch.zeros_like(motion[..., :3].mT), torch.zeros_like(motion[..., :3].mT)
        motion = motion * self._moves(q)[link][:, None]
        angular, linear = motion[..., :3], motion[..., 3:]
        moved = linear + torch.linalg.cross(angular, point[:, None].expand_as(angular))
        return moved.mT, angular.mT

    def body_force(self, q: Tensor, numbers: Tensor, centers: Tensor, wrench: Tensor) -> Tensor:
        """Generalized force of forces and torques (B, nbody, 6) at the bodies' centres of mass."""
        batch, bodies = q.shape[0], centers.shape[1]
        wrench = as_double("external_force", wrench)
        wrench = wrench[None] if wrench.dim() == 2 else wrench
        if tuple(wrench.shape) not in ((batch, bodies, 6), (1, bodies, 6)):
            raise ShapeError(
                f"external_force has shape {tuple(wrench.shape)}, expected {(batch, bodies, 6)}"
            )
        wrench = wrench.expand(batch, bodies, 6)
        total = torch.zeros(batch, self.mechanism.tree.nv, dtype=q.dtype)
        for index, placement in enumerate(self.mechanism.tree.placements):
            linear, angular = self.jacobian(q, numbers, centers[:, index], placement.link)
            total = total + torch.einsum("bki,bk->bi", linear, wrench[:, index, :3])
            total = total + torch.einsum("bki,bk->bi", angular, wrench[:, index, 3:])
        return total


def _skew(vector: Tensor) -> Tensor:
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    rows = [[zero, -z, y], [z, zero, -x], [-y, x, zero]]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def candidate_names(model: Model, groups: Sequence[ContactGroup]) -> list[tuple[str, str]]:
    """Names of both shapes of every contact candidate."""
    pairs = [model.pairs[item.pair] for group in groups for item in group.candidates]
    return [(model.shapes[p.shape_a].name, model.shapes[p.shape_b].name) for p in pairs]
