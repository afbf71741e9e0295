"""The contact problem of a step, solved on torch batches by a primal-dual interior point.

Unknowns are the next configuration and, per cone, a primal (impulse) and a dual (velocity)
variable. One iteration linearises everything, condenses the cones into the balance, takes a
Mehrotra predictor and corrector with one factorisation, and steps to just short of the boundary.
The same algorithm runs compiled (`interior_point.cpp`); this one is its oracle.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from physim.dynamics import _contact as contact
from physim.dynamics._advance import Advance, Smoothing
from physim.dynamics._assembly import Assembly, StepData, StepNode, StepTrial
from physim.dynamics._kinematics import retract
from physim.dynamics._mechanism import Mechanism
from physim.dynamics._settings import Attempt, SolverSettings
from physim.dynamics._weights import Weights, effective_masses
from solvers.nonlinear import cones


@dataclass(frozen=True, slots=True)
class Solved:
    """What a solve of one step leaves.

    Attributes:
        x: End point (B, nq).
        impulses: Impulses of all constraints, as in `Advance` (B, w).
        good: Whether the item converged (B,).
        iterations: Iterations used (B,).
        residual: Scaled residual (B,).
        deviation: Largest relative deviation of a product from kappa (B,).
        gap: Smallest gap at the end (B,), inf without candidates.
    """

    x: Tensor
    impulses: Tensor
    good: Tensor
    iterations: Tensor
    residual: Tensor
    deviation: Tensor
    gap: Tensor


@dataclass(slots=True)
class _Iterate:
    """Moving part of the solve: configuration, contact, limit and joint-friction variables."""

    x: Tensor
    z: Tensor
    limit: Tensor
    rub: Tensor


class ReferenceSolver:
    """Solves steps of one mechanism on torch batches.

    Args:
        mechanism: Structure of the equations.
        settings: Solver settings.
        q: The model's initial configuration (nq,).
        numbers: The model's own flat numbers (n,).
        timestep: Usual length of a step [s].
    """

    def __init__(
        self,
        mechanism: Mechanism,
        settings: SolverSettings,
        q: Tensor,
        numbers: Tensor,
        timestep: float,
    ) -> None:
        self.mechanism = mechanism
        self.settings = settings
        self.assembly = Assembly(mechanism)
        self.place = (q, numbers, timestep)

    @cached_property
    def weights(self) -> Weights:
        """Effective masses in the initial configuration."""
        return effective_masses(self.mechanism, *self.place)

    @property
    def reference(self) -> ReferenceSolver:
        """Itself: every backend names its oracle."""
        return self

    def adjoint(
        self,
        data: StepData,
        q_next: Tensor,
        x: Tensor,
        impulses: Tensor,
        kappa: float,
        cotangent_q: Tensor,
        cotangent_v: Tensor,
        *,
        with_numbers: bool = True,
    ) -> StepData:
        """Cotangents of all inputs, those of the numbers always (see `reference_adjoint`)."""
        del with_numbers
        from physim.dynamics._adjoint import reference_adjoint, transport_cotangent

        moved = transport_cotangent(self.mechanism.tree, q_next, x, cotangent_q)
        return reference_adjoint(self, data, x, impulses, kappa, moved, cotangent_v)

    def advance(
        self,
        data: StepData,
        smoothing: Smoothing,
        *,
        controls: Tensor | None = None,
        impulses: Tensor | None = None,
        most_parts: int = 1,
        keep_impulses: bool = False,
    ) -> Advance:
        """Take steps one by one (see `StepSolver.advance`)."""
        from physim.dynamics._reference_steps import reference_advance

        return reference_advance(
            self, data, smoothing, controls, impulses, most_parts, keep_impulses
        )

    @torch.no_grad()
    def solve(self, data: StepData, kappas: Tensor) -> Solved:
        """Solve one step at the path parameters ``kappas`` (B,)."""
        settings = self.settings
        item = self.assembly.node(data)
        active = self.active(item)
        starts = [self._start(item, attempt) for attempt in settings.attempts]
        batch = data.q.shape[0]
        now = _blend(torch.ones(batch, dtype=torch.bool), starts[0], starts[0])
        iterations = torch.zeros(batch, dtype=torch.int64)
        failed = torch.zeros(batch, dtype=torch.bool)
        fraction = torch.full((batch,), settings.attempts[0].fraction, dtype=data.q.dtype)
        residual = path = gap = torch.zeros(batch)
        for _ in range(2 + self.mechanism.contact_count):
            done, passed = failed.clone(), failed.clone()
            for count in range(settings.max_iterations + 1):
                if bool(done.all()):
                    break
                trial = self.assembly.trial(item, now.x)
                residual, path = self._errors(item, trial, now, kappas, active)
                passed = passed | (
                    (residual < settings.tolerance) & (path < settings.path_tolerance)
                )
                if count == settings.max_iterations:
                    break
                attempt, spent = divmod(count, settings.attempt_iterations)
                if attempt and not spent:
                    again = ~passed
                    chosen = settings.attempts[attempt].fraction
                    fraction = torch.where(again, chosen, fraction)
                    now = _blend(again, starts[attempt], now)
                    continue
                aim = torch.where(passed, 0.0, 1.0)
                moved = self._iterate(item, trial, now, kappas, fraction, active, residual, aim)
                # What passes takes this step all the same: Newton squares its error.
                now = _blend(done, now, moved)
                iterations += ~done
                done = passed
            failed = failed | ~passed
            gap = trial.gap
            missed = ~active & (gap < self.pruning_gap(data)[:, None]) & ~failed[:, None]
            if not bool(missed.any()):
                break
            active = active | missed
            now = _blend(missed.any(-1), starts[0], now)
        nothing = torch.full((batch, 1), torch.inf, dtype=data.q.dtype)
        contacts = torch.stack([now.z[0], now.z[2], now.z[3]], dim=-1) * active[..., None]
        return Solved(
            x=now.x,
            impulses=torch.cat([now.limit[0], now.rub[0], contacts.flatten(1)], dim=-1),
            good=~failed & torch.isfinite(now.x).all(-1),
            iterations=iterations,
            residual=residual,
            deviation=path,
            gap=torch.cat([gap, nothing], dim=-1).amin(-1),
        )

    def pruning_gap(self, data: StepData) -> Tensor:
        speed = self.mechanism.scales.velocity * self.settings.pruning_distance
        return speed * data.timestep

    def active(self, item: StepNode) -> Tensor:
        """Candidates that take part (B, C): all on planes, near ones between links."""
        data = item.data
        speeds = torch.einsum("bci,bi->bc", item.impulse_rows[:, 2], data.v)
        near = item.gap + data.timestep[:, None] * speeds.clamp(max=0.0)
        near = near < self.pruning_gap(data)[:, None]
        always = [not g.is_between_links for g in self.mechanism.groups for _ in range(g.count)]
        return near | torch.tensor(always, dtype=torch.bool)

    def _start(self, item: StepNode, attempt: Attempt) -> _Iterate:
        mechanism, data = self.mechanism, item.data
        scales = mechanism.scales
        kappa = data.timestep.new_tensor([[attempt.start * scales.energy]])
        slowest = attempt.slowest * scales.velocity
        z = contact.contact_start(item.gap, data.timestep[:, None], item.mu, slowest, kappa)
        zero = torch.zeros_like(item.gap)
        z_full = torch.stack([part + zero for part in z])
        s = self.assembly.limit_velocity(item, data.q).clamp(min=slowest)
        limit = torch.stack([kappa / s, s])
        p = item.friction_bound
        rub = torch.stack([torch.zeros_like(p), kappa / p, torch.zeros_like(p)])
        return _Iterate(data.q, z_full, limit, rub)

    def _errors(
        self, item: StepNode, trial: StepTrial, now: _Iterate, kappa: Tensor, active: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Scaled residual, and deviation of the products from ``kappa``, per item."""
        scales, data = self.mechanism.scales, item.data
        unit = scales.mass * scales.velocity
        lengths = torch.tensor(
            [1.0 if linear else scales.length for linear in self.mechanism.tree.linear_dofs],
            dtype=data.q.dtype,
        )
        balance = self._balance(item, trial, now, active)
        parts = [balance / (unit * lengths)]
        z = torch.where(active, now.z, 0.0)
        velocity = torch.where(active, trial.velocity, 0.0)
        parts += [(z[6] - velocity[0]) / scales.velocity, (z[7] - velocity[1]) / scales.velocity]
        parts += [(z[4] - velocity[2]) / scales.velocity]
        parts += [(now.limit[1] - trial.limit_velocity) / scales.velocity]
        parts += [(now.rub[2] - trial.slip) / scales.velocity]
        parts += [(item.mu * z[0] - z[1]) / unit]
        residual = torch.cat(parts, dim=-1).abs().amax(-1)
        k = kappa[:, None]
        normal, scalar, *vector = contact.contact_products(list(now.z))
        deviations = [torch.where(active, (x - k) / k, 0.0) for x in (normal, scalar)]
        deviations += [torch.where(active, x / k, 0.0) for x in vector]
        deviations += [(now.limit[0] * now.limit[1] - k) / k]
        scalar, vector = cones.second_order_product(
            item.friction_bound, [now.rub[0]], now.rub[1], [now.rub[2]]
        )
        deviations += [(scalar - k) / k, vector[0] / k, torch.zeros_like(k)]
        return residual, torch.cat(deviations, dim=-1).abs().amax(-1)

    def _balance(self, item: StepNode, trial: StepTrial, now: _Iterate, active: Tensor) -> Tensor:
        """Balance with constraint impulses (B, nv)."""
        impulse = torch.stack([now.z[2], now.z[3], now.z[0]], dim=1)
        impulse = torch.where(active[:, None], impulse, 0.0)
        balance = trial.residual - torch.einsum("brci,brc->bi", item.impulse_rows, impulse)
        return balance - self.joint_force(now.limit[0], now.rub[0], balance)

    def joint_force(self, limit: Tensor, rub: Tensor, like: Tensor) -> Tensor:
        """Limit and dry-friction impulses on their degrees of freedom (B, nv)."""
        force = torch.zeros_like(like)
        count = len(self.mechanism.limits)
        for index, (dof, _) in enumerate(self.mechanism.limits):
            force[:, dof] += limit[:, index] - limit[:, count + index]
        for index, (dof, _) in enumerate(self.mechanism.rubbing):
            force[:, dof] += rub[:, index]
        return force

    def _iterate(
        self,
        item: StepNode,
        trial: StepTrial,
        now: _Iterate,
        kappa: Tensor,
        fraction: Tensor,
        active: Tensor,
        residual: Tensor,
        aim: Tensor,
    ) -> _Iterate:
        """One predictor-corrector step with one factorisation.

        The target lies above ``kappa`` by what ``aim`` (1 or 0) lets through.
        """
        mechanism = self.mechanism
        k = kappa[:, None]
        count = 2 * active.sum(-1) + now.limit.shape[-1] + now.rub.shape[-1]
        balance = self._balance(item, trial, now, active)
        newton = _Newton(self, item, trial, now, active, balance)
        da, la, ra, _ = newton.direction(k, None)
        mean = self._mean_product(item, now, active, count)
        step = fraction / torch.maximum(newton.inverse_step(da, la, ra), fraction)
        ahead = _Iterate(
            now.x,
            now.z + step[:, None] * da,
            now.limit + step[:, None] * la,
            now.rub + step[:, None] * ra,
        )
        mean_ahead = self._mean_product(item, ahead, active, count)
        sigma = (mean_ahead / mean).clamp(0.0, 1.0) ** 3
        sigma = torch.maximum(sigma, (1.0 - step) ** 3)
        # A path parameter well below the residual jams the iteration at the boundary.
        scales = mechanism.scales
        far = 0.1 * residual * scales.energy
        target = torch.maximum(kappa, torch.maximum(sigma * mean, torch.minimum(mean, far)))
        target = torch.where((count > 0) & (aim > 0.5), target, kappa)
        dz, dl, dr, dv = newton.direction(target[:, None], (da, la, ra, step[:, None] ** 2))
        step = fraction / torch.maximum(newton.inverse_step(dz, dl, dr), fraction)
        step = torch.where(count > 0, step, torch.ones_like(step))
        move = (step * item.data.timestep)[:, None] * dv
        columns = retract(mechanism.tree, list(now.x.unbind(-1)), list(move.unbind(-1)))
        return _Iterate(
            torch.stack(columns, dim=-1),
            now.z + step[:, None] * dz,
            now.limit + step[:, None] * dl,
            now.rub + step[:, None] * dr,
        )

    def _mean_product(self, item: StepNode, now: _Iterate, active: Tensor, count: Tensor) -> Tensor:
        normal, scalar, *_ = contact.contact_products(list(now.z))
        total = torch.where(active, normal + scalar, 0.0).sum(-1)
        total = total + (now.limit[0] * now.limit[1]).sum(-1)
        rub, _ = cones.second_order_product(
            item.friction_bound, [now.rub[0]], now.rub[1], [now.rub[2]]
        )
        mean: Tensor = (total + rub.sum(-1)) / count.clamp(min=1)
        return mean


class _Newton:
    """One linearisation, factorised; gives directions for different targets."""

    def __init__(
        self,
        solver: ReferenceSolver,
        item: StepNode,
        trial: StepTrial,
        now: _Iterate,
        active: Tensor,
        balance: Tensor,
    ) -> None:
        self.solver, self.item, self.trial = solver, item, trial
        self.now, self.active, self.balance = now, active, balance
        response = self._contact(kappa=torch.ones_like(balance[:, :1]), second=None)
        zero = torch.zeros_like(item.gap)
        gain = torch.stack([torch.stack([x + zero for x in row]) for row in response.gain])
        gain = torch.where(active, gain, 0.0)
        matrix = trial.matrix + torch.einsum(
            "brci,rsbc,bscj->bij", item.impulse_rows, gain, trial.rows
        )
        diagonal = torch.zeros_like(balance)
        limits = now.limit[0] / now.limit[1]
        count = len(solver.mechanism.limits)
        for index, (dof, _) in enumerate(solver.mechanism.limits):
            diagonal[:, dof] += limits[:, index] + limits[:, count + index]
        rub = self._rub(torch.ones_like(balance[:, :1]), None)
        for index, (dof, _) in enumerate(solver.mechanism.rubbing):
            diagonal[:, dof] -= rub.b_y[0][0][:, index]
        self.factor = torch.linalg.lu_factor_ex(matrix + torch.diag_embed(diagonal))[:2]

    def _contact(self, kappa: Tensor, second: list[Tensor] | None) -> contact.ContactResponse:
        velocity = list(self.trial.velocity)
        return contact.contact_response(list(self.now.z), velocity, self.item.mu, kappa, second)

    def _rub(
        self, kappa: Tensor, second: tuple[Tensor, list[Tensor]] | None
    ) -> cones.SecondOrderResponse:
        b, e, y = self.now.rub
        return cones.second_order_response(self.item.friction_bound, [b], e, [y], kappa, second)

    def direction(
        self, kappa: Tensor, predictor: tuple[Tensor, Tensor, Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Increments of contacts, limits, joint friction and the velocity towards ``kappa``."""
        solver, now, item = self.solver, self.now, self.item
        second, limit_second, rub_second = None, torch.zeros_like(now.limit[0]), None
        if predictor is not None:
            da, la, ra, scale = predictor
            second = [scale * x for x in contact.contact_products(list(da))]
            limit_second = scale * la[0] * la[1]
            product = cones.second_order_product(torch.zeros_like(ra[0]), [ra[0]], ra[1], [ra[2]])
            rub_second = (scale * product[0], [scale * product[1][0]])
        response = self._contact(kappa, second)
        offset = torch.stack([x + torch.zeros_like(item.gap) for x in response.offset], dim=1)
        offset = torch.where(self.active[:, None], offset, 0.0)
        defect = now.limit[1] - self.trial.limit_velocity
        limit = cones.orthant_response(now.limit[0], now.limit[1], kappa, limit_second)
        limit_offset = limit.offset + limit.gain * defect
        rub = self._rub(kappa, rub_second)
        rub_defect = now.rub[2] - self.trial.slip
        rub_offset = rub.b_offset[0] - rub.b_y[0][0] * rub_defect
        right = torch.einsum("brci,brc->bi", item.impulse_rows, offset) - self.balance
        right = right + solver.joint_force(limit_offset, rub_offset, right)
        dv = torch.linalg.lu_solve(*self.factor, right[..., None])[..., 0]
        du = torch.einsum("brci,bi->rbc", self.trial.rows, dv)
        dz = torch.stack([x + torch.zeros_like(item.gap) for x in response.increments(list(du))])
        dz = torch.where(self.active, dz, 0.0)
        dofs = [dof for dof, _ in solver.mechanism.limits]
        rates = torch.cat([dv[:, dofs], -dv[:, dofs]], dim=-1)
        ds = rates - defect
        dl = torch.stack([limit.increment(ds), ds])
        dy = dv[:, [dof for dof, _ in solver.mechanism.rubbing]] - rub_defect
        de, db = rub.increments(torch.zeros_like(dy), [dy])
        dr = torch.stack([db[0], de, dy])
        return dz, dl, dr, dv

    def inverse_step(self, dz: Tensor, dl: Tensor, dr: Tensor) -> Tensor:
        """One over the longest step inside all cones (B,)."""
        now, bound = self.now, self.item.friction_bound
        parts = [torch.where(self.active, contact.contact_inverse_step(list(now.z), list(dz)), 0.0)]
        parts += [-dl[0] / now.limit[0], -dl[1] / now.limit[1]]
        b, e, y = now.rub
        zero = torch.zeros_like(b)
        parts += [
            cones.second_order_inverse_step(bound, [b], zero, [dr[0]], 1 / (bound**2 - b**2)),
            cones.second_order_inverse_step(e, [y], dr[1], [dr[2]], 1 / (e**2 - y**2)),
            torch.zeros_like(bound[:, :1]) if bound.shape[-1] else self.balance[:, :1] * 0,
        ]
        return torch.cat(parts, dim=-1).amax(-1)


def _blend(mask: Tensor, chosen: _Iterate, other: _Iterate) -> _Iterate:
    """``chosen`` where the mask holds, ``other`` elsewhere, per item."""
    return _Iterate(
        torch.where(mask[:, None], chosen.x, other.x),
        torch.where(mask[:, None], chosen.z, other.z),
        torch.where(mask[:, None], chosen.limit, other.limit),
        torch.where(mask[:, None], chosen.rub, other.rub),
    )
