r"""How the balance of a step answers a motion of node k, link by link.

The balance is ``F_i = S_i . W_i`` with the motions S of the degrees of freedom at node k and W_i
the wrench of all that hangs on one: momentum of the coming interval, less that of the past one,
gravity and contact. If node k moves, so do the wrenches and the motions,

.. math:: dF_i = S_i \cdot dW_i + (\xi \times S_i) \cdot W_i,

with :math:`\xi` the twist of what carries the axis of i. Both terms go up and down the tree like
forces and velocities, so that a cotangent costs about as much as one sweep of the mechanism.
Twists are ``(w, v)``, wrenches ``(moment, force)`` about the world origin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from physim.dynamics._integrator import spatial_block
from solvers.kernels import algebra as la
from solvers.kernels import scalar as sc

if TYPE_CHECKING:
    from physim.model.tree import Tree

Scalar = Any
Vector = list[Scalar]
Matrix = list[Vector]
Motion = tuple[Vector, Vector]

_FREEDOMS = {"free": 6, "ball": 3}


@dataclass(frozen=True, slots=True)
class LinkStep:
    """One link around node k.

    Attributes:
        center: Centre of mass at node k.
        center_past: At node k-1.
        spread: ``R_{k+1} J_d R_k^T``, whose skew part is the spin of the coming interval.
        spread_past: ``R_k J_d R_{k-1}^T``.
        mass: Mass.
        rate: One over the length of the coming interval.
        past_rate: One over that of the past one.
        force: Momentum of the coming interval less that of the past one and gravity's impulse.
    """

    center: Vector
    center_past: Vector
    spread: Matrix
    spread_past: Matrix
    mass: Scalar
    rate: Scalar
    past_rate: Scalar
    force: Vector

    def cotangents(self, twist: Motion) -> tuple[Motion, Motion]:
        """Cotangents of ``twist . wrench`` at node k and at node k-1, as wrenches on the poses."""
        w, v = twist
        speed = la.vadd(v, la.cross(w, self.center))
        past_inertia = sc.multiply(self.mass, self.past_rate)
        inertia = sc.add(sc.multiply(self.mass, self.rate), past_inertia)
        push = la.vsub(la.cross(self.force, w), la.vscale(speed, inertia))
        spin = la.vscale(_turned(la.transpose(self.spread), w), sc.negative(self.rate))
        spin_past = la.vscale(_turned(self.spread_past, w), self.past_rate)
        here = (la.vsub(la.vadd(spin, la.cross(self.center, push)), spin_past), push)
        push_past = la.vscale(speed, past_inertia)
        turn_past = la.vscale(_turned(la.transpose(self.spread_past), w), self.past_rate)
        before = (la.vadd(turn_past, la.cross(self.center_past, push_past)), push_past)
        return here, before

    def node_block(self) -> Matrix:
        """Derivative of the wrench with respect to the twist of node k (6 x 6)."""
        past_inertia = sc.multiply(self.mass, self.past_rate)
        inertia = sc.add(sc.multiply(self.mass, self.rate), past_inertia)
        spin = la.madd(
            la.mscale(_turning(la.transpose(self.spread)), sc.negative(self.rate)),
            la.mscale(_turning(self.spread_past), sc.negative(self.past_rate)),
        )
        lever = la.skew(self.center)
        # Moment and force per motion of the centre; the centre moves by v - center x w.
        moment = la.mscale(la.madd(la.skew(self.force), la.mscale(lever, inertia)), -1.0)
        top = la.msub(spin, la.matmul(moment, lever))
        force = [[sc.negative(inertia) if i == j else 0 for j in range(3)] for i in range(3)]
        bottom = la.mscale(lever, inertia)
        rows = [a + b for a, b in zip(top, moment, strict=True)]
        return rows + [a + b for a, b in zip(bottom, force, strict=True)]

    def past_block(self) -> Matrix:
        """Derivative of the wrench with respect to the twist of node k-1 (6 x 6)."""
        block = spatial_block(
            self.center, self.center_past, la.transpose(self.spread_past), self.mass
        )
        return la.mscale(block, self.past_rate)


def _turning(spread: Matrix) -> Matrix:
    """``tr(N) 1 - N``: how ``vee(N - N^T)`` changes if N is turned from the left."""
    trace = la.trace_of(spread)
    return [[sc.subtract(trace if i == j else 0, spread[i][j]) for j in range(3)] for i in range(3)]


def _turned(spread: Matrix, w: Vector) -> Vector:
    """Transpose of `_turning` times a vector."""
    return la.vsub(la.vscale(w, la.trace_of(spread)), la.matvec(la.transpose(spread), w))


def subtree_wrenches(tree: Tree, wrenches: Sequence[Motion]) -> list[Motion]:
    """Per link, the wrench of it and of all that hangs on it."""
    total = [(list(moment), list(force)) for moment, force in wrenches]
    for index in range(len(tree.links) - 1, -1, -1):
        parent = tree.links[index].parent
        if parent >= 0:
            total[parent] = _plus(total[parent], total[index])
    return total


def axis_wrench(motion: Motion, total: Motion) -> Motion:
    r"""Wrench G with ``(xi x S) . W = xi . G``: what moving an axis S under a load W costs."""
    (axis, lever), (moment, force) = motion, total
    return la.vadd(la.cross(axis, moment), la.cross(lever, force)), la.cross(axis, force)


def carriers(tree: Tree) -> list[tuple[int, ...]]:
    """Per degree of freedom, those that move its axis."""
    result: list[tuple[int, ...]] = [()] * tree.nv
    for joint in tree.joints:
        if joint.kind in ("hinge", "slide"):
            result[joint.v] = tree.ancestors[joint.v]
        elif joint.kind == "ball":
            for k in range(3):
                result[joint.v + k] = (*tree.ancestors[joint.v], *range(joint.v, joint.v + 3))
        else:
            for k in range(3):
                result[joint.v + 3 + k] = tuple(range(joint.v, joint.v + 6))
    return result


def pull_back_node(
    tree: Tree,
    motion: Sequence[Motion],
    rate: Sequence[Scalar],
    cotangents: Sequence[Motion],
    totals: Sequence[Motion],
) -> list[Scalar]:
    """Cotangent of the motion of every degree of freedom at node k.

    Args:
        tree: Topology.
        motion: Motions S at node k.
        rate: Rates y with which the balance is weighed.
        cotangents: Per link, the wrench on its pose.
        totals: `subtree_wrenches` of the balance.
    """
    loads = [(list(moment), list(force)) for moment, force in cotangents]
    result: list[Scalar] = [0] * tree.nv

    def carry(load: Motion, dof: int, link: int) -> Motion:
        moment, force = axis_wrench(motion[dof], totals[link])
        return _plus(load, (la.vscale(moment, rate[dof]), la.vscale(force, rate[dof])))

    for index in range(len(tree.links) - 1, -1, -1):
        link, load = tree.links[index], loads[index]
        for joint in reversed(link.joints):
            dofs = range(joint.v, joint.v + _FREEDOMS.get(joint.kind, 1))
            turning = dofs[-3:] if joint.kind in ("free", "ball") else ()
            for dof in turning:
                load = carry(load, dof, index)
            for dof in dofs:
                w, v = motion[dof]
                result[dof] = sc.add(la.dot(w, load[0]), la.dot(v, load[1]))
            if not turning:
                load = carry(load, joint.v, index)
        if link.parent >= 0:
            loads[link.parent] = _plus(loads[link.parent], load)
    return result


def tangent_cotangent(tree: Tree, q: Sequence[Scalar], cotangent: Sequence[Scalar]) -> Vector:
    """Cotangent of a tangent step (nv) from that of the coordinates that it moves (nq)."""
    result: Vector = [0] * tree.nv
    for joint in tree.joints:
        q0, v0 = joint.q, joint.v
        if joint.kind != "ball":
            for k in range(3 if joint.kind == "free" else 1):
                result[v0 + k] = cotangent[q0 + k]
        if joint.kind == "free":
            q0, v0 = q0 + 3, v0 + 3
        if joint.kind in ("free", "ball"):
            for k, turn in enumerate(_turns(q[q0 : q0 + 4])):
                result[v0 + k] = sc.multiply(0.5, la.dot(turn, cotangent[q0 : q0 + 4]))
    return result


def coordinate_cotangent(tree: Tree, q: Sequence[Scalar], tangent: Sequence[Scalar]) -> Vector:
    """Inverse of `tangent_cotangent`, without a part along a quaternion itself."""
    result: Vector = [0] * tree.nq
    for joint in tree.joints:
        q0, v0 = joint.q, joint.v
        if joint.kind != "ball":
            for k in range(3 if joint.kind == "free" else 1):
                result[q0 + k] = tangent[v0 + k]
        if joint.kind == "free":
            q0, v0 = q0 + 3, v0 + 3
        if joint.kind in ("free", "ball"):
            columns = la.transpose(_turns(q[q0 : q0 + 4]))
            result[q0 : q0 + 4] = la.vscale(la.matvec(columns, tangent[v0 : v0 + 3]), 2.0)
    return result


def _turns(quaternion: Sequence[Scalar]) -> Matrix:
    """Where a unit quaternion goes, times two, if it turns about each body axis."""
    units = [[0, *[1 if i == k else 0 for i in range(3)]] for k in range(3)]
    return [la.quaternion_product(quaternion, unit) for unit in units]


def _plus(a: Motion, b: Motion) -> Motion:
    return la.vadd(a[0], b[0]), la.vadd(a[1], b[1])
