r"""Midpoint variational integrator in reduced coordinates.

Between nodes k and k+1 the discrete momentum of a rigid body is (Manchester & Peck 2016; Howell et
al. 2022, eq. 17, written here without quaternions)

.. math:: L = \mathrm{vee}(N - N^T) / h, \quad N = R_{k+1} J_d R_k^T, \quad
          P = m (c_{k+1} - c_k) / h, \qquad J_d = \tfrac12 \mathrm{tr}(I) 1 - I.

The discrete Euler-Lagrange equation at node k balances the momenta of the past and the coming
interval with the impulses at the node. Projected on the motions of the degrees of freedom *at node
k* (the discrete null space) joint reactions vanish, and what is left are nv equations for the next
configuration. Springs act at the middle of an interval and dampers on its displacement, half at
each end, which keeps second order with damping on and is stable for any stiffness. Gravity and
controls kick at the node.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from physim.dynamics._kinematics import (
    Matrix,
    Poses,
    Vector,
    difference,
    forward_kinematics,
    project,
    relative_quaternion,
    retract,
)
from solvers.kernels import algebra as la
from solvers.kernels import scalar as sc

if TYPE_CHECKING:
    from physim.dynamics._numbers import Numbers
    from physim.model.tree import Tree

Scalar = Any


@dataclass(frozen=True, slots=True)
class Node:
    """What a step needs of node k.

    Attributes:
        poses: Kinematics at the node.
        carrier: Per link ``J_d R_k^T``, from which N of the coming interval follows.
        impulse: Generalized momentum that the coming interval must carry if nothing else pushes:
            past momentum, gravity, controls and the past halves of springs and dampers.
    """

    poses: Poses
    carrier: list[Matrix]
    impulse: list[Scalar]


def discrete_carrier(poses: Poses, numbers: Numbers) -> list[Matrix]:
    """Per link ``J_d R^T``."""
    carriers = []
    for link, rotation in enumerate(poses.rotation):
        inertia = numbers.link_inertia(link)
        half_trace = sc.multiply(0.5, sc.add(sc.add(inertia[0][0], inertia[1][1]), inertia[2][2]))
        spread = [
            [sc.subtract(half_trace if i == j else 0, inertia[i][j]) for j in range(3)]
            for i in range(3)
        ]
        carriers.append(la.matmul(spread, la.transpose(rotation)))
    return carriers


def interval_momentum(
    before: Poses,
    after: Poses,
    carrier: Sequence[Matrix],
    numbers: Numbers,
    inverse_timestep: Scalar,
    at: Poses,
) -> tuple[list[Matrix], list[tuple[Vector, Vector]]]:
    """Discrete momentum of every link over an interval, as a wrench about the world origin.

    Args:
        before: Poses at the start of the interval.
        after: Poses at its end.
        carrier: `discrete_carrier` at the start.
        numbers: The mechanism's numbers.
        inverse_timestep: One over the interval's length [1/s].
        at: Poses whose centres take the moment of the linear momentum (the node of the balance).

    Returns:
        Per link N, and ``(moment, momentum)``.
    """
    spreads, wrenches = [], []
    for link, rotation in enumerate(after.rotation):
        n = la.matmul(rotation, carrier[link])
        spreads.append(n)
        wrenches.append(
            spread_momentum(
                n,
                before.center[link],
                after.center[link],
                at.center[link],
                numbers.link_mass(link),
                inverse_timestep,
            )
        )
    return spreads, wrenches


def spread_momentum(
    spread: Matrix, before: Vector, after: Vector, at: Vector, mass: Scalar, rate: Scalar
) -> tuple[Vector, Vector]:
    """Momentum wrench of a link from its N, its centres and one over the interval's length."""
    spin = [
        sc.multiply(sc.subtract(spread[2][1], spread[1][2]), rate),
        sc.multiply(sc.subtract(spread[0][2], spread[2][0]), rate),
        sc.multiply(sc.subtract(spread[1][0], spread[0][1]), rate),
    ]
    momentum = la.vscale(la.vsub(after, before), sc.multiply(mass, rate))
    return la.vadd(spin, la.cross(at, momentum)), momentum


def past_momentum(
    tree: Tree,
    q: Sequence[Scalar],
    v: Sequence[Scalar],
    past_timestep: Scalar,
    numbers: Numbers,
    poses: Poses,
) -> tuple[list[tuple[Vector, Vector]], list[Scalar]]:
    """Momentum that the past interval brings to its end node.

    Returns:
        Link wrenches, and the joint-space part: armature less the past halves of springs and
        dampers.
    """
    inverse = sc.reciprocal(past_timestep)
    backwards = [sc.negative(sc.multiply(past_timestep, x)) for x in v]
    q_past = retract(tree, q, backwards)
    before = forward_kinematics(tree, q_past, numbers)
    _, wrenches = interval_momentum(
        before, poses, discrete_carrier(before, numbers), numbers, inverse, poses
    )
    return wrenches, past_joint_impulse(tree, q, q_past, past_timestep, numbers)


def past_joint_impulse(
    tree: Tree,
    q: Sequence[Scalar],
    q_past: Sequence[Scalar],
    past_timestep: Scalar,
    numbers: Numbers,
) -> list[Scalar]:
    """Armature less the past halves of springs and dampers, of the interval that ends at ``q``."""
    inverse = sc.reciprocal(past_timestep)
    _, sine = difference(tree, q, q_past)
    joint: list[Scalar] = [0] * tree.nv
    for dof in range(tree.nv):
        armature = sc.multiply(numbers.dof("armature", dof), inverse)
        drag = sc.multiply(0.5, numbers.dof("damping", dof))
        joint[dof] = sc.multiply(sc.subtract(armature, drag), sine[dof])
    for dof, coordinate in tree.scalar_dofs:
        joint[dof] = sc.subtract(
            joint[dof],
            _half_spring(numbers, dof, past_timestep, q[coordinate], q_past[coordinate]),
        )
    return joint


def _half_spring(numbers: Numbers, dof: int, timestep: Scalar, q_next: Scalar, q: Scalar) -> Scalar:
    middle = sc.multiply(0.5, sc.add(q_next, q))
    stretch = sc.subtract(middle, numbers.dof("spring_reference", dof))
    stiffness = numbers.dof("stiffness", dof)
    return sc.multiply(sc.multiply(sc.multiply(0.5, timestep), stiffness), stretch)


def build_node(
    tree: Tree,
    q: Sequence[Scalar],
    v: Sequence[Scalar],
    force: Sequence[Scalar],
    past_timestep: Scalar,
    timestep: Scalar,
    numbers: Numbers,
) -> Node:
    """Everything of a step that does not depend on the next configuration.

    Args:
        tree: Topology.
        q: Configuration at node k (nq scalars).
        v: Velocity of the past interval (nv scalars).
        force: Generalized force of the coming interval, constant over it (nv scalars).
        past_timestep: Length of the past interval [s].
        timestep: Length of the coming interval [s].
        numbers: The mechanism's numbers.
    """
    poses = forward_kinematics(tree, q, numbers)
    wrenches, joint = past_momentum(tree, q, v, past_timestep, numbers, poses)
    kick = sc.multiply(0.5, sc.add(past_timestep, timestep))
    gravity = la.vscale(numbers.gravity(), kick)
    loaded = []
    for link, (moment, momentum) in enumerate(wrenches):
        weight = la.vscale(gravity, numbers.link_mass(link))
        loaded.append(
            (
                la.vadd(moment, la.cross(poses.center[link], weight)),
                la.vadd(momentum, weight),
            )
        )
    impulse = project(tree, poses.motion, loaded)
    for dof in range(tree.nv):
        kicked = sc.multiply(timestep, force[dof])
        impulse[dof] = sc.add(sc.add(impulse[dof], joint[dof]), kicked)
    return Node(poses, discrete_carrier(poses, numbers), impulse)


def joint_impulse(
    tree: Tree,
    q_next: Sequence[Scalar],
    q: Sequence[Scalar],
    timestep: Scalar,
    numbers: Numbers,
    rate: Scalar | None = None,
) -> list[Scalar]:
    """Armature, dampers and springs of the coming interval, as they enter the balance at k."""
    _, sine = difference(tree, q_next, q)
    inverse = sc.reciprocal(timestep) if rate is None else rate
    result: list[Scalar] = [0] * tree.nv
    for dof in range(tree.nv):
        armature = sc.multiply(numbers.dof("armature", dof), inverse)
        drag = sc.multiply(0.5, numbers.dof("damping", dof))
        result[dof] = sc.multiply(sc.add(armature, drag), sine[dof])
    for dof, coordinate in tree.scalar_dofs:
        half = _half_spring(numbers, dof, timestep, q_next[coordinate], q[coordinate])
        result[dof] = sc.add(result[dof], half)
    return result


def free_balance(
    tree: Tree,
    node: Node,
    q_next: Sequence[Scalar],
    q: Sequence[Scalar],
    timestep: Scalar,
    numbers: Numbers,
) -> tuple[list[Scalar], Poses, list[Matrix]]:
    """Left-hand side of the balance without contact, limit and friction impulses (nv scalars)."""
    after = forward_kinematics(tree, q_next, numbers)
    spreads, wrenches = interval_momentum(
        node.poses, after, node.carrier, numbers, sc.reciprocal(timestep), node.poses
    )
    residual = project(tree, node.poses.motion, wrenches)
    joint = joint_impulse(tree, q_next, q, timestep, numbers)
    residual = [
        sc.subtract(sc.add(r, j), b) for r, j, b in zip(residual, joint, node.impulse, strict=True)
    ]
    return residual, after, spreads


def spatial_block(
    center: Vector, next_center: Vector, spread: Matrix, mass: Scalar
) -> list[list[Scalar]]:
    """How a link's discrete momentum wrench answers to its end twist (6 x 6, times h).

    Rows are moment and momentum, columns the angular and linear part of the twist that moves the
    end pose. Unsymmetric: the moment is taken at node k, the motion at node k+1.
    """
    trace = sc.add(sc.add(spread[0][0], spread[1][1]), spread[2][2])
    inner = la.dot(center, next_center)
    angular = []
    for i in range(3):
        row = []
        for j in range(3):
            diagonal = i == j
            turn = sc.subtract(trace if diagonal else 0, spread[i][j])
            swing = sc.subtract(inner if diagonal else 0, sc.multiply(next_center[i], center[j]))
            row.append(sc.add(turn, sc.multiply(mass, swing)))
        angular.append(row)
    lever = la.vscale(center, mass)
    reach = la.vscale(next_center, mass)
    top = [angular[i] + la.skew(lever)[i] for i in range(3)]
    minus = la.skew([sc.negative(x) for x in reach])
    bottom = [minus[i] + [mass if i == j else 0 for j in range(3)] for i in range(3)]
    return top + bottom


def joint_block(
    tree: Tree,
    q_next: Sequence[Scalar],
    q: Sequence[Scalar],
    timestep: Scalar,
    numbers: Numbers,
) -> dict[tuple[int, int], Scalar]:
    """Derivative of `joint_impulse` with respect to the velocity of the coming interval."""
    block: dict[tuple[int, int], Scalar] = {}
    for dof in range(tree.nv):
        block[dof, dof] = _rate_gain(numbers, dof, timestep)
    for dof, _ in tree.scalar_dofs:
        squared = sc.multiply(sc.multiply(0.25, timestep), timestep)
        spring = sc.multiply(squared, numbers.dof("stiffness", dof))
        block[dof, dof] = sc.add(block[dof, dof], spring)
    for joint in tree.joints:
        if joint.kind not in ("free", "ball"):
            continue
        shift = 3 if joint.kind == "free" else 0
        q0, v0 = joint.q + shift, joint.v + shift
        w, *u = relative_quaternion(q_next[q0 : q0 + 4], q[q0 : q0 + 4])
        turn = la.skew(u)
        for i in range(3):
            gain = _rate_gain(numbers, v0 + i, timestep)
            for j in range(3):
                term = sc.subtract(sc.multiply(w, turn[i][j]), sc.multiply(u[i], u[j]))
                if i == j:
                    term = sc.add(term, sc.multiply(w, w))
                block[v0 + i, v0 + j] = sc.multiply(gain, term)
    return block


def _rate_gain(numbers: Numbers, dof: int, timestep: Scalar) -> Scalar:
    """Armature and half the damping, as an inertia [kg or kg m^2]."""
    drag = sc.multiply(sc.multiply(0.5, numbers.dof("damping", dof)), timestep)
    return sc.add(numbers.dof("armature", dof), drag)


def newton_matrix(
    tree: Tree,
    motion: Sequence[tuple[Vector, Vector]],
    next_motion: Sequence[tuple[Vector, Vector]],
    blocks: Sequence[list[list[Scalar]]],
    joint: dict[tuple[int, int], Scalar],
) -> dict[tuple[int, int], Scalar]:
    """Derivative of the balance with respect to the velocity: sparse like the tree.

    Args:
        tree: Topology.
        motion: Motions at node k (rows).
        next_motion: Motions at node k+1 (columns).
        blocks: Per link, its 6 x 6 block (momentum plus contacts).
        joint: `joint_block`.

    Returns:
        Entries ``(row, column)``; what is absent is zero.
    """
    composite = [[list(row) for row in block] for block in blocks]
    for index in range(len(tree.links) - 1, -1, -1):
        parent = tree.links[index].parent
        if parent >= 0:
            composite[parent] = la.madd(composite[parent], composite[index])
    matrix = dict(joint)

    def put(row: int, column: int, value: Scalar) -> None:
        matrix[row, column] = sc.add(matrix.get((row, column), 0), value)

    for dof in range(tree.nv):
        block = composite[tree.dof_link[dof]]
        row_motion = [*motion[dof][0], *motion[dof][1]]
        column = la.matvec(block, [*next_motion[dof][0], *next_motion[dof][1]])
        row = la.matvec(la.transpose(block), row_motion)
        put(dof, dof, la.dot(row_motion, column))
        for other in tree.ancestors[dof]:
            put(dof, other, la.dot(row, [*next_motion[other][0], *next_motion[other][1]]))
            put(other, dof, la.dot([*motion[other][0], *motion[other][1]], column))
    return matrix
