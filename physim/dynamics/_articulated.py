r"""The tree's linear system by elimination of one joint at a time in 6 x 6 blocks.

Newton's matrix of a tree is ``A_ij = S_i^T P_{ij} T_j`` with the motions ``S`` at node k, ``T`` at
the trial configuration and composite blocks P. Eliminating a degree of freedom leaves a block of
the same form on what carries it,

.. math:: P - U W^T / D, \quad U = P T_i, \quad W = P^T S_i, \quad D = S_i^T P T_i + d_i,

so the whole elimination costs a fixed number of products per degree of freedom, however deep the
tree (Featherstone 2008, "Rigid body dynamics algorithms", chapter 7, here for the unsymmetric
blocks of the discrete momentum). The matrix itself is never formed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from solvers.kernels import algebra as la
from solvers.kernels import scalar as sc

if TYPE_CHECKING:
    from physim.model.tree import Link, Tree

Scalar = Any
Vector = list[Scalar]
Motion = tuple[Vector, Vector]
Frame = tuple[list[Vector], Vector]


@dataclass(frozen=True, slots=True)
class TreeFactor:
    """Elimination of the tree's matrix, with what a solve needs of it.

    Attributes:
        carried: Per degree of freedom W, by which the twist of what carries it enters.
        response: Per degree of freedom ``U / D``.
        inverse: Per degree of freedom ``1 / D``.
        roots: Per link with a free joint, the factors of its 6 x 6 block.
        pivots: All pivots; their product is the determinant.
    """

    carried: dict[int, Vector]
    response: dict[int, Vector]
    inverse: dict[int, Scalar]
    roots: dict[int, list[Vector]]
    pivots: list[Scalar]


def factor_tree(
    tree: Tree,
    motion: Sequence[Motion],
    next_motion: Sequence[Motion],
    blocks: Sequence[list[Vector]],
    joint_block: Mapping[tuple[int, int], Scalar],
) -> TreeFactor:
    """Eliminate all degrees of freedom, leaves first.

    Args:
        tree: Topology.
        motion: Motions S at node k.
        next_motion: Motions T at the trial configuration.
        blocks: Per link, its 6 x 6 block.
        joint_block: Diagonal of the joints, ``(i, i)``; off-diagonal places are not read.
    """
    composite = [[list(row) for row in block] for block in blocks]
    factor = TreeFactor({}, {}, {}, {}, [])
    for index in range(len(tree.links) - 1, -1, -1):
        link = tree.links[index]
        if is_whole(link, joint_block):
            factor.roots[index] = _factor_block(composite[index], factor.pivots)
            continue
        for dof in reversed(link.dofs):
            s = [*motion[dof][0], *motion[dof][1]]
            t = [*next_motion[dof][0], *next_motion[dof][1]]
            u = la.matvec(composite[index], t)
            w = la.matvec(la.transpose(composite[index]), s)
            pivot = sc.add(la.dot(s, u), joint_block.get((dof, dof), 0))
            inverse = sc.reciprocal(pivot)
            response = la.vscale(u, inverse)
            factor.carried[dof], factor.response[dof] = w, response
            factor.inverse[dof] = inverse
            factor.pivots.append(pivot)
            if link.parent >= 0 or dof != link.dofs[0]:
                composite[index] = [
                    [sc.subtract(x, sc.multiply(a, b)) for x, b in zip(row, w, strict=True)]
                    for row, a in zip(composite[index], response, strict=True)
                ]
        if link.parent >= 0:
            composite[link.parent] = la.madd(composite[link.parent], composite[index])
    return factor


def solve_tree(
    tree: Tree,
    factor: TreeFactor,
    motion: Sequence[Motion],
    next_motion: Sequence[Motion],
    wrenches: Sequence[Motion],
    joint_force: Sequence[Scalar],
    frames: Mapping[int, Frame],
    next_frames: Mapping[int, Frame],
) -> tuple[list[Scalar], list[Motion]]:
    """Solve ``A x = S^T wrenches + joint_force``.

    Args:
        tree: Topology.
        factor: `factor_tree` of A.
        motion: Motions S at node k.
        next_motion: Motions T at the trial configuration.
        wrenches: Per link, the wrench on the right-hand side.
        joint_force: Right-hand side per degree of freedom.
        frames: Rotation and position of links with a free joint at node k.
        next_frames: The same at the trial configuration.

    Returns:
        Increment of every degree of freedom, and of every link's twist.
    """
    force = [[*moment, *push] for moment, push in wrenches]
    pushes: dict[int, Scalar] = {}
    for index in range(len(tree.links) - 1, -1, -1):
        link = tree.links[index]
        if index in factor.roots:
            first = link.joints[0].v
            own = _base_wrench(frames[index], joint_force[first : first + 6])
            force[index] = la.vadd(force[index], own)
            continue
        for dof in reversed(link.dofs):
            s = [*motion[dof][0], *motion[dof][1]]
            pushes[dof] = sc.add(la.dot(s, force[index]), joint_force[dof])
            if link.parent >= 0 or dof != link.dofs[0]:
                force[index] = la.vsub(force[index], la.vscale(factor.response[dof], pushes[dof]))
        if link.parent >= 0:
            force[link.parent] = la.vadd(force[link.parent], force[index])
    rate: list[Scalar] = [0] * tree.nv
    twists: list[Motion] = []
    for index, link in enumerate(tree.links):
        twist: Vector = [0] * 6
        if index in factor.roots:
            twist = _solve_block(factor.roots[index], force[index])
            rotation, position = next_frames[index]
            travel = la.vadd(twist[3:], la.cross(twist[:3], position))
            turn = la.matvec(la.transpose(rotation), twist[:3])
            first = link.joints[0].v
            rate[first : first + 6] = [*travel, *turn]
        else:
            if link.parent >= 0:
                w, v = twists[link.parent]
                twist = [*w, *v]
            for dof in link.dofs:
                t = [*next_motion[dof][0], *next_motion[dof][1]]
                rest = sc.subtract(pushes[dof], la.dot(factor.carried[dof], twist))
                rate[dof] = sc.multiply(rest, factor.inverse[dof])
                twist = la.vadd(twist, la.vscale(t, rate[dof]))
        twists.append((list(twist[:3]), list(twist[3:])))
    return rate, twists


def is_whole(link: Link, joint_block: Mapping[tuple[int, int], Scalar]) -> bool:
    """Whether a free joint is solved as a whole: nothing resists its coordinates one by one."""
    if len(link.joints) != 1 or link.joints[0].kind != "free":
        return False
    return all(sc.is_zero(joint_block.get((dof, dof), 0)) for dof in link.dofs)


def _base_wrench(frame: Frame, force: Sequence[Scalar]) -> Vector:
    """Wrench about the world origin of forces on the coordinates of a free joint."""
    rotation, position = frame
    push = list(force[:3])
    moment = la.vadd(la.matvec(rotation, force[3:]), la.cross(position, push))
    return [*moment, *push]


def _factor_block(block: list[Vector], pivots: list[Scalar]) -> list[Vector]:
    """Factors of a 6 x 6 block, from the last row up: unit ones off, inverse pivots on it."""
    a = [list(row) for row in block]
    for k in range(5, -1, -1):
        pivots.append(a[k][k])
        a[k][k] = sc.reciprocal(a[k][k])
        for i in range(k):
            a[i][k] = sc.multiply(a[i][k], a[k][k])
            for j in range(k):
                a[i][j] = sc.subtract(a[i][j], sc.multiply(a[i][k], a[k][j]))
    return a


def _solve_block(a: list[Vector], right: Vector) -> Vector:
    y = list(right)
    for k in range(5, -1, -1):
        for i in range(k):
            y[i] = sc.subtract(y[i], sc.multiply(a[i][k], y[k]))
    for k in range(6):
        for j in range(k):
            y[k] = sc.subtract(y[k], sc.multiply(a[k][j], y[j]))
        y[k] = sc.multiply(y[k], a[k][k])
    return y
