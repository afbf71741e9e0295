"""Where every link is: forward kinematics and the motion of each degree of freedom.

Generic scalars throughout (see `solvers.kernels.scalar`): the same lines run on torch batches and
are traced into native code. All vectors are in world axes and all moments about the world origin,
so that a *motion* ``(w, v)`` of degree of freedom i moves the material point x by ``v + w x x``.
Rotational degrees of freedom of free and ball joints turn about the axes of the moved link, which
is MuJoCo's convention for ``qvel``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from solvers.kernels import algebra as la
from solvers.kernels import scalar as sc

if TYPE_CHECKING:
    from physim.dynamics._numbers import Numbers
    from physim.model.tree import Tree, TreeJoint

Scalar = Any
Vector = list[Scalar]
Matrix = list[list[Scalar]]


@dataclass(frozen=True, slots=True)
class Poses:
    """Kinematics of one configuration.

    Attributes:
        rotation: Per link, body axes to world.
        position: Per link, its frame's origin [m].
        center: Per link, its centre of mass [m].
        motion: Per degree of freedom, angular and linear part, about the world origin.
    """

    rotation: list[Matrix]
    position: list[Vector]
    center: list[Vector]
    motion: list[tuple[Vector, Vector]]


def rotation_about(axis: Sequence[float], angle: Scalar) -> Matrix:
    """Rodrigues' rotation about a constant unit axis; coordinate axes fold to two products."""
    sine, cosine = sc.sin_cos(angle)
    skew = [[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]]
    rows: Matrix = []
    for i in range(3):
        row = []
        for j in range(3):
            along = axis[i] * axis[j]
            turned = sc.multiply(cosine, (1.0 if i == j else 0.0) - along)
            row.append(sc.add(sc.add(along, turned), sc.multiply(sine, skew[i][j])))
        rows.append(row)
    return rows


def forward_kinematics(tree: Tree, q: Sequence[Scalar], numbers: Numbers) -> Poses:
    """Poses of all links and motions of all degrees of freedom at configuration ``q``."""
    rotations: list[Matrix] = []
    positions: list[Vector] = []
    centers: list[Vector] = []
    motion: list[tuple[Vector, Vector]] = [([0, 0, 0], [0, 0, 0])] * tree.nv
    for index, link in enumerate(tree.links):
        constant = [[_clean(x) for x in row] for row in link.rotation]
        offset = numbers.link_offset(index)
        if link.parent < 0:
            rotation, position = constant, list(offset)
        else:
            rotation = la.matmul(rotations[link.parent], constant)
            position = la.vadd(positions[link.parent], la.matvec(rotations[link.parent], offset))
        for joint in link.joints:
            rotation, position = _advance(joint, q, numbers, rotation, position, motion)
        rotations.append(rotation)
        positions.append(position)
        centers.append(la.vadd(position, la.matvec(rotation, numbers.link_center(index))))
    return Poses(rotations, positions, centers, motion)


def _clean(x: float) -> float | int:
    return int(x) if x in (0.0, 1.0, -1.0) else x


def _advance(
    joint: TreeJoint,
    q: Sequence[Scalar],
    numbers: Numbers,
    rotation: Matrix,
    position: Vector,
    motion: list[tuple[Vector, Vector]],
) -> tuple[Matrix, Vector]:
    """Pass one joint: record its motions, return the frame behind it."""
    axis = [_clean(a) for a in joint.axis]
    if joint.kind == "free":
        position = list(q[joint.q : joint.q + 3])
        rotation = la.quaternion_matrix(q[joint.q + 3 : joint.q + 7])
        for k in range(3):
            unit: Vector = [1 if i == k else 0 for i in range(3)]
            motion[joint.v + k] = ([0, 0, 0], unit)
            column = [rotation[i][k] for i in range(3)]
            motion[joint.v + 3 + k] = (column, la.cross(position, column))
        return rotation, position
    if joint.kind == "slide":
        direction = la.matvec(rotation, axis)
        motion[joint.v] = ([0, 0, 0], direction)
        travel = sc.subtract(q[joint.q], joint.reference)
        return rotation, la.vadd(position, la.vscale(direction, travel))
    anchor = numbers.anchor(joint.index)
    pivot = la.vadd(position, la.matvec(rotation, anchor))
    if joint.kind == "hinge":
        direction = la.matvec(rotation, axis)
        motion[joint.v] = (direction, la.cross(pivot, direction))
        angle = sc.subtract(q[joint.q], joint.reference)
        rotation = la.matmul(rotation, rotation_about(axis, angle))
    else:
        rotation = la.matmul(rotation, la.quaternion_matrix(q[joint.q : joint.q + 4]))
        for k in range(3):
            column = [rotation[i][k] for i in range(3)]
            motion[joint.v + k] = (column, la.cross(pivot, column))
    return rotation, la.vsub(pivot, la.matvec(rotation, anchor))


def retract(tree: Tree, q: Sequence[Scalar], step: Sequence[Scalar]) -> list[Scalar]:
    """Move ``q`` along a tangent step [m, rad].

    Quaternions turn by the Cayley map of half the step about body axes: a step h w moves a free
    or ball joint by the angle ``2 atan(h |w| / 2)``.
    """
    moved = list(q)
    for joint in tree.joints:
        if joint.kind in ("hinge", "slide"):
            moved[joint.q] = sc.add(q[joint.q], step[joint.v])
            continue
        q0, v0 = joint.q, joint.v
        if joint.kind == "free":
            for k in range(3):
                moved[q0 + k] = sc.add(q[q0 + k], step[v0 + k])
            q0, v0 = q0 + 3, v0 + 3
        half = [sc.multiply(0.5, step[v0 + k]) for k in range(3)]
        turned = la.quaternion_product(q[q0 : q0 + 4], [1, *half])
        per_length = sc.reciprocal(sc.sqrt(la.dot(turned, turned)))
        for k in range(4):
            moved[q0 + k] = sc.multiply(turned[k], per_length)
    return moved


def difference(
    tree: Tree, q_next: Sequence[Scalar], q: Sequence[Scalar]
) -> tuple[list[Scalar], list[Scalar]]:
    """Tangent step from ``q`` to ``q_next``, and its sine form.

    Returns:
        The step that `retract` undoes (Cayley vector ``2 u / w`` of a relative quaternion
        ``(w, u)``), and the step in which the momentum of an isotropic rotor is linear
        (``2 w u``, the sine of the angle along the axis). Both agree for hinges and slides.
    """
    cayley: list[Scalar] = [0] * tree.nv
    sine: list[Scalar] = [0] * tree.nv
    for joint in tree.joints:
        if joint.kind in ("hinge", "slide"):
            cayley[joint.v] = sine[joint.v] = sc.subtract(q_next[joint.q], q[joint.q])
            continue
        q0, v0 = joint.q, joint.v
        if joint.kind == "free":
            for k in range(3):
                cayley[v0 + k] = sine[v0 + k] = sc.subtract(q_next[q0 + k], q[q0 + k])
            q0, v0 = q0 + 3, v0 + 3
        w, *u = relative_quaternion(q_next[q0 : q0 + 4], q[q0 : q0 + 4])
        for k in range(3):
            cayley[v0 + k] = sc.divide(sc.multiply(2, u[k]), w)
            sine[v0 + k] = sc.multiply(2, sc.multiply(w, u[k]))
    return cayley, sine


def relative_quaternion(q_next: Sequence[Scalar], q: Sequence[Scalar]) -> list[Scalar]:
    """Rotation from ``q`` to ``q_next`` in body axes, scalar first."""
    return la.quaternion_product([q[0], *[sc.negative(x) for x in q[1:]]], q_next)


def link_twists(
    tree: Tree, motion: Sequence[tuple[Vector, Vector]], rate: Sequence[Scalar]
) -> list[tuple[Vector, Vector]]:
    """Twist ``(w, v)`` of every link when the degrees of freedom move at ``rate``."""
    twists: list[tuple[Vector, Vector]] = []
    for link in tree.links:
        w, v = twists[link.parent] if link.parent >= 0 else ([0, 0, 0], [0, 0, 0])
        for dof in link.dofs:
            w = la.vadd(w, la.vscale(motion[dof][0], rate[dof]))
            v = la.vadd(v, la.vscale(motion[dof][1], rate[dof]))
        twists.append((w, v))
    return twists


def project(
    tree: Tree,
    motion: Sequence[tuple[Vector, Vector]],
    wrenches: Sequence[tuple[Vector, Vector]],
) -> list[Scalar]:
    """Generalized force of link wrenches ``(moment, force)``: the transpose of `link_twists`."""
    total = [(list(moment), list(force)) for moment, force in wrenches]
    for index in range(len(tree.links) - 1, -1, -1):
        parent = tree.links[index].parent
        if parent >= 0:
            moment, force = total[parent]
            total[parent] = (
                la.vadd(moment, total[index][0]),
                la.vadd(force, total[index][1]),
            )
    result = []
    for dof in range(tree.nv):
        w, v = motion[dof]
        moment, force = total[tree.dof_link[dof]]
        result.append(sc.add(la.dot(w, moment), la.dot(v, force)))
    return result
