"""Where strong and weak couplings meet in many rows: what geometric coarse cells cannot serve."""

from __future__ import annotations

import torch
from torch import Tensor

from solvers.linear.operators._poisson import PoissonOperator

__all__ = ["TORN", "TORN_PART", "is_torn"]

TORN = 1e5
"""Quotient of the strongest and the weakest coupling of a row from which it counts as torn."""

TORN_PART = 0.15
"""Part of the rows that are torn from which a system does."""


def is_torn(operator: PoissonOperator) -> bool:
    """Whether strong and weak couplings meet in many cells, as `choose_rule` asks of all rows.

    Geometric coarse cells then join what does not belong together, everywhere. Some eight planes
    stand for the grid.

    Args:
        operator: One system.
    """
    size = operator.domain[0]
    step = max(1, size // 8)
    seen = [coupling.detach()[1 : size - 1 : step] for coupling in operator.couplings]
    if not any(c.numel() for c in seen):
        return False
    most = max(float(c.max()) for c in seen if c.numel())
    least = min(float(torch.where(c > 0, c, torch.inf).min()) for c in seen if c.numel())
    if not most > TORN * least:
        return False
    planes = torch.arange(1, size - 1, step, device=operator.device)
    shape = (len(planes), *operator.domain[1:])
    strongest = torch.zeros(shape, dtype=operator.dtype, device=operator.device)
    weakest = torch.full_like(strongest, torch.inf)
    for axis, coupling in enumerate(operator.couplings):
        c = coupling.detach()
        sides = (c[planes - 1], c[planes])
        for side in sides if axis == 0 else _both_sides(sides[1], axis, shape[axis]):
            strongest = torch.maximum(strongest, side)
            weakest = torch.minimum(weakest, torch.where(side > 0, side, torch.inf))
    is_row = strongest > 0
    torn = (strongest > TORN * weakest) & is_row
    return int(torn.sum()) > TORN_PART * int(is_row.sum())


def _both_sides(c: Tensor, axis: int, size: int) -> tuple[Tensor, Tensor]:
    """Couplings of every cell to the one before and the one behind it, zero where there is none."""
    if c.shape[axis] == size:
        return c.roll(1, axis), c
    nothing = c.new_zeros([*c.shape[:axis], 1, *c.shape[axis + 1 :]])
    return torch.cat([nothing, c], axis), torch.cat([c, nothing], axis)
