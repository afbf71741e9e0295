r"""Kinetic optimal paths, in closed form.

In polar coordinates :math:`(\alpha, \sigma) = r(\sin\theta, \cos\theta)` the kinetic energy of the
marginal field is

.. math:: \int_0^1 r'^2 + r^2 \theta'^2\, \gamma(\theta)\, dt, \qquad
    \gamma(\theta) = \frac{E\|E[x_1|y] - \sin\theta\, y\|^2}{d\cos^2\theta}, \quad
    y = \sin\theta\, x_1 + \cos\theta\, z .

:math:`\gamma` is the excess of the posterior mean over the best linear estimate, never negative and
zero exactly for a standard normal distribution. With :math:`\phi = \int_0^\theta \sqrt\gamma` the
metric :math:`dr^2 + r^2 d\phi^2` is flat, so the optimal path is a straight chord from
:math:`(1, 0)` to :math:`(\cos\Phi, \sin\Phi)`, :math:`\Phi = \phi(\pi/2) \le \pi/2`, at the
constant energy :math:`b = 4\sin^2(\Phi/2)`. Two ends: separate points have :math:`\gamma = 1` and
the optimal path is :math:`\alpha = t, \sigma = 1 - t` with energy 2; normal data cost nothing.

The energy tells what a path costs per coordinate; how few steps a solver needs is another question,
measured in the benchmark of flows.

Reference: Shaul, Chen, Nickel, Le & Lipman 2023, "On kinetic optimal probability paths for
generative models", equations 21 and 27 and theorem 3.1, whose path this is; the flat metric and
this form of gamma are derived here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from physim.learn.flows._data import posterior_mean
from physim.learn.flows._paths import Coefficients, GaussianPath
from solvers.core import SettingsError, check_shape

__all__ = ["KineticOptimalPath", "estimate_gamma", "kinetic_energy", "kinetic_optimal_path"]


def estimate_gamma(
    data: Float[Tensor, "n d"],
    theta: Float[Tensor, " m"],
    *,
    draws: int = 2000,
    generator: torch.Generator | None = None,
) -> Float[Tensor, " m"]:
    r"""Estimate :math:`\gamma` from data; every summand is positive, so nothing cancels.

    Args:
        data: Normalised points, see :func:`normalize_data`.
        theta: Angles in [0, pi/2]; the ends are known, 0 and 1, and not sampled.
        draws: Noisy observations for each angle.
        generator: Source of the draws; seed 0 by default.

    Returns:
        Values of zero or more.

    Raises:
        SettingsError: If the data are not normalised.
    """
    check_shape("data", data, "n d")
    size, shift = float(data.square().mean()), float(data.mean(0).abs().max())
    if abs(size - 1) > 1e-3 or shift > 1e-3:
        raise SettingsError(
            f"data: mean square is {size:.4g} and largest mean {shift:.3g}, expected 1 and 0; "
            "apply normalize_data first"
        )
    source = generator or torch.Generator().manual_seed(0)
    values = []
    for angle in theta:
        sine, cosine = float(torch.sin(angle)), float(torch.cos(angle))
        if sine < 1e-9 or cosine < 1e-9:
            values.append(torch.tensor(float(sine > 0.5), dtype=data.dtype))
            continue
        x1 = data[torch.randint(0, len(data), (draws,), generator=source)]
        y = sine * x1 + cosine * torch.randn(x1.shape, generator=source, dtype=data.dtype)
        excess = posterior_mean(y / sine, data, sine / cosine) - sine * y
        values.append(excess.square().mean() / cosine**2)
    return torch.stack(values)


class KineticOptimalPath(GaussianPath):
    r"""The path of least kinetic energy for a given :math:`\gamma`.

    Args:
        theta: Angles from 0 to pi/2, rising, shape ``(m,)``.
        gamma: Values there, zero or more.

    Attributes:
        theta: The angles.
        gamma: The values.
        span: :math:`\Phi`.
        energy: Kinetic energy b, per coordinate of normalised data.

    Raises:
        SettingsError: If the angles do not span a quarter turn or gamma is negative or zero.

    Example:
        >>> theta = torch.linspace(0, math.pi / 2, 50, dtype=torch.float64)
        >>> at = KineticOptimalPath(theta, torch.ones_like(theta)).coefficients(theta[20:21] * 0.6)
        >>> bool((at.alpha - theta[20:21] * 0.6).abs() < 1e-12)
        True
    """

    def __init__(self, theta: Float[Tensor, " m"], gamma: Float[Tensor, " m"]) -> None:
        check_shape("gamma", gamma, str(len(theta)))
        is_quarter = abs(float(theta[0])) < 1e-9 and abs(float(theta[-1]) - math.pi / 2) < 1e-9
        if not (is_quarter and bool((theta.diff() > 0).all())):
            raise SettingsError(
                f"theta: runs from {float(theta[0]):.4g} to {float(theta[-1]):.4g}, expected "
                "rising angles from 0 to pi/2"
            )
        if not bool((gamma >= 0).all()) or not bool((gamma > 0).any()):
            raise SettingsError(
                f"gamma: smallest value is {float(gamma.min()):.3g} and largest "
                f"{float(gamma.max()):.3g}, expected zero or more and not all zero; normal data "
                "need no path"
            )
        self.theta, self.gamma = theta.double(), gamma.double()
        root = self.gamma.sqrt()
        steps = 0.5 * (root[1:] + root[:-1]) * self.theta.diff()
        phi = torch.cat([steps.new_zeros(1), steps.cumsum(0)])
        self.span = float(phi[-1])
        self.energy = 4 * math.sin(0.5 * self.span) ** 2
        self._angle_of = _monotone(phi, self.theta)

    def coefficients(self, t: Float[Tensor, "..."]) -> Coefficients:
        """Evaluate the path."""
        time = t.double()
        x = 1 - time + time * math.cos(self.span)
        y = time * math.sin(self.span)
        r, phi = torch.hypot(x, y), torch.atan2(y, x)
        d_r = 0.5 * self.energy * (2 * time - 1) / r
        d_phi = math.sin(self.span) / r**2
        angle, rate = self._angle_of(phi.clamp(0, self.span))
        theta, d_theta = angle.clamp(0, math.pi / 2), rate * d_phi
        sine, cosine = torch.sin(theta), torch.cos(theta)
        values = (
            r * sine,
            r * cosine,
            d_r * sine + r * cosine * d_theta,
            d_r * cosine - r * sine * d_theta,
        )
        alpha, sigma, d_alpha, d_sigma = (value.to(t.dtype) for value in values)
        return Coefficients(alpha=alpha, sigma=sigma, d_alpha=d_alpha, d_sigma=d_sigma)


def kinetic_optimal_path(
    data: Float[Tensor, "n d"],
    *,
    angles: int = 81,
    draws: int = 2000,
    generator: torch.Generator | None = None,
) -> KineticOptimalPath:
    """Estimate gamma from data and build its optimal path.

    Args:
        data: Normalised points.
        angles: Grid of angles.
        draws: Noisy observations for each.
        generator: Source of the draws; seed 0 by default.

    Returns:
        The path.

    Cost: ``angles * draws * n`` distances.
    """
    theta = torch.linspace(0, math.pi / 2, angles, dtype=torch.float64)
    gamma = estimate_gamma(data.double(), theta, draws=draws, generator=generator)
    return KineticOptimalPath(theta, gamma)


def kinetic_energy(
    path: GaussianPath,
    theta: Float[Tensor, " m"],
    gamma: Float[Tensor, " m"],
    *,
    points: int = 4000,
) -> float:
    """Kinetic energy of any path on data with a given gamma, per coordinate.

    Args:
        path: Any Gaussian path.
        theta: Angles of gamma, rising.
        gamma: Values there.
        points: Midpoints of the quadrature in time.

    Returns:
        The energy; at least that of the kinetic optimal path.
    """
    t = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    at = path.coefficients(t)
    square = at.alpha**2 + at.sigma**2
    d_r = (at.alpha * at.d_alpha + at.sigma * at.d_sigma) / square.sqrt()
    # r theta' with theta the angle from the axis of noise.
    turn = (at.d_alpha * at.sigma - at.alpha * at.d_sigma) / square.sqrt()
    weight = _linear(theta.double(), gamma.double(), torch.atan2(at.alpha, at.sigma))
    return float((d_r**2 + turn**2 * weight).mean())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Cubic:
    """Cubic pieces between places (k + 1,) with coefficients (4, k), the highest power first."""

    places: Tensor
    coefficients: Tensor

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Values and slopes."""
        places, coefficients = self.places.to(x.device), self.coefficients.to(x.device)
        piece = torch.searchsorted(places, x.detach().contiguous(), right=True) - 1
        piece = piece.clamp(0, len(places) - 2)
        a, b, c, d = (row[piece] for row in coefficients)
        s = x - places[piece]
        return ((a * s + b) * s + c) * s + d, (3 * a * s + 2 * b) * s + c


def _monotone(x: Tensor, y: Tensor) -> _Cubic:
    """Monotone cubic through rising points; flat pieces of x are left out."""
    from scipy.interpolate import PchipInterpolator

    rises = torch.cat([x.new_ones(1), x.diff()]) > 1e-13
    rises[-1] = True
    keep = rises.nonzero()[:, 0]
    if len(keep) > 1 and float(x[keep[-1]] - x[keep[-2]]) <= 1e-13:
        keep = torch.cat([keep[:-2], keep[-1:]])
    curve = PchipInterpolator(x[keep].numpy(), y[keep].numpy())
    return _Cubic(places=torch.tensor(curve.x), coefficients=torch.tensor(curve.c))


def _linear(x: Tensor, y: Tensor, at: Tensor) -> Tensor:
    place = torch.searchsorted(x, at.contiguous()).clamp(1, len(x) - 1)
    share = (at - x[place - 1]) / (x[place] - x[place - 1])
    return y[place - 1] + share.clamp(0, 1) * (y[place] - y[place - 1])
