"""Steps of the reference: Newton, then path following and Newton from its end, then parts.

The order is that of the compiled step (`step_batch.cpp`): where friction admits several solutions,
the start decides which one is found, and both backends start alike.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from physim.dynamics import _contact as contact
from physim.dynamics._adjoint import outputs
from physim.dynamics._advance import REPORT, Advance, Smoothing, cut
from physim.dynamics._assembly import StepData, StepNode, StepTrial
from physim.dynamics._kinematics import retract
from physim.dynamics._newton_phases import GAIN_MOST, STALLED, TURN_CAP
from physim.dynamics._reference import Solved
from solvers.core import Status
from solvers.nonlinear import projections

if TYPE_CHECKING:
    from physim.dynamics._reference import ReferenceSolver


@torch.no_grad()
def reference_advance(
    solver: ReferenceSolver,
    data: StepData,
    smoothing: Smoothing,
    controls: Tensor | None,
    impulses: Tensor | None,
    most_parts: int,
    keep_impulses: bool,
) -> Advance:
    """Take steps one by one (see `StepSolver.advance`)."""
    rows: list[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]] = []
    for control in [data.control] if controls is None else controls:
        now = StepData(
            data.q, data.v, control, data.force, data.past_timestep, data.timestep, data.numbers
        )
        solved, v, soft, report = _step(solver, now, smoothing, impulses, most_parts)
        rows.append((solved.x, v, soft, report, solved.impulses))
        impulses = solved.impulses
        parts = report[:, REPORT.index("parts")]
        data = StepData(
            solved.x, v, control, data.force, data.timestep / parts, data.timestep, data.numbers
        )
    q, v, soft, report, held = (torch.stack(column) for column in zip(*rows, strict=True))
    done = Advance(
        q=q,
        v=v,
        report=report,
        impulses=held[-1],
        soft=None if smoothing.gradient is None else soft,
        path=held if keep_impulses else None,
    )
    return done.only() if controls is None else done


def _step(
    solver: ReferenceSolver,
    data: StepData,
    smoothing: Smoothing,
    impulses: Tensor | None,
    most_parts: int,
) -> tuple[Solved, Tensor, Tensor, Tensor]:
    """One step: its solution, next velocity, solution of the gradient, report."""
    given, (data, finite) = data, _finite_rows(solver, data)
    solved, is_exact = solve_step(solver, data, smoothing.state, impulses)
    v = outputs(solver, data, solved.x)[1]
    parts = torch.ones_like(v[:, 0])
    soft, soft_good = solved.x, solved.good
    if smoothing.gradient is not None:
        smooth, _ = solve_step(solver, data, smoothing.gradient, None)
        soft, soft_good = smooth.x, smooth.good
    count = 2
    while count <= most_parts:
        failed = (~solved.good).nonzero()[:, 0]
        if failed.numel() == 0:
            break
        chain, v_last, exact = _in_parts(solver, cut(data, failed), smoothing.state, count)
        chosen = failed[chain.good]
        values = {
            name: getattr(solved, name).index_put((chosen,), getattr(chain, name)[chain.good])
            for name in Solved.__slots__
        }
        spent = solved.iterations.index_put((failed,), solved.iterations[failed] + chain.iterations)
        solved = Solved(**values | {"iterations": spent})
        v = v.index_put((chosen,), v_last[chain.good])
        is_exact = is_exact.index_put((chosen,), exact[chain.good])
        parts = parts.index_put((chosen,), torch.full_like(parts[chosen], count))
        count *= 2
    # What is not finite stays where it was.
    kept = finite[:, None]
    solved = replace(
        solved,
        x=torch.where(kept, solved.x, given.q),
        impulses=torch.where(kept, solved.impulses, 0.0),
        good=solved.good & finite,
    )
    v, soft = torch.where(kept, v, given.v), torch.where(kept, soft, given.q)
    columns = {
        "iterations": solved.iterations,
        "residual": solved.residual,
        "status": torch.where(finite, _status(solved, v), int(Status.NON_FINITE)),
        "parts": parts,
        "rescues": torch.zeros_like(parts),
        "min_gap": solved.gap,
        "unverified": solved.good & ~is_exact,
        "kappa_error": solved.deviation,
        "gradient_solved": soft_good & finite,
    }
    report = torch.stack([columns[name].to(v.dtype) for name in REPORT], dim=-1)
    return solved, v, soft, report


def _finite_rows(solver: ReferenceSolver, data: StepData) -> tuple[StepData, Tensor]:
    """A step's inputs with those items at rest that are not finite, and which are (B,)."""
    values = [getattr(data, name) for name in StepData.__slots__]
    rows = [torch.isfinite(value).reshape(len(data.q), -1).all(-1) for value in values]
    finite = torch.stack(rows).all(0)
    if bool(finite.all()):
        return data, finite
    q, numbers, timestep = solver.place
    still = {"q": q, "numbers": numbers, "timestep": timestep, "past_timestep": timestep}
    calm = {}
    for name, value in zip(StepData.__slots__, values, strict=True):
        kept = finite.reshape(-1, *[1] * (value.dim() - 1))
        calm[name] = torch.where(kept, value, torch.as_tensor(still.get(name, 0.0)).to(value))
    return StepData(**calm), finite


def solve_step(
    solver: ReferenceSolver, data: StepData, kappa: float, impulses: Tensor | None
) -> tuple[Solved, Tensor]:
    """Solve a step at a smoothing; second, which items are solved at that very smoothing.

    Args:
        solver: Solver of the mechanism.
        data: Inputs of the step.
        kappa: Central-path parameter [J].
        impulses: Impulses from which Newton's method starts; zero if None.
    """
    if kappa > 0.0:
        solved = solver.solve(data, torch.full_like(data.timestep, kappa))
        return solved, solved.good
    settings, tree = solver.settings, solver.mechanism.tree
    if impulses is None:
        impulses = data.q.new_zeros(len(data.q), solver.mechanism.impulse_count)
    ahead = retract(
        tree, list(data.q.unbind(-1)), list((data.timestep[:, None] * data.v).unbind(-1))
    )
    newton = polish(solver, data, torch.stack(ahead, -1), impulses, most=settings.newton_iterations)
    if bool(newton.good.all()):
        return newton, newton.good
    near = solver.mechanism.scales.kappa(settings.rescue_smoothing, 1.0)
    path = solver.solve(data, near * data.timestep)
    exact = polish(solver, data, path.x, path.impulses, most=settings.newton_iterations)
    rescued = _choose(exact.good & path.good, exact, path)
    solved = _choose(newton.good, newton, rescued)
    return solved, newton.good | (exact.good & path.good)


def _choose(mask: Tensor, a: Solved, b: Solved) -> Solved:
    """``a`` where the mask holds, ``b`` elsewhere, per item."""
    pairs = [(getattr(a, name), getattr(b, name)) for name in Solved.__slots__]
    return Solved(*(torch.where(mask if x.dim() == 1 else mask[:, None], x, y) for x, y in pairs))


def _in_parts(
    solver: ReferenceSolver, data: StepData, kappa: float, count: int
) -> tuple[Solved, Tensor, Tensor]:
    """The interval in equal parts: worst figures of all, last velocity, exact throughout."""
    q, v, past = data.q, data.v, data.past_timestep
    part = data.timestep / count
    impulses: Tensor | None = None
    history, exact = [], torch.ones_like(past, dtype=torch.bool)
    for _ in range(count):
        now = StepData(q, v, data.control, data.force, past, part, data.numbers)
        solved, is_exact = solve_step(solver, now, kappa / count, impulses)
        impulses = solved.impulses
        history.append(solved)
        exact = exact & is_exact
        q, v, past = solved.x, outputs(solver, now, solved.x)[1], part
    worst = {
        name: torch.stack([getattr(s, name) for s in history]).amax(0)
        for name in ("residual", "deviation")
    }
    merged = Solved(
        x=q,
        impulses=history[-1].impulses,
        good=torch.stack([s.good for s in history]).all(0),
        iterations=torch.stack([s.iterations for s in history]).sum(0),
        gap=torch.stack([s.gap for s in history]).amin(0),
        **worst,
    )
    return merged, v, exact


def polish(
    solver: ReferenceSolver, data: StepData, x: Tensor, impulses: Tensor, *, most: int
) -> Solved:
    """Newton's method on balance and natural residuals from a given start.

    Args:
        solver: Solver of the mechanism.
        data: Inputs of the step.
        x: Start of the end point (B, nq).
        impulses: Start of the impulses (B, w).
        most: Largest number of iterations.
    """
    item = solver.assembly.node(data)
    tolerance = 1e-2 * solver.settings.newton_tolerance
    good = torch.zeros(len(x), dtype=torch.bool)
    iterations = torch.zeros(len(x), dtype=torch.int64)
    residual = gap = last = earlier = data.timestep * torch.inf
    cap = torch.full_like(data.timestep, solver.settings.gain_cap)
    for _ in range(most):
        trial = solver.assembly.trial(item, x)
        cap = _grown(solver, cap, last, earlier)
        newton = _Natural(solver, item, trial, impulses, cap[:, None])
        size = newton.residual()
        earlier, last = last, size
        residual = torch.where(good, residual, size)
        passed = (size < tolerance) & (newton.determinant_sign > 0)
        x_next, impulses_next = newton.step(x)
        x = torch.where(good[:, None], x, x_next)
        impulses = torch.where(good[:, None], impulses, impulses_next)
        gap = torch.cat([trial.gap, torch.full_like(size, torch.inf)[:, None]], -1).amin(-1)
        iterations += ~good
        good = good | passed
        if bool(good.all()):
            break
    return Solved(x, impulses, good, iterations, residual, torch.zeros_like(residual), gap)


def _grown(solver: ReferenceSolver, cap: Tensor, last: Tensor, earlier: Tensor) -> Tensor:
    """Gains of an iteration after two residuals: they grow where iterations stall."""
    settings = solver.settings
    moves = (last > 2.0 * earlier) | ~(last < torch.inf)
    stalls = (last < STALLED) & (last > 0.5 * earlier)
    most = max(GAIN_MOST, settings.gain_cap)
    grown = (settings.gain_growth * cap).clamp(max=most)
    return torch.where(moves, settings.gain_cap, torch.where(stalls, grown, cap))


class _Natural:
    """Newton step of the balance and the natural residuals of all pairs, dense."""

    def __init__(
        self,
        solver: ReferenceSolver,
        item: StepNode,
        trial: StepTrial,
        impulses: Tensor,
        cap: Tensor,
    ) -> None:
        self.solver, self.item, self.trial = solver, item, trial
        mechanism = solver.mechanism
        limits, rubs = 2 * len(mechanism.limits), len(mechanism.rubbing)
        self.limit, self.rub = impulses[:, :limits], impulses[:, limits : limits + rubs]
        contacts = (
            impulses[:, limits + rubs :].unflatten(-1, (-1, 3))
            if (mechanism.contact_count)
            else impulses.new_zeros(len(impulses), 0, 3)
        )
        # Normal first in memory; the equations order both tangents, then the normal.
        self.contact = contacts.permute(2, 0, 1)[[1, 2, 0]]
        weights = solver.weights
        normal = torch.tensor([w for group in weights.contacts for w in group[0]])
        tangent = torch.tensor([w for group in weights.contacts for w in group[1]])
        self.scale = torch.stack([tangent, tangent, normal]).to(torch.float64)
        self.law = contact.natural_response(
            list(trial.velocity),
            list(self.contact),
            item.mu,
            (self.scale[2], self.scale[0]),
            cap,
        )
        dofs = [dof for dof, _ in mechanism.limits] * 2 + [dof for dof, _ in mechanism.rubbing]
        joint = torch.tensor([weights.joints[dof] for dof in dofs], dtype=torch.float64)
        self.joint_scale = joint
        self.limits = projections.orthant_newton(
            self.limit, trial.limit_velocity, joint[:limits], cap
        )
        self.rubs = projections.disc_newton(
            [self.rub], [trial.slip], item.friction_bound, joint[limits:], cap
        )
        held = torch.einsum("brci,rbc->bi", item.impulse_rows, self.contact)
        self.balance = trial.residual - held
        self.balance = self.balance - solver.joint_force(self.limit, self.rub, held)
        like = item.gap
        gain = torch.stack([torch.stack([g + 0 * like for g in row]) for row in self.law.gain])
        matrix = trial.matrix + torch.einsum(
            "brci,rsbc,bscj->bij", item.impulse_rows, gain, trial.rows
        )
        one = torch.ones_like(self.limits.gain)
        gains = torch.cat([self.limits.gain * one, self.rubs.b_y[0][0] + 0 * self.rub], -1)
        diagonal = torch.zeros_like(self.balance)
        for k, dof in enumerate(dofs):
            diagonal[:, dof] += gains[:, k]
        matrix = matrix + torch.diag_embed(diagonal)
        self.gain = gain
        self.determinant_sign = torch.linalg.slogdet(matrix)[0]
        self.factor = torch.linalg.lu_factor_ex(matrix)[:2]

    def residual(self) -> Tensor:
        """Largest scaled residual of balance and pairs (B,)."""
        mechanism = self.solver.mechanism
        scales = mechanism.scales
        unit = scales.mass * scales.velocity
        lengths = [1.0 if linear else scales.length for linear in mechanism.tree.linear_dofs]
        parts = [self.balance / (unit * torch.tensor(lengths, dtype=torch.float64))]
        missed = torch.stack([*self.law.friction_miss, self.law.normal_miss])
        parts += list(missed / self.scale[:, None] / scales.velocity)
        joint = torch.cat([self.limits.residual, self.rubs.residual[0]], -1)
        parts.append(joint / self.joint_scale / scales.velocity)
        return torch.cat(parts, -1).abs().amax(-1)

    def step(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Next end point and impulses."""
        solver, item = self.solver, self.item
        offset = torch.stack([y + 0 * item.gap for y in self.law.offset])
        right = torch.einsum("brci,rbc->bi", item.impulse_rows, offset) - self.balance
        right = right + solver.joint_force(self.limits.offset, self.rubs.offset[0], right)
        dv = torch.linalg.lu_solve(*self.factor, right[..., None])[..., 0]
        dv, alpha = self._capped(dv)
        du = torch.einsum("brci,bi->rbc", self.trial.rows, dv)
        change = alpha * offset - torch.einsum("rsbc,sbc->rbc", self.gain, du)
        dofs = [dof for dof, _ in solver.mechanism.limits]
        rates = torch.cat([dv[:, dofs], -dv[:, dofs]], -1)
        limit = self.limit + alpha * self.limits.offset - self.limits.gain * rates
        slip = dv[:, [dof for dof, _ in solver.mechanism.rubbing]]
        rub = self.rub + alpha * self.rubs.offset[0] - self.rubs.b_y[0][0] * slip
        moved = (self.contact + change)[[2, 0, 1]].permute(1, 2, 0)
        columns = retract(
            solver.mechanism.tree,
            list(x.unbind(-1)),
            list((item.data.timestep[:, None] * dv).unbind(-1)),
        )
        return torch.stack(columns, -1), torch.cat([limit, rub, moved.flatten(1)], -1)

    def _capped(self, dv: Tensor) -> tuple[Tensor, Tensor]:
        """The increment, shortened where a joint would move too far, and by how much (B, 1)."""
        mechanism = self.solver.mechanism
        length = mechanism.scales.length
        units = [length if linear else 1.0 for linear in mechanism.tree.linear_dofs]
        travel = self.item.data.timestep[:, None] * dv / (TURN_CAP * torch.tensor(units))
        alpha = 1.0 / travel.abs().amax(-1, keepdim=True).clamp(min=1.0)
        return alpha * dv, alpha


def _status(solved: Solved, v: Tensor) -> Tensor:
    status = torch.where(solved.good, int(Status.CONVERGED), int(Status.MAX_ITERATIONS))
    finite = torch.isfinite(torch.cat([solved.x, v], -1)).all(-1)
    return torch.where(finite, status, int(Status.NON_FINITE))
