"""Solved steps as the adjoint reads them, and steps that were taken in parts, taken again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from physim.dynamics._advance import Smoothing
from physim.dynamics._assembly import StepData
from solvers.core import Status

if TYPE_CHECKING:
    from physim.dynamics._kernel import KernelSolver

OUTCOME = ("status", "parts", "gradient_solved")
"""Columns of a step's report that its adjoint reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Steps that were taken in parts, one row per part.

    Attributes:
        place: First row of a step (T, B), int32; -1 for a step in one piece.
        q: Configurations before (R, nq).
        v: Velocities before (R, nv).
        after: Configurations after (R, nq).
        soft: Solutions that gradients belong to (R, nq).
        impulses: Impulses there (R, w), read if the gradient is exact.
        solved: 1 where state and gradient are solved (R,).
    """

    place: Tensor
    q: Tensor
    v: Tensor
    after: Tensor
    soft: Tensor
    impulses: Tensor
    solved: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """Solved steps, time first: what the adjoint reads.

    Attributes:
        q: States before, between and after (T + 1, B, nq).
        v: Their velocities (T + 1, B, nv).
        interval: Lengths of the intervals that ended there (T + 1, B).
        control: Controls (T, B, nu).
        outcome: `OUTCOME` of every step (T, B, 3).
        soft: Solutions that gradients belong to (T, B, nq).
        impulses: Impulses (T, B, w), read if the gradient is exact.
        parts: Steps in parts, if any.
    """

    q: Tensor
    v: Tensor
    interval: Tensor
    control: Tensor
    outcome: Tensor
    soft: Tensor
    impulses: Tensor | None = None
    parts: Parts | None = None


def retake_parts(
    solver: KernelSolver, data: StepData, steps: Steps, smoothing: Smoothing
) -> Parts | None:
    """Take the steps that were taken in parts again, part by part, with their gradients.

    Args:
        solver: The compiled step.
        data: What holds for all steps: external force, time step and numbers.
        steps: The solved steps.
        smoothing: That of a whole step.

    Returns:
        Rows of the parts; None if all steps are in one piece.
    """
    status, counts, _ = steps.outcome.unbind(-1)
    is_cut = (counts > 1.5) & (status == int(Status.CONVERGED))
    if not bool(is_cut.any()):
        return None
    place = torch.full(counts.shape, -1, dtype=torch.int32)
    rows: list[list[Tensor]] = []
    total = 0
    for count in (round(x) for x in counts[is_cut].unique().tolist()):
        at = (is_cut & (counts == count)).nonzero(as_tuple=True)
        size, item = len(at[0]), at[1]
        is_shared = data.numbers.stride(0) == 0
        start = StepData(
            q=steps.q[at],
            v=steps.v[at],
            control=steps.control[at],
            force=data.force[item],
            past_timestep=steps.interval[at],
            timestep=data.timestep[item] / count,
            numbers=data.numbers[:1].expand(size, -1) if is_shared else data.numbers[item],
        )
        done = solver.advance(
            start,
            smoothing.share(count),
            controls=start.control.expand(count, -1, -1),
            keep_impulses=smoothing.followed == 0.0,
        )
        good = (done.status() == Status.CONVERGED) & (done.column("gradient_solved") > 0.5)
        found = (
            torch.cat([start.q[None], done.q[:-1]]),
            torch.cat([start.v[None], done.v[:-1]]),
            done.q,
            done.q if done.soft is None else done.soft,
            done.q.new_zeros(count, size, 1) if done.path is None else done.path,
            good.double()[..., None],
        )
        rows.append([y.transpose(0, 1).flatten(0, 1) for y in found])
        place[at] = total + count * torch.arange(size, dtype=torch.int32)
        total += count * size
    q, v, after, soft_q, impulses, solved = (
        torch.cat(column) for column in zip(*rows, strict=True)
    )
    return Parts(place=place, q=q, v=v, after=after, soft=soft_q, impulses=impulses, solved=solved)
