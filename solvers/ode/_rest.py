"""Where items that failed may be evaluated while the others are differentiated.

The rate of a whole batch is one call, so a failed item takes part in the graph, and zero times an
infinite derivative is NaN: in a parameter that all items share it would spoil the good ones. A
failed item therefore rests where everything is finite, and passes no gradient.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from solvers.ode._explicit import Rate

__all__ = ["resting_points", "value_and_pull"]


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
    slope, pull = value_and_pull(rate, t, y)
    numbers = torch.stack([y.detach(), slope, pull]).transpose(0, 1).flatten(1)
    is_fit = torch.isfinite(numbers).all(1)
    if not bool(is_fit.any()):
        return None
    own = torch.arange(len(y), device=y.device)
    source = torch.where(is_fit, own, is_fit.to(torch.int8).argmax())
    return t[source], y.detach()[source]


def value_and_pull(
    function: Callable[[Tensor, Tensor], Tensor], t: Tensor, y: Tensor
) -> tuple[Tensor, Tensor]:
    """Values of a function of times and states, and the gradient of their sum by the states."""
    with torch.enable_grad():
        where = y.detach().requires_grad_()
        value = function(t, where)
        pull = torch.zeros_like(where)
        if value.requires_grad:
            (pull,) = torch.autograd.grad(value.sum(), where, materialize_grads=True)
    return value.detach(), pull
