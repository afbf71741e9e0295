"""Traced phases of one contact candidate in a Newton iteration, once per kind.

A candidate costs in proportion to how close it is: a bound on its distance for all, the distance
for those that may be near, the linearisation for those that push in some lane. What is left out is
open, and an open contact adds exactly nothing, so nothing is lost.

The arrays are: ``a0 b0 a1 b1`` poses of both sides at both nodes, ``k`` the candidate's numbers,
``node`` its record at node k, ``at`` its points at the trial configuration, ``push_`` its impulse
``(gamma, b1, b2)``, ``reply`` offset and gains of its linearised response.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from physim.collision import ContactGroup
from physim.dynamics import _contact as contact
from physim.dynamics._mechanism import Mechanism
from physim.dynamics._phases import Outputs, flatten, side_poses
from solvers.kernels import algebra as la
from solvers.kernels import emit_block
from solvers.kernels import scalar as sc
from solvers.kernels.trace import Tape

Scalar = Any
Vector = list[Scalar]

NODE_SIZE = 20
"""Allowed overlap, gap, frame (9), point (3), point in both links' axes (6)."""
POINTS_SIZE = 13
"""Slip points of both sides (6), witness point (3), normal (3), gap velocity."""
FAR = 1e30
"""Gap velocity of a candidate that takes no part [m/s]."""
REPLY_SIZE = 12
"""Offset (3) and gain (9) of the linearised impulse, in the order t1, t2, n."""


def newton_contact_phases(mechanism: Mechanism, group: ContactGroup, cap: float) -> dict[str, str]:
    """Blocks of one kind of candidate."""
    phases = NewtonContacts(mechanism, group, cap)
    return {
        "BOUND": phases.bound("0") if group.is_between_links else "",
        "BOUND_NEXT": phases.bound("1") if group.is_between_links else "",
        "NODE": phases.node(),
        "GAP": phases.gap(),
        "NORMAL": phases.normal(),
        "RESPOND": phases.respond(smooth=False),
        "SMOOTH_RESPOND": phases.respond(smooth=True),
        "CONDENSE": phases.condense(),
        "INCREMENT": phases.increment(),
    }


class NewtonContacts:
    """Traces the phases of one kind.

    Args:
        mechanism: Structure of the equations.
        group: The candidates.
        cap: Largest gain of a pair, in units of its effective mass.
    """

    def __init__(self, mechanism: Mechanism, group: ContactGroup, cap: float) -> None:
        self.mechanism, self.group, self.cap = mechanism, group, cap
        self.is_between_links = group.is_between_links

    def _frame(self, tape: Tape) -> list[Vector]:
        """Tangents and normal at node k: constants on a plane."""
        if self.group.normal is None:
            values = tape.inputs("node", NODE_SIZE)
            return [values[2:5], values[5:8], values[8:11]]
        return constant_frame(self.group.normal)

    def _numbers(self, tape: Tape) -> Vector:
        return structural_numbers(self.group, tape)

    def _point(self, tape: Tape) -> Vector:
        return tape.inputs("node", 3, 11)

    def bound(self, suffix: str) -> str:
        """Lower bound of the gap at one node: enclosing balls of both shapes."""
        tape = Tape()
        a, b = side_poses(tape, self.group, suffix)
        return emit_block([("bound", 0, self.group.bound(a, b, self._numbers(tape)))])

    def node(self) -> str:
        """Geometry at node k, and how close the past velocity would bring it."""
        tape = Tape()
        a, b = side_poses(tape, self.group, "0")
        item = contact.contact_node(self.group, a, b, self._numbers(tape))
        frame = constant_frame(self.group.normal) if self.group.normal else item.frame
        allowed = contact.allowed_overlap(item.gap, tape.input("steps", 1), self.mechanism.recovery)
        values = [allowed, item.gap, *flatten(frame), *item.point, *item.local_a, *item.local_b]
        outputs: Outputs = [
            ("node", i, x)
            for i, x in enumerate(values)
            if self.is_between_links or not (2 <= i < 11 or i >= 17)
        ]
        row = [*la.cross(item.point, frame[2]), *frame[2]]
        speed = la.dot(row, tape.inputs("va", 6))
        if self.is_between_links:
            speed = sc.subtract(speed, la.dot(row, tape.inputs("vb", 6)))
        closest = item.gap + tape.input("steps", 1) * sc.minimum(speed, 0.0)
        return emit_block([*outputs, ("closest", 0, closest)])

    def gap(self) -> str:
        """Gap at the trial configuration."""
        tape = Tape()
        a, b = side_poses(tape, self.group, "1")
        return emit_block([("gap", 0, self.group.witness(a, b, self._numbers(tape))[0])])

    def normal(self) -> str:
        """Gap velocity and witness, and whether the contact pushes."""
        tape = Tape()
        a, b = side_poses(tape, self.group, "1")
        gap, normal, point = self.group.witness(a, b, self._numbers(tape))
        speed = (gap - tape.input("node", 0)) * tape.input("rate", 0)
        # Where the candidate takes no part it is far away.
        speed = sc.where(tape.input("on", 0) > 0.5, speed, FAR)
        reach = tape.input("push_", 0) - tape.input("rho_n", None) * speed
        outputs: Outputs = [("at", 6 + i, x) for i, x in enumerate(point)]
        if self.is_between_links:
            outputs += [("at", 9 + i, x) for i, x in enumerate(normal)]
        return emit_block([*outputs, ("at", 12, speed), ("reach", 0, reach), ("gap", 0, gap)])

    def respond(self, *, smooth: bool) -> str:
        """Linearised impulse of the natural residual, and that residual."""
        tape, scales = Tape(), self.mechanism.scales
        a, b = side_poses(tape, self.group, "1")
        kappa = tape.input("kappa", 0) if smooth else None
        rho_n, rho_t = tape.input("rho_n", None), tape.input("rho_t", None)
        frame, mu = self._frame(tape), self._numbers(tape)[-1]
        y_a, y_b = self._slip_points(tape, a, b)
        slip = la.vscale(la.vsub(y_a, y_b), tape.input("rate", 0))
        speed = [la.dot(frame[0], slip), la.dot(frame[1], slip)]
        gamma, *friction = tape.inputs("push_", 3)
        normal_speed = tape.input("at", 12)
        law = contact.natural_response(
            [*speed, normal_speed], [*friction, gamma], mu, (rho_n, rho_t), self.cap, kappa
        )
        per_speed = 1.0 / scales.velocity
        wrong = sc.maximum(sc.absolute(law.friction_miss[0]), sc.absolute(law.friction_miss[1]))
        size = sc.maximum(
            sc.absolute(law.normal_miss) * tape.input("per_rho_n", None),
            wrong * tape.input("per_rho_t", None),
        )
        values = [*law.offset, *flatten(law.gain)]
        outputs: Outputs = [("reply", i, x) for i, x in enumerate(values)]
        outputs += [("at", i, x) for i, x in enumerate(y_a)]
        if self.is_between_links:
            outputs += [("at", 3 + i, x) for i, x in enumerate(y_b)]
        takes_part = tape.input("on", 0) > 0.5
        size = sc.where(takes_part, size * per_speed, 0.0)
        outputs.append(("err", 1, sc.maximum(tape.input("err", 1), size)))
        if kappa is not None:
            product = sc.absolute(gamma * normal_speed / kappa - 1.0)
            drag = wrong / (mu * law.value)
            away = sc.where(takes_part, sc.maximum(product, drag), 0.0)
            outputs.append(("err", 2, sc.maximum(tape.input("err", 2), away)))
        return emit_block(outputs)

    def _slip_points(self, tape: Tape, a: contact.Pose, b: contact.Pose) -> tuple[Vector, Vector]:
        """Where the material points that met at node k are now."""
        local_a = tape.inputs("node", 3, 14)
        y_a = la.vadd(a[1], la.matvec(a[0], local_a))
        if not self.is_between_links:
            return y_a, self._point(tape)
        return y_a, la.vadd(b[1], la.matvec(b[0], tape.inputs("node", 3, 17)))

    def _impulse_rows(self, tape: Tape) -> list[Vector]:
        point = self._point(tape)
        return [[*la.cross(point, axis), *axis] for axis in self._frame(tape)]

    def _velocity_rows(self, tape: Tape, slip_at: int) -> list[Vector]:
        """Derivative of slip and gap velocity with respect to one side's twist."""
        frame, slip_point = self._frame(tape), tape.inputs("at", 3, slip_at)
        normal = tape.inputs("at", 3, 9) if self.is_between_links else frame[2]
        sliding = [[*la.cross(slip_point, axis), *axis] for axis in frame[:2]]
        return [*sliding, [*la.cross(tape.inputs("at", 3, 6), normal), *normal]]

    def condense(self) -> str:
        """Adds impulse, offset and, on a fixed plane, response to the links.

        Between links the response couples two branches; it is left as rows for `couple.cpp`.
        """
        tape = Tape()
        rows = self._impulse_rows(tape)
        columns = la.transpose(rows)
        gamma, *friction = tape.inputs("push_", 3)
        impulse = la.matvec(columns, [*friction, gamma])
        ahead = self._velocity_rows(tape, 0)
        outputs: Outputs = [
            ("load_a", i, tape.input("load_a", i) + x) for i, x in enumerate(impulse)
        ]
        if self.is_between_links:
            outputs += [("load_b", i, tape.input("load_b", i) - x) for i, x in enumerate(impulse)]
            values = [*flatten(ahead), *flatten(self._velocity_rows(tape, 3)), *flatten(rows)]
            return emit_block([*outputs, *[("rows", i, x) for i, x in enumerate(values)]])
        offset = la.matvec(columns, tape.inputs("reply", 3))
        hold = la.matmul(columns, la.matmul(self._gain(tape), ahead))
        for name, values in (("push_a", offset), ("hold_a", flatten(hold))):
            outputs += [(name, i, tape.input(name, i) + x) for i, x in enumerate(values)]
        return emit_block(outputs)

    def _gain(self, tape: Tape) -> list[Vector]:
        gain: list[Vector] = [tape.inputs("reply", 3, 3 + 3 * i) for i in range(3)]
        gain[2] = [0, 0, gain[2][2]]
        return gain

    def increment(self) -> str:
        """Moves impulse and gap along the step."""
        tape = Tape()
        du = la.matvec(self._velocity_rows(tape, 0), tape.inputs("ta", 6))
        if self.is_between_links:
            du = la.vsub(du, la.matvec(self._velocity_rows(tape, 3), tape.inputs("tb", 6)))
            change = tape.inputs("change", 3)
        else:
            change = la.vsub(tape.inputs("reply", 3), la.matvec(self._gain(tape), du))
        step = tape.input("alpha", 0)
        places = (1, 2, 0)
        outputs: Outputs = [
            ("push_", i, tape.input("push_", i) + step * x)
            for i, x in zip(places, change, strict=True)
        ]
        travel = step * tape.input("steps", 1) * du[2]
        return emit_block([*outputs, ("gap", 0, tape.input("gap", 0) + travel)])


def constant_frame(normal: Sequence[float]) -> list[Vector]:
    """Tangents and normal of a plane as numbers."""
    from physim.collision import tangents

    first, second = tangents([float(x) for x in normal])
    clean = [
        [int(x) if x in (0.0, 1.0, -1.0) else float(x) for x in row] for row in (first, second)
    ]
    return [*clean, [int(x) if x in (0.0, 1.0, -1.0) else float(x) for x in normal]]


def structural_numbers(group: ContactGroup, tape: Tape) -> Vector:
    """A candidate's numbers as inputs, its plane's normal as constants."""
    values: Vector = tape.inputs("k", group.width)
    if group.normal is not None:
        values[:3] = constant_frame(group.normal)[2]
    return values
