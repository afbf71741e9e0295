"""How all bodies move: frames, velocities and accelerations, the world among them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from physim.dynamics._queries import Queries

if TYPE_CHECKING:
    from physim.model.tree import Tree


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BodyMotion:
    """Motion of all bodies in world axes; the last one, index -1, is the world at rest.

    Twists and accelerations are spatial: angular part first, moments about the world origin.

    Attributes:
        position: Origins of the body frames [m], shape ``(B, nbody + 1, 3)``.
        rotation: Body axes to world, shape ``(B, nbody + 1, 3, 3)``.
        center: Centres of mass [m], shape ``(B, nbody + 1, 3)``.
        twist: Angular velocity, and velocity of what passes the world origin, shape
            ``(B, nbody + 1, 6)``.
        acceleration: Rate of change of ``twist``; None if no acceleration was given.
    """

    position: Float[Tensor, "batch body 3"]
    rotation: Float[Tensor, "batch body 3 3"]
    center: Float[Tensor, "batch body 3"]
    twist: Float[Tensor, "batch body 6"]
    acceleration: Float[Tensor, "batch body 6"] | None

    def velocity_at(self, body: int, point: Tensor) -> Tensor:
        """Velocity of the point (B, 3) carried by a body [m/s]."""
        w, v = self.twist[:, body].split(3, dim=-1)
        moved: Tensor = v + torch.linalg.cross(w, point)
        return moved

    def acceleration_at(self, body: int, point: Tensor) -> Tensor:
        """Acceleration of the point (B, 3) carried by a body [m/s^2]."""
        assert self.acceleration is not None
        w = self.twist[:, body, :3]
        turn, linear = self.acceleration[:, body].split(3, dim=-1)
        cross = torch.linalg.cross
        result: Tensor = linear + cross(turn, point) + cross(w, self.velocity_at(body, point))
        return result


def body_motion(
    queries: Queries,
    q: Tensor,
    v: Tensor,
    acceleration: Tensor | None,
    numbers: Tensor,
    parameters: Mapping[str, Tensor],
) -> BodyMotion:
    """Motion of all bodies.

    Args:
        queries: Kinematics of the mechanism.
        q: Configuration (B, nq).
        v: Velocity (B, nv).
        acceleration: Rate of change of ``v`` (B, nv), or None.
        numbers: Flat numbers (B, n).
        parameters: All parameters by name.
    """
    tree, poses = queries.mechanism.tree, queries.body_poses(q, numbers, parameters)
    motion = queries.motion(q, numbers)
    twists = queries.link_rates(motion, v)
    accelerations = None
    if acceleration is not None:
        rates = _motion_rates(tree, motion, twists, v)
        accelerations = queries.link_rates(motion, acceleration)
        accelerations = accelerations + queries.link_rates(rates, torch.ones_like(v))
    carriers = [*(placement.link for placement in tree.placements), -1]

    def carried(links: Tensor) -> Tensor:
        return torch.cat([links, torch.zeros_like(links[:, :1])], dim=1)[:, carriers]

    origin = q.new_zeros(q.shape[0], 1, 3)
    axes = torch.eye(3, dtype=q.dtype, device=q.device).expand(q.shape[0], 1, 3, 3)
    return BodyMotion(
        position=torch.cat([poses.position, origin], dim=1),
        rotation=torch.cat([poses.rotation, axes], dim=1),
        center=torch.cat([poses.center, origin], dim=1),
        twist=carried(twists),
        acceleration=None if accelerations is None else carried(accelerations),
    )


def _motion_rates(tree: Tree, motion: Tensor, twists: Tensor, v: Tensor) -> Tensor:
    r"""Rate of change of ``motion``, times ``v`` (B, nv, 6).

    A motion :math:`m` that is fixed in a frame of twist :math:`V` changes by
    :math:`\dot m = V \times m`; translations of a free joint are fixed in the world.
    """
    rates = motion * v[..., None]
    result = list(torch.zeros_like(rates).unbind(1))
    for link in tree.links:
        frame = twists[:, link.parent] if link.parent >= 0 else torch.zeros_like(rates[:, 0])
        for joint in link.joints:
            frame = frame + rates[:, joint.v : joint.v + joint.width].sum(1)
            first = 3 if joint.kind == "free" else 0
            for dof in range(joint.v + first, joint.v + joint.width):
                result[dof] = _motion_cross(frame, rates[:, dof])
    return torch.stack(result, dim=1)


def _motion_cross(twist: Tensor, motion: Tensor) -> Tensor:
    (w, v), (a, b) = twist.split(3, dim=-1), motion.split(3, dim=-1)
    cross = torch.linalg.cross
    return torch.cat([cross(w, a), cross(w, b) + cross(v, a)], dim=-1)
