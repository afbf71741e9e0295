"""The equations of a step on torch batches: balance, constraint velocities and their Jacobians.

The generic-scalar equations are evaluated with tensors of shape (B,), contacts with tensors of
shape (B, C), all candidates of a kind at once. Dense and simple: this is the oracle, not the fast
path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from physim.dynamics import _contact as contact
from physim.dynamics import _integrator as integrator
from physim.dynamics._actuation import actuator_forces
from physim.dynamics._kinematics import Poses, difference
from physim.dynamics._mechanism import Mechanism
from physim.dynamics._numbers import Numbers
from solvers.kernels import scalar as sc


@dataclass(slots=True)
class StepData:
    """Inputs of a step, batch first.

    Attributes:
        q: Configuration (B, nq).
        v: Velocity of the past interval (B, nv).
        control: Controls of the coming interval (B, nu).
        force: External generalized force of the coming interval (B, nv).
        past_timestep: Length of the past interval (B,).
        timestep: Length of the coming interval (B,).
        numbers: Flat numbers (B, n).
    """

    q: Tensor
    v: Tensor
    control: Tensor
    force: Tensor
    past_timestep: Tensor
    timestep: Tensor
    numbers: Tensor


_NO_FORCE = torch.zeros((), dtype=torch.float64)
_NO_FORCE_ADDRESS = _NO_FORCE.data_ptr()


def no_force(batch: int, nv: int) -> Tensor:
    """External force of a step on which nothing pushes (B, nv), known to `is_untouched`."""
    return _NO_FORCE.expand(batch, nv)


def is_untouched(force: Tensor) -> bool:
    """Whether a force is `no_force`."""
    return force.data_ptr() == _NO_FORCE_ADDRESS


@dataclass(frozen=True, slots=True)
class StepNode:
    """Everything that does not depend on the next configuration.

    Attributes:
        data: The step's inputs.
        numbers: The flat numbers, read by meaning.
        node: The balance's constant part.
        motion: Motions of the degrees of freedom (B, nv, 6).
        contacts: Candidates at node k, per kind.
        impulse_rows: Rows over the degrees of freedom by which impulses act (B, 3, C, nv).
        mu: Friction coefficients (B, C).
        gap: Gaps at node k (B, C).
        friction_bound: Largest dry-friction impulses of joints (B, F).
    """

    data: StepData
    numbers: Numbers
    node: integrator.Node
    motion: Tensor
    contacts: list[contact.ContactNode]
    impulse_rows: Tensor
    mu: Tensor
    gap: Tensor
    friction_bound: Tensor


@dataclass(frozen=True, slots=True)
class StepTrial:
    """The balance and the constraint velocities at a trial configuration.

    Attributes:
        residual: Balance without constraint impulses (B, nv).
        matrix: Its derivative with respect to the coming velocity (B, nv, nv).
        velocity: Contact velocities (3, B, C): two slips and the gap velocity.
        rows: Their derivative (B, 3, C, nv).
        limit_velocity: Gap velocities of lower, then upper limits (B, 2L).
        slip: Rates of joints with dry friction (B, F).
        gap: Gaps at the trial configuration (B, C).
    """

    residual: Tensor
    matrix: Tensor
    velocity: Tensor
    rows: Tensor
    limit_velocity: Tensor
    slip: Tensor
    gap: Tensor


def _columns(tensor: Tensor) -> list[Any]:
    return list(tensor.unbind(-1))


def dense(values: Sequence[Any], like: Tensor) -> Tensor:
    """Stack generic scalars along a new last dimension, in the shape of ``like``."""
    full = [torch.as_tensor(x, dtype=like.dtype, device=like.device) for x in values]
    return torch.stack([x.expand(like.shape) for x in full], dim=-1)


def motion_tensor(poses: Poses, like: Tensor) -> Tensor:
    return torch.stack([dense([*w, *v], like) for w, v in poses.motion], dim=-2)


class Assembly:
    """Evaluates one mechanism's equations on batches.

    Args:
        mechanism: Structure of the equations.
    """

    def __init__(self, mechanism: Mechanism) -> None:
        self.mechanism = mechanism
        tree = mechanism.tree
        moves = torch.zeros(len(tree.links) + 1, tree.nv)
        for link, chain in enumerate(tree.chain):
            moves[link, list(chain)] = 1.0
        self._moves = moves.to(torch.float64)
        self._sides = [
            (
                torch.tensor([c.link_a for c in group.candidates]),
                torch.tensor([c.link_b for c in group.candidates]),
            )
            for group in mechanism.groups
        ]

    def numbers(self, data: StepData) -> Numbers:
        """The flat numbers of a batch, read by meaning."""
        return Numbers(self.mechanism.layout, _columns(data.numbers))

    def driven_force(self, data: StepData) -> Tensor:
        """Generalized force of the controls (B, nv)."""
        q, v, control = _columns(data.q), _columns(data.v), _columns(data.control)
        force = actuator_forces(self.mechanism.actuators, self.numbers(data), q, v, control)
        return dense(force, data.timestep)

    def _pose_tensors(self, poses: Poses, like: Tensor) -> tuple[Tensor, Tensor]:
        """Rotations (B, links + 1, 3, 3) and positions, the world last (hence index -1)."""
        rotations = [
            torch.stack([dense(row, like) for row in rotation], dim=-2)
            for rotation in [*poses.rotation, contact.WORLD[0]]
        ]
        positions = [dense(x, like) for x in [*poses.position, contact.WORLD[1]]]
        return torch.stack(rotations, dim=1), torch.stack(positions, dim=1)

    def _side_poses(
        self, poses: tuple[Tensor, Tensor], index: int
    ) -> tuple[contact.Pose, contact.Pose]:
        """Poses of both sides of a group's candidates as generic scalars (B, C)."""
        sides = []
        for links in self._sides[index]:
            rotation, position = poses[0][:, links], poses[1][:, links]
            entries = [[rotation[..., i, j] for j in range(3)] for i in range(3)]
            sides.append((entries, [position[..., i] for i in range(3)]))
        return sides[0], sides[1]

    def _group_numbers(self, data: StepData, index: int) -> list[Tensor]:
        group, layout = self.mechanism.groups[index], self.mechanism.layout
        start = layout.offsets[group.name]
        block = data.numbers[:, start : start + group.count * group.width]
        return _columns(block.reshape(-1, group.count, group.width))

    def node(self, data: StepData) -> StepNode:
        """Evaluate node k."""
        mechanism, like = self.mechanism, data.timestep
        numbers = self.numbers(data)
        q, v = _columns(data.q), _columns(data.v)
        driven = actuator_forces(mechanism.actuators, numbers, q, v, _columns(data.control))
        force = [sc.add(a, b) for a, b in zip(driven, _columns(data.force), strict=True)]
        node = integrator.build_node(
            mechanism.tree,
            q,
            v,
            force,
            data.past_timestep,
            data.timestep,
            numbers,
        )
        motion = motion_tensor(node.poses, like)
        poses = self._pose_tensors(node.poses, like)
        batch = like.shape[0]
        contacts, rows, mu, gaps = [], [], [], []
        for index, group in enumerate(mechanism.groups):
            own = self._group_numbers(data, index)
            a, b = self._side_poses(poses, index)
            item = contact.contact_node(group, a, b, own)
            contacts.append(item)
            twist_rows = self._row_tensor(contact.impulse_rows(item), item.gap)
            rows.append(self._dof_rows(twist_rows, twist_rows, motion, index))
            mu.append(own[-1].expand(batch, group.count))
            gaps.append(item.gap)
        count = mechanism.contact_count
        loss = [numbers.dof("friction_loss", dof) for dof, _ in mechanism.rubbing]
        bound = dense(loss, like) * data.timestep[:, None] if loss else like.new_zeros(batch, 0)
        return StepNode(
            data=data,
            numbers=numbers,
            node=node,
            motion=motion,
            contacts=contacts,
            impulse_rows=_join(rows, like.new_zeros(batch, 3, count, mechanism.tree.nv), 2),
            mu=_join(mu, like.new_zeros(batch, count), 1),
            gap=_join(gaps, like.new_zeros(batch, count), 1),
            friction_bound=bound,
        )

    def _row_tensor(self, rows: Sequence[Sequence[Any]], like: Tensor) -> Tensor:
        """Rows of generic scalars (B, C) to (B, C, 3, 6)."""
        return torch.stack([dense(row, like) for row in rows], dim=-2)

    def _dof_rows(
        self, rows_a: Tensor, rows_b: Tensor | None, motion: Tensor, index: int
    ) -> Tensor:
        """Twist rows (B, C, 3, 6) of both sides to rows over the dofs (B, 3, C, nv)."""
        links_a, links_b = self._sides[index]
        moves = self._moves.to(motion)
        result = torch.einsum("bcrk,bik->brci", rows_a, motion) * moves[links_a]
        if rows_b is not None:
            result = result - torch.einsum("bcrk,bik->brci", rows_b, motion) * moves[links_b]
        return result

    def trial(self, item: StepNode, q_next: Tensor, *, with_matrix: bool = True) -> StepTrial:
        """Evaluate the balance and the constraint velocities at ``q_next`` (B, nq)."""
        mechanism, data = self.mechanism, item.data
        tree, like = mechanism.tree, data.timestep
        batch = like.shape[0]
        x, q = _columns(q_next), _columns(data.q)
        residual, after, spreads = integrator.free_balance(
            tree, item.node, x, q, data.timestep, item.numbers
        )
        next_motion = motion_tensor(after, like)
        poses = self._pose_tensors(after, like)
        velocities, rows, gaps = [], [], []
        for index, group in enumerate(mechanism.groups):
            a, b = self._side_poses(poses, index)
            motion = contact.contact_motion(
                group,
                item.contacts[index],
                a,
                b,
                self._group_numbers(data, index),
                data.timestep[:, None],
                mechanism.recovery,
            )
            gap = torch.as_tensor(motion.gap)
            velocities.append(torch.stack(motion.velocity))
            rows_a = self._row_tensor(motion.rows_a, gap)
            rows_b = None if motion.rows_b is None else self._row_tensor(motion.rows_b, gap)
            rows.append(self._dof_rows(rows_a, rows_b, next_motion, index))
            gaps.append(gap)
        matrix = like.new_zeros(batch, tree.nv, tree.nv)
        if with_matrix:
            matrix = self._matrix(item, x, q, after, spreads)
        sine = difference(tree, x, q)[0]
        count = mechanism.contact_count
        slip = [sine[dof] / data.timestep for dof, _ in mechanism.rubbing]
        return StepTrial(
            residual=dense(residual, like),
            matrix=matrix,
            velocity=_join(velocities, like.new_zeros(3, batch, count), 2),
            rows=_join(rows, like.new_zeros(batch, 3, count, tree.nv), 2),
            limit_velocity=self.limit_velocity(item, q_next),
            slip=dense(slip, like) if slip else like.new_zeros(batch, 0),
            gap=_join(gaps, like.new_zeros(batch, count), 1),
        )

    def _matrix(
        self, item: StepNode, x: list[Any], q: list[Any], after: Poses, spreads: list[Any]
    ) -> Tensor:
        tree, data = self.mechanism.tree, item.data
        blocks = [
            integrator.spatial_block(
                item.node.poses.center[link],
                after.center[link],
                spreads[link],
                item.numbers.link_mass(link),
            )
            for link in range(len(tree.links))
        ]
        joint = integrator.joint_block(tree, x, q, data.timestep, item.numbers)
        entries = integrator.newton_matrix(
            tree, item.node.poses.motion, after.motion, blocks, joint
        )
        rows = [
            dense([entries.get((i, j), 0) for j in range(tree.nv)], data.timestep)
            for i in range(tree.nv)
        ]
        return torch.stack(rows, dim=-2)

    def limit_velocity(self, item: StepNode, q_next: Tensor) -> Tensor:
        """Gap velocities of lower, then upper joint limits (B, 2L)."""
        mechanism, data = self.mechanism, item.data
        lower: list[Tensor] = []
        upper: list[Tensor] = []
        for dof, coordinate in mechanism.limits:
            low, high = item.numbers.dof("limit_lower", dof), item.numbers.dof("limit_upper", dof)
            now, then = data.q[:, coordinate], q_next[:, coordinate]
            for gap, gap_next, side in (
                (now - low, then - low, lower),
                (high - now, high - then, upper),
            ):
                allowed = contact.allowed_overlap(gap, data.timestep, mechanism.recovery)
                side.append((gap_next - allowed) / data.timestep)
        if not lower:
            return data.q.new_zeros(data.q.shape[0], 0)
        return torch.stack(lower + upper, dim=-1)


def _join(parts: list[Tensor], empty: Tensor, dim: int) -> Tensor:
    return torch.cat(parts, dim=dim) if parts else empty
