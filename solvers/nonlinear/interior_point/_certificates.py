r"""Why a solve did not converge, found by solving two programs that always have a solution.

*Infeasible*: the least squares of the violation,
:math:`\min \tfrac12|Ax-b|^2 + \tfrac12|t|^2` so that :math:`h - Gx + t \in K`. If it is not zero,
its multipliers :math:`\lambda = (Ax - b, t)` satisfy :math:`A^\top\lambda_A + G^\top\lambda_G = 0`
and :math:`b^\top\lambda_A + h^\top\lambda_G < 0` (Farkas): no x satisfies all rows.

*Unbounded*: the direction nearest to steepest descent along which nothing else changes,
:math:`\min q^\top d + \tfrac12|d|^2` so that :math:`Qd = 0, Ad = 0, -Gd \in K`. If it is not zero,
the cost falls along it without end, from any point that satisfies the rows. Where there is none,
the program is infeasible, whatever its cost does.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from solvers.core import Status
from solvers.nonlinear.interior_point._program import ConeProgramData, SolvedPrograms

__all__ = ["diagnose"]

_VIOLATED = 1e-6
"""Length of the violation, relative to the right-hand side, that makes a program infeasible."""
_FALLING = 1e-5
"""Length of the direction, relative to the slope, from which one counts as unbounded."""
_DISTANCE = 1e5
"""Distance within which no point satisfies all rows, relative to the least-squares point."""
_UNEXPLAINED = (Status.MAX_ITERATIONS, Status.STALLED, Status.BREAKDOWN)
_QUESTIONED = (*_UNEXPLAINED, Status.UNBOUNDED)


def diagnose(solved: SolvedPrograms, solve: Callable[[ConeProgramData], SolvedPrograms]) -> Tensor:
    """Replace statuses without an explanation where a certificate explains them.

    What the iteration found to be unbounded is infeasible if its rows contradict each other.

    Args:
        solved: The programs and how their solves ended.
        solve: Solves a batch of programs.

    Returns:
        Status of each item.
    """
    status = solved.status
    items = _is_one_of(status, _QUESTIONED).nonzero()[:, 0]
    if not len(items):
        return status
    found = status[items]
    unexplained = _is_one_of(found, _UNEXPLAINED)
    if bool(unexplained.any()):
        falls = _falls(solved.data.select(items[unexplained]), solve)
        found[unexplained] = torch.where(falls, int(Status.UNBOUNDED), found[unexplained])
    contradicts = _contradicts(solved.data.select(items), solve)
    found = torch.where(contradicts, int(Status.INFEASIBLE), found)
    return status.index_put((items,), found)


def _is_one_of(status: Tensor, values: tuple[Status, ...]) -> Tensor:
    return (status[:, None] == status.new_tensor(values)).any(1)


def _contradicts(
    data: ConeProgramData, solve: Callable[[ConeProgramData], SolvedPrograms]
) -> Tensor:
    n, p, m, batch = data.sizes
    if p + m == 0:
        return torch.zeros(batch, dtype=torch.bool, device=data.q.device)
    A, b = _unit_rows(data.A.expand(batch, p, n), data.b.expand(batch, p), ())
    G, h = _unit_rows(data.G.expand(batch, m, n), data.h.expand(batch, m), data.cones)
    Q = A.new_zeros(batch, n + m, n + m)
    Q[:, :n, :n] = A.mT @ A
    Q[:, n:, n:] = torch.eye(m, dtype=A.dtype, device=A.device)
    q = torch.cat([-(A.mT @ b[..., None])[..., 0], A.new_zeros(batch, m)], 1)
    slack = -torch.eye(m, dtype=A.dtype, device=A.device).expand(batch, m, m)
    none = A.new_zeros(0, n + m), A.new_zeros(0)
    elastic = ConeProgramData(Q, q, torch.cat([G, slack], 2), h, *none, data.cones, batch)
    found = solve(elastic)
    # Whatever the status of this solve, the proof is checked by itself.
    x, z = found.x[:, :n], found.z
    y = (A @ x[..., None])[..., 0] - b
    rest = (A.mT @ y[..., None] + G.mT @ z[..., None])[..., 0].abs().amax(-1)
    gain = -(b * y).sum(-1) - (h * z).sum(-1)
    size = 1.0 + torch.cat([b, h], 1).abs().amax(1)
    is_proof: Tensor = gain > _DISTANCE * rest * (1.0 + x.abs().amax(-1))
    return is_proof & (gain.clamp(min=0.0).sqrt() > _VIOLATED * size)


def _falls(data: ConeProgramData, solve: Callable[[ConeProgramData], SolvedPrograms]) -> Tensor:
    n, p, m, batch = data.sizes
    slope = data.q.expand(batch, n)
    size = slope.norm(dim=-1)
    q = slope / torch.where(size > 0, size, 1.0)[:, None]
    symmetric = (data.Q + data.Q.mT) / 2.0
    A = torch.cat([symmetric.expand(batch, n, n), data.A.expand(batch, p, n)], 1)
    identity = torch.eye(n, dtype=A.dtype, device=A.device)
    ray = ConeProgramData(
        identity, q, data.G, q.new_zeros(m), A, q.new_zeros(n + p), data.cones, batch
    )
    found = solve(ray)
    falls: Tensor = found.x.norm(dim=-1) > _FALLING
    return falls & (found.status == Status.CONVERGED)


def _unit_rows(rows: Tensor, right: Tensor, cones: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Rows of length one; those of a second-order cone keep one length."""
    length = rows.norm(dim=-1)
    start = length.shape[-1] - sum(cones)
    for size in cones:
        length[..., start : start + size] = length[..., start : start + size].amax(-1, keepdim=True)
        start += size
    scale = torch.where(length > 0, 1.0 / length, 1.0)
    return scale[..., None] * rows, scale * right
