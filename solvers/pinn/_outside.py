"""Points where a field was not trained, and a warning of them."""

from __future__ import annotations

import warnings

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from solvers.core import NumericalWarning
from solvers.pde import Box, Domain, Problem

__all__ = ["is_outside", "warn_outside"]

_ROUNDING = 1e-6
"""Part of its extent by which a point may be off: coordinates may come from float32."""


def is_outside(problem: Problem, points: Float[Tensor, "N D"]) -> Bool[Tensor, " N"]:
    """Tell which points are off the domain by more than rounding.

    Along an axis on which all fields are periodic, every point is inside.

    Args:
        problem: The problem.
        points: One point per row.

    Returns:
        One truth value per point.
    """
    domain = problem.domain
    points = points.detach()
    lower, upper = domain.lower.to(points), domain.upper.to(points)
    slack = _ROUNDING * (upper - lower)
    beyond = ~((points >= lower - slack) & (points <= upper + slack))
    for axis in set.intersection(*(set(problem.periodic_axes(name)) for name in problem.fields)):
        beyond[:, domain.axis(axis)] = False
    outside = beyond.any(1)
    if isinstance(domain, Box):
        return outside
    doubtful = (~outside).nonzero()[:, 0]
    doubtful = doubtful[~_touches(domain, points[doubtful], slack)]
    return outside.index_fill(0, doubtful, True)


def _touches(domain: Domain, points: Tensor, slack: Tensor) -> Tensor:
    """Whether a point, or one beside it along an axis, is in a domain."""
    near = domain.contains(points)
    for shift in torch.cat([torch.diag(slack), -torch.diag(slack)]):
        rest = (~near).nonzero()[:, 0]
        near[rest] = domain.contains(points[rest] + shift)
    return near


def warn_outside(problem: Problem, points: Tensor, outside: Tensor, *, stacklevel: int) -> None:
    """Warn that values at some points are extrapolated; say nothing if there are none.

    Args:
        problem: The problem.
        points: One point per row.
        outside: Which of them the field was not trained at.
        stacklevel: As in `warnings.warn`, seen from the caller.
    """
    count = int(outside.sum())
    if not count:
        return
    first = points.detach()[outside][0].tolist()
    place = ", ".join(f"{a}={c:g}" for a, c in zip(problem.domain.axes, first, strict=True))
    warnings.warn(
        f"{problem.name}: {count} of {len(points)} points are where the field was not trained, as "
        f"{place}; its values there mean nothing. Stay within {problem.domain!r}, or train on a "
        "larger domain",
        NumericalWarning,
        stacklevel=stacklevel + 1,
    )
