"""Traced phases of a Newton iteration: kinematics, joint pairs, the tree's linear system, advance.

One iteration linearises the balance and the natural residuals of all pairs (contacts, limits, dry
friction; `solvers.nonlinear.projections`) at the trial configuration, condenses the pairs into the
balance and takes the full step. Contacts are traced per kind in `_newton_contacts.py` and leave on
every link what they add: impulse (``load``), offset (``push``) and response (``hold``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from physim.dynamics import _contact as contact
from physim.dynamics import _integrator as integrator
from physim.dynamics._articulated import Frame, Motion, TreeFactor, factor_tree, solve_tree
from physim.dynamics._kinematics import (
    difference,
    forward_kinematics,
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
GAIN_MOST = 1e6
"""How far the gain of stalled iterations grows, in effective masses."""
STALLED = 1e-3
"""Residual below which iterations may count as stalled, in the model's own units."""


@dataclass(frozen=True, slots=True)
class _System:
    """Newton's linear system before elimination."""

    motion: list[Motion]
    next_motion: list[Motion]
    blocks: list[list[list[Scalar]]]
    right: list[Motion]
    joint_block: dict[tuple[int, int], Scalar]
    force: list[Scalar]
    residual: Scalar


class NewtonPhases(StepPhases):
    """Phases of one mechanism's Newton iteration.

    Args:
        mechanism: Structure of the equations.
        zeros: Slots of the flat numbers that are zero by structure.
        joint_weights: Effective masses of limits and of dry friction, one per degree of freedom.
        cap: Largest gain of a smoothed pair, in units of its effective mass.
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
        super().__init__(mechanism, zeros)

    def trace(self) -> dict[str, str]:
        """Blocks by name; earlier ones hand values to later ones."""
        return {
            "NODE": self._node(),
            "ALLOWED": self._allowed(),
            "APPROACH": self._approach(),
            "PREDICT": self._predicted(),
            "SWEEP": self._kinematics(),
            "JOINTS": self._joints(smooth=False),
            "SMOOTH_JOINTS": self._joints(smooth=True),
            "SOLVE": self._solved(),
            "REACT": self._reacted() if self.has_couplings else "",
            "FINISH": self._finished() if self.has_couplings else "",
            "CONSTANTS": self._constants() if self.has_couplings else "",
        }

    def _allowed(self) -> str:
        """What each limit may be violated by at the end of the step."""
        tape, mechanism = Tape(), self.mechanism
        numbers, timestep = self._numbers(tape), tape.input("steps", 1)
        q = tape.inputs("q", mechanism.tree.nq)
        outputs: Outputs = []
        for i, (dof, coordinate) in enumerate(mechanism.limits):
            low, high = numbers.dof("limit_lower", dof), numbers.dof("limit_upper", dof)
            for place, gap in (
                (i, q[coordinate] - low),
                (i + len(mechanism.limits), high - q[coordinate]),
            ):
                allowed = contact.allowed_overlap(gap, timestep, mechanism.recovery)
                outputs.append(("limit_allowed", place, allowed))
        return emit_block(outputs)

    def _kinematics(self) -> str:
        """Everything at the trial configuration that contacts and the balance need."""
        tape, tree = Tape(), self.mechanism.tree
        numbers = self._numbers(tape)
        after = forward_kinematics(tree, tape.inputs("x", tree.nq), numbers)
        carrier = [chunks(m, 3) for m in chunks(self._exchange.load(tape, "carrier"), 9)]
        spreads = [la.matmul(r, c) for r, c in zip(after.rotation, carrier, strict=True)]
        store = self._exchange.store
        outputs = store("motion1", motion_values(after))
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
        cap = self._cap if smooth else tape.input("cap", 0)
        count = len(mechanism.limits)
        gaps = [x[place] - numbers.dof("limit_lower", dof) for dof, place in mechanism.limits]
        gaps += [numbers.dof("limit_upper", dof) - x[place] for dof, place in mechanism.limits]
        velocities = [(gap - tape.input("limit_allowed", i)) * rate for i, gap in enumerate(gaps)]
        away = tape.input("err", 2)
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
            pair = projections.orthant_newton(primal, velocity, self._weights[dof], cap, kappa)
            collect("limit", i, dof, sign, primal, (pair.offset, pair.gain, pair.residual))
            if kappa is not None:
                away = sc.maximum(
                    away, sc.absolute(primal * velocity * tape.input("per_kappa", 0) - 1.0)
                )
        slips = difference(tree, x, q)[0]
        for i, (dof, _) in enumerate(mechanism.rubbing):
            bound = sc.multiply(numbers.dof("friction_loss", dof), timestep)
            primal = tape.input("rub", i)
            slip = sc.multiply(slips[dof], rate)
            disc = projections.disc_newton([primal], [slip], bound, self._weights[dof], cap, kappa)
            collect("rub", i, dof, 1.0, primal, (disc.offset[0], disc.b_y[0][0], disc.residual[0]))
            if kappa is not None:
                away = sc.maximum(away, sc.absolute(disc.residual[0]) / bound)
        for name, values in (("joint_load", load), ("joint_push", push), ("joint_hold", hold)):
            outputs += [(name, dof, value) for dof, value in values.items()]
        if smooth:
            outputs.append(("err", 2, away))
        return emit_block([*outputs, ("err", 1, natural)])

    @property
    def _paired_dofs(self) -> list[int]:
        pairs = (*self.mechanism.limits, *self.mechanism.rubbing)
        return sorted({dof for dof, _ in pairs})

    def _system(self, tape: Tape) -> _System:
        """Blocks, wrenches and joint terms of the linear system, and the balance's residual."""
        mechanism, load = self.mechanism, self._exchange.load
        tree, scales = mechanism.tree, mechanism.scales
        node, numbers = self._node_record(tape), self._numbers(tape)
        q, x = tape.inputs("q", tree.nq), tape.inputs("x", tree.nq)
        timestep, rate = tape.input("steps", 1), tape.input("rate", 0)
        centers = chunks(load(tape, "center1"), 3)
        spreads = [chunks(m, 3) for m in chunks(load(tape, "spread"), 9)]
        blocks, momenta, right = [], [], []
        for link in range(len(tree.links)):
            mass, before = numbers.link_mass(link), node.poses.center[link]
            block = integrator.spatial_block(before, centers[link], spreads[link], mass)
            moment, momentum = integrator.spread_momentum(
                spreads[link], before, centers[link], before, mass, rate
            )
            offset: list[Scalar] = [0] * 6
            if link in self._touched:
                block = la.madd(block, chunks(tape.inputs("hold", 36, 36 * link), 6))
                wrench = tape.inputs("load", 6, 6 * link)
                moment, momentum = la.vsub(moment, wrench[:3]), la.vsub(momentum, wrench[3:])
                offset = tape.inputs("push", 6, 6 * link)
            blocks.append(block)
            momenta.append((moment, momentum))
            right.append((la.vsub(offset[:3], moment), la.vsub(offset[3:], momentum)))
        balance = project(tree, node.poses.motion, momenta)
        joint = integrator.joint_impulse(tree, x, q, timestep, numbers, rate)
        block_of_joints = integrator.joint_block(tree, x, q, timestep, numbers)
        force: list[Scalar] = []
        residual: Scalar = 0.0
        paired = set(self._paired_dofs)
        for dof in range(tree.nv):
            push = sc.subtract(node.impulse[dof], joint[dof])
            if dof in paired:
                push = sc.add(push, tape.input("joint_load", dof))
            unit = scales.mass * scales.velocity
            unit *= 1.0 if tree.linear_dofs[dof] else scales.length
            size = sc.multiply(sc.absolute(sc.subtract(balance[dof], push)), 1.0 / unit)
            residual = size if dof == 0 else sc.maximum(residual, size)
            if dof in paired:
                push = sc.add(push, tape.input("joint_push", dof))
                hold = tape.input("joint_hold", dof)
                block_of_joints[dof, dof] = sc.add(block_of_joints[dof, dof], hold)
            force.append(push)
        motion = as_motion(load(tape, "motion1"))
        return _System(node.poses.motion, motion, blocks, right, block_of_joints, force, residual)

    def _frames(self, tape: Tape) -> tuple[dict[int, Frame], dict[int, Frame]]:
        """Poses of links with a free joint, at node k and at the trial configuration."""
        frames, next_frames = {}, {}
        tree = self.mechanism.tree
        x = tape.inputs("x", tree.nq)
        for index, link in enumerate(tree.links):
            if link.joints and link.joints[0].kind == "free":
                first = link.joints[0].q
                rotation = la.quaternion_matrix(x[first + 3 : first + 7])
                next_frames[index] = (rotation, x[first : first + 3])
                pose = tape.inputs("pose0", 12, 12 * index)
                frames[index] = (chunks(pose[:9], 3), pose[9:])
        return frames, next_frames

    def _solved(self) -> str:
        """Solution without contacts between links.

        If there may be such contacts, factors and solution go to memory and nothing moves yet.
        """
        tape, tree = Tape(), self.mechanism.tree
        system = self._system(tape)
        motion, ahead = system.motion, system.next_motion
        factor = factor_tree(tree, motion, ahead, system.blocks, system.joint_block)
        rate, twists = solve_tree(
            tree, factor, motion, ahead, system.right, system.force, *self._frames(tape)
        )
        outputs: Outputs = [("err", 0, system.residual)]
        if not self.has_couplings:
            return emit_block(outputs + self._finish(tape, rate, twists, factor.pivots))
        determinant = factor.pivots[0]
        for pivot in factor.pivots[1:]:
            determinant = sc.multiply(determinant, pivot)
        moving = self.structure.moving
        values = [x for dof in sorted(factor.carried) for x in moving(factor.carried[dof])]
        outputs += self._exchange.store("carried", values)
        values = [x for dof in sorted(factor.response) for x in moving(factor.response[dof])]
        outputs += self._exchange.store("response", values)
        values = [factor.inverse[dof] for dof in sorted(factor.inverse)]
        outputs += self._exchange.store("inverse", values)
        values = [x for link in sorted(factor.roots) for row in factor.roots[link] for x in row]
        outputs += self._exchange.store("root", values)
        self.eliminated = sorted(factor.carried)
        self.roots = sorted(factor.roots)
        outputs += [("dv", i, y) for i, y in enumerate(rate)]
        outputs += [("determinant", 0, determinant)]
        return emit_block(outputs + self._twist_outputs(twists))

    def _twist_outputs(self, twists: list[Motion]) -> Outputs:
        return [
            ("twist", 6 * link + i, y)
            for link in sorted(self._touched)
            for i, y in enumerate([*twists[link][0], *twists[link][1]])
            if i in self.structure.moves
        ]

    def _kept_factor(self, tape: Tape) -> TreeFactor:
        load = self._exchange.load
        carried = chunks(load(tape, "carried"), 6)
        response = chunks(load(tape, "response"), 6)
        inverse = load(tape, "inverse")
        roots = [chunks(block, 6) for block in chunks(load(tape, "root"), 36)]
        return TreeFactor(
            dict(zip(self.eliminated, carried, strict=True)),
            dict(zip(self.eliminated, response, strict=True)),
            dict(zip(self.eliminated, inverse, strict=True)),
            dict(zip(self.roots, roots, strict=True)),
            [],
        )

    def _reacted(self) -> str:
        """How the tree answers wrenches on its links: adds to rates and twists."""
        tape, tree = Tape(), self.mechanism.tree
        zero: list[Scalar] = [0] * 6
        wrenches = [
            tape.inputs("react", 6, 6 * link) if link in self._touched else zero
            for link in range(len(tree.links))
        ]
        rate, twists = solve_tree(
            tree,
            self._kept_factor(tape),
            as_motion(self._exchange.load(tape, "motion0")),
            as_motion(self._exchange.load(tape, "motion1")),
            [(w[:3], w[3:]) for w in wrenches],
            [0] * tree.nv,
            *self._frames(tape),
        )
        outputs: Outputs = [("dv", i, tape.input("dv", i) + y) for i, y in enumerate(rate)]
        for name, place, y in self._twist_outputs(twists):
            outputs.append((name, place, tape.input(name, place) + y))
        return emit_block(outputs)

    def _constants(self) -> str:
        """What is constant of the arrays that the coupling of contacts loops over."""
        outputs: Outputs = []
        for name in ("motion1", "carried", "response", "inverse", "root"):
            outputs += self._exchange.constants(name)
        return emit_block(outputs)

    def _finished(self) -> str:
        """Move along increments that are in memory."""
        tape = Tape()
        return emit_block(self._finish(tape, tape.inputs("dv", self.mechanism.tree.nv), None, None))

    def _finish(
        self,
        tape: Tape,
        dv: list[Scalar],
        twists: list[Motion] | None,
        pivots: list[Scalar] | None,
    ) -> Outputs:
        """Move the configuration and the joint pairs along the increment."""
        mechanism = self.mechanism
        tree, scales = mechanism.tree, mechanism.scales
        outputs: Outputs = []
        if twists is not None:
            outputs += self._twist_outputs(twists)
        if pivots is not None:
            determinant = pivots[0]
            for pivot in pivots[1:]:
                determinant = sc.multiply(determinant, pivot)
            outputs.append(("determinant", 0, determinant))
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
        outputs += [("x", i, sc.where(runs, y, x[i])) for i, y in enumerate(moved)]
        step = sc.where(runs, alpha, 0.0)
        count = len(mechanism.limits)
        for i in range(2 * count):
            dof, sign = mechanism.limits[i % count][0], 1.0 if i < count else -1.0
            change = tape.input("limit_offset", i) - tape.input("limit_gain", i) * (sign * dv[dof])
            outputs.append(("limit", i, tape.input("limit", i) + step * change))
        for i, (dof, _) in enumerate(mechanism.rubbing):
            change = tape.input("rub_offset", i) - tape.input("rub_gain", i) * dv[dof]
            outputs.append(("rub", i, tape.input("rub", i) + step * change))
        return [*outputs, ("alpha", 0, step)]

    def _predicted(self) -> str:
        """Where the past velocity leads."""
        tape, tree = Tape(), self.mechanism.tree
        q, v, _ = self._inputs(tape)
        timestep = tape.input("steps", 1)
        moved = retract(tree, q, [timestep * rate for rate in v])
        return emit_block([("x", i, y) for i, y in enumerate(moved)])

    def frame(self) -> dict[str, str]:
        """Blocks around a solve: forces of the controls before it, velocity after it."""
        blocks, tree = {"FORCE": self.force()}, self.mechanism.tree
        blocks["NORMALISE"] = self.normalised()
        tape = Tape()
        cayley, _ = difference(tree, tape.inputs("x", tree.nq), tape.inputs("q", tree.nq))
        rate = sc.reciprocal(tape.input("steps", 1))
        velocity = [sc.multiply(y, rate) for y in cayley]
        blocks["VELOCITY"] = emit_block([("v_next", i, y) for i, y in enumerate(velocity)])
        return blocks
