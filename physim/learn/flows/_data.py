r"""What a finite data set says about itself: posterior mean, separation, the field of a path.

Seen through noise, :math:`x = x_1 + z/s`, a data point is recovered by the softmax posterior mean
:math:`E[x_1|x]`. The data separation function
:math:`\lambda(s) = 1 - \tfrac1d E\|x_1 - E[x_1|x]\|^2` rises from 0 (nothing is recovered) to 1
(all points told apart). The velocity of a path's marginal is

.. math:: u(x, t) = \frac{\sigma'}{\sigma} x
    + \left(\alpha' - \alpha\frac{\sigma'}{\sigma}\right) E[x_1 | x_t = x] .

Reference: Shaul et al. 2023, "On kinetic optimal probability paths for generative models",
equations 21 to 23.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from physim.learn.flows._paths import GaussianPath
from solvers.core import SettingsError, check_positive, check_shape

__all__ = [
    "data_separation",
    "marginal_velocity",
    "normalize_data",
    "posterior_mean",
    "sliced_wasserstein",
]


def normalize_data(data: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Shift to zero mean and scale to a mean square of one per coordinate.

    Args:
        data: Points; at least two different ones.

    Returns:
        Normalised points, as the theory assumes them.
    """
    check_shape("data", data, "n d")
    centred = data - data.mean(0)
    size = centred.square().mean().sqrt()
    if not bool(size > 0):
        raise SettingsError("data: all points are the same, expected at least two different ones")
    return centred / size


def posterior_mean(
    x: Float[Tensor, "k d"],
    data: Float[Tensor, "n d"],
    s: float | Float[Tensor, "*k"],
    *,
    chunk: int = 2048,
) -> Float[Tensor, "k d"]:
    """Mean of the data given noisy observations.

    Args:
        x: Observations, data plus normal noise of standard deviation ``1/s``.
        data: All data points, equally likely.
        s: Signal over noise, of all or of each observation.
        chunk: Observations that are compared with the data at once.

    Returns:
        One mean an observation.
    """
    # Distances do not depend on the origin, and their rounding is least about the middle.
    origin = data.mean(0)
    x, data = x - origin, data - origin
    squares = data.square().sum(1)
    signals = torch.as_tensor(s, dtype=x.dtype, device=x.device).expand(len(x))[:, None]
    parts = []
    for block, signal in zip(x.split(chunk), signals.split(chunk), strict=True):
        closeness = block @ data.T - 0.5 * squares
        parts.append(torch.softmax(signal**2 * closeness, 1) @ data)
    return torch.cat(parts) + origin


def data_separation(
    data: Float[Tensor, "n d"],
    s: Float[Tensor, " m"],
    *,
    draws: int = 2000,
    generator: torch.Generator | None = None,
) -> Float[Tensor, " m"]:
    r"""Estimate :math:`\lambda(s)`.

    Args:
        data: Normalised points. Finite data always separate at large s, so that few points in few
            dimensions overstate it there.
        s: Signal over noise, positive.
        draws: Noisy observations for each s.
        generator: Source of the draws; seed 0 by default.

    Returns:
        Values in [0, 1] up to sampling error.

    Raises:
        SettingsError: If s is not positive.
    """
    check_positive("s", torch.as_tensor(s))
    source = generator or torch.Generator().manual_seed(0)
    values = []
    for signal in s:
        x1 = data[torch.randint(0, len(data), (draws,), generator=source)]
        noise = torch.randn(x1.shape, generator=source, dtype=data.dtype)
        missed = x1 - posterior_mean(x1 + noise / signal, data, signal)
        values.append(1 - missed.square().mean())
    return torch.stack(values)


def marginal_velocity(
    path: GaussianPath, data: Float[Tensor, "n d"], *, margin: float = 2e-5
) -> Callable[[Tensor, Tensor], Tensor]:
    """The velocity field whose flow carries noise to the data exactly.

    Args:
        path: From noise to data.
        data: All data points.
        margin: Times are kept this far from 0 and 1, where the field divides by zero.

    Returns:
        Function of times, a scalar or ``(k,)``, and points ``(k, d)``, the oracle of what a network
        learns.
    """

    def velocity(t: Tensor, x: Tensor) -> Tensor:
        times = torch.as_tensor(t, dtype=x.dtype).clamp(margin, 1 - margin).expand(len(x))
        at = path.coefficients(times)
        pull = (at.d_sigma / at.sigma)[:, None]
        mean = posterior_mean(x / at.alpha[:, None], data, at.alpha / at.sigma)
        return pull * x + (at.d_alpha[:, None] - at.alpha[:, None] * pull) * mean

    return velocity


def sliced_wasserstein(
    first: Float[Tensor, "n d"],
    second: Float[Tensor, "m d"],
    *,
    directions: int = 64,
    quantiles: int = 200,
    generator: torch.Generator | None = None,
) -> float:
    """Root mean square over random directions of the one-dimensional 2-Wasserstein distance.

    Args:
        first: Points.
        second: Points, possibly another number of them.
        directions: Number of directions.
        quantiles: At which distributions are compared.
        generator: Source of the directions; seed 0 by default.

    Returns:
        Distance in the points' unit; two draws of one distribution have a floor above zero.
    """
    d = check_shape("first", first, "n d")["d"]
    check_shape("second", second, f"m {d}")
    source = generator or torch.Generator().manual_seed(0)
    v = torch.randn(d, directions, generator=source, dtype=torch.float64)
    v /= torch.linalg.vector_norm(v, dim=0)
    levels = torch.linspace(0, 1, quantiles + 2, dtype=torch.float64)[1:-1]
    curves = [
        torch.quantile(points.detach().double() @ v, levels, dim=0) for points in (first, second)
    ]
    return float((curves[0] - curves[1]).square().mean().sqrt())
