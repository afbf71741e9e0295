"""How a solve ended, one number per batch item."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import torch
from jaxtyping import Int
from torch import Tensor

__all__ = ["Status", "combine_status", "count_status", "full_status"]


class Status(IntEnum):
    """The end of a solve for one batch item.

    The numbers are stable: compiled kernels write them and files store them. A solve that reaches
    its tolerance through a fallback (a halved step, another factorisation) is ``CONVERGED``; how
    often it fell back is a count in the report.

    Attributes:
        advice: What the status means and what to try, one sentence each.
    """

    CONVERGED = 0
    MAX_ITERATIONS = 1
    STALLED = 2
    NON_FINITE = 3
    INFEASIBLE = 4
    UNBOUNDED = 5
    BREAKDOWN = 6
    STIFF = 7

    @property
    def advice(self) -> str:
        """What the status means and what to try."""
        return _ADVICE[self]


_ADVICE = {
    Status.CONVERGED: "The tolerance is met. Nothing to do.",
    Status.MAX_ITERATIONS: (
        "The iteration limit came before the tolerance. Raise the limit, loosen rtol or atol, "
        "start from a better guess, or use a stronger preconditioner."
    ),
    Status.STALLED: (
        "The residual stopped falling above the tolerance, usually at the rounding floor of "
        "an ill-conditioned problem. Scale the problem, use float64, add regularisation, or "
        "loosen the tolerance."
    ),
    Status.NON_FINITE: (
        "A NaN or infinity appeared. Check the inputs for NaN, shorten the step, and look for "
        "division by zero or the square root of zero."
    ),
    Status.INFEASIBLE: (
        "No point satisfies all constraints. Look for contradicting bounds or equalities, or "
        "turn hard constraints into penalties with a slack variable."
    ),
    Status.UNBOUNDED: (
        "The objective falls without end. Add bounds or a positive definite quadratic term, "
        "and check signs."
    ),
    Status.BREAKDOWN: (
        "The method divided by zero or met a singular or indefinite matrix. Check that the "
        "operator has the symmetry and definiteness that the method needs, or use a method "
        "that needs less."
    ),
    Status.STIFF: (
        "Time steps became too short or too many: the problem is stiff for an explicit method, or "
        "the solution runs into a singularity. Use an implicit method (radau5 or auto), float64 "
        "and a looser tolerance; if it fails too, look for a finite-time blow-up."
    ),
}


def full_status(
    shape: Sequence[int],
    status: Status = Status.CONVERGED,
    *,
    device: torch.device | str | None = None,
) -> Int[Tensor, "..."]:
    """Make a status tensor that holds one value.

    Args:
        shape: Batch shape, for example ``(B,)``.
        status: The value of every item.
        device: Where the tensor lives; the CPU by default.

    Returns:
        Tensor of int64 of the given shape.
    """
    return torch.full(tuple(shape), int(status), dtype=torch.int64, device=device)


def combine_status(first: Int[Tensor, "..."], second: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
    """Combine two stages of one solve: an item keeps the first status that is not ``CONVERGED``.

    Args:
        first: Status of the earlier stage, any shape.
        second: Status of the later stage, a shape that broadcasts with ``first``.

    Returns:
        Status of both stages together.
    """
    return torch.where(first != Status.CONVERGED, first, second)


def count_status(status: Int[Tensor, "..."]) -> dict[Status, int]:
    """Count the items of each status that occurs.

    Args:
        status: Status per item, any shape.

    Returns:
        Number of items by status, in the order of the enum, without those that do not occur.

    Raises:
        ValueError: If a number is not a :class:`Status`.

    Example:
        >>> count_status(torch.tensor([0, 1, 0]))
        {<Status.CONVERGED: 0>: 2, <Status.MAX_ITERATIONS: 1>: 1}
    """
    values, counts = torch.unique(status, return_counts=True)
    return {Status(int(v)): int(c) for v, c in zip(values, counts, strict=True)}
