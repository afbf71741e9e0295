"""Traced phases of the compiled adjoint: one transposed solve and reverse mode of the balance.

The same equations as `reference_adjoint`, cut where the loop over candidates needs it: reverse mode
runs through the contact velocities of one candidate at a time, then once through kinematics and
momentum with what the candidates left on poses and twists.
"""

from __future__ import annotations

from typing import Any

from physim.dynamics import _integrator as integrator
from physim.dynamics._actuation import actuator_forces
from physim.dynamics._kinematics import difference, link_twists
from physim.dynamics._mechanism import Mechanism
from physim.dynamics._phases import (
    COMPOSE,
    Outputs,
    StepPhases,
    as_motion,
    pose_values,
)
from physim.dynamics._tangent import tangent_cotangent
from solvers.kernels import algebra as la
from solvers.kernels import emit_block, reverse
from solvers.kernels import scalar as sc
from solvers.kernels.trace import Tape
from solvers.nonlinear import cones, projections

Scalar = Any

EXACT_CAP = 1e8
"""Gain of an active exact pair, in units of its effective mass: an error of its inverse."""


class AdjointPhases(StepPhases):
    """Phases of the adjoint of one mechanism's step.

    Args:
        mechanism: Structure of the equations.
        zeros: Slots of the flat numbers that are zero by structure.
        joint_weights: Effective masses per degree of freedom.
        is_exact: Whether contact is exact; else all cones are on the central path.
    """

    def __init__(
        self,
        mechanism: Mechanism,
        zeros: frozenset[int],
        joint_weights: list[float],
        *,
        is_exact: bool,
    ) -> None:
        self._is_exact = is_exact
        self._weights = joint_weights
        super().__init__(mechanism, zeros)

    def trace(self) -> dict[str, str]:
        """Blocks by name; earlier ones hand values to later ones."""
        return {
            **self.frame(),
            "FORCE": self.force(),
            "NODE": self._node(),
            "APPROACH": self._approach(),
            "SWEEP": self._sweep(),
            "MATRIX": self._central_matrix(),
            "FACTOR": "factorise(matrix);",
            "TRANSPOSED": self._transposed(),
            "REVERSE": self._reverse(),
        }

    def frame(self) -> dict[str, str]:
        """Blocks around a step: unit quaternions before it, their cotangents after it."""
        tape, tree = Tape(), self.mechanism.tree
        given, bar = tape.inputs("given", tree.nq), tape.inputs("bar_q", tree.nq)
        outputs: Outputs = []
        for start, per_length in self._lengths(given):
            unit = la.vscale(given[start : start + 4], per_length)
            along = la.dot(unit, bar[start : start + 4])
            outputs += [
                ("bar_q", start + k, (bar[start + k] - along * unit[k]) * per_length)
                for k in range(4)
            ]
        return {"NORMALISE": self.normalised(), "DENORMALISE": emit_block(outputs)}

    def _joint_motion(
        self, tape: Tape, x: list[Scalar], q: list[Scalar], timestep: Scalar
    ) -> tuple[list[Scalar], list[tuple[Scalar, Scalar]]]:
        """Gap velocities of limits; bound and slip of dry friction."""
        numbers, rubs = self._numbers(tape), []
        slips = difference(self.mechanism.tree, x, q)[0]
        for dof, _ in self.mechanism.rubbing:
            bound = sc.multiply(numbers.dof("friction_loss", dof), timestep)
            rubs.append((bound, sc.divide(slips[dof], timestep)))
        return self._limit_velocities(x, q, timestep, numbers), rubs

    def _joint_gains(
        self, tape: Tape, x: list[Scalar], q: list[Scalar], timestep: Scalar
    ) -> tuple[list[Scalar], list[Scalar]]:
        """How limits, then dry friction resist motion; how dry friction follows its bound."""
        kappa, gains, per_bound = tape.input("kappa", 0), [], []
        velocities, rubs = self._joint_motion(tape, x, q, timestep)
        count = len(self.mechanism.limits)
        for i, velocity in enumerate(velocities):
            if self._is_exact:
                weight = self._weights[self.mechanism.limits[i % count][0]]
                primal = tape.input("impulses", i)
                gains.append(projections.orthant_newton(primal, velocity, weight, EXACT_CAP).gain)
            else:
                gains.append(kappa / (velocity * velocity))
        for i, (bound, slip) in enumerate(rubs):
            if self._is_exact:
                primal = tape.input("impulses", 2 * count + i)
                weight = self._weights[self.mechanism.rubbing[i][0]]
                disc = projections.disc_newton([primal], [slip], bound, weight, EXACT_CAP)
                gains.append(disc.b_y[0][0])
                per_bound.append(disc.b_p[0])
            else:
                e, b = cones.second_order_central(bound, [slip], kappa)
                law = cones.second_order_response(bound, b, e, [slip], kappa)
                gains.append(sc.negative(law.b_y[0][0]))
                per_bound.append(law.b_p[0])
        return gains, per_bound

    def _pair_impulse(
        self, tape: Tape, x: list[Scalar], q: list[Scalar], timestep: Scalar
    ) -> list[Scalar]:
        """Impulses of limits and dry friction per degree of freedom.

        Affine in velocity and bound, with the derivatives of the true impulses.
        """
        impulse: list[Scalar] = [0] * self.mechanism.tree.nv
        velocities, rubs = self._joint_motion(tape, x, q, timestep)
        speeds = [*velocities, *[slip for _, slip in rubs]]
        for i, (speed, (dof, sign)) in enumerate(zip(speeds, self._paired(), strict=True)):
            push = sc.multiply(-sign, sc.multiply(tape.input("pair_gain", i), speed))
            impulse[dof] = sc.add(impulse[dof], push)
        for i, ((bound, _), (dof, _)) in enumerate(zip(rubs, self.mechanism.rubbing, strict=True)):
            impulse[dof] = sc.add(impulse[dof], tape.input("pair_bound", i) * bound)
        return impulse

    def _paired(self) -> list[tuple[int, float]]:
        """Degree of freedom and sign of limits, then of dry friction."""
        limits = [dof for dof, _ in self.mechanism.limits]
        rubbing = [dof for dof, _ in self.mechanism.rubbing]
        return (
            [(dof, 1.0) for dof in limits]
            + [(dof, -1.0) for dof in limits]
            + [(dof, 1.0) for dof in rubbing]
        )

    def _central_matrix(self) -> str:
        """Newton matrix with all cones on the central path, and the tangent right-hand side."""
        tape, mechanism = Tape(), self.mechanism
        tree = mechanism.tree
        numbers, timestep = self._numbers(tape), tape.input("steps", 1)
        q, x = tape.inputs("q", tree.nq), tape.inputs("x", tree.nq)
        entries = self._joint_entries(tape, x, q, timestep, numbers)
        gains, per_bound = self._joint_gains(tape, x, q, timestep)
        for gain, (dof, _) in zip(gains, self._paired(), strict=True):
            entries[dof, dof] = entries[dof, dof] + gain
        outputs: Outputs = [("entry", i * tree.nv + j, value) for (i, j), value in entries.items()]
        outputs += [("right", i, g) for i, g in enumerate(self._tangent(tape, x, q, timestep))]
        outputs += [("pair_gain", i, g) for i, g in enumerate(gains)]
        outputs += [("pair_bound", i, g) for i, g in enumerate(per_bound)]
        return f"{COMPOSE}\n{emit_block(outputs)}"

    def _tangent(
        self, tape: Tape, x: list[Scalar], q: list[Scalar], timestep: Scalar
    ) -> list[Scalar]:
        """Cotangent of the outputs with respect to a velocity that moves ``x``.

        The next configuration differs from ``x`` by what the smoothings differ; a tangent step
        moves both alike.
        """
        tree = self.mechanism.tree
        near = tape.inputs("q_next", tree.nq)
        cayley, _ = difference(tree, x, q)
        seeds = [(c, g / timestep) for c, g in zip(cayley, tape.inputs("gv", tree.nv), strict=True)]
        through_v = reverse(seeds, x)
        ahead = tangent_cotangent(tree, near, tape.inputs("gq", tree.nq))
        return la.vscale(la.vadd(ahead, tangent_cotangent(tree, x, through_v)), timestep)

    def _transposed(self) -> str:
        """Adjoint velocities y, and the link twists that they give at node k."""
        tape, tree = Tape(), self.mechanism.tree
        y = tape.inputs("y", tree.nv)
        twists = link_twists(tree, as_motion(self._exchange.load(tape, "motion0")), y)
        values = [t for w, v in twists for t in (*w, *v)]
        spread = emit_block([("twist", i, value) for i, value in enumerate(values)])
        take = "for (int i = 0; i < NV; ++i) y[i] = right[i];"
        return f"{take}\nsolve_transposed(matrix, y);\n{spread}"

    def _reverse(self) -> str:
        """Reverse mode through kinematics, momentum and joint cones, at fixed ``x``."""
        tape, mechanism = Tape(), self.mechanism
        tree = mechanism.tree
        q, v, _ = self._inputs(tape)
        control = tape.inputs("control", len(mechanism.actuators))
        external = tape.inputs("external", tree.nv)
        past, timestep = tape.inputs("steps", 2)
        x, y = tape.inputs("x", tree.nq), tape.inputs("y", tree.nv)
        numbers = self._numbers(tape)
        driven = actuator_forces(mechanism.actuators, numbers, q, v, control)
        force = [sc.add(a, b) for a, b in zip(driven, external, strict=True)]
        node = integrator.build_node(tree, q, v, force, past, timestep, numbers)
        balance, after, _ = integrator.free_balance(tree, node, x, q, timestep, numbers)
        impulse = self._pair_impulse(tape, x, q, timestep)
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
        slots = range(mechanism.layout.size)
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
