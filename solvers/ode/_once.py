"""Numbers with a right first derivative and no second one, which then must not be had."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["differentiate_once"]


def differentiate_once(x: Tensor, what: str) -> Tensor:
    """The same numbers; second derivatives through them raise.

    Args:
        x: Numbers whose graph is right to first order.
        what: What they are, for the error.

    Returns:
        The numbers.
    """
    # Outside of a graph there is nothing to guard.
    return _Once.apply(x, what) if x.requires_grad else x  # type: ignore[no-untyped-call]


class _Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, what: str) -> Tensor:
        ctx.save_for_backward(x)
        ctx.what = what
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        # The derivative depends on where it is taken, even if this graph does not say how.
        return _Refused.apply(gradient, *ctx.saved_tensors, ctx.what), None  # type: ignore[no-untyped-call]


class _Refused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gradient: Tensor, x: Tensor, what: str) -> Tensor:
        ctx.what = what
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, None]:
        raise RuntimeError(
            f"second derivatives through {ctx.what} are not available; take an explicit method "
            'without events, such as method="dopri5"'
        )
