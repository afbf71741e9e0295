r"""Traced phases of all derivatives of a step at once, in tangent coordinates.

With the balance ``F(x; q, v, u) = 0`` the coming velocity w, which moves x, answers

.. math:: A \, \delta w = -F_q \, \delta q - F_v \, \delta v - F_u \, \delta u,

one factorisation of A and one solve per column. ``F_q`` is assembled link by link like A itself
(`_tangent.py`); velocities enter through node k-1 alone.
"""

from __future__ import annotations

from typing import Any

from physim.dynamics import _integrator as integrator
from physim.dynamics._kinematics import difference
from physim.dynamics._phases import Outputs, as_motion, chunks
from physim.dynamics._tangent import (
    axis_wrench,
    carriers,
    coordinate_cotangent,
    subtree_wrenches,
    tangent_cotangent,
)
from physim.dynamics._tangent_phases import TangentPhases
from solvers.kernels import algebra as la
from solvers.kernels import emit_block, reverse
from solvers.kernels import scalar as sc
from solvers.kernels.trace import Tape

Scalar = Any
Vector = list[Scalar]
Entries = dict[tuple[int, int], Scalar]


class JacobianPhases(TangentPhases):
    """Phases of one mechanism's linearisation; arguments as for `AdjointPhases`."""

    def trace(self) -> dict[str, str]:
        """Blocks by name; earlier ones hand values to later ones."""
        return {
            "NODE": self._node(),
            "APPROACH": self._approach() if self.has_couplings else "",
            "SWEEP": self._sweep(),
            "MATRIX": self._central_matrix(),
            "SLOPES": self._slopes(),
            "FACTOR": "factorise(matrix);",
            "COLUMN": "solve_factored(matrix, column);",
            "MAPS": self._maps(),
            "ROWS": self._rows(),
        }

    def _tangent(self, tape: Tape, x: Vector, q: Vector, timestep: Scalar) -> Vector:
        """No cotangent comes in."""
        return []

    def _slopes(self) -> str:
        """Right-hand sides: per unit of q, of v and of control, column after column."""
        tape, mechanism = Tape(), self.mechanism
        tree, load = mechanism.tree, self._exchange.load
        nv, nu = tree.nv, len(mechanism.actuators)
        numbers, q, v = self._numbers(tape), tape.inputs("q", tree.nq), tape.inputs("v", nv)
        control = tape.inputs("control", nu)
        motion, motion_past = as_motion(load(tape, "motion0")), as_motion(load(tape, "motion_past"))
        steps = self._link_steps(tape, numbers)
        bent = [chunks(m, 6) for m in chunks(tape.inputs("nodal", 36 * len(tree.links)), 36)]
        node_blocks = [la.madd(s.node_block(), b) for s, b in zip(steps, bent, strict=True)]
        past_blocks = [step.past_block() for step in steps]
        by_q = integrator.newton_matrix(tree, motion, motion, node_blocks, {})
        by_past = integrator.newton_matrix(tree, motion, motion_past, past_blocks, {})
        totals = subtree_wrenches(tree, as_motion(tape.inputs("wrench", 6 * len(tree.links))))
        for dof, movers in enumerate(carriers(tree)):
            if movers:
                moment, force = axis_wrench(motion[dof], totals[tree.dof_link[dof]])
            for mover in movers:
                w, u = motion[mover]
                _add(by_q, (dof, mover), sc.add(la.dot(w, moment), la.dot(u, force)))
        columns: Entries = {place: sc.negative(x) for place, x in by_q.items()}
        by_past = {place: sc.negative(x) for place, x in by_past.items()}
        q_past = self._q_past(tape)
        for dof, push in enumerate(self._joint_push(tape, q_past)):
            bars = reverse([(push, 1.0)], [*q, *v, *control, *q_past])
            for k, g in enumerate(tangent_cotangent(tree, q, bars[: tree.nq])):
                _add(columns, (dof, k), g)
            for k, g in enumerate(bars[tree.nq : tree.nq + nv + nu]):
                _add(columns, (dof, nv + k), g)
            for k, g in enumerate(tangent_cotangent(tree, q_past, bars[tree.nq + nv + nu :])):
                _add(by_past, (dof, k), g)
        for k, chain in enumerate(self._past_chain(tape, q, v, q_past)):
            for dof in range(nv):
                share = by_past.get((dof, k), 0)
                for place, factor in chain.items():
                    _add(columns, (dof, place), sc.multiply(share, factor))
        outputs: Outputs = []
        for column in range(2 * nv + nu):
            for dof in range(nv):
                value, place = columns.get((dof, column), 0), nv * column + dof
                if self.has_couplings and column < nv:
                    value = sc.add(tape.input("rhs", place), value)
                outputs.append(("rhs", place, value))
        return emit_block(outputs)

    def _past_chain(
        self, tape: Tape, q: Vector, v: Vector, q_past: Vector
    ) -> list[dict[int, Scalar]]:
        """Per tangent coordinate of node k-1, its derivatives by those of node k and by v."""
        tree = self.mechanism.tree
        result = []
        for dof in range(tree.nv):
            unit = [1.0 if i == dof else 0.0 for i in range(tree.nv)]
            seeds = zip(q_past, coordinate_cotangent(tree, q_past, unit), strict=True)
            bars = reverse([(x, g) for x, g in seeds if not sc.is_zero(g)], [*q, *v])
            row = [*tangent_cotangent(tree, q, bars[: tree.nq]), *bars[tree.nq :]]
            result.append({k: g for k, g in enumerate(row) if not sc.is_zero(g)})
        return result

    def _cayley_maps(self, tape: Tape) -> tuple[Entries, Entries]:
        """Derivative of the difference of both nodes by their tangent steps."""
        tree = self.mechanism.tree
        q, x = tape.inputs("q", tree.nq), tape.inputs("x", tree.nq)
        by_x: Entries = {}
        by_q: Entries = {}
        for dof, value in enumerate(difference(tree, x, q)[0]):
            bars = reverse([(value, 1.0)], [*x, *q])
            for entries, node, part in (
                (by_x, x, bars[: tree.nq]),
                (by_q, q, bars[tree.nq :]),
            ):
                for k, g in enumerate(tangent_cotangent(tree, node, part)):
                    _add(entries, (dof, k), g)
        return by_x, by_q

    def _maps(self) -> str:
        """Keeps `_cayley_maps`, where they are not constants, for all columns."""
        tape = Tape()
        by_x, by_q = self._cayley_maps(tape)
        store = self._exchange.store
        self._places = (list(by_x), list(by_q))
        return emit_block(
            [*store("map_x", list(by_x.values())), *store("map_q", list(by_q.values()))]
        )

    def _rows(self) -> str:
        """What one column does to configuration and velocity after the step."""
        tape, nv = Tape(), self.mechanism.tree.nv
        timestep = tape.input("steps", 1)
        column, moved = tape.inputs("column", nv), tape.inputs("moved", nv)
        maps = [
            dict(zip(places, self._exchange.load(tape, name), strict=True))
            for places, name in zip(self._places, ("map_x", "map_q"), strict=True)
        ]
        rate = sc.reciprocal(timestep)
        outputs: Outputs = []
        for dof in range(nv):
            outputs.append(("ahead", dof, timestep * column[dof]))
            speed: Scalar = 0
            for (row, k), g in maps[0].items():
                if row == dof:
                    speed = sc.add(speed, sc.multiply(g, column[k]))
            for (row, k), g in maps[1].items():
                if row == dof:
                    speed = sc.add(speed, sc.multiply(g, sc.multiply(moved[k], rate)))
            outputs.append(("ahead", nv + dof, speed))
        return emit_block(outputs)


def _add(entries: Entries, place: tuple[int, int], value: Scalar) -> None:
    if not sc.is_zero(value):
        entries[place] = sc.add(entries.get(place, 0), value)
