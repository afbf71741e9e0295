"""The interior point in torch: the oracle of the native text, its documentation, and the GPU path.

Each step follows Mehrotra's predictor and corrector with the symmetric scaling of Nesterov and
Todd; equalities are rows of a large constant weight (an augmented Lagrangian), so that one
Cholesky factor of ``Q + R' W^-2 R`` serves every step. Near the solution Newton's method on the
projection equation ``s = P(s - z)`` takes over, finds the exact active set and leaves the factor
that the adjoint needs.

References: Mehrotra 1992, "On the implementation of a primal-dual interior point method";
Vandenberghe 2010, "The CVXOPT linear and quadratic cone program solvers"; Kanzow, Ferenczi &
Fukushima 2009, "On the local convergence of semismooth Newton methods for linear and nonlinear
second-order cone programs without strict complementarity".
"""

from __future__ import annotations

import torch
from torch import Tensor

from solvers.core import Status
from solvers.nonlinear.interior_point._native import CONSTANTS, PATIENCE, POLISH_ROUNDS
from solvers.nonlinear.interior_point._program import ConeProgramData, SolvedPrograms
from solvers.nonlinear.interior_point._rows import Rows

__all__ = ["ReferenceInteriorPoint"]

_SHIFT = CONSTANTS["SHIFT"]


class ReferenceInteriorPoint(SolvedPrograms):
    """A batch solved in torch, with what its adjoint needs.

    Args:
        data: The programs, float64, on any device.
        max_iterations: Steps at most.
    """

    def __init__(self, data: ConeProgramData, *, max_iterations: int):
        _, p, m, batch = data.sizes
        self.data = data
        self._rows = Rows(p, p + m, data.cones, data.q)
        self._equilibrate(data, batch)
        self._active: list[Tensor] | None = None
        self._factor = self._q.new_zeros(0)
        if batch:
            x, s, z, status, iterations, residual = self._solve(max_iterations)
        else:
            x, s, z = self._q, self._h, self._h
            status = iterations = torch.zeros(0, dtype=torch.int64, device=x.device)
            residual = x.new_zeros(0)
        lost = (status == Status.NON_FINITE)[:, None]
        self.x, s, z = (a.masked_fill(lost, 0.0) for a in (x, s, z))
        self._slacks, self._duals = s / self._scale, z * self._scale / self._cost
        self.status, self.iterations = status, iterations
        self.residual = residual.masked_fill(lost[:, 0], torch.nan)
        self._good = (status == Status.CONVERGED)[:, None]
        self.has_failures = not bool(self._good.all())

    @property
    def y(self) -> Tensor:
        """Multipliers of the equalities."""
        return self._duals[:, : self._rows.p]

    @property
    def z(self) -> Tensor:
        """Multipliers of the cones."""
        return self._duals[:, self._rows.p :]

    @property
    def s(self) -> Tensor:
        """Slacks ``h - Gx``."""
        return self._slacks[:, self._rows.p :]

    def adjoint(self, cotangent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Solve the linearised optimality conditions with ``cotangent`` on the right."""
        rows, p = self._rows, self._rows.p
        g = cotangent * self._cost
        u, w = torch.zeros_like(g), torch.zeros_like(self._h)
        if self._active is not None:
            for _ in range(2):
                t = _times(self._R, -u)
                t[..., rows.flat :] = 0.0
                du, dw = self._newton(-(g + _times(self._K, u) + _times(self._R.mT, w)), t)
                u, w = u + du, w + dw
        u, w = (a.where(self._good, 0.0) for a in (u, w * self._scale / self._cost))
        return u, -w[:, p:], -w[:, :p]

    def _equilibrate(self, data: ConeProgramData, batch: int) -> None:
        """Rows to length one (a cone keeps one length), cost to a Hessian of size one."""
        n = data.sizes[0]
        Q, q = data.Q.expand(batch, n, n), data.q.expand(batch, n)
        R = torch.cat([data.A.expand(batch, -1, n), data.G.expand(batch, -1, n)], 1)
        h = torch.cat([data.b.expand(batch, -1), data.h.expand(batch, -1)], 1)
        size, slope = Q.abs().flatten(1).amax(1), q.abs().amax(1)
        unit = torch.where(size > 0, size, torch.where(slope > 0, slope, 1.0))
        self._cost = 1.0 / unit[:, None]
        # Weight of active rows; multipliers are of the size of the slope.
        self._penalty = CONSTANTS["PENALTY"] * (0.1 * slope[:, None] * self._cost).clamp(min=1.0)
        length = R.norm(dim=-1)
        for place, (own,) in self._rows.blocks(length):
            length[..., place] = own.amax(-1, keepdim=True).expand_as(own).flatten(-2)
        self._scale = torch.where(length > 0, 1.0 / length, 1.0)
        self._is_curved = size > 0
        self._K = self._cost[:, :, None] * (Q + Q.mT) / 2.0
        self._q = self._cost * q
        self._R, self._h = self._scale[:, :, None] * R, self._scale * h

    def _solve(self, max_iterations: int) -> tuple[Tensor, ...]:
        rows, K, R, q, h = self._rows, self._K, self._R, self._q, self._h
        x, s, z = self._start()
        batch, device = len(q), q.device
        is_bent = self._is_bent()
        status = torch.full((batch,), int(Status.MAX_ITERATIONS), device=device)
        iterations = torch.zeros_like(status)
        residual = q.new_full((batch,), torch.inf)
        done = torch.zeros(batch, dtype=torch.bool, device=device)
        following = 0
        is_smooth = rows.runs and rows.flat == rows.p
        from_here = CONSTANTS["NEAR_CONES" if is_smooth else "NEAR"]
        for count in range(max_iterations + 1):
            Kx, Rtz, Rx = _times(K, x), _times(R.mT, z), _times(R, x)
            rd, rp = Kx + Rtz + q, Rx + s - h
            size = self._cost_size(x, Kx)
            mu = (s * z).sum(-1) / max(rows.degree, 1) if rows.degree else q.new_zeros(batch)
            error = torch.maximum(self._error(rd, rp, size), mu / size)
            live = ~done
            residual = torch.where(live, error, residual)
            ended = self._certificates(x, z, Kx, Rtz, Rx)
            ended = ended.masked_fill(~error.isfinite(), int(Status.NON_FINITE))
            ended = ended.masked_fill((ended == 0) & is_bent, int(Status.BREAKDOWN))
            exact = (ended == 0) & (error < CONSTANTS["EXACT"])
            ended = ended.masked_fill(exact, int(Status.STALLED))
            status = torch.where(live & (ended != 0), ended, status)
            done = done | (ended != 0)
            last = bool(done.all()) or count == max_iterations
            is_open = ~done | (status == Status.STALLED)
            near = bool((done | (error < from_here)).all())
            near = near or bool((~done & (error < CONSTANTS["NEARER"])).any())
            if bool(is_open.any()) and (last or (near and count >= following)):
                kx, ks, kz, reached, good = self._polish(x, s, z, is_open)
                x, s, z = _take(good, kx, x), _take(good, ks, s), _take(good, kz, z)
                status = status.masked_fill(good, int(Status.CONVERGED))
                residual, done = torch.where(good, reached, residual), done | good
                following = count + 2
            if last or bool(done.all()):
                break
            dx, ds, dz, length = self._step(s, z, rd, rp, mu)
            broken = ~done & ~((dx.sum(-1) + dz.sum(-1)).isfinite() & (length > 1e-9))
            stalled = torch.where(error < CONSTANTS["CLOSE"], Status.STALLED, Status.BREAKDOWN)
            status = torch.where(broken, stalled, status)
            live = ~done & ~broken
            iterations = iterations + (~done)
            done = done | broken
            step = length[:, None]
            x, s, z = (_take(live, a + step * d, a) for a, d in ((x, dx), (s, ds), (z, dz)))
            if count >= PATIENCE:
                proven = ~done & self._growth_contradicts(x, dz)
                status, done = status.masked_fill(proven, int(Status.INFEASIBLE)), done | proven
        return x, s, z, status, iterations, residual

    def _is_bent(self) -> Tensor:
        """Whether the cost curves downwards along a direction."""
        n = self._K.shape[-1]
        shift = n * CONSTANTS["DOWNWARD"] * torch.eye(n, dtype=self._K.dtype, device=self._K.device)
        failed: Tensor = torch.linalg.cholesky_ex(self._K + shift)[1] != 0
        return failed

    def _start(self) -> tuple[Tensor, Tensor, Tensor]:
        """Least squares with all rows active, moved into the cones."""
        rows, h, R = self._rows, self._h, self._R
        weight = torch.where(rows.is_cone, 1.0, self._penalty)
        factor = self._cholesky(R.mT @ (weight[..., None] * R))
        x = _solve(factor, -self._q + _times(R.mT, weight * h))
        v = weight * (h - _times(R, x))
        s, z = v * rows.is_cone, -v
        if rows.degree:
            for a in (s, z):
                low = rows.smallest(a)[:, None]
                a += torch.where(low > 1e-8, 0.0, 1.0 - low) * rows.unit
        return x, s, z

    def _step(
        self, s: Tensor, z: Tensor, rd: Tensor, rp: Tensor, mu: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mehrotra's predictor and corrector, in the scaled space."""
        rows, R = self._rows, self._R
        inverse = rows.scaling(s, z, self._penalty.sqrt())
        scaled = rows.apply(inverse, R)
        factor = self._cholesky(scaled.mT @ scaled)
        point = _solve_blocks(rows, inverse, z) * rows.is_cone
        rp = rows.apply(inverse, rp)
        pull = point
        length = torch.ones_like(mu)
        for phase in range(2 if rows.degree else 1):
            dx = _solve(factor, -rd + _times(scaled.mT, pull - rp))
            dz = _times(scaled, dx) - (pull - rp)
            ds = (-pull - dz) * rows.is_cone
            if not rows.degree:
                break
            longest = torch.maximum(rows.inverse_step(point, ds), rows.inverse_step(point, dz))
            if phase == 0:
                first = (1.0 / longest.clamp(min=1.0))[:, None]
                ahead = (point + first * ds) * (point + first * dz)
                left = ((ahead * rows.is_cone).sum(-1) / (mu * rows.degree)).clamp(min=0.0)
                target = (mu * left**3)[:, None] * rows.unit
                pull = point + rows.divide(rows.product(ds, dz) - target, point)
            length = (CONSTANTS["TO_THE_BOUNDARY"] / longest.clamp(min=1e-30)).clamp(max=1.0)
        return dx, _solve_blocks(rows, inverse, ds), rows.apply(inverse, dz), length

    def _polish(
        self, x: Tensor, s: Tensor, z: Tensor, wanted: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Newton's method on ``s = P(s - z)``; last, which items it solved."""
        rows, before = self._rows, self._active
        kept, previous = self._factor, x.new_tensor(torch.inf)
        size = self._cost_size(x, _times(self._K, x))
        for count in range(POLISH_ROUNDS + 1):
            v = s - z
            s = rows.project(v)
            z = s - v
            rd = -(_times(self._K, x) + _times(self._R.mT, z) + self._q)
            t = self._h - _times(self._R, x) - s
            error = self._error(rd, t, size)
            good = error < CONSTANTS["POLISHED"]
            idle = ~wanted | (error < CONSTANTS["POLISH_FLOOR"])
            if count == POLISH_ROUNDS or bool((idle | (good & (error > 0.5 * previous))).all()):
                break
            previous = error
            self._linearise(v)
            dx, dz = self._newton(rd, t)
            ds = (t - _times(self._R, dx)) * rows.is_cone
            x, s, z = x + dx, s + ds, z + dz
        good &= wanted
        self._linearise(v)
        assert self._active is not None
        if before is not None:
            self._active = [_take(good, a, b) for a, b in zip(self._active, before, strict=True)]
            self._factor = _take(good, self._factor, kept)
        return x, s, z, error, good

    def _linearise(self, v: Tensor) -> None:
        self._active = self._rows.active(v, self._penalty)
        self._factor = self._cholesky(self._R.mT @ self._rows.apply(self._active, self._R))

    def _newton(self, rd: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        assert self._active is not None
        rows, active = self._rows, self._active
        dx = _solve(self._factor, rd + _times(self._R.mT, rows.apply(active, t)))
        return dx, rows.apply(active, _times(self._R, dx) - t)

    def _certificates(self, x: Tensor, z: Tensor, Kx: Tensor, Rtz: Tensor, Rx: Tensor) -> Tensor:
        """Status of proven items, 0 for the others.

        A feasible point would be further than 1e8 away, or a ray along which the cost falls.
        """
        rows = self._rows
        ended = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        fall = -(self._q * x).sum(-1)
        equal = (Rx.abs() * ~rows.is_cone).sum(-1) if rows.p else torch.zeros_like(fall)
        outside = torch.maximum(-rows.smallest(-Rx), equal)
        far = CONSTANTS["FAR"] * _max(self._q).clamp(min=1.0)
        falls = (fall > 0) & (far * torch.maximum(_max(Kx), outside) < fall)
        gain = -(self._h * z).sum(-1)
        contradicts = (gain > 0) & (_max(Rtz) * CONSTANTS["FAR"] * (1.0 + _max(x)) < gain)
        ended = ended.masked_fill(falls, int(Status.UNBOUNDED))
        return ended.masked_fill(contradicts, int(Status.INFEASIBLE))

    def _growth_contradicts(self, x: Tensor, dz: Tensor) -> Tensor:
        """Whether the multipliers grow along a proof that no point satisfies all rows."""
        rows = self._rows
        growth = dz.clamp(min=0.0).where(rows.is_orthant, dz * ~rows.is_cone)
        gain = -(self._h * growth).sum(-1)
        slope = _max(_times(self._R.mT, growth))
        return (gain > 0) & (slope * CONSTANTS["FAR"] * (1.0 + _max(x)) < gain)

    def _cost_size(self, x: Tensor, Kx: Tensor) -> Tensor:
        rounded = CONSTANTS["ROUNDED"] * _max(x) * self._is_curved
        size = torch.maximum(torch.maximum(_max(self._q), _max(Kx)), rounded)
        return torch.where(size > 0, size, 1.0)

    def _error(self, rd: Tensor, rp: Tensor, size: Tensor) -> Tensor:
        return torch.maximum(_max(rd) / size, _max(rp / (1.0 + self._h.abs())))

    def _cholesky(self, gram: Tensor) -> Tensor:
        identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
        matrix = self._K + gram + _SHIFT * identity
        is_finite = matrix.isfinite().flatten(1).all(1)[:, None, None]
        matrix = torch.where(is_finite, matrix, identity)
        factor, failed = torch.linalg.cholesky_ex(matrix)
        shifted = matrix + 1e-9 * matrix.diagonal(dim1=1, dim2=2).amax(1)[:, None, None] * identity
        if bool((failed != 0).any()):
            factor = _take(failed == 0, factor, torch.linalg.cholesky_ex(shifted)[0])
        return torch.where(is_finite, factor, torch.nan)


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector[..., None])[..., 0]


def _solve(factor: Tensor, right: Tensor) -> Tensor:
    return torch.cholesky_solve(right[..., None], factor)[..., 0]


def _solve_blocks(rows: Rows, parts: list[Tensor], a: Tensor) -> Tensor:
    """``W a`` from the parts of ``W^-1``; only cone rows mean something.

    Where an item has ended on the boundary of a cone there is no W, and what it gets is not used.
    """
    return rows.apply([1.0 / parts[0], *(torch.linalg.inv_ex(part)[0] for part in parts[1:])], a)


def _max(a: Tensor) -> Tensor:
    return a.abs().amax(-1) if a.shape[-1] else a.new_zeros(a.shape[:-1])


def _take(chosen: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(chosen.reshape(-1, *(1,) * (a.ndim - 1)), a, b)
