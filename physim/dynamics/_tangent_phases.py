"""Traced phases of the adjoint with respect to state, control and time steps, not the numbers.

The link wrenches and their derivatives are explicit (`_tangent.py`); reverse mode is left for what
happens inside joints and for candidates. That is several times cheaper than reverse mode through
kinematics, which the numbers need.
"""

from __future__ import annotations

from typing import Any

from physim.dynamics import _integrator as integrator
from physim.dynamics._actuation import actuator_forces
from physim.dynamics._adjoint_phases import AdjointPhases
from physim.dynamics._kinematics import (
    Poses,
    difference,
    forward_kinematics,
    link_twists,
    project,
    retract,
)
from physim.dynamics._numbers import Numbers
from physim.dynamics._phases import (
    Outputs,
    as_motion,
    chunks,
    flatten,
    motion_values,
    pose_values,
)
from physim.dynamics._tangent import (
    LinkStep,
    coordinate_cotangent,
    pull_back_node,
    subtree_wrenches,
)
from solvers.kernels import algebra as la
from solvers.kernels import emit_block, reverse
from solvers.kernels import scalar as sc
from solvers.kernels.trace import Tape

Scalar = Any
Vector = list[Scalar]


class TangentPhases(AdjointPhases):
    """Phases of one mechanism's adjoint without its numbers; arguments as for `AdjointPhases`."""

    def trace(self) -> dict[str, str]:
        """Blocks by name; earlier ones hand values to later ones."""
        return {
            **self.frame(),
            "FORCE": "",
            "NODE": self._node(),
            "APPROACH": self._approach() if self.has_couplings else "",
            "SWEEP": self._sweep(),
            "MATRIX": self._central_matrix(),
            "FACTOR": "factorise(matrix);",
            "TRANSPOSED": self._transposed(),
            "REVERSE": self._reverse(),
        }

    def _q_past(self, tape: Tape) -> Vector:
        tree = self.mechanism.tree
        past = tape.input("steps", 0)
        back = [sc.negative(sc.multiply(past, x)) for x in tape.inputs("v", tree.nv)]
        return retract(tree, tape.inputs("q", tree.nq), back)

    def _node(self) -> str:
        """Poses of nodes k and k-1, and momentum of the past interval with gravity's impulse."""
        tape, tree = Tape(), self.mechanism.tree
        past, timestep = tape.inputs("steps", 2)
        numbers = self._numbers(tape)
        poses = forward_kinematics(tree, tape.inputs("q", tree.nq), numbers)
        before = forward_kinematics(tree, self._q_past(tape), numbers)
        spreads, wrenches = integrator.interval_momentum(
            before,
            poses,
            integrator.discrete_carrier(before, numbers),
            numbers,
            sc.reciprocal(past),
            poses,
        )
        gone: Vector = []
        for link, (moment, momentum) in enumerate(wrenches):
            weight = self._weight(numbers, link, past, timestep)
            gone += la.vadd(moment, la.cross(poses.center[link], weight))
            gone += la.vadd(momentum, weight)
        store = self._exchange.store
        outputs = store("motion0", motion_values(poses), is_complete=True)
        outputs += store("center0", flatten(poses.center))
        carrier = integrator.discrete_carrier(poses, numbers)
        outputs += store("carrier", [x for m in carrier for x in flatten(m)])
        outputs += store("motion_past", motion_values(before))
        outputs += store("center_past", flatten(before.center))
        outputs += store("spread_past", [x for m in spreads for x in flatten(m)])
        # Whole: a turning link feels the rate of what its axis does not feel.
        outputs += store("gone", gone)
        return emit_block(outputs + self._contact_poses("pose0", pose_values(poses)))

    def _contact_poses(self, name: str, values: Vector) -> Outputs:
        links = {
            link
            for group in self.mechanism.groups
            for item in group.candidates
            for link in (item.link_a, item.link_b)
            if link >= 0
        }
        places = [12 * link + i for link in sorted(links) for i in range(12)]
        return [(name, i, values[i]) for i in places]

    def _felt(self, wrenches: Vector) -> Vector:
        """Wrenches without what no motion feels."""
        return [x if i % 6 in self.structure.moves else 0.0 for i, x in enumerate(wrenches)]

    def _weight(self, numbers: Numbers, link: int, past: Scalar, timestep: Scalar) -> Vector:
        """Impulse of gravity at node k."""
        kick = sc.multiply(0.5, sc.add(past, timestep))
        return la.vscale(la.vscale(numbers.gravity(), kick), numbers.link_mass(link))

    def _node_record(self, tape: Tape) -> integrator.Node:
        load, nv = self._exchange.load, self.mechanism.tree.nv
        poses = Poses([], [], chunks(load(tape, "center0"), 3), as_motion(load(tape, "motion0")))
        carrier = [chunks(m, 3) for m in chunks(load(tape, "carrier"), 9)]
        return integrator.Node(poses, carrier, [0] * nv)

    def _sweep(self) -> str:
        """Poses at the solution, momentum of the coming interval, what is left of the balance."""
        tape, tree = Tape(), self.mechanism.tree
        node, numbers = self._node_record(tape), self._numbers(tape)
        after = forward_kinematics(tree, tape.inputs("x", tree.nq), numbers)
        spreads, wrenches = integrator.interval_momentum(
            node.poses,
            after,
            node.carrier,
            numbers,
            sc.reciprocal(tape.input("steps", 1)),
            node.poses,
        )
        coming = [x for wrench in wrenches for x in flatten(wrench)]
        rest = self._felt(la.vsub(coming, self._exchange.load(tape, "gone")))
        store = self._exchange.store
        outputs = store("motion1", motion_values(after), is_complete=True)
        outputs += store("spread", [x for m in spreads for x in flatten(m)])
        outputs += store("coming", coming)
        moves = self.structure.moves
        outputs += [("wrench", i, x) for i, x in enumerate(rest) if i % 6 in moves]
        for link, spread in enumerate(spreads):
            block = integrator.spatial_block(
                node.poses.center[link], after.center[link], spread, numbers.link_mass(link)
            )
            outputs += [
                ("spatial", 36 * link + i, y if i // 6 in moves and i % 6 in moves else 0.0)
                for i, y in enumerate(flatten(block))
            ]
        return emit_block(outputs + self._contact_poses("pose1", pose_values(after)))

    def _link_steps(self, tape: Tape, numbers: Numbers) -> list[LinkStep]:
        def load(name: str, width: int) -> list[Vector]:
            return chunks(self._exchange.load(tape, name), width)

        past, timestep = tape.inputs("steps", 2)
        momenta = zip(load("coming", 6), load("gone", 6), strict=True)
        forces = [la.vsub(coming[3:], gone[3:]) for coming, gone in momenta]
        rates = (sc.reciprocal(timestep), sc.reciprocal(past))
        return [
            LinkStep(
                center=center,
                center_past=center_past,
                spread=chunks(spread, 3),
                spread_past=chunks(spread_past, 3),
                mass=numbers.link_mass(link),
                rate=rates[0],
                past_rate=rates[1],
                force=force,
            )
            for link, (center, center_past, spread, spread_past, force) in enumerate(
                zip(
                    load("center0", 3),
                    load("center_past", 3),
                    load("spread", 9),
                    load("spread_past", 9),
                    forces,
                    strict=True,
                )
            )
        ]

    def _joint_push(self, tape: Tape, q_past: Vector) -> Vector:
        """What acts inside joints: motors, springs, armature, limits, dry friction, from outside.

        It is the balance without the links' wrenches, sign reversed.
        """
        mechanism = self.mechanism
        tree, numbers = mechanism.tree, self._numbers(tape)
        q, x, v = tape.inputs("q", tree.nq), tape.inputs("x", tree.nq), tape.inputs("v", tree.nv)
        past, timestep = tape.inputs("steps", 2)
        control = tape.inputs("control", len(mechanism.actuators))
        driven = actuator_forces(mechanism.actuators, numbers, q, v, control)
        force = la.vadd(driven, tape.inputs("external", tree.nv))
        push = la.vadd(
            la.vscale(force, timestep),
            integrator.past_joint_impulse(tree, q, q_past, past, numbers),
        )
        push = la.vsub(push, integrator.joint_impulse(tree, x, q, timestep, numbers))
        return la.vadd(push, self._pair_impulse(tape, x, q, timestep))

    def _reverse(self) -> str:
        """Cotangents of all inputs at fixed ``x``."""
        tape, mechanism = Tape(), self.mechanism
        tree, load = mechanism.tree, self._exchange.load
        numbers = self._numbers(tape)
        q, v, y = tape.inputs("q", tree.nq), tape.inputs("v", tree.nv), tape.inputs("y", tree.nv)
        past, timestep = tape.inputs("steps", 2)
        control = tape.inputs("control", len(mechanism.actuators))
        external = tape.inputs("external", tree.nv)
        motion = as_motion(load(tape, "motion0"))
        twists = link_twists(tree, motion, y)
        pulled = as_motion(tape.inputs("cot", 6 * len(tree.links)))
        loads, loads_past = [], []
        for step, twist, own in zip(self._link_steps(tape, numbers), twists, pulled, strict=True):
            here, before = step.cotangents(twist)
            loads.append((la.vsub(own[0], here[0]), la.vsub(own[1], here[1])))
            loads_past.append((la.vneg(before[0]), la.vneg(before[1])))
        totals = subtree_wrenches(tree, as_motion(tape.inputs("wrench", 6 * len(tree.links))))
        bar_tangent = pull_back_node(tree, motion, la.vneg(y), loads, totals)
        bar_past = project(tree, as_motion(load(tape, "motion_past")), loads_past)
        q_past = self._q_past(tape)
        cayley, _ = difference(tree, tape.inputs("x", tree.nq), q)
        direct = sc.divide(la.dot(tape.inputs("gv", tree.nv), cayley), timestep)
        total = sc.add(la.dot(y, self._joint_push(tape, q_past)), direct)
        seeds = [(total, 1.0)]
        seeds += zip(q_past, coordinate_cotangent(tree, q_past, bar_past), strict=True)
        gradients = reverse(seeds, [*q, *v, *control, *external, past, timestep])
        bar_q = la.vadd(gradients[: tree.nq], coordinate_cotangent(tree, q, bar_tangent))
        outputs: Outputs = [("bar_q", i, g) for i, g in enumerate(bar_q)]
        at = tree.nq
        for name, width in (
            ("bar_v", tree.nv),
            ("bar_control", len(control)),
            ("bar_external", tree.nv),
        ):
            outputs += [(name, i, gradients[at + i]) for i in range(width)]
            at += width
        bar_steps = la.vadd(gradients[at:], self._pull_back_steps(tape, numbers, twists))
        outputs += [("bar_steps", 0, bar_steps[0])]
        outputs += [("bar_steps", 1, tape.input("bar_steps", 1) + bar_steps[1])]
        return emit_block(outputs)

    def _pull_back_steps(self, tape: Tape, numbers: Numbers, twists: list[Any]) -> Vector:
        """Cotangents of both time steps through momenta, which go as one over them, and gravity."""
        past, timestep = tape.inputs("steps", 2)
        centers = chunks(self._exchange.load(tape, "center0"), 3)
        coming, gone, falling = (0.0, 0.0, 0.0)
        for link, (w, v) in enumerate(twists):
            twist = [*w, *v]
            at = slice(6 * link, 6 * link + 6)
            coming = sc.add(coming, la.dot(twist, self._exchange.load(tape, "coming")[at]))
            gone = sc.add(gone, la.dot(twist, self._exchange.load(tape, "gone")[at]))
            weight = self._weight(numbers, link, past, timestep)
            falling = sc.add(falling, la.dot(la.vadd(v, la.cross(w, centers[link])), weight))
        shared = sc.divide(falling, sc.add(past, timestep))
        return [
            sc.subtract(shared, sc.divide(sc.subtract(gone, falling), past)),
            sc.add(shared, sc.divide(coming, timestep)),
        ]
