"""Traced phases of the compiled adjoint: one transposed solve and reverse mode of the balance.

The same equations as `reference_adjoint`, cut where the loop over candidates needs it: reverse mode
runs through the contact velocities of one candidate at a time, then once through kinematics and
momentum with what the candidates left on poses and twists.
"""

from __future__ import annotations

from typing import Any

from physim.collision import ContactGroup
from physim.dynamics import _contact as contact
from physim.dynamics import _integrator as integrator
from physim.dynamics._actuation import actuator_forces
from physim.dynamics._kinematics import difference, link_twists
from physim.dynamics._mechanism import Mechanism
from physim.dynamics._phases import (
    Outputs,
    StepPhases,
    as_motion,
    flatten,
    masked,
    pose_values,
    read_node,
    side_poses,
)
from solvers.kernels import algebra as la
from solvers.kernels import emit_block, reverse
from solvers.kernels import scalar as sc
from solvers.kernels.trace import Tape
from solvers.nonlinear import cones

Scalar = Any


class AdjointPhases(StepPhases):
    """Phases of the adjoint of one mechanism's step.

    Args:
        mechanism: Structure of the equations.
        zeros: Slots of the flat numbers that are zero by structure.
        with_numbers: Whether cotangents of the numbers are wanted.
    """

    def __init__(self, mechanism: Mechanism, zeros: frozenset[int], *, with_numbers: bool) -> None:
        self._with_numbers = with_numbers
        super().__init__(mechanism, zeros)

    def trace(self) -> dict[str, str]:
        """Blocks by name; earlier ones hand values to later ones."""
        return {
            "FORCE": self.force(),
            "NODE": self._node(),
            "APPROACH": self._approach(),
            "SWEEP": self._sweep(),
            "MATRIX": self._central_matrix(),
            "FACTOR": self._factor(),
            "TRANSPOSED": self._transposed(),
            "REVERSE": self._reverse(),
        }

    def _central_joints(
        self, tape: Tape, x: list[Scalar], q: list[Scalar], timestep: Scalar
    ) -> tuple[list[Scalar], list[tuple[Scalar, Scalar, Scalar, Scalar]]]:
        """Limit velocities, and (bound, b, e, slip) of dry friction on the central path."""
        numbers, kappa = self._numbers(tape), tape.input("kappa", 0)
        velocities = self._limit_velocities(x, q, timestep, numbers)
        slips = difference(self.mechanism.tree, x, q)[0]
        rubs = []
        for dof, _ in self.mechanism.rubbing:
            bound = sc.multiply(numbers.dof("friction_loss", dof), timestep)
            slip = sc.divide(slips[dof], timestep)
            e, b = cones.second_order_central(bound, [slip], kappa)
            rubs.append((bound, b[0], e, slip))
        return velocities, rubs

    def _central_matrix(self) -> str:
        """Newton matrix with all cones on the central path, and the tangent right-hand side."""
        tape, mechanism = Tape(), self.mechanism
        tree = mechanism.tree
        node, numbers = self._node_record(tape), self._numbers(tape)
        q, x = tape.inputs("q", tree.nq), tape.inputs("x", tree.nq)
        timestep, kappa = tape.input("steps", 1), tape.input("kappa", 0)
        values = tape.inputs("spatial", 36 * len(tree.links))
        blocks = [
            [values[36 * link + 6 * i : 36 * link + 6 * i + 6] for i in range(6)]
            for link in range(len(tree.links))
        ]
        entries = integrator.newton_matrix(
            tree,
            node.poses.motion,
            as_motion(self._exchange.load(tape, "motion1")),
            blocks,
            integrator.joint_block(tree, x, q, timestep, numbers),
        )
        velocities, rubs = self._central_joints(tape, x, q, timestep)
        count = len(mechanism.limits)
        for i, velocity in enumerate(velocities):
            dof = mechanism.limits[i % count][0]
            entries[dof, dof] = entries[dof, dof] + kappa / (velocity * velocity)
        for (bound, b, e, slip), (dof, _) in zip(rubs, mechanism.rubbing, strict=True):
            response = cones.second_order_response(bound, [b], e, [slip], kappa)
            entries[dof, dof] = entries[dof, dof] - response.b_y[0][0]
        outputs: Outputs = [
            ("matrix", i * tree.nv + j, entries.get((i, j), 0.0))
            for i, j in self.elimination.pattern
        ]
        outputs += [("right", i, g) for i, g in enumerate(self._tangent(tape, x, q, timestep))]
        return emit_block(outputs)

    def _tangent(
        self, tape: Tape, x: list[Scalar], q: list[Scalar], timestep: Scalar
    ) -> list[Scalar]:
        """Cotangent of the outputs with respect to a velocity that moves ``x``."""
        tree = self.mechanism.tree
        cayley, _ = difference(tree, x, q)
        seeds = [(c, g / timestep) for c, g in zip(cayley, tape.inputs("gv", tree.nv), strict=True)]
        through_v = reverse(seeds, x)
        total = [g + t for g, t in zip(tape.inputs("gq", tree.nq), through_v, strict=True)]
        result: list[Scalar] = [0] * tree.nv
        for joint in tree.joints:
            if joint.kind in ("hinge", "slide"):
                result[joint.v] = timestep * total[joint.q]
                continue
            q0, v0 = joint.q, joint.v
            if joint.kind == "free":
                for k in range(3):
                    result[v0 + k] = timestep * total[q0 + k]
                q0, v0 = q0 + 3, v0 + 3
            for k in range(3):
                unit = [0, *[1 if i == k else 0 for i in range(3)]]
                turned = la.quaternion_product(x[q0 : q0 + 4], unit)
                result[v0 + k] = 0.5 * timestep * la.dot(turned, total[q0 : q0 + 4])
        return result

    def _transposed(self) -> str:
        """Adjoint velocities y, and the link twists that they give at node k."""
        tape, tree = Tape(), self.mechanism.tree
        right = tape.inputs("right", tree.nv)
        y = self.elimination.solve_transposed(self._factor_entries(tape), right)
        twists = link_twists(tree, as_motion(self._exchange.load(tape, "motion0")), y)
        values = [t for w, v in twists for t in (*w, *v)]
        outputs: Outputs = [("y", i, value) for i, value in enumerate(y)]
        return emit_block(outputs + [("twist", i, value) for i, value in enumerate(values)])

    def _reverse(self) -> str:
        """Reverse mode through kinematics, momentum and joint cones, at fixed ``x``."""
        tape, mechanism = Tape(), self.mechanism
        tree = mechanism.tree
        q, v, _ = self._inputs(tape)
        control = tape.inputs("control", len(mechanism.actuators))
        external = tape.inputs("external", tree.nv)
        past, timestep = tape.inputs("steps", 2)
        x, y = tape.inputs("x", tree.nq), tape.inputs("y", tree.nv)
        numbers, kappa = self._numbers(tape), tape.input("kappa", 0)
        driven = actuator_forces(mechanism.actuators, numbers, q, v, control)
        force = [sc.add(a, b) for a, b in zip(driven, external, strict=True)]
        node = integrator.build_node(tree, q, v, force, past, timestep, numbers)
        balance, after, _ = integrator.free_balance(tree, node, x, q, timestep, numbers)
        velocities, rubs = self._central_joints(tape, x, q, timestep)
        count = len(mechanism.limits)
        impulse: list[Scalar] = [0] * tree.nv
        for i, velocity in enumerate(velocities):
            push = cones.orthant_central(velocity, kappa)
            dof = mechanism.limits[i % count][0]
            impulse[dof] = sc.add(impulse[dof], push if i < count else sc.negative(push))
        for (_, b, _, _), (dof, _) in zip(rubs, mechanism.rubbing, strict=True):
            impulse[dof] = sc.add(impulse[dof], b)
        total = la.dot(y, la.vsub(impulse, balance))
        cayley, _ = difference(tree, x, q)
        direct = la.dot(tape.inputs("gv", tree.nv), cayley)
        total = sc.add(total, sc.divide(direct, timestep))
        seeds: list[tuple[Scalar, Scalar]] = [(total, 1.0)]
        for name, poses in (("bar_pose0", node.poses), ("bar_pose1", after)):
            for i, value in enumerate(pose_values(poses)):
                seeds.append((value, tape.input(name, i)))
        twists = link_twists(tree, node.poses.motion, y)
        for i, value in enumerate(t for w, u in twists for t in (*w, *u)):
            seeds.append((value, tape.input("bar_twist", i)))
        wanted = [*q, *v, *control, *external, past, timestep]
        slots = range(mechanism.layout.size) if self._with_numbers else ()
        wanted += [tape.input("num", i) for i in slots]
        gradients = reverse(seeds, wanted)
        names = [("bar_q", tree.nq), ("bar_v", tree.nv)]
        names += [("bar_control", len(mechanism.actuators)), ("bar_external", tree.nv)]
        outputs: Outputs = []
        at = 0
        for name, width in names:
            outputs += [(name, i, gradients[at + i]) for i in range(width)]
            at += width
        outputs += [("bar_steps", 0, gradients[at])]
        outputs += [("bar_steps", 1, tape.input("bar_steps", 1) + gradients[at + 1])]
        at += 2
        outputs += [("bar_num", i, tape.input("bar_num", i) + gradients[at + i]) for i in slots]
        return emit_block(outputs)


def adjoint_contact_phases(
    mechanism: Mechanism, group: ContactGroup, *, with_numbers: bool
) -> dict[str, str]:
    """Blocks of one kind of candidate in the adjoint, besides its node."""
    return {
        "CENTRAL": _central(mechanism, group),
        "PULL": _pull(mechanism, group, with_numbers=with_numbers),
    }


def _central(mechanism: Mechanism, group: ContactGroup) -> str:
    """Impulse and response on the central path; adds the response to the links."""
    tape = Tape()
    a, b = side_poses(tape, group, "1")
    node, numbers = read_node(tape, "cn"), tape.inputs("k", group.width)
    kappa, mu = tape.input("kappa", 0), numbers[-1]
    motion = contact.contact_motion(
        group, node, a, b, numbers, tape.input("steps", 1), mechanism.recovery
    )
    # Candidates left out keep a harmless velocity.
    velocity = [sc.where(tape.input("on", 0) > 0.5, u, 1.0) for u in motion.velocity]
    z = contact.contact_central(velocity, mu, kappa)
    response = contact.contact_response(z, velocity, mu, kappa)
    gain = [[masked(tape, g) for g in row] for row in response.gain]
    per_mu = [z[0] * g for g in response.friction.b_p]
    outputs: Outputs = [("gain", i, g) for i, g in enumerate(flatten(gain))]
    outputs += [("dz", i, masked(tape, value)) for i, value in enumerate([z[2], z[3], z[0]])]
    outputs += [("vel", i, masked(tape, value)) for i, value in enumerate(per_mu)]
    impulse_rows = contact.impulse_rows(node)
    if motion.rows_b is None:
        answer = la.matmul(la.transpose(impulse_rows), la.matmul(gain, motion.rows_a))
        outputs += [("pa", i, tape.input("pa", i) + g) for i, g in enumerate(flatten(answer))]
    else:
        rows = [*flatten(motion.rows_a), *flatten(motion.rows_b), *flatten(impulse_rows)]
        outputs += [("rows", i, g) for i, g in enumerate(rows)]
    return emit_block(outputs)


def _pull(mechanism: Mechanism, group: ContactGroup, *, with_numbers: bool) -> str:
    """Reverse mode through one candidate, added to the cotangents of its links."""
    tape = Tape()
    a0, b0 = side_poses(tape, group, "0")
    a1, b1 = side_poses(tape, group, "1")
    numbers, timestep = tape.inputs("k", group.width), tape.input("steps", 1)
    node = contact.contact_node(group, a0, b0, numbers)
    motion = contact.contact_motion(group, node, a1, b1, numbers, timestep, mechanism.recovery)
    twist = tape.inputs("ta", 6)
    if group.is_between_links:
        twist = la.vsub(twist, tape.inputs("tb", 6))
    speeds = la.matvec(contact.impulse_rows(node), twist)
    gain = [tape.inputs("gain", 3, 3 * i) for i in range(3)]
    seeds = list(zip(speeds, tape.inputs("dz", 3), strict=True))
    for j, velocity in enumerate(motion.velocity):
        weight = la.dot(speeds, [gain[i][j] for i in range(3)])
        seeds.append((velocity, sc.negative(weight)))
    sides = "ab" if group.is_between_links else "a"
    wanted, targets = [timestep], [("bar_steps", 1)]
    for side in sides:
        for name, width in ((f"{side}0", 12), (f"{side}1", 12), (f"t{side}", 6)):
            wanted += tape.inputs(name, width)
            targets += [(f"bar_{name}", i) for i in range(width)]
    if with_numbers:
        wanted += numbers
        targets += [("bar_k", i) for i in range(group.width)]
    gradients = reverse(seeds, wanted)
    if with_numbers:
        per_mu = la.dot(speeds[:2], tape.inputs("vel", 2))
        gradients[-1] = sc.add(gradients[-1], per_mu)
    outputs: Outputs = [
        (name, i, tape.input(name, i) + masked(tape, g))
        for (name, i), g in zip(targets, gradients, strict=True)
    ]
    return emit_block(outputs)
