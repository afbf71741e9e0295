"""Traced phases of one contact candidate in a Newton iteration, once per kind.

A candidate costs in proportion to how close it is: a bound on its distance for all, the distance
for those that may be near, the linearisation for those that push in some lane. What is left out is
open, and an open contact adds exactly nothing, so nothing is lost.

The arrays are: ``a0 b0 a1 b1`` poses of both sides at both nodes, ``k`` the candidate's numbers,
``node`` its record at node k, ``at`` its points at the trial configuration, ``push_`` its impulse
``(gamma, b1, b2)``, ``reply`` offset and gains of its linearised response.
"""

from __future__ import annotations

from typing import Any

from physim.collision import ContactGroup
from physim.dynamics import _contact as contact
from physim.dynamics._mechanism import Mechanism
from physim.dynamics._phases import Exchange, Outputs, flatten
from physim.dynamics._structure import Structure, constant_frame, is_still
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


class NewtonContacts:
    """Traces the phases of one kind.

    Args:
        mechanism: Structure of the equations.
        group: The candidates.
        structure: What all links and candidates share.
        cap: Largest gain of a smoothed pair, in units of its effective mass.

    Attributes:
        blocks: The phases by name.
        axes: Axes of the contact frame (tangents 0 and 1, normal 2) along which links can move;
            along any other there is neither slip nor friction.
    """

    def __init__(
        self, mechanism: Mechanism, group: ContactGroup, structure: Structure, cap: float
    ) -> None:
        self.mechanism, self.group, self.structure, self.cap = mechanism, group, structure, cap
        self.is_between_links = group.is_between_links
        self._exchange = Exchange()
        node = self.node()
        rows = self._velocity_rows(Tape(), 0)
        self.axes = [axis for axis in range(3) if axis == 2 or not is_still(rows[axis])]
        self.blocks = {
            "BALL_A": self.ball(0) if group.is_between_links else "",
            "BALL_B": self.ball(1) if group.is_between_links else "",
            "NODE": node,
            "GAP": self.gap(),
            "NORMAL": self.normal(),
            "RESPOND": self.respond(smooth=False),
            "SMOOTH_RESPOND": self.respond(smooth=True),
            "CONDENSE": self.condense(),
            "INCREMENT": self.increment(),
        }

    def _frame(self, tape: Tape) -> list[Vector]:
        """Tangents and normal at node k: constants on a plane."""
        if self.group.normal is None:
            values = self._exchange.load(tape, "node")
            return [values[2:5], values[5:8], values[8:11]]
        return constant_frame(self.group.normal)

    def _numbers(self, tape: Tape) -> Vector:
        first = self.mechanism.layout.offsets[self.group.name]
        return self.structure.read_numbers(tape, self.group, first)

    def _poses(self, tape: Tape, suffix: str) -> tuple[contact.Pose, contact.Pose]:
        """Poses of both sides from the arrays ``a<suffix>`` and ``b<suffix>``."""
        a = self.structure.read_pose(tape, f"a{suffix}")
        b = contact.WORLD
        if self.is_between_links:
            b = self.structure.read_pose(tape, f"b{suffix}")
        return a, b

    def _point(self, tape: Tape) -> Vector:
        return self._exchange.load(tape, "node")[11:14]

    def ball(self, side: int) -> str:
        """Ball around one side of a candidate."""
        tape, first = Tape(), self.group.side_width
        count = self.group.width - 1 - first if side else first
        pose = self.structure.read_pose(tape, "pose")
        center, radius = self.group.ball(side, pose, tape.inputs("k", count))
        return emit_block([("ball", i, x) for i, x in enumerate([*center, radius])])

    def node(self) -> str:
        """Geometry at node k, and how close the past velocity would bring it."""
        tape = Tape()
        a, b = self._poses(tape, "0")
        item = contact.contact_node(self.group, a, b, self._numbers(tape))
        frame = constant_frame(self.group.normal) if self.group.normal else item.frame
        allowed = contact.allowed_overlap(item.gap, tape.input("steps", 1), self.mechanism.recovery)
        values = [allowed, item.gap, *flatten(frame), *item.point, *item.local_a, *item.local_b]
        outputs = [
            (name, i, x)
            for name, i, x in self._exchange.store("node", values)
            if self.is_between_links or i is None or i < 17
        ]
        row = [*la.cross(item.point, frame[2]), *frame[2]]
        speed = la.dot(row, self.structure.read_twist(tape, "va"))
        if self.is_between_links:
            speed = sc.subtract(speed, la.dot(row, self.structure.read_twist(tape, "vb")))
        closest = item.gap + tape.input("steps", 1) * sc.minimum(speed, 0.0)
        return emit_block([*outputs, ("closest", 0, closest)])

    def gap(self) -> str:
        """Gap at the trial configuration."""
        tape = Tape()
        a, b = self._poses(tape, "1")
        return emit_block([("gap", 0, self.group.witness(a, b, self._numbers(tape))[0])])

    def normal(self) -> str:
        """Gap velocity and witness, and whether the contact pushes."""
        tape = Tape()
        a, b = self._poses(tape, "1")
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
        a, b = self._poses(tape, "1")
        kappa = tape.input("kappa", 0) if smooth else None
        cap = self.cap if smooth else tape.input("cap", 0)
        rho_n, rho_t = tape.input("rho_n", None), tape.input("rho_t", None)
        frame, mu = self._frame(tape), self._numbers(tape)[-1]
        y_a, y_b = self._slip_points(tape, a, b)
        slip = la.vscale(la.vsub(y_a, y_b), tape.input("rate", 0))
        speed = [la.dot(frame[axis], slip) for axis in self.axes[:-1]]
        normal_speed = tape.input("at", 12)
        *friction, gamma = self._impulse(tape)
        law = contact.natural_response(
            [*speed, normal_speed], [*friction, gamma], mu, (rho_n, rho_t), cap, kappa
        )
        wrong: Scalar = 0.0
        for miss in law.friction_miss:
            wrong = sc.maximum(wrong, sc.absolute(miss))
        size = sc.maximum(
            sc.absolute(law.normal_miss) * tape.input("per_rho_n", None),
            wrong * tape.input("per_rho_t", None),
        )
        outputs: Outputs = [
            ("reply", axis, x) for axis, x in zip(self.axes, law.offset, strict=True)
        ]
        outputs += [
            ("reply", 3 + 3 * row + column, x)
            for row, values in zip(self.axes, law.gain, strict=True)
            for column, x in zip(self.axes, values, strict=True)
        ]
        outputs += [("at", i, x) for i, x in enumerate(y_a)]
        if self.is_between_links:
            outputs += [("at", 3 + i, x) for i, x in enumerate(y_b)]
        takes_part = tape.input("on", 0) > 0.5
        size = sc.where(takes_part, size * (1.0 / scales.velocity), 0.0)
        outputs.append(("err", 1, sc.maximum(tape.input("err", 1), size)))
        if kappa is not None:
            product = sc.absolute(gamma * normal_speed * tape.input("per_kappa", 0) - 1.0)
            drag = wrong / (mu * law.value)
            away = sc.where(takes_part, sc.maximum(product, drag), 0.0)
            outputs.append(("err", 2, sc.maximum(tape.input("err", 2), away)))
        return emit_block(outputs)

    def _impulse(self, tape: Tape) -> Vector:
        """Impulse along the axes, the normal last."""
        return [tape.input("push_", (axis + 1) % 3) for axis in self.axes]

    def _slip_points(self, tape: Tape, a: contact.Pose, b: contact.Pose) -> tuple[Vector, Vector]:
        """Where the material points that met at node k are now."""
        node = self._exchange.load(tape, "node")
        y_a = la.vadd(a[1], la.matvec(a[0], node[14:17]))
        if not self.is_between_links:
            return y_a, node[11:14]
        return y_a, la.vadd(b[1], la.matvec(b[0], node[17:20]))

    def _impulse_rows(self, tape: Tape) -> list[Vector]:
        point = self._point(tape)
        rows = [[*la.cross(point, axis), *axis] for axis in self._frame(tape)]
        return [self.structure.moving(row) for row in rows]

    def _velocity_rows(self, tape: Tape, slip_at: int) -> list[Vector]:
        """Derivative of slip and gap velocity with respect to one side's twist."""
        frame, slip_point = self._frame(tape), tape.inputs("at", 3, slip_at)
        normal = tape.inputs("at", 3, 9) if self.is_between_links else frame[2]
        rows = [[*la.cross(slip_point, axis), *axis] for axis in frame[:2]]
        rows.append([*la.cross(tape.inputs("at", 3, 6), normal), *normal])
        return [self.structure.moving(row) for row in rows]

    def condense(self) -> str:
        """Impulse, offset and, on a fixed plane, response as the links feel them.

        On a plane they are gathered in ``own``: 6 of impulse, 6 of offset, 36 of response. Between
        links the impulse is added to both, and the response, which couples two branches, is left as
        rows for `couple.cpp`.
        """
        tape, moves, axes = Tape(), self.structure.moves, self.axes
        rows = [self._impulse_rows(tape)[axis] for axis in axes]
        ahead = [self._velocity_rows(tape, 0)[axis] for axis in axes]
        columns = la.transpose(rows)
        impulse = la.matvec(columns, self._impulse(tape))
        if self.is_between_links:
            behind = [self._velocity_rows(tape, 3)[axis] for axis in axes]
            outputs: Outputs = [("load_a", i, tape.input("load_a", i) + impulse[i]) for i in moves]
            outputs += [("load_b", i, tape.input("load_b", i) - impulse[i]) for i in moves]
            outputs += [
                ("rows", 18 * block + 6 * axis + i, values[i])
                for block, matrix in enumerate((ahead, behind, rows))
                for axis, values in zip(axes, matrix, strict=True)
                for i in moves
            ]
            return emit_block(outputs)
        offset = la.matvec(columns, [tape.input("reply", axis) for axis in axes])
        hold = la.matmul(columns, la.matmul(self._gain(tape), ahead))
        outputs = [("own", i, impulse[i]) for i in moves]
        outputs += [("own", 6 + i, offset[i]) for i in moves]
        outputs += [("own", 12 + 6 * i + j, hold[i][j]) for i in moves for j in moves]
        return emit_block(outputs)

    def _gain(self, tape: Tape) -> list[Vector]:
        """Gain along the axes; the normal answers to nothing but the gap velocity."""
        return [
            [
                tape.input("reply", 3 + 3 * row + column) if row != 2 or column == 2 else 0
                for column in self.axes
            ]
            for row in self.axes
        ]

    def increment(self) -> str:
        """Moves impulse and gap along the step."""
        tape, read = Tape(), self.structure.read_twist
        rows = [self._velocity_rows(tape, 0)[axis] for axis in self.axes]
        du = la.matvec(rows, read(tape, "ta"))
        if self.is_between_links:
            behind = [self._velocity_rows(tape, 3)[axis] for axis in self.axes]
            du = la.vsub(du, la.matvec(behind, read(tape, "tb")))
            change = [tape.input("change", axis) for axis in self.axes]
        else:
            offset = [tape.input("reply", axis) for axis in self.axes]
            change = la.vsub(offset, la.matvec(self._gain(tape), du))
        step = tape.input("alpha", 0)
        places = [(axis + 1) % 3 for axis in self.axes]
        outputs: Outputs = [
            ("push_", i, old + step * x)
            for i, old, x in zip(places, self._impulse(tape), change, strict=True)
        ]
        travel = step * tape.input("steps", 1) * du[-1]
        return emit_block([*outputs, ("gap", 0, tape.input("gap", 0) + travel)])
