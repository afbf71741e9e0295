r"""Gaussian probability paths from noise to data.

A path moves noise :math:`z \sim N(0, I)` to data :math:`x_1` along
:math:`x_t = \alpha(t)\, x_1 + \sigma(t)\, z` with :math:`\alpha(0) = 0, \sigma(0) = 1` and
:math:`\alpha(1) = 1, \sigma(1) = 0`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from solvers.core import SettingsError, check_positive

__all__ = [
    "Coefficients",
    "ConditionalOT",
    "GaussianPath",
    "Trigonometric",
    "VariancePreserving",
]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Coefficients:
    """A path and its rate at some times, each of the shape of the times.

    Attributes:
        alpha: Share of data.
        sigma: Share of noise.
        d_alpha: Rate of alpha.
        d_sigma: Rate of sigma.
    """

    alpha: Tensor
    sigma: Tensor
    d_alpha: Tensor
    d_sigma: Tensor


class GaussianPath(ABC):
    """A path by its two coefficients."""

    @abstractmethod
    def coefficients(self, t: Float[Tensor, "..."]) -> Coefficients:
        """Evaluate the path.

        Args:
            t: Times in [0, 1].

        Returns:
            Coefficients and their rates.
        """

    def interpolate(
        self, data: Float[Tensor, "b *d"], noise: Float[Tensor, "b *d"], t: Float[Tensor, " b"]
    ) -> tuple[Float[Tensor, "b *d"], Float[Tensor, "b *d"]]:
        """Points on the way and their velocities.

        Args:
            data: Ends, batch first.
            noise: Starts of the same shape.
            t: One time an item.

        Returns:
            Points and velocities.
        """
        at = self.coefficients(t.reshape(-1, *(1,) * (data.ndim - 1)))
        return at.alpha * data + at.sigma * noise, at.d_alpha * data + at.d_sigma * noise


class ConditionalOT(GaussianPath):
    """Straight lines, ``alpha = t`` and ``sigma = 1 - t``; optimal for one data point."""

    def coefficients(self, t: Float[Tensor, "..."]) -> Coefficients:
        """Evaluate the path."""
        one = torch.ones_like(t)
        return Coefficients(alpha=t, sigma=1 - t, d_alpha=one, d_sigma=-one)


class Trigonometric(GaussianPath):
    """A quarter circle, ``alpha = sin(pi t / 2)`` and ``sigma = cos(pi t / 2)``."""

    def coefficients(self, t: Float[Tensor, "..."]) -> Coefficients:
        """Evaluate the path."""
        half = 0.5 * math.pi
        alpha, sigma = torch.sin(half * t), torch.cos(half * t)
        return Coefficients(alpha=alpha, sigma=sigma, d_alpha=half * sigma, d_sigma=-half * alpha)


class VariancePreserving(GaussianPath):
    r"""The path of variance-preserving diffusion, run from noise to data.

    :math:`\alpha = e^{-T(1 - t)/2}`, :math:`\sigma^2 = 1 - \alpha^2`,
    :math:`T(s) = \beta_0 s + \tfrac12(\beta_1 - \beta_0) s^2`. At ``t = 0`` a little data is left,
    :math:`e^{-(\beta_0+\beta_1)/4}`.

    Args:
        beta_min: Rate of diffusion at the data.
        beta_max: Rate at the noise.

    Raises:
        SettingsError: If the rates are not positive and rising.

    Reference: Song et al. 2021, "Score-based generative modeling through stochastic differential
    equations", equation 33.
    """

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0) -> None:
        check_positive("beta_min", beta_min)
        check_positive("beta_max", beta_max)
        if beta_max < beta_min:
            raise SettingsError(f"beta_max: got {beta_max}, expected at least beta_min={beta_min}")
        self.beta_min, self.beta_max = beta_min, beta_max

    def coefficients(self, t: Float[Tensor, "..."]) -> Coefficients:
        """Evaluate the path."""
        s = 1 - t
        total = self.beta_min * s + 0.5 * (self.beta_max - self.beta_min) * s**2
        rate = self.beta_min + (self.beta_max - self.beta_min) * s
        alpha = torch.exp(-0.5 * total)
        sigma = torch.sqrt(-torch.expm1(-total))
        d_alpha = 0.5 * rate * alpha
        d_sigma = -alpha * d_alpha / sigma.clamp(min=1e-12)
        return Coefficients(alpha=alpha, sigma=sigma, d_alpha=d_alpha, d_sigma=d_sigma)
