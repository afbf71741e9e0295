"""The mechanism as the equations see it: links in tree order, one column per degree of freedom.

Bodies without joints are welded into the nearest moving ancestor, so a *link* is a rigid group of
bodies. Every body keeps its joints in series; no massless bodies are inserted. Rotations between
frames are structure (constants of the compiled equations); lengths, masses and gains are numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from physim.model import Model

Matrix3 = tuple[tuple[float, float, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeJoint:
    """A joint of a link: its kind, its model index and where its coordinates start."""

    index: int
    kind: str
    q: int
    v: int
    axis: tuple[float, float, float]
    reference: float

    @property
    def width(self) -> int:
        """Degrees of freedom."""
        return {"free": 6, "ball": 3}.get(self.kind, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A rigid group: its parent link (-1 is the world), its constant orientation and joints."""

    parent: int
    body: int
    rotation: Matrix3
    joints: tuple[TreeJoint, ...]
    dofs: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a body sits: its link (-1 is the world) and its constant orientation in that link."""

    link: int
    rotation: Matrix3


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """Topology of a model.

    Attributes:
        links: Links in an order in which parents come first.
        placements: One per body of the model.
        dof_link: Link that each degree of freedom moves.
        ancestors: For each degree of freedom, the ones above it, nearest first.
        chain: For each link, all degrees of freedom that move it, root first.
    """

    nq: int
    nv: int
    links: tuple[Link, ...]
    placements: tuple[Placement, ...]
    dof_link: tuple[int, ...]
    ancestors: tuple[tuple[int, ...], ...]
    chain: tuple[tuple[int, ...], ...]

    @property
    def joints(self) -> tuple[TreeJoint, ...]:
        """All joints, in link order."""
        return tuple(joint for link in self.links for joint in link.joints)

    @property
    def scalar_dofs(self) -> tuple[tuple[int, int], ...]:
        """(dof, coordinate) of every hinge and slide, in dof order."""
        pairs = ((j.v, j.q) for j in self.joints if j.kind in ("hinge", "slide"))
        return tuple(sorted(pairs))

    @property
    def linear_dofs(self) -> tuple[bool, ...]:
        """True where a degree of freedom is a translation."""
        linear = [False] * self.nv
        for joint in self.joints:
            for k in range(joint.width):
                linear[joint.v + k] = joint.kind == "slide" or (joint.kind == "free" and k < 3)
        return tuple(linear)

    def root(self, link: int) -> int:
        """The link at the foot of a link's tree; -1 for the world."""
        while link >= 0 and self.links[link].parent >= 0:
            link = self.links[link].parent
        return link


def snap(matrix: np.ndarray) -> np.ndarray:
    """Round entries that are 0 or +-1 up to rounding, so that they vanish from the equations."""
    nearest = np.round(matrix)
    return np.where(np.abs(matrix - nearest) < 1e-12, nearest, matrix)


def quaternion_to_matrix(quaternion: tuple[float, ...]) -> np.ndarray:
    """Rotation matrix of a scalar-first quaternion."""
    w, x, y, z = np.asarray(quaternion, dtype=float) / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def _as_tuple(matrix: np.ndarray) -> Matrix3:
    return tuple((float(r[0]), float(r[1]), float(r[2])) for r in snap(matrix))


def build_tree(model: Model) -> Tree:
    """Weld jointless bodies and order the degrees of freedom of ``model``.

    Args:
        model: An immutable model record.

    Returns:
        The topology that kinematics, dynamics and collision share.
    """
    links: list[Link] = []
    placements: list[Placement] = []
    dof_link = [-1] * model.nv
    chains: list[tuple[int, ...]] = []
    for body in model.bodies:
        parent = Placement(link=-1, rotation=_as_tuple(np.eye(3)))
        if body.parent >= 0:
            parent = placements[body.parent]
        rotation = np.array(parent.rotation) @ quaternion_to_matrix(body.quaternion)
        if not body.joints:
            placements.append(Placement(link=parent.link, rotation=_as_tuple(rotation)))
            continue
        joints, dofs = [], []
        for index in body.joints:
            record = model.joints[index]
            x, y, z = (float(a) for a in snap(np.asarray(record.axis, dtype=float)))
            joint = TreeJoint(
                index=index,
                kind=record.kind,
                q=record.q_index,
                v=record.v_index,
                axis=(x, y, z),
                reference=float(record.reference),
            )
            joints.append(joint)
            for dof in range(joint.v, joint.v + joint.width):
                dof_link[dof] = len(links)
                dofs.append(dof)
        above = chains[parent.link] if parent.link >= 0 else ()
        chains.append(above + tuple(dofs))
        placements.append(Placement(link=len(links), rotation=_as_tuple(np.eye(3))))
        links.append(
            Link(
                parent=parent.link,
                body=body.index,
                rotation=_as_tuple(rotation),
                joints=tuple(joints),
                dofs=tuple(dofs),
            )
        )
    ancestors = []
    for dof in range(model.nv):
        chain = chains[dof_link[dof]]
        ancestors.append(tuple(reversed(chain[: chain.index(dof)])))
    return Tree(
        nq=model.nq,
        nv=model.nv,
        links=tuple(links),
        placements=tuple(placements),
        dof_link=tuple(dof_link),
        ancestors=tuple(ancestors),
        chain=tuple(chains),
    )


def rotate(matrix: Sequence[Sequence[float]], vector: Tensor) -> Tensor:
    """Apply a constant rotation to vectors of shape (..., 3)."""
    return vector @ torch.as_tensor(matrix, dtype=vector.dtype, device=vector.device).T


def body_positions(tree: Tree, model: Model, position: Tensor) -> list[Tensor]:
    """Origin of every body in its link's axes (world axes for static bodies), each (..., 3)."""
    result: list[Tensor] = []
    for body in model.bodies:
        own = position[..., body.index, :]
        placement = tree.placements[body.index]
        is_root = placement.link >= 0 and tree.links[placement.link].body == body.index
        if is_root:
            result.append(torch.zeros_like(own))
        elif body.parent < 0:
            result.append(own)
        else:
            rotation = tree.placements[body.parent].rotation
            result.append(result[body.parent] + rotate(rotation, own))
    return result
