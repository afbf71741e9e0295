r"""Flow matching: train a velocity field on a path, and sample by integrating it.

The loss :math:`\tfrac1d E\|v(x_t, t) - (\alpha' x_1 + \sigma' z)\|^2` over random times, data and
noise has the marginal velocity as its minimiser, whatever the path.

Reference: Lipman et al. 2023, "Flow matching for generative modeling", equation 9.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from physim.learn.flows._paths import GaussianPath
from solvers.core import (
    OnFailure,
    Report,
    Solution,
    Status,
    apply_on_failure,
    check_choice,
    check_positive,
)

__all__ = ["flow_matching_loss", "sample"]

Method = Literal["euler", "midpoint", "rk4", "dopri5"]
_STAGES = {"euler": 1, "midpoint": 2, "rk4": 4}


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
    """
    t = torch.rand(len(data), generator=generator, dtype=data.dtype).to(data.device)
    t = margin + (1 - 2 * margin) * t
    noise = torch.randn(data.shape, generator=generator, dtype=data.dtype).to(data.device)
    x, rate = path.interpolate(data, noise, t)
    return (velocity(t, x) - rate).square().mean()


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
        velocity: Function of a scalar time and points ``(b, *d)``.
        noise: Standard normal starts.
        method: ``"euler"``, ``"midpoint"`` or ``"rk4"`` in equal steps, or ``"dopri5"`` with
            step control.
        steps: Number of equal steps; the field is evaluated once, twice or four times a step.
        rtol: Relative tolerance of ``"dopri5"``.
        atol: Absolute tolerance of ``"dopri5"``.
        on_failure: What happens when samples are not finite.

    Returns:
        Samples. The report's iterations are evaluations of the field; samples that are not finite
        have status ``NON_FINITE`` and do not touch others in equal steps.

    Raises:
        NotConvergedError: If a sample is not finite and ``on_failure="raise"``.

    Gradients: none; differentiate through ``torchdiffeq`` instead.
    """
    check_choice("method", method, ("euler", "midpoint", "rk4", "dopri5"))
    check_positive("steps", steps)
    from torchdiffeq import odeint

    calls = 0

    def counted(t: Tensor, x: Tensor) -> Any:
        nonlocal calls
        calls += 1
        return velocity(t, x)

    is_fixed = method in _STAGES
    t = torch.linspace(0, 1, steps + 1 if is_fixed else 2, dtype=noise.dtype, device=noise.device)
    tolerances = {} if is_fixed else {"rtol": rtol, "atol": atol}
    ends: Tensor = odeint(counted, noise, t, method=method, **tolerances)[-1]
    finite = torch.isfinite(ends.reshape(len(ends), -1)).all(1)
    status = torch.where(finite, int(Status.CONVERGED), int(Status.NON_FINITE))
    result = Solution(
        value=ends,
        report=Report(
            status=status,
            iterations=torch.full_like(status, calls),
            residual=torch.zeros(len(ends), dtype=torch.float64, device=noise.device),
        ),
    )
    apply_on_failure(result.report, on_failure, solution=result, what="sample")
    return result
