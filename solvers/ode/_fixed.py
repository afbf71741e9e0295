r"""Steps of given length: one step of an explicit method between every two times.

For fields that are dear to evaluate and need few steps; nothing estimates the error.

Source: E. Hairer, S. Nørsett and G. Wanner, Solving ODEs I, section II.1 (tables 1.1 and 1.2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from solvers.core import (
    OnFailure,
    Report,
    SettingsError,
    ShapeError,
    Solution,
    Status,
    apply_on_failure,
    check_callable,
    check_choice,
    check_finite,
    is_mapped,
)
from solvers.ode._rest import resting_points

__all__ = ["FixedMethod", "integrate_steps"]

Function = Callable[[Tensor, Tensor], Tensor]
FixedMethod = Literal["euler", "midpoint", "rk4"]
"""Orders one, two and four with as many evaluations a step."""

_STAGES: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    # Nodes, each stage starting from the one before; weights of the stages.
    "euler": ((0.0,), (1.0,)),
    "midpoint": ((0.0, 1 / 2), (0.0, 1.0)),
    "rk4": ((0.0, 1 / 2, 1 / 2, 1.0), (1 / 6, 1 / 3, 1 / 3, 1 / 6)),
}


def integrate_steps(
    function: Function,
    y0: Float[Tensor, "B *n"],
    times: Float[Tensor, " T"] | Sequence[float],
    *,
    method: FixedMethod = "rk4",
    on_failure: OnFailure = "raise",
) -> Solution[Tensor]:
    r"""Integrate :math:`\dot y = f(t, y)` with one step from each time to the next.

    Args:
        function: f. Takes times ``(B, 1, ...)``, which broadcast with states, and states of the
            shape of ``y0``; gives rates of that shape.
        y0: States at the first time, batch first, a floating-point type.
        times: Ends of the steps, the start first.
        method: ``"euler"``, ``"midpoint"`` or ``"rk4"``.
        on_failure: What happens when a state is not finite.

    Returns:
        Values ``(T, B, *n)``. An item that is not finite any more holds its last good state and has
        the status ``NON_FINITE``; ``iterations`` counts its good steps, ``residual_norm`` is the
        part of the time that was not covered, counts hold ``evaluations``.

    Raises:
        NotConvergedError: If an item fails and ``on_failure="raise"``; it carries the result.
        SettingsError: If there are fewer than two times, or this is inside ``torch.vmap``.
        ShapeError: If ``y0`` is no batch, or the function gives another shape than that of ``y0``.

    Gradients: by autograd through the steps. An item that failed passes none, at no time.
    Cost: one, two or four evaluations a step; twice that with a graph if an item fails.

    Example:
        >>> times = torch.linspace(0, 1, 11, dtype=torch.float64)
        >>> decay = integrate_steps(lambda t, y: -y, torch.ones(1, 1).double(), times)
        >>> abs(float(decay.value[-1]) - 0.36787944) < 1e-6
        True
    """
    check_choice("method", method, tuple(_STAGES))
    check_callable("function", function, "a function of times and states, as lambda t, y: -y")
    if not isinstance(y0, Tensor) or y0.ndim == 0:
        got = tuple(y0.shape) if isinstance(y0, Tensor) else type(y0).__name__
        raise ShapeError(f"y0: got {got}, expected a tensor (B, ...) of a batch")
    if is_mapped(y0):
        raise SettingsError(
            "y0: got a tensor inside vmap, where no item can be left behind; give the batch to "
            "integrate_steps"
        )
    moments = torch.as_tensor(times, dtype=torch.float64, device=y0.device)
    check_finite("times", moments)
    if moments.ndim != 1 or len(moments) < 2:
        raise SettingsError(f"times: got shape {tuple(moments.shape)}, expected two or more in row")
    values, good = _march(function, y0, moments, method)
    is_good = good == len(moments) - 1
    failed = ~is_good.view(-1, *(1,) * (y0.ndim - 1))
    if values.requires_grad and not bool(is_good.all()):
        values = _without_failed(function, y0, moments, method, values, failed)
    status = torch.where(is_good, int(Status.CONVERGED), int(Status.NON_FINITE))
    way = torch.cat([moments.new_zeros(1), moments.diff().abs().cumsum(0)])
    result = Solution(
        value=values,
        report=Report(
            status=status,
            iterations=good,
            residual=(way[-1] - way[good]) / torch.where(way[-1] > 0, way[-1], 1.0),
            counts={
                "evaluations": torch.full_like(good, len(_STAGES[method][0]) * (len(moments) - 1)),
            },
        ),
    )
    apply_on_failure(result.report, on_failure, solution=result, what="integrate_steps")
    return result


def _march(
    function: Function,
    y: Tensor,
    moments: Tensor,
    method: FixedMethod,
    resting: tuple[Tensor, Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Values ``(T, B, *n)`` and numbers of good steps ``(B,)``.

    Items that rest are evaluated at one time and state only: which they are, times and states.
    """
    nodes, weights = _STAGES[method]
    batch, trailing = len(y), (len(y), *(1,) * (y.ndim - 1))
    good = torch.zeros(batch, dtype=torch.int64, device=y.device)
    is_good = torch.ones(batch, dtype=torch.bool, device=y.device)
    values = [y]
    for start, end in pairwise(moments.tolist()):
        h, slope, moved = end - start, torch.zeros_like(y), y
        for node, weight in zip(nodes, weights, strict=True):
            time, inner = y.new_full(trailing, start + node * h), y + node * h * slope
            if resting is not None:
                time = torch.where(resting[0], resting[1], time)
                inner = torch.where(resting[0], resting[2], inner)
            slope = function(time, inner)
            if not isinstance(slope, Tensor) or slope.shape != y.shape:
                got = tuple(slope.shape) if isinstance(slope, Tensor) else type(slope).__name__
                raise ShapeError(
                    f"function: gave {got} for states {tuple(y.shape)}, expected the same shape"
                )
            if is_mapped(slope):
                raise SettingsError(
                    "function: gave a tensor of vmap, where no item can be left behind; give the "
                    "batch to integrate_steps"
                )
            if weight:
                moved = moved + weight * h * slope
        is_good = is_good & torch.isfinite(moved).reshape(batch, math.prod(y.shape[1:])).all(1)
        good += is_good
        y = torch.where(is_good.view(trailing), moved, y)
        values.append(y)
    return torch.stack(values), good


def _without_failed(
    function: Function,
    y0: Tensor,
    moments: Tensor,
    method: FixedMethod,
    values: Tensor,
    failed: Tensor,
) -> Tensor:
    """The same values, with a graph of the good items only."""
    trailing = failed.shape
    begin = moments[:1].to(y0.dtype).expand(len(y0))
    points = resting_points(lambda t, y: function(t.view(trailing), y), begin, y0)
    if points is None:
        return values.detach()
    rest = (failed, points[0].view(trailing), points[1])
    again, _ = _march(function, torch.where(failed, points[1], y0), moments, method, rest)
    return torch.where(failed, values.detach(), again)
