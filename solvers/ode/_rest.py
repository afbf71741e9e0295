"""Where items that failed may be evaluated while the others are differentiated.

The rate of a whole batch is one call, so a failed item takes part in the graph, and zero times an
infinite derivative is NaN: in a parameter that all items share it would spoil the good ones. A
failed item therefore rests where everything is finite, and passes no gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor

from solvers.ode._explicit import Rate

__all__ = ["resting_points"]


def resting_points(rate: Rate, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor] | None:
    """Find a point for every item at which its rate has a finite value and derivative.

    Args:
        rate: Right-hand side, items apart.
        t: Start times ``(B,)``.
        y: States at the start ``(B, ...)``.

    Returns:
        Times and states without graph: those of the item, or of the first item that has such a
        point; None if no item has one.
    """
    with torch.enable_grad():
        where = y.detach().requires_grad_()
        slope = rate(t, where)
        pull = torch.zeros_like(where)
        if slope.requires_grad:
            (pull,) = torch.autograd.grad(slope.sum(), where, materialize_grads=True)
    numbers = torch.stack([where.detach(), slope.detach(), pull]).transpose(0, 1).flatten(1)
    is_fit = torch.isfinite(numbers).all(1)
    if not bool(is_fit.any()):
        return None
    own = torch.arange(len(y), device=y.device)
    source = torch.where(is_fit, own, is_fit.to(torch.int8).argmax())
    return t[source], y.detach()[source]
