"""What a gradient costs in each way that it can be had, measured on the problem at hand."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from solvers.core import check_kind
from solvers.ode._integrate import integrate

__all__ = ["GradientCost", "compare_gradients"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientCost:
    """Cost of one way to a gradient.

    Attributes:
        gradient: The setting.
        forward_seconds: Wall time of the forward pass [s].
        backward_seconds: Wall time of the backward pass [s].
        saved_bytes: Memory kept for the backward pass [B]: tensors of the graph, and with
            ``"states"`` the states and rates between steps.
    """

    gradient: str
    forward_seconds: float
    backward_seconds: float
    saved_bytes: int


def compare_gradients(
    function: Callable[[Tensor, Tensor], Tensor],
    y0: Tensor,
    times: Tensor | Sequence[float],
    **settings: Any,
) -> tuple[GradientCost, ...]:
    """Integrate and differentiate the sum of squares of the result in each way.

    Each way runs twice and the second time counts, so that what is loaded once does not.

    Args:
        function: Right-hand side, see :func:`integrate`.
        y0: States at the start.
        times: Times to report.
        **settings: Other settings of :func:`integrate`.

    Returns:
        One row for ``"steps"`` and one for ``"states"``; both give the same gradient.

    Example:
        >>> start = torch.ones(2, 3, dtype=torch.float64)
        >>> steps, states = compare_gradients(lambda t, y: -y * y, start, [0.0, 1.0])
        >>> states.saved_bytes < steps.saved_bytes
        True
    """
    check_kind("y0", y0, Tensor, "a tensor (B, ...) of a batch")
    ways: tuple[Literal["steps", "states"], ...] = ("steps", "states")
    return tuple(
        [_measure(way, function, y0, times, settings) for _ in range(2)][-1] for way in ways
    )


def _measure(
    way: Literal["steps", "states"],
    function: Callable[[Tensor, Tensor], Tensor],
    y0: Tensor,
    times: Tensor | Sequence[float],
    settings: dict[str, Any],
) -> GradientCost:
    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    start = y0.detach().clone().requires_grad_()
    began = time.perf_counter()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = integrate(function, start, times, **{**settings, "gradient": way})
        loss = result.value.square().sum()
    kept = sum(saved.values())
    if way == "states":
        kept += 2 * int(result.iterations.max()) * start.untyped_storage().nbytes()
    middle = time.perf_counter()
    loss.backward()
    return GradientCost(
        gradient=way,
        forward_seconds=middle - began,
        backward_seconds=time.perf_counter() - middle,
        saved_bytes=kept,
    )
