r"""Flow matching: train a velocity field on a path, and sample by integrating it.

The loss :math:`\tfrac1d E\|v(x_t, t) - (\alpha' x_1 + \sigma' z)\|^2` over random times, data and
noise has the marginal velocity as its minimiser, whatever the path.

Reference: Lipman et al. 2023, "Flow matching for generative modeling", equation 9.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from physim.learn.flows._paths import GaussianPath
from solvers.core import (
    OnFailure,
    SettingsError,
    ShapeError,
    Solution,
    apply_on_failure,
    check_choice,
    check_count,
)
from solvers.ode import integrate, integrate_steps

__all__ = ["flow_matching_loss", "sample"]

Method = Literal["euler", "midpoint", "rk4", "dopri5"]


def flow_matching_loss(
    velocity: Callable[[Tensor, Tensor], Tensor],
    data: Float[Tensor, "b *d"],
    path: GaussianPath,
    *,
    generator: torch.Generator | None = None,
    margin: float = 1e-3,
) -> Float[Tensor, ""]:
    """Mean square error of a field on a batch of data, per coordinate.

    Args:
        velocity: Function of times ``(b,)`` and points ``(b, *d)``, usually a network.
        data: Batch of data.
        path: From noise to data.
        generator: Source of times and noise, on the CPU; torch's own by default.
        margin: Times keep this distance from 0 and 1, where some paths have infinite rates.

    Returns:
        The loss. Its least value is not zero: different pairs cross at one point.

    Raises:
        ShapeError: If the field gives another shape than that of the points, or there are none.
        SettingsError: If the data are whole numbers, or the margin leaves no time.
    """
    if not data.numel():
        raise ShapeError(f"data: got shape {tuple(data.shape)}, expected at least one point")
    if not data.is_floating_point():
        raise SettingsError(f"data: got {data.dtype}, expected floating-point numbers")
    if not 0 <= margin < 0.5:
        raise SettingsError(f"margin: got {margin}, expected zero or more and less than a half")
    t = torch.rand(len(data), generator=generator, dtype=data.dtype).to(data.device)
    t = margin + (1 - 2 * margin) * t
    noise = torch.randn(data.shape, generator=generator, dtype=data.dtype).to(data.device)
    x, rate = path.interpolate(data, noise, t)
    found = velocity(t, x)
    if not isinstance(found, Tensor) or found.shape != data.shape:
        got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ShapeError(
            f"velocity: gave {got} for points {tuple(data.shape)}, expected the same shape"
        )
    return (found - rate).square().mean()


@torch.no_grad()
def sample(
    velocity: Callable[[Tensor, Tensor], Tensor],
    noise: Float[Tensor, "b *d"],
    *,
    method: Method = "euler",
    steps: int = 8,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    on_failure: OnFailure = "raise",
) -> Solution[Tensor]:
    """Carry noise to data along a velocity field.

    Args:
        velocity: Function of times ``(b,)`` and points ``(b, *d)``, as in training. Samples must
            not mix.
        noise: Standard normal starts.
        method: ``"euler"``, ``"midpoint"`` or ``"rk4"`` in equal steps, or ``"dopri5"``, each
            sample with steps of its own.
        steps: Number of equal steps; the field is evaluated once, twice or four times a step.
        rtol: Relative tolerance of ``"dopri5"``.
        atol: Absolute tolerance of ``"dopri5"``.
        on_failure: What happens when samples do not reach the end.

    Returns:
        Samples; one that failed is its last good state. The report's iterations are evaluations of
        the field.

    Raises:
        NotConvergedError: If a sample does not reach the end and ``on_failure="raise"``.

    Gradients: none; differentiate through :func:`solvers.ode.integrate` instead.
    """
    check_choice("method", method, ("euler", "midpoint", "rk4", "dopri5"))
    check_count("steps", steps)

    def rate(t: Tensor, x: Tensor) -> Tensor:
        return velocity(t.reshape(-1), x)

    path: Solution[Tensor]
    if method == "dopri5":
        path = integrate(
            rate, noise, [0.0, 1.0], method=method, rtol=rtol, atol=atol, gradient="none",
            on_failure="mask",
        )  # fmt: skip
    else:
        times = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        path = integrate_steps(rate, noise, times, method=method, on_failure="mask")
    report = replace(path.report, iterations=path.report.counts["evaluations"])
    result = Solution(value=path.value[-1], report=report)
    apply_on_failure(report, on_failure, solution=result, what="sample")
    return result
