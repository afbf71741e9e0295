r"""The nearest point for items whose rows contradict each other.

The rows are loosened, :math:`h - Gx + t \in K` and :math:`Ax - r = b`, at the price
:math:`\tfrac\rho2(|t|^2 + |r|^2)`. As the price grows, x tends to the point that minimises the cost
among all that violate the rows least.
"""

from __future__ import annotations

import torch
from torch import Tensor

from constraints.quadratic._inputs import Inputs

__all__ = ["loosen"]

_PRICE = 1e6
"""Curvature of the price in units of the largest entry of Q."""


def loosen(inputs: Inputs, items: Tensor) -> Inputs:
    """Write the loosened programs of some items, in the unknowns x, t and r.

    Args:
        inputs: The programs.
        items: Indices of the items, shape ``(k,)``.

    Returns:
        The loosened programs, a batch of k, differentiable in the inputs.
    """
    axes = (2, 1, 2, 1, 2, 1)
    Q, q, G, h, A, b = (
        tensor[items] if tensor.ndim > own else tensor.expand(len(items), *tensor.shape)
        for tensor, own in zip(inputs, axes, strict=True)
    )
    n, m, p = q.shape[-1], h.shape[-1], b.shape[-1]
    size = Q.detach().abs().amax((1, 2))
    price = _PRICE * torch.where(size > 0, size, 1.0)
    prices = price[:, None, None] * torch.eye(m + p, dtype=q.dtype, device=q.device)
    Q = torch.cat(
        [
            torch.cat([Q, Q.new_zeros(len(items), n, m + p)], 2),
            torch.cat([Q.new_zeros(len(items), m + p, n), prices], 2),
        ],
        1,
    )
    loose = -torch.eye(m + p, dtype=q.dtype, device=q.device).expand(len(items), -1, -1)
    return (
        Q,
        torch.cat([q, q.new_zeros(len(items), m + p)], 1),
        torch.cat([G, loose[:, :m]], 2),
        h,
        torch.cat([A, loose[:, m:]], 2),
        b,
    )
