"""The step's equations traced into straight-line blocks, one per phase of an iteration.

A phase reads named arrays, computes with the generic-scalar equations of this folder and writes
named arrays; `step_loop.cpp` strings the phases together and loops over contact candidates. What is
a constant of the structure never becomes an array entry: the `Exchange` hands it on to later phases
as a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from physim.collision import ContactGroup
from physim.dynamics import _contact as contact
from physim.dynamics import _integrator as integrator
from physim.dynamics._actuation import actuator_forces
from physim.dynamics._inputs import rotation_spans
from physim.dynamics._kinematics import (
    Poses,
    difference,
    forward_kinematics,
    link_twists,
    project,
    retract,
)
from physim.dynamics._mechanism import Mechanism
from physim.dynamics._numbers import Numbers
from physim.dynamics._structure import Structure
from solvers.kernels import algebra as la
from solvers.kernels import emit_block
from solvers.kernels import scalar as sc
from solvers.kernels.trace import Tape, constant_value
from solvers.nonlinear import cones

Scalar = Any
Outputs = list[tuple[str, int | None, Scalar]]

CONTACT_NODE = 19
"""Numbers kept per candidate at node k: gap, frame (9), point, point in both links' axes."""

COMPOSE = "compose(spatial, motion0, motion1, matrix);\nV* const entry = matrix.entry;"
"""Statements that put the links' blocks into Newton's matrix."""


class Exchange:
    """Passes values from one phase to later ones, constants by value."""

    def __init__(self) -> None:
        self._known: dict[str, list[float | None]] = {}

    def store(self, name: str, values: Sequence[Scalar], *, is_complete: bool = False) -> Outputs:
        """Outputs that write ``values`` to array ``name``; constants only if ``is_complete``."""
        known = [constant_value(x) for x in values]
        self._known[name] = known
        return [(name, i, x) for i, x in enumerate(values) if is_complete or known[i] is None]

    def constants(self, name: str) -> Outputs:
        """Outputs that write the constants of array ``name``, for loops that read all of it."""
        known = self._known[name]
        return [(name, i, value) for i, value in enumerate(known) if value is not None]

    def load(self, tape: Tape, name: str) -> list[Scalar]:
        """The values of array ``name`` as inputs of ``tape``, constants as numbers."""
        return [
            tape.input(name, i) if value is None else value
            for i, value in enumerate(self._known[name])
        ]


def chunks(values: Sequence[Scalar], width: int) -> list[list[Scalar]]:
    """Values in rows of ``width``."""
    return [list(values[i : i + width]) for i in range(0, len(values), width)]


def flatten(rows: Sequence[Sequence[Scalar]]) -> list[Scalar]:
    """Rows one after the other."""
    return [x for row in rows for x in row]


def pose_values(poses: Poses) -> list[Scalar]:
    """Twelve numbers per link: rotation by rows, then position."""
    values: list[Scalar] = []
    for rotation, position in zip(poses.rotation, poses.position, strict=True):
        values += [*flatten(rotation), *position]
    return values


def motion_values(poses: Poses) -> list[Scalar]:
    """Six numbers per degree of freedom: angular, then linear part."""
    return [x for w, v in poses.motion for x in (*w, *v)]


def as_motion(values: Sequence[Scalar]) -> list[tuple[list[Scalar], list[Scalar]]]:
    """Inverse of `motion_values`; also twists and wrenches of links."""
    return [(row[:3], row[3:]) for row in chunks(values, 6)]


def read_pose(tape: Tape, name: str) -> contact.Pose:
    """A pose from an array of twelve."""
    values = tape.inputs(name, 12)
    return chunks(values[:9], 3), values[9:]


def read_node(tape: Tape, name: str) -> contact.ContactNode:
    """A candidate at node k from an array of `CONTACT_NODE`."""
    values = tape.inputs(name, CONTACT_NODE)
    frame = chunks(values[1:10], 3)
    return contact.ContactNode(values[0], frame, values[10:13], values[13:16], values[16:19])


def node_values(node: contact.ContactNode) -> list[Scalar]:
    """Inverse of `read_node`."""
    return [node.gap, *flatten(node.frame), *node.point, *node.local_a, *node.local_b]


def side_poses(tape: Tape, group: ContactGroup, suffix: str) -> tuple[contact.Pose, contact.Pose]:
    """Poses of both sides from the arrays ``a<suffix>`` and ``b<suffix>``."""
    b = read_pose(tape, f"b{suffix}") if group.is_between_links else contact.WORLD
    return read_pose(tape, f"a{suffix}"), b


def masked(tape: Tape, value: Scalar) -> Scalar:
    """``value`` in lanes in which the candidate takes part, 0 elsewhere."""
    return sc.where(tape.input("on", 0) > 0.5, value, 0.0)


class StepPhases:
    """Traces the phases of one mechanism's step.

    Args:
        mechanism: Structure of the equations.
        zeros: Slots of the flat numbers that are zero by structure.
    """

    def __init__(self, mechanism: Mechanism, zeros: frozenset[int]) -> None:
        self.mechanism = mechanism
        self._zeros = zeros
        self.structure = Structure.of(mechanism, zeros)
        self._exchange = Exchange()
        self.has_couplings = any(group.is_between_links for group in mechanism.groups)
        self.blocks = self.trace()

    def trace(self) -> dict[str, str]:
        """Blocks by name; earlier ones hand values to later ones."""
        return {
            "NODE": self._node(),
            "SWEEP": self._sweep(),
            "ASSEMBLE": self._assemble(),
            "FACTOR": "factorise(matrix);",
            "SOLVE": self._solve(),
            "JOINT_START": self._joint_start(),
            "JOINT_STEP": self._joint_step(),
            "ADVANCE": self._advance(),
            "GUESS": self._guess(),
            "APPROACH": self._approach(),
        }

    def _numbers(self, tape: Tape) -> Numbers:
        size = self.mechanism.layout.size
        values = [0 if i in self._zeros else tape.input("num", i) for i in range(size)]
        return Numbers(self.mechanism.layout, values)

    def _inputs(self, tape: Tape) -> tuple[list[Scalar], list[Scalar], list[Scalar]]:
        tree = self.mechanism.tree
        return (
            tape.inputs("q", tree.nq),
            tape.inputs("v", tree.nv),
            tape.inputs("force", tree.nv),
        )

    def force(self) -> str:
        """Generalized force of the interval, from controls and from outside."""
        tape, mechanism = Tape(), self.mechanism
        tree = mechanism.tree
        driven = actuator_forces(
            mechanism.actuators,
            self._numbers(tape),
            tape.inputs("q", tree.nq),
            tape.inputs("v", tree.nv),
            tape.inputs("control", len(mechanism.actuators)),
        )
        external = tape.inputs("external", tree.nv)
        force = [sc.add(a, b) for a, b in zip(driven, external, strict=True)]
        return emit_block([("force", i, y) for i, y in enumerate(force)])

    def _lengths(self, q: list[Scalar]) -> list[tuple[int, Scalar]]:
        """Where quaternions start, and one over their lengths."""
        result = []
        for _, start, _ in rotation_spans(self.mechanism.tree):
            part = q[start : start + 4]
            square = la.dot(part, part)
            # What is a unit quaternion up to rounding keeps its bits.
            is_off = sc.absolute(square - 1.0) > 1e-12
            result.append((start, sc.where(is_off, sc.reciprocal(sc.sqrt(square)), 1.0)))
        return result

    def normalised(self) -> str:
        """Makes quaternions unit ones."""
        q = Tape().inputs("q", self.mechanism.tree.nq)
        outputs: Outputs = []
        for start, per_length in self._lengths(q):
            outputs += [("q", i, q[i] * per_length) for i in range(start, start + 4)]
        return emit_block(outputs)

    def _node(self) -> str:
        tape = Tape()
        q, v, force = self._inputs(tape)
        past, timestep = tape.inputs("steps", 2)
        numbers = self._numbers(tape)
        node = integrator.build_node(self.mechanism.tree, q, v, force, past, timestep, numbers)
        store = self._exchange.store
        outputs = store("motion0", motion_values(node.poses), is_complete=True)
        outputs += store("center0", flatten(node.poses.center))
        outputs += store("carrier", [x for m in node.carrier for x in flatten(m)])
        outputs += store("impulse", node.impulse)
        outputs += [("pose0", i, x) for i, x in enumerate(pose_values(node.poses))]
        return emit_block(outputs)

    def _guess(self) -> str:
        """Start from rest: a guess that moves may already lie behind an obstacle."""
        tape = Tape()
        q, _, _ = self._inputs(tape)
        return emit_block([("x", i, y) for i, y in enumerate(q)])

    def _approach(self) -> str:
        """Twists of the past velocity at node k."""
        tape, tree = Tape(), self.mechanism.tree
        motion = as_motion(self._exchange.load(tape, "motion0"))
        twists = link_twists(tree, motion, tape.inputs("v", tree.nv))
        values = [x for w, v in twists for x in (*w, *v)]
        return emit_block([("twist", i, x) for i, x in enumerate(values)])

    def _node_record(self, tape: Tape) -> integrator.Node:
        load = self._exchange.load
        poses = Poses([], [], chunks(load(tape, "center0"), 3), as_motion(load(tape, "motion0")))
        carrier = [chunks(m, 3) for m in chunks(load(tape, "carrier"), 9)]
        return integrator.Node(poses, carrier, load(tape, "impulse"))

    def _sweep(self) -> str:
        """Poses and momenta at the trial configuration, per link."""
        tape, tree = Tape(), self.mechanism.tree
        node, numbers = self._node_record(tape), self._numbers(tape)
        x = tape.inputs("x", tree.nq)
        after = forward_kinematics(tree, x, numbers)
        spreads, wrenches = integrator.interval_momentum(
            node.poses,
            after,
            node.carrier,
            numbers,
            sc.reciprocal(tape.input("steps", 1)),
            node.poses,
        )
        outputs = self._exchange.store("motion1", motion_values(after), is_complete=True)
        outputs += [("pose1", i, y) for i, y in enumerate(pose_values(after))]
        for link, (moment, momentum) in enumerate(wrenches):
            outputs += [("wrench", 6 * link + i, y) for i, y in enumerate([*moment, *momentum])]
            block = integrator.spatial_block(
                node.poses.center[link],
                after.center[link],
                spreads[link],
                numbers.link_mass(link),
            )
            outputs += [("spatial", 36 * link + i, y) for i, y in enumerate(flatten(block))]
        return emit_block(outputs)

    def _limit_velocities(
        self,
        x: list[Scalar],
        q: list[Scalar],
        timestep: Scalar,
        numbers: Numbers,
    ) -> list[Scalar]:
        """Gap velocities of all lower, then all upper limits."""
        lower: list[Scalar] = []
        upper: list[Scalar] = []
        recovery = self.mechanism.recovery
        inverse = sc.reciprocal(timestep)
        for dof, coordinate in self.mechanism.limits:
            low, high = numbers.dof("limit_lower", dof), numbers.dof("limit_upper", dof)
            for side, now, then in (
                (lower, q[coordinate] - low, x[coordinate] - low),
                (upper, high - q[coordinate], high - x[coordinate]),
            ):
                allowed = contact.allowed_overlap(now, timestep, recovery)
                side.append(sc.multiply(sc.subtract(then, allowed), inverse))
        return lower + upper

    def _assemble(self) -> str:
        """Balance, Newton matrix, joint cones; errors and products of the joint cones."""
        tape, mechanism = Tape(), self.mechanism
        tree = mechanism.tree
        node, numbers = self._node_record(tape), self._numbers(tape)
        q, x = tape.inputs("q", tree.nq), tape.inputs("x", tree.nq)
        timestep, kappa = tape.input("steps", 1), tape.input("kappa", 0)
        wrenches = as_motion(tape.inputs("wrench", 6 * len(tree.links)))
        balance = project(tree, node.poses.motion, wrenches)
        joint = integrator.joint_impulse(tree, x, q, timestep, numbers)
        balance = [
            sc.subtract(sc.add(a, b), c)
            for a, b, c in zip(balance, joint, node.impulse, strict=True)
        ]
        entries = self._joint_entries(tape, x, q, timestep, numbers)
        scales = mechanism.scales
        velocity_unit = 1.0 / scales.velocity
        residual, path, total = tape.input("err", 0), tape.input("err", 1), tape.input("total", 0)
        outputs: Outputs = []
        primal, dual = self._limit_inputs(tape)
        velocities = self._limit_velocities(x, q, timestep, numbers)
        count = len(mechanism.limits)
        for i, velocity in enumerate(velocities):
            dof = mechanism.limits[i % count][0]
            sign = 1.0 if i < count else -1.0
            balance[dof] = balance[dof] - sign * primal[i]
            entries[dof, dof] = entries[dof, dof] + primal[i] / dual[i]
            residual = sc.maximum(residual, sc.absolute(dual[i] - velocity) * velocity_unit)
            product = primal[i] * dual[i]
            path = sc.maximum(path, sc.absolute(product / kappa - 1.0))
            total = total + product
            outputs.append(("limit_velocity", i, velocity))
        slips = difference(tree, x, q)[0]
        for i, (dof, _) in enumerate(mechanism.rubbing):
            bound, b, e, y = self._rub_inputs(tape, numbers, i, timestep)
            response = cones.second_order_response(bound, [b], e, [y], kappa)
            slip = slips[dof] / timestep
            balance[dof] = balance[dof] - b
            entries[dof, dof] = entries[dof, dof] - response.b_y[0][0]
            scalar, vector = cones.second_order_product(bound, [b], e, [y])
            residual = sc.maximum(residual, sc.absolute(y - slip) * velocity_unit)
            path = sc.maximum(path, sc.absolute(scalar / kappa - 1.0))
            path = sc.maximum(path, sc.absolute(vector[0] / kappa))
            total = total + scalar
            outputs.append(("slip", i, slip))
        for dof, value in enumerate(balance):
            unit = scales.mass * scales.velocity
            unit *= 1.0 if tree.linear_dofs[dof] else scales.length
            residual = sc.maximum(residual, sc.absolute(value) * (1.0 / unit))
        outputs += [("balance", i, value) for i, value in enumerate(balance)]
        outputs += [("entry", i * tree.nv + j, value) for (i, j), value in entries.items()]
        outputs += [("err", 0, residual), ("err", 1, path), ("total", 0, total)]
        return f"{COMPOSE}\n{emit_block(outputs)}"

    def _joint_entries(
        self,
        tape: Tape,
        x: list[Scalar],
        q: list[Scalar],
        timestep: Scalar,
        numbers: Numbers,
    ) -> dict[tuple[int, int], Scalar]:
        """Entries of the composed matrix to which joints add, with what joints add."""
        nv = self.mechanism.tree.nv
        block = integrator.joint_block(self.mechanism.tree, x, q, timestep, numbers)
        places = {(i, i) for i in range(nv)} | {at for at, y in block.items() if not sc.is_zero(y)}
        return {
            (i, j): sc.add(tape.input("entry", i * nv + j), block.get((i, j), 0))
            for i, j in sorted(places)
        }

    def _limit_inputs(self, tape: Tape) -> tuple[list[Scalar], list[Scalar]]:
        values = tape.inputs("limit", 4 * len(self.mechanism.limits))
        half = len(values) // 2
        return values[:half], values[half:]

    def _rub_inputs(
        self, tape: Tape, numbers: Numbers, index: int, timestep: Scalar
    ) -> tuple[Scalar, Scalar, Scalar, Scalar]:
        dof = self.mechanism.rubbing[index][0]
        bound = sc.multiply(numbers.dof("friction_loss", dof), timestep)
        b, e, y = tape.inputs("rub", 3, 3 * index)
        return bound, b, e, y

    def _solve(self) -> str:
        """Velocity increment, link twists and increments of the joint cones."""
        return "\n".join([self._right(), "solve_factored(matrix, dv);", self._spread()])

    def _right(self) -> str:
        """Right-hand side: pushes of contacts and joint cones against the balance."""
        tape, mechanism = Tape(), self.mechanism
        tree = mechanism.tree
        motion = as_motion(self._exchange.load(tape, "motion0"))
        pushes = as_motion(tape.inputs("push", 6 * len(tree.links)))
        right = project(tree, motion, pushes)
        right = [sc.subtract(r, tape.input("balance", i)) for i, r in enumerate(right)]
        for response, defect, dof, sign in self._limit_responses(tape):
            right[dof] = right[dof] + sign * (response.offset + response.gain * defect)
        for rub, defect, dof in self._rub_responses(tape):
            right[dof] = right[dof] + (rub.b_offset[0] - rub.b_y[0][0] * defect)
        return emit_block([("dv", i, y) for i, y in enumerate(right)])

    def _spread(self) -> str:
        """What the velocity increment means for links and joint cones."""
        tape, mechanism = Tape(), self.mechanism
        tree, half = mechanism.tree, 2 * len(mechanism.limits)
        dv = tape.inputs("dv", tree.nv)
        outputs: Outputs = []
        twists = link_twists(tree, as_motion(self._exchange.load(tape, "motion1")), dv)
        for link, (w, v) in enumerate(twists):
            outputs += [("twist", 6 * link + i, x) for i, x in enumerate([*w, *v])]
        for i, (response, defect, dof, sign) in enumerate(self._limit_responses(tape)):
            ds = sign * dv[dof] - defect
            outputs += [("dlimit", i, response.increment(ds)), ("dlimit", half + i, ds)]
        for i, (rub, defect, dof) in enumerate(self._rub_responses(tape)):
            dy = dv[dof] - defect
            de, db = rub.increments(0, [dy])
            outputs += [("drub", 3 * i + k, x) for k, x in enumerate([db[0], de, dy])]
        return emit_block(outputs)

    def _limit_responses(
        self, tape: Tape
    ) -> list[tuple[cones.OrthantResponse, Scalar, int, float]]:
        """Per limit its response, the defect of its velocity, its joint and its direction."""
        target, second = tape.input("target", 0), tape.input("second", 0)
        primal, dual = self._limit_inputs(tape)
        count, half = len(self.mechanism.limits), len(primal)
        before = tape.inputs("limit_affine", 2 * half)
        limits = []
        for i in range(half):
            correction = second * (before[i] * before[half + i])
            response = cones.orthant_response(primal[i], dual[i], target, correction)
            defect = dual[i] - tape.input("limit_velocity", i)
            dof, sign = self.mechanism.limits[i % count][0], 1.0 if i < count else -1.0
            limits.append((response, defect, dof, sign))
        return limits

    def _rub_responses(self, tape: Tape) -> list[tuple[cones.SecondOrderResponse, Scalar, int]]:
        """Per joint with dry friction its response, the defect of its slip and its joint."""
        numbers, timestep = self._numbers(tape), tape.input("steps", 1)
        target, second = tape.input("target", 0), tape.input("second", 0)
        rubs = []
        for i, (dof, _) in enumerate(self.mechanism.rubbing):
            bound, b, e, y = self._rub_inputs(tape, numbers, i, timestep)
            db, de, dy = tape.inputs("rub_affine", 3, 3 * i)
            scalar, vector = cones.second_order_product(0, [db], de, [dy])
            response = cones.second_order_response(
                bound, [b], e, [y], target, (second * scalar, [second * vector[0]])
            )
            rubs.append((response, y - tape.input("slip", i), dof))
        return rubs

    def _joint_start(self) -> str:
        """Far start of the joint cones on the path of ``far``."""
        tape, mechanism = Tape(), self.mechanism
        numbers = self._numbers(tape)
        q = tape.inputs("q", mechanism.tree.nq)
        timestep, far, slowest = tape.input("steps", 1), tape.input("far"), tape.input("slowest")
        velocities = self._limit_velocities(q, q, timestep, numbers)
        outputs: Outputs = []
        for i, velocity in enumerate(velocities):
            s = sc.maximum(velocity, slowest)
            outputs += [("limit", i, far / s), ("limit", len(velocities) + i, s)]
        for i, (dof, _) in enumerate(mechanism.rubbing):
            bound = sc.multiply(numbers.dof("friction_loss", dof), timestep)
            start = [0.0, far / bound, 0.0]
            outputs += [("rub", 3 * i + k, x) for k, x in enumerate(start)]
        return emit_block(outputs)

    def _joint_step(self) -> str:
        """Longest step and product sums of the joint cones along the current direction."""
        tape, mechanism = Tape(), self.mechanism
        numbers, timestep = self._numbers(tape), tape.input("steps", 1)
        primal, dual = self._limit_inputs(tape)
        half = len(primal)
        step = tape.input("inverse_step", 0)
        slope, bend = tape.input("ahead", 0), tape.input("ahead", 1)
        for i in range(half):
            dx, ds = tape.input("dlimit", i), tape.input("dlimit", half + i)
            step = sc.maximum(step, sc.maximum(-(dx / primal[i]), -(ds / dual[i])))
            slope = slope + (primal[i] * ds + dual[i] * dx)
            bend = bend + dx * ds
        for i in range(len(mechanism.rubbing)):
            bound, b, e, y = self._rub_inputs(tape, numbers, i, timestep)
            db, de, dy = tape.inputs("drub", 3, 3 * i)
            for p, vector, dp, dvector in ((bound, b, 0, db), (e, y, de, dy)):
                determinant = cones.second_order_determinant(p, [vector])
                step = sc.maximum(
                    step,
                    cones.second_order_inverse_step(
                        p, [vector], dp, [dvector], sc.reciprocal(determinant)
                    ),
                )
            slope = slope + (bound * de + b * dy + y * db)
            bend = bend + db * dy
        return emit_block([("inverse_step", 0, step), ("ahead", 0, slope), ("ahead", 1, bend)])

    def _advance(self) -> str:
        """Move the trial configuration along the direction, where ``go`` holds."""
        tape, tree = Tape(), self.mechanism.tree
        x = tape.inputs("x", tree.nq)
        length = tape.input("alpha") * tape.input("steps", 1)
        moved = retract(tree, x, [length * dv for dv in tape.inputs("dv", tree.nv)])
        go = tape.input("go") > 0.5
        return emit_block([("x", i, sc.where(go, y, x[i])) for i, y in enumerate(moved)])
