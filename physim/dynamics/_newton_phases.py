"""Traced phases of a Newton iteration: kinematics, joint pairs, the tree's linear system, advance.

One iteration linearises the balance and the natural residuals of all pairs (contacts, limits, dry
friction; `solvers.nonlinear.projections`) at the trial configuration, condenses the pairs into the
balance and takes the full step. Contacts are traced per kind in `_newton_contacts.py` and leave on
every link what they add: impulse (``load``), offset (``push``) and response (``hold``).
"""

from __future__ import annotations

from typing import Any

from physim.dynamics import _integrator as integrator
from physim.dynamics._actuation import actuator_forces
from physim.dynamics._elimination import Elimination, analyse
from physim.dynamics._kinematics import (
    difference,
    forward_kinematics,
    link_twists,
    project,
    retract,
)
from physim.dynamics._mechanism import Mechanism
from physim.dynamics._phases import (
    Outputs,
    StepPhases,
    as_motion,
    chunks,
    flatten,
    motion_values,
    pose_values,
)
from solvers.kernels import algebra as la
from solvers.kernels import emit_block
from solvers.kernels import scalar as sc
from solvers.kernels.trace import Tape
from solvers.nonlinear import projections

Scalar = Any

TURN_CAP = 0.3
"""Largest change of a joint in one iteration [rad, or lengths of the model]."""


class NewtonPhases(StepPhases):
    """Phases of one mechanism's Newton iteration.

    Args:
        mechanism: Structure of the equations.
        zeros: Slots of the flat numbers that are zero by structure.
        joint_weights: Effective masses of limits and of dry friction, one per degree of freedom.
        cap: Largest gain of a pair, in units of its effective mass.
    """

    def __init__(
        self,
        mechanism: Mechanism,
        zeros: frozenset[int],
        joint_weights: list[float],
        cap: float,
    ) -> None:
        self._weights, self._cap = joint_weights, cap
        self._touched = {
            link
            for group in mechanism.groups
            for item in group.candidates
            for link in (item.link_a, item.link_b)
            if link >= 0
        }
        self.tree_elimination: Elimination = analyse(mechanism.tree.nv, mechanism.tree.chain)
        super().__init__(mechanism, zeros)

    def trace(self) -> dict[str, str]:
        """Blocks by name; earlier ones hand values to later ones."""
        blocks = {
            "NODE": self._node(),
            "APPROACH": self._approach(),
            "PREDICT": self._predicted(),
            "SWEEP": self._kinematics(),
            "JOINTS": self._joints(smooth=False),
            "SMOOTH_JOINTS": self._joints(smooth=True),
        }
        if self._has_couplings:
            blocks["ASSEMBLE"] = self._assembled()
            blocks["SOLVE_TREE"] = self._solved(self.tree_elimination)
            blocks["SOLVE_COUPLED"] = self._solved(self.elimination)
        else:
            blocks["ASSEMBLE"] = self._fused()
            blocks["SOLVE_TREE"] = blocks["SOLVE_COUPLED"] = ""
        return blocks

    def _kinematics(self) -> str:
        """Everything at the trial configuration that contacts and the balance need."""
        tape, tree = Tape(), self.mechanism.tree
        numbers = self._numbers(tape)
        after = forward_kinematics(tree, tape.inputs("x", tree.nq), numbers)
        carrier = [chunks(m, 3) for m in chunks(self._exchange.load(tape, "carrier"), 9)]
        spreads = [la.matmul(r, c) for r, c in zip(after.rotation, carrier, strict=True)]
        store = self._exchange.store
        outputs = store("motion1", motion_values(after), is_complete=self._has_couplings)
        outputs += store("center1", flatten(after.center))
        outputs += store("spread", [x for m in spreads for x in flatten(m)])
        values = pose_values(after)
        outputs += [
            ("pose1", i, values[i])
            for link in sorted(self._touched)
            for i in range(12 * link, 12 * link + 12)
        ]
        return emit_block(outputs)

    def _joints(self, *, smooth: bool) -> str:
        """Limits and dry friction: impulse, offset and response per degree of freedom."""
        tape, mechanism = Tape(), self.mechanism
        tree = mechanism.tree
        numbers = self._numbers(tape)
        q, x = tape.inputs("q", tree.nq), tape.inputs("x", tree.nq)
        timestep, rate = tape.input("steps", 1), tape.input("rate", 0)
        kappa = tape.input("kappa", 0) if smooth else None
        velocities = self._limit_velocities(x, q, timestep, numbers, rate)
        count = len(mechanism.limits)
        natural, per_speed = tape.input("err", 1), 1.0 / mechanism.scales.velocity
        load: dict[int, Scalar] = {}
        push: dict[int, Scalar] = {}
        hold: dict[int, Scalar] = {}
        outputs: Outputs = []

        def collect(name: str, i: int, dof: int, sign: float, primal: Scalar, pair: Any) -> None:
            nonlocal natural
            load[dof] = sc.add(load.get(dof, 0), sc.multiply(sign, primal))
            push[dof] = sc.add(push.get(dof, 0), sc.multiply(sign, pair[0]))
            hold[dof] = sc.add(hold.get(dof, 0), pair[1])
            outputs.extend([(f"{name}_offset", i, pair[0]), (f"{name}_gain", i, pair[1])])
            size = sc.multiply(sc.absolute(pair[2]), per_speed / self._weights[dof])
            natural = sc.maximum(natural, size)

        for i, velocity in enumerate(velocities):
            dof, sign = mechanism.limits[i % count][0], 1.0 if i < count else -1.0
            primal = tape.input("limit", i)
            pair = projections.orthant_newton(
                primal, velocity, self._weights[dof], self._cap, kappa
            )
            collect("limit", i, dof, sign, primal, (pair.offset, pair.gain, pair.residual))
        slips = difference(tree, x, q)[0]
        for i, (dof, _) in enumerate(mechanism.rubbing):
            bound = sc.multiply(numbers.dof("friction_loss", dof), timestep)
            primal = tape.input("rub", i)
            slip = sc.multiply(slips[dof], rate)
            disc = projections.disc_newton(
                [primal], [slip], bound, self._weights[dof], self._cap, kappa
            )
            collect("rub", i, dof, 1.0, primal, (disc.offset[0], disc.b_y[0][0], disc.residual[0]))
        for name, values in (("joint_load", load), ("joint_push", push), ("joint_hold", hold)):
            outputs += [(name, dof, value) for dof, value in values.items()]
        return emit_block([*outputs, ("err", 1, natural)])

    @property
    def _paired_dofs(self) -> list[int]:
        pairs = (*self.mechanism.limits, *self.mechanism.rubbing)
        return sorted({dof for dof, _ in pairs})

    def _system(self, tape: Tape) -> tuple[dict[tuple[int, int], Scalar], list[Scalar], Scalar]:
        """Newton matrix, right-hand side and the scaled residual of the balance."""
        mechanism, load = self.mechanism, self._exchange.load
        tree, scales = mechanism.tree, mechanism.scales
        node, numbers = self._node_record(tape), self._numbers(tape)
        q, x = tape.inputs("q", tree.nq), tape.inputs("x", tree.nq)
        timestep, rate = tape.input("steps", 1), tape.input("rate", 0)
        centers = chunks(load(tape, "center1"), 3)
        spreads = [chunks(m, 3) for m in chunks(load(tape, "spread"), 9)]
        motion = as_motion(load(tape, "motion1"))
        blocks, momenta, pushes = [], [], []
        for link in range(len(tree.links)):
            mass, before = numbers.link_mass(link), node.poses.center[link]
            block = integrator.spatial_block(before, centers[link], spreads[link], mass)
            moment, momentum = integrator.spread_momentum(
                spreads[link], before, centers[link], before, mass, rate
            )
            if link in self._touched:
                held = chunks(tape.inputs("hold", 36, 36 * link), 6)
                block = la.madd(block, held)
                wrench = tape.inputs("load", 6, 6 * link)
                moment, momentum = la.vsub(moment, wrench[:3]), la.vsub(momentum, wrench[3:])
                offset = tape.inputs("push", 6, 6 * link)
                pushes.append((offset[:3], offset[3:]))
            else:
                pushes.append(([0, 0, 0], [0, 0, 0]))
            blocks.append(block)
            momenta.append((moment, momentum))
        balance = project(tree, node.poses.motion, momenta)
        right = project(tree, node.poses.motion, pushes)
        joint = integrator.joint_impulse(tree, x, q, timestep, numbers, rate)
        entries = integrator.newton_matrix(
            tree,
            node.poses.motion,
            motion,
            blocks,
            integrator.joint_block(tree, x, q, timestep, numbers),
        )
        paired = set(self._paired_dofs)
        residual: Scalar = 0.0
        for dof in range(tree.nv):
            value = sc.subtract(sc.add(balance[dof], joint[dof]), node.impulse[dof])
            if dof in paired:
                value = sc.subtract(value, tape.input("joint_load", dof))
                right[dof] = sc.add(right[dof], tape.input("joint_push", dof))
                entries[dof, dof] = sc.add(entries[dof, dof], tape.input("joint_hold", dof))
            right[dof] = sc.subtract(right[dof], value)
            unit = scales.mass * scales.velocity
            unit *= 1.0 if tree.linear_dofs[dof] else scales.length
            size = sc.multiply(sc.absolute(value), 1.0 / unit)
            residual = size if dof == 0 else sc.maximum(residual, size)
        return entries, right, residual

    def _assembled(self) -> str:
        """The system written to memory, for contacts between links to add to."""
        tape, nv = Tape(), self.mechanism.tree.nv
        entries, right, residual = self._system(tape)
        outputs: Outputs = [
            ("matrix", i * nv + j, entries.get((i, j), 0.0)) for i, j in self.elimination.pattern
        ]
        outputs += [("right", i, y) for i, y in enumerate(right)]
        return emit_block([*outputs, ("err", 0, residual)])

    def _solved(self, elimination: Elimination) -> str:
        tape, nv = Tape(), self.mechanism.tree.nv
        entries = {(i, j): tape.input("matrix", i * nv + j) for i, j in elimination.pattern}
        return emit_block(self._finish(tape, elimination, entries, tape.inputs("right", nv)))

    def _fused(self) -> str:
        """System and solution in one block: nothing of the matrix touches memory."""
        tape = Tape()
        entries, right, residual = self._system(tape)
        outputs = self._finish(tape, self.elimination, entries, right)
        return emit_block([*outputs, ("err", 0, residual)])

    def _finish(
        self,
        tape: Tape,
        elimination: Elimination,
        entries: dict[tuple[int, int], Scalar],
        right: list[Scalar],
    ) -> Outputs:
        """Velocity increment; moves the configuration and the joint pairs along it."""
        mechanism = self.mechanism
        tree, scales = mechanism.tree, mechanism.scales
        factor = elimination.factor(entries)
        dv = elimination.solve(factor, right)
        determinant: Scalar = factor[0, 0]
        for k in range(1, tree.nv):
            determinant = determinant * factor[k, k]
        timestep = tape.input("steps", 1)
        fastest: Scalar = None
        for dof, value in enumerate(dv):
            unit = scales.length if tree.linear_dofs[dof] else 1.0
            size = sc.multiply(sc.absolute(value), 1.0 / (unit * TURN_CAP))
            fastest = size if fastest is None else sc.maximum(fastest, size)
        alpha = sc.reciprocal(sc.maximum(sc.multiply(timestep, fastest), 1.0))
        runs = tape.input("run", 0) > 0.5
        x = tape.inputs("x", tree.nq)
        length = alpha * timestep
        moved = retract(tree, x, [length * value for value in dv])
        outputs: Outputs = [("x", i, sc.where(runs, y, x[i])) for i, y in enumerate(moved)]
        step = sc.where(runs, alpha, 0.0)
        count = len(mechanism.limits)
        for i in range(2 * count):
            dof, sign = mechanism.limits[i % count][0], 1.0 if i < count else -1.0
            change = tape.input("limit_offset", i) - tape.input("limit_gain", i) * (sign * dv[dof])
            outputs.append(("limit", i, tape.input("limit", i) + step * change))
        for i, (dof, _) in enumerate(mechanism.rubbing):
            change = tape.input("rub_offset", i) - tape.input("rub_gain", i) * dv[dof]
            outputs.append(("rub", i, tape.input("rub", i) + step * change))
        twists = link_twists(tree, as_motion(self._exchange.load(tape, "motion1")), dv)
        for link in sorted(self._touched):
            w, v = twists[link]
            outputs += [("twist", 6 * link + i, y) for i, y in enumerate([*w, *v])]
        return [*outputs, ("alpha", 0, step), ("determinant", 0, determinant)]

    def _predicted(self) -> str:
        """Where the past velocity leads."""
        tape, tree = Tape(), self.mechanism.tree
        q, v, _ = self._inputs(tape)
        timestep = tape.input("steps", 1)
        moved = retract(tree, q, [timestep * rate for rate in v])
        return emit_block([("x", i, y) for i, y in enumerate(moved)])

    def frame(self) -> dict[str, str]:
        """Blocks around a solve: forces of the controls before it, velocity after it."""
        tape, tree = Tape(), self.mechanism.tree
        numbers = self._numbers(tape)
        pushed = actuator_forces(
            self.mechanism.actuators,
            numbers,
            tape.inputs("q", tree.nq),
            tape.inputs("v", tree.nv),
            tape.inputs("control", len(self.mechanism.actuators)),
        )
        external = tape.inputs("external", tree.nv)
        force = [sc.add(a, b) for a, b in zip(pushed, external, strict=True)]
        blocks = {"FORCE": emit_block([("force", i, y) for i, y in enumerate(force)])}
        tape = Tape()
        cayley, _ = difference(tree, tape.inputs("x", tree.nq), tape.inputs("q", tree.nq))
        rate = sc.reciprocal(tape.input("steps", 1))
        velocity = [sc.multiply(y, rate) for y in cayley]
        blocks["VELOCITY"] = emit_block([("v_next", i, y) for i, y in enumerate(velocity)])
        return blocks
