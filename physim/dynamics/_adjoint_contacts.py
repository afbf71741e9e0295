"""Traced phases of one contact candidate in the derivatives of a step, once per kind.

The arrays are those of `contact_phases`, and ``push_`` the impulse of an exact solution. A
candidate answers a motion of its links at node k in two ways: its impulse follows its velocities,
and the impulse acts through another point along other axes. Reverse mode takes both at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from physim.collision import ContactGroup
from physim.dynamics import _contact as contact
from physim.dynamics._adjoint_phases import EXACT_CAP
from physim.dynamics._mechanism import Mechanism
from physim.dynamics._phases import (
    Outputs,
    chunks,
    flatten,
    masked,
    node_values,
    read_node,
)
from physim.dynamics._structure import Structure
from solvers.kernels import algebra as la
from solvers.kernels import emit_block, reverse
from solvers.kernels import scalar as sc
from solvers.kernels.trace import Tape, constant_value

Scalar = Any
Vector = list[Scalar]
Seeds = list[tuple[Scalar, Scalar]]


def adjoint_contact_phases(
    mechanism: Mechanism,
    group: ContactGroup,
    structure: Structure,
    *,
    with_numbers: bool,
    is_exact: bool,
) -> dict[str, str]:
    """Blocks of one kind of candidate.

    Args:
        mechanism: Structure of the equations.
        group: The candidates.
        structure: What all links share; nothing where numbers are differentiated.
        with_numbers: Whether cotangents of the numbers are wanted, hence of both nodes' poses.
        is_exact: Whether contact is exact.
    """
    phases = AdjointContacts(mechanism, group, structure)
    return {
        "NODE": phases.node(),
        "GAP": phases.gap(),
        "CENTRAL": phases.central(is_exact=is_exact),
        "PULL": phases.pull_numbers() if with_numbers else phases.pull_node(),
    }


def linearised_contact_phases(
    mechanism: Mechanism, group: ContactGroup, structure: Structure, *, is_exact: bool
) -> dict[str, str]:
    """Blocks of one kind of candidate where all derivatives are wanted."""
    phases = AdjointContacts(mechanism, group, structure)
    return {
        "NODE": phases.node(),
        "GAP": phases.gap(),
        "CENTRAL": phases.central(is_exact=is_exact),
        "BEND": phases.bend(),
    }


class AdjointContacts:
    """Traces the phases of one kind.

    Args:
        mechanism: Structure of the equations.
        group: The candidates.
        structure: What all links share.
    """

    def __init__(self, mechanism: Mechanism, group: ContactGroup, structure: Structure) -> None:
        self.mechanism, self.group, self.structure = mechanism, group, structure
        self.is_between_links = group.is_between_links

    def _numbers(self, tape: Tape) -> Vector:
        first = self.mechanism.layout.offsets[self.group.name]
        return self.structure.read_numbers(tape, self.group, first)

    def _poses(self, tape: Tape, node: str) -> tuple[contact.Pose, contact.Pose]:
        """Poses of both sides at one node."""
        read = self.structure.read_pose
        b = read(tape, f"b{node}") if self.is_between_links else contact.WORLD
        return read(tape, f"a{node}"), b

    def node(self) -> str:
        """Geometry of a pair of links at node k, and how close the past velocity would bring it.

        On a plane every candidate takes part.
        """
        if not self.is_between_links:
            return emit_block([("cn", 0, 0.0), ("closest", 0, 0.0)])
        tape = Tape()
        a, b = self._poses(tape, "0")
        node = contact.contact_node(self.group, a, b, self._numbers(tape))
        outputs: Outputs = [("cn", i, x) for i, x in enumerate(node_values(node))]
        row = contact.impulse_rows(node)[2]
        speed = la.dot(row, la.vsub(tape.inputs("va", 6), tape.inputs("vb", 6)))
        closest = node.gap + tape.input("steps", 1) * sc.minimum(speed, 0.0)
        return emit_block([*outputs, ("closest", 0, closest)])

    def gap(self) -> str:
        """Gap at the solution."""
        tape = Tape()
        a, b = self._poses(tape, "1")
        numbers = self._numbers(tape)
        return emit_block([("gap", 0, self.group.witness(a, b, numbers)[0])])

    def _node(self, tape: Tape, numbers: Vector) -> contact.ContactNode:
        """The candidate at node k: kept for a pair of links, cheap to repeat on a plane."""
        if self.is_between_links:
            return read_node(tape, "cn")
        return contact.contact_node(self.group, *self._poses(tape, "0"), numbers)

    def central(self, *, is_exact: bool) -> str:
        """Impulse and response of a candidate; takes the one off the links, adds the other."""
        tape, group = Tape(), self.group
        a, b = self._poses(tape, "1")
        numbers = self._numbers(tape)
        node, mu = self._node(tape, numbers), numbers[-1]
        motion = contact.contact_motion(
            group, node, a, b, numbers, tape.input("steps", 1), self.mechanism.recovery
        )
        if is_exact:
            gamma, *friction = tape.inputs("push_", 3)
            weights = (tape.input("rho_n", None), tape.input("rho_t", None))
            law = contact.natural_response(
                motion.velocity, [*friction, gamma], mu, weights, EXACT_CAP
            )
            impulse, gain = [*friction, gamma], law.gain
            per_mu = [gamma * g for g in law.per_bound]
        else:
            kappa = tape.input("kappa", 0)
            # Candidates left out keep a harmless velocity.
            velocity = [sc.where(tape.input("on", 0) > 0.5, u, 1.0) for u in motion.velocity]
            z = contact.contact_central(velocity, mu, kappa)
            response = contact.contact_response(z, velocity, mu, kappa)
            impulse, gain = [z[2], z[3], z[0]], response.gain
            per_mu = [z[0] * g for g in response.friction.b_p]
        gain = [[masked(tape, g) for g in row] for row in gain]
        impulse = [masked(tape, value) for value in impulse]
        outputs: Outputs = [("gain", i, g) for i, g in enumerate(flatten(gain))]
        outputs += [("dz", i, value) for i, value in enumerate(impulse)]
        outputs += [("vel", i, masked(tape, value)) for i, value in enumerate(per_mu)]
        impulse_rows = contact.impulse_rows(node)
        load = la.matvec(la.transpose(impulse_rows), impulse)
        outputs += self._added(tape, "wa", load, sign=-1.0)
        if motion.rows_b is None:
            answer = la.matmul(la.transpose(impulse_rows), la.matmul(gain, motion.rows_a))
            outputs += self._added(tape, "pa", flatten(answer))
        else:
            outputs += self._added(tape, "wb", load)
            rows = [*flatten(motion.rows_a), *flatten(motion.rows_b), *flatten(impulse_rows)]
            outputs += [("rows", i, g) for i, g in enumerate(rows)]
        return emit_block(outputs)

    def _seeds(self, tape: Tape, numbers: Vector, twist: Vector) -> tuple[Seeds, Vector]:
        """What reverse mode starts from, for the wrench's product with a twist of its points."""
        a0, b0 = self._poses(tape, "0")
        a1, b1 = self._poses(tape, "1")
        timestep = tape.input("steps", 1)
        node = contact.contact_node(self.group, a0, b0, numbers)
        motion = contact.contact_motion(
            self.group, node, a1, b1, numbers, timestep, self.mechanism.recovery
        )
        speeds = la.matvec(contact.impulse_rows(node), twist)
        gain = [tape.inputs("gain", 3, 3 * i) for i in range(3)]
        seeds = list(zip(speeds, tape.inputs("dz", 3), strict=True))
        for j, velocity in enumerate(motion.velocity):
            weight = la.dot(speeds, [gain[i][j] for i in range(3)])
            seeds.append((velocity, sc.negative(weight)))
        return seeds, speeds

    def _twist(self, tape: Tape) -> Vector:
        twist: Vector = tape.inputs("ta", 6)
        return la.vsub(twist, tape.inputs("tb", 6)) if self.is_between_links else twist

    def _added(
        self, tape: Tape, name: str, values: Sequence[Scalar], *, sign: float = 1.0
    ) -> Outputs:
        """Adds a wrench, or a 6 x 6 block by rows, to an array; no twist sees the rest of it."""
        moves = self.structure.moves
        return [
            (name, i, sc.add(tape.input(name, i), sc.multiply(sign, x)))
            for i, x in enumerate(values)
            if i % 6 in moves and (len(values) == 6 or i // 6 in moves)
        ]

    @property
    def _sides(self) -> str:
        return "ab" if self.is_between_links else "a"

    def _wrenches(self, tape: Tape, seeds: Seeds) -> list[tuple[str, Vector]]:
        """Wrenches that cotangents leave on the poses of node k, by side."""
        poses = {side: self.structure.pose_values(tape, f"{side}0") for side in self._sides}
        moving = [x for pose in poses.values() for x in pose if constant_value(x) is None]
        bars = iter(reverse(seeds, moving))
        # No twist that the mechanism allows moves a constant.
        found = {
            side: [0.0 if constant_value(x) is not None else next(bars) for x in pose]
            for side, pose in poses.items()
        }
        return [(side, pose_wrench(pose, found[side])) for side, pose in poses.items()]

    def pull_node(self) -> str:
        """Wrenches that a weighed balance leaves on the poses of node k."""
        tape = Tape()
        numbers, timestep = self._numbers(tape), tape.input("steps", 1)
        seeds, _ = self._seeds(tape, numbers, self._twist(tape))
        (through_step,) = reverse(seeds, [timestep])
        outputs: Outputs = [
            ("bar_steps", 1, tape.input("bar_steps", 1) + masked(tape, through_step))
        ]
        for side, wrench in self._wrenches(tape, seeds):
            outputs += self._added(tape, f"c{side}", [masked(tape, g) for g in wrench])
        return emit_block(outputs)

    def bend(self) -> str:
        """Derivative of the wrench with respect to twists of node k, row by row.

        On a plane it is taken off the link's own block, between links left to its caller.
        """
        tape = Tape()
        numbers = self._numbers(tape)
        rows = []
        for row in range(6):
            unit = [1 if i == row else 0 for i in range(6)]
            wrenches = self._wrenches(tape, self._seeds(tape, numbers, unit)[0])
            rows.append([[masked(tape, g) for g in wrench] for _, wrench in wrenches])
        blocks = [flatten(block) for block in zip(*rows, strict=True)]
        if not self.is_between_links:
            return emit_block(self._added(tape, "na", blocks[0], sign=-1.0))
        return emit_block([("bend", i, g) for i, g in enumerate([*blocks[0], *blocks[1]])])

    def pull_numbers(self) -> str:
        """Cotangents of the candidate's numbers, of its poses at both nodes and of its twists."""
        tape, group = Tape(), self.group
        numbers, timestep = tape.inputs("k", group.width), tape.input("steps", 1)
        seeds, speeds = self._seeds(tape, numbers, self._twist(tape))
        wanted, targets = [timestep], [("bar_steps", 1)]
        for side in self._sides:
            for name, width in ((f"{side}0", 12), (f"{side}1", 12), (f"t{side}", 6)):
                wanted += tape.inputs(name, width)
                targets += [(f"bar_{name}", i) for i in range(width)]
        wanted += numbers
        targets += [("bar_k", i) for i in range(group.width)]
        gradients = reverse(seeds, wanted)
        per_mu = la.dot(speeds[:2], tape.inputs("vel", 2))
        gradients[-1] = sc.add(gradients[-1], per_mu)
        outputs: Outputs = [
            (name, i, tape.input(name, i) + masked(tape, g))
            for (name, i), g in zip(targets, gradients, strict=True)
        ]
        return emit_block(outputs)


def pose_wrench(pose: Vector, cotangent: Vector) -> Vector:
    """Wrench on a link from the cotangent of its twelve pose numbers: work is the same."""
    rotation, bars = chunks(pose[:9], 3), chunks(cotangent[:9], 3)
    force = list(cotangent[9:])
    moment = la.cross(pose[9:], force)
    for column, bar in zip(la.transpose(rotation), la.transpose(bars), strict=True):
        moment = la.vadd(moment, la.cross(column, bar))
    return [*moment, *force]
