"""Steps of the reference: path following, then Newton to exact contact, then parts.

Simple where the compiled step is quick: every item walks the central path, and Newton's method
polishes its end. `newton.cpp` starts the other way round and must come to the same answer.
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
from physim.dynamics._reference import Solved
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
) -> Advance:
    """Take steps one by one (see `StepSolver.advance`)."""
    del impulses
    rows: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    held = data.q
    for control in [data.control] if controls is None else controls:
        now = StepData(
            data.q, data.v, control, data.force, data.past_timestep, data.timestep, data.numbers
        )
        solved, v, soft, report = _step(solver, now, smoothing, most_parts)
        rows.append((solved.x, v, soft, report))
        held = solved.impulses
        parts = report[:, REPORT.index("parts")]
        data = StepData(
            solved.x, v, control, data.force, data.timestep / parts, data.timestep, data.numbers
        )
    q, v, soft, report = (torch.stack(column) for column in zip(*rows, strict=True))
    wanted = smoothing.gradient is not None
    return Advance(q=q, v=v, report=report, impulses=held, soft=soft if wanted else None)


def _step(
    solver: ReferenceSolver, data: StepData, smoothing: Smoothing, most_parts: int
) -> tuple[Solved, Tensor, Tensor, Tensor]:
    """One step: its solution, next velocity, solution of the gradient, report."""
    solved, is_exact = solve_step(solver, data, smoothing.state)
    v = outputs(solver, data, solved.x)[1]
    parts = torch.ones_like(v[:, 0])
    finite = torch.isfinite(torch.cat([data.q, data.v, data.force, data.control], -1)).all(-1)
    soft, soft_good = solved.x, solved.good
    if smoothing.gradient is not None:
        smooth, _ = solve_step(solver, data, smoothing.gradient)
        soft, soft_good = smooth.x, smooth.good
    count = 2
    while count <= most_parts:
        failed = (~solved.good & finite).nonzero()[:, 0]
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
    columns = {
        "iterations": solved.iterations,
        "residual": solved.residual,
        "solved": solved.good,
        "parts": parts,
        "rescues": torch.zeros_like(parts),
        "min_gap": solved.gap,
        "is_exact": is_exact,
        "kappa_error": solved.deviation,
        "gradient_solved": soft_good,
    }
    report = torch.stack([columns[name].to(v.dtype) for name in REPORT], dim=-1)
    return solved, v, soft, report


def solve_step(solver: ReferenceSolver, data: StepData, kappa: float) -> tuple[Solved, Tensor]:
    """Solve a step at a smoothing; second, which items are solved at that very smoothing."""
    if kappa > 0.0:
        solved = solver.solve(data, torch.full_like(data.timestep, kappa))
        return solved, solved.good
    settings = solver.settings
    near = solver.mechanism.scales.kappa(settings.rescue_smoothing, 1.0)
    solved = solver.solve(data, near * data.timestep)
    exact = polish(solver, data, solved)
    use = exact.good & solved.good
    values = {
        name: torch.where(
            use if getattr(exact, name).dim() == 1 else use[:, None],
            getattr(exact, name),
            getattr(solved, name),
        )
        for name in Solved.__slots__
    }
    return replace(Solved(**values), good=solved.good), use


def _in_parts(
    solver: ReferenceSolver, data: StepData, kappa: float, count: int
) -> tuple[Solved, Tensor, Tensor]:
    """The interval in equal parts: worst figures of all, last velocity, exact throughout."""
    q, v, past = data.q, data.v, data.past_timestep
    part = data.timestep / count
    history, exact = [], torch.ones_like(past, dtype=torch.bool)
    for _ in range(count):
        now = StepData(q, v, data.control, data.force, past, part, data.numbers)
        solved, is_exact = solve_step(solver, now, kappa / count)
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


def polish(solver: ReferenceSolver, data: StepData, start: Solved, most: int = 30) -> Solved:
    """Newton's method on the natural residuals from a solution close to the central path's end."""
    item = solver.assembly.node(data)
    x, impulses = start.x, start.impulses
    tolerance = 1e-2 * solver.settings.newton_tolerance
    good = torch.zeros_like(start.good)
    residual, gap = start.residual, start.gap
    for _ in range(most):
        trial = solver.assembly.trial(item, x)
        newton = _Natural(solver, item, trial, impulses)
        size = newton.residual()
        residual = torch.where(good, residual, size)
        passed = (size < tolerance) & (newton.determinant_sign > 0)
        x_next, impulses_next = newton.step(x)
        x = torch.where(good[:, None], x, x_next)
        impulses = torch.where(good[:, None], impulses, impulses_next)
        nearest = torch.cat([trial.gap, torch.full_like(trial.gap[:, :1], torch.inf)], -1)
        gap = nearest.amin(-1) if trial.gap.shape[1] else gap
        good = good | passed
        if bool(good.all()):
            break
    return Solved(x, impulses, good, start.iterations, residual, torch.zeros_like(residual), gap)


class _Natural:
    """Newton step of the balance and the natural residuals of all pairs, dense."""

    def __init__(
        self, solver: ReferenceSolver, item: StepNode, trial: StepTrial, impulses: Tensor
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
        cap, weights = solver.settings.gain_cap, solver.weights
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
        du = torch.einsum("brci,bi->rbc", self.trial.rows, dv)
        change = offset - torch.einsum("rsbc,sbc->rbc", self.gain, du)
        dofs = [dof for dof, _ in solver.mechanism.limits]
        rates = torch.cat([dv[:, dofs], -dv[:, dofs]], -1)
        limit = self.limit + self.limits.increment(rates)
        slip = dv[:, [dof for dof, _ in solver.mechanism.rubbing]]
        rub = self.rub + self.rubs.offset[0] - self.rubs.b_y[0][0] * slip
        moved = (self.contact + change)[[2, 0, 1]].permute(1, 2, 0)
        columns = retract(
            solver.mechanism.tree,
            list(x.unbind(-1)),
            list((item.data.timestep[:, None] * dv).unbind(-1)),
        )
        return torch.stack(columns, -1), torch.cat([limit, rub, moved.flatten(1)], -1)
