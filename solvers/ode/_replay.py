"""The same steps again, with a graph: the derivative of what was computed, step by step.

The lengths of steps are fixed numbers here, so that rejected trials and the control of the step
leave no trace in the derivative. Rows in which an item took no step have length zero and are the
identity for it. A failed item takes no step at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from solvers.ode._explicit import Rate, Step
from solvers.ode._outputs import Outputs
from solvers.ode._search import Path

__all__ = ["Keep", "replay"]

Keep = Literal["steps", "states"]


def replay(
    rate: Rate,
    y: Tensor,
    times: Tensor,
    paths: Sequence[Path],
    *,
    keep: Keep,
    resting: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Take the steps of a search again.

    Args:
        rate: Right-hand side.
        y: States at the start ``(B, n)``.
        times: Times asked for ``(T, B)``.
        paths: Steps, in order.
        keep: ``"steps"`` keeps all intermediate numbers for the backward pass, ``"states"`` only
            the states between steps, and computes each step once more.
        resting: Which items take no step, ``(B,)``, and the times at which they rest.

    Returns:
        States at the end ``(B, n)`` and the collector's states ``(T, B, n)``.
    """
    start, outputs = y, Outputs(times)
    begin = times[0] if resting is None else torch.where(*resting, times[0])
    first = rate(begin, y)
    for path in paths:
        packed = _compress(path if resting is None else _without(path, *resting))
        for k in range(len(packed.step)):
            t, h, end = packed.start[k], packed.step[k], packed.end[k]
            stages = packed.stages[k]

            def advance(
                y: Tensor,
                first: Tensor,
                t: Tensor = t,
                h: Tensor = h,
                stages: Tensor | None = stages,
                path: Path = packed,
            ) -> tuple[Tensor, Tensor, Tensor]:
                step = path.method.step(rate, t, h, y, first, stages)
                moves = (h != 0)[:, None]
                return (
                    torch.where(moves, step.end, y),
                    torch.where(moves, step.rate, first),
                    step.stages,
                )

            if keep == "states":
                after, slope, inner = checkpoint(advance, y, first, use_reentrant=False)
            else:
                after, slope, inner = advance(y, first)
            whole = Step(
                start=y, end=after, error=y, rate=slope, stages=inner,
                stiffness=h, is_solved=h != 0,
            )  # fmt: skip
            outputs.add(packed.method, whole, t, h, end)
            y, first = after, slope
    return y, outputs.fill(start, y)


def _without(path: Path, resting: Tensor, times: Tensor) -> Path:
    """The path on which some items stay where they are."""
    return replace(
        path,
        start=torch.where(resting, times, path.start),
        step=torch.where(resting, 0.0, path.step),
        end=torch.where(resting, times, path.end),
    )


def _compress(path: Path) -> Path:
    """Push each item's steps together, so that there are no more rows than the most steps."""
    if not len(path.step):
        return path
    taken = path.step != 0
    # A stable sort by "was not taken" moves the steps of an item to the front, in order.
    order = torch.sort((~taken).to(torch.int8), dim=0, stable=True).indices
    order = order[: int(taken.sum(0).max())]
    stages: list[Tensor | None] = [None] * len(order)
    if path.method.is_implicit:
        stacked = torch.stack([s for s in path.stages if s is not None])
        columns = torch.arange(order.shape[1], device=order.device)
        moved = taken.gather(0, order)
        stages = [
            torch.where(moved[k][:, None, None], stacked[order[k], columns], 0.0)
            for k in range(len(order))
        ]
    step = path.step.gather(0, order)
    end = path.end.gather(0, order)
    # An item that is through rests at the end of its last step.
    rest = path.end[-1].expand_as(end)
    start = torch.where(step != 0, path.start.gather(0, order), rest)
    return Path(
        method=path.method,
        start=start,
        step=step,
        end=torch.where(step != 0, end, rest),
        stages=stages,
    )
