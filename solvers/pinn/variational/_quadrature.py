r"""Points and weights that turn densities into integrals.

Gauss-Legendre points on the tensor grid of a box integrate a smooth density to rounding: n points
on an axis are exact up to degree 2n - 1. So do those along the radius of a ball, with even angles.
The number on a grid grows as :math:`n^d`, so that above three axes scrambled Sobol points take
their place, with an error of order :math:`N^{-1}` up to logarithms that independent scramblings
measure (Owen 1997). The field of a problem with fixed walls lives in the middle of a box of many
dimensions; there the points are drawn denser, by :math:`\rho(s) = 1 - a + 6 a s (1 - s)` along
each axis.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from solvers.core import (
    SettingsError,
    ShapeError,
    check_count,
    check_kind,
    check_number,
    check_shape,
)
from solvers.pde import Ball, Box, Domain, Mesh, Polygon, sample, unit_points

__all__ = ["Estimate", "Quadrature", "gauss_legendre", "quasi_monte_carlo"]

_MOST_POINTS = 2_000_000
_HALVINGS = 60
_VOLUME_POINTS = 2**16


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and how far it may be off.

    Attributes:
        value: The number.
        error: One standard error; 0 for a rule without randomness.
    """

    value: float
    error: float

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        return f"{self.value:.6g} +- {self.error:.1g}" if self.error else f"{self.value:.6g}"


@dataclass(frozen=True, slots=True, eq=False)
class Quadrature:
    r""":math:`\int g\,dx \approx \sum_n w_n\, g(x_n)`.

    Args:
        points: Shape ``(N, d)``.
        weights: Shape ``(N,)``, positive; their sum is the volume.
        replicates: Independent parts, equally long and one after the other, each a rule of its own
            after multiplication by their number; 1 for a rule without randomness.

    Raises:
        ShapeError: If shapes or the number of parts do not fit.
    """

    points: Float[Tensor, "N d"]
    weights: Float[Tensor, " N"]
    replicates: int = 1

    def __post_init__(self) -> None:
        sizes = check_shape("points", self.points, "N d")
        check_shape("weights", self.weights, "N", sizes=sizes)
        check_count("replicates", self.replicates)
        if len(self.points) % self.replicates:
            raise ShapeError(
                f"replicates: got {self.replicates} for {len(self.points)} points, expected a "
                "divisor of their number"
            )

    def integrate(self, density: Float[Tensor, " N"]) -> Float[Tensor, ""]:
        """Integrate a density given at the points."""
        check_shape("density", density, str(len(self.points)))
        return self.weights @ density

    def estimate(self, density: Float[Tensor, " N"]) -> Estimate:
        """Integrate, with the standard error over the independent parts."""
        check_shape("density", density, str(len(self.points)))
        parts = (self.weights * density).view(self.replicates, -1).sum(1)
        return replicate_mean(self.replicates * parts)


def replicate_mean(values: Float[Tensor, " R"]) -> Estimate:
    """Mean of independent estimates and its standard error."""
    count = len(values)
    error = float(values.std()) / math.sqrt(count) if count > 1 else 0.0
    return Estimate(float(values.mean()), error)


def gauss_legendre(domain: Box | Ball, count: int, *, panels: int = 1) -> Quadrature:
    """Put Gauss-Legendre points on the tensor grid of a box, or of the radius and angles of a ball.

    Args:
        domain: The box or ball.
        count: Points along each axis of each panel. In a ball: along a diameter, and twice as many
            round it, evenly.
        panels: Equal parts of each axis; more for fields with layers or kinks. Those of a ball are
            parts of the radius.

    Returns:
        The rule, exact for polynomials of degree ``2 count - 1`` along each axis of a box, of
        degree ``count - 3`` in a ball.

    Raises:
        SettingsError: If the domain is neither or there are more than two million points.

    Example:
        >>> from solvers.pde import Box
        >>> rule = gauss_legendre(Box(x=(0, 2)), 3)
        >>> round(float(rule.integrate(rule.points[:, 0] ** 5)), 12)
        10.666666666667
    """
    check_count("count", count)
    check_count("panels", panels)
    if not isinstance(domain, Box | Ball):
        raise SettingsError(
            f"domain: {domain!r} is no box or ball, which Gauss-Legendre points need; take "
            "quasi_monte_carlo"
        )
    total = (count * panels) ** domain.dimension
    if total > _MOST_POINTS:
        raise SettingsError(
            f"count: {count} points on {panels} panels of {domain.dimension} axes make {total}, "
            f"expected {_MOST_POINTS} or fewer; take quasi_monte_carlo"
        )
    if isinstance(domain, Ball):
        return _in_a_ball(domain, count, panels)
    unit, parts = _on_the_unit_interval(count, panels)
    grid = torch.cartesian_prod(*[unit] * domain.dimension).view(total, -1)
    factors = torch.cartesian_prod(*[parts] * domain.dimension).view(total, -1).prod(1)
    return Quadrature(domain.scale(grid), factors * (domain.upper - domain.lower).prod())


def _on_the_unit_interval(count: int, panels: int) -> tuple[Tensor, Tensor]:
    """Points and weights of an axis."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    starts = np.arange(panels)[:, None]
    unit = torch.from_numpy(((starts + (nodes + 1) / 2) / panels).reshape(-1))
    return unit, torch.from_numpy(np.tile(weights / 2 / panels, panels))


def _in_a_ball(ball: Ball, count: int, panels: int) -> Quadrature:
    r"""Directions times radii, whose weights are those of :math:`r^{d-1}\,dr`.

    A circle is cut evenly; on a sphere the height is uniform (Archimedes), with Gauss points.
    """
    radii, parts = _on_the_unit_interval(max(1, math.ceil(count / 2)), panels)
    around = 2 * math.pi * (torch.arange(2 * count, dtype=torch.float64) + 0.5) / (2 * count)
    circle = torch.stack([around.cos(), around.sin()], -1)
    if ball.dimension == 1:
        directions = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
        shares = torch.ones(2, dtype=torch.float64)
    elif ball.dimension == 2:
        directions, shares = circle, torch.ones(2 * count, dtype=torch.float64)
    else:
        places, shares = _on_the_unit_interval(count, 1)
        height = (2 * places - 1).repeat_interleave(2 * count)[:, None]
        directions = torch.cat([(1 - height.square()).sqrt() * circle.repeat(count, 1), height], -1)
        shares = shares.repeat_interleave(2 * count)
    shares = shares * ball.surface_area / shares.sum()
    points = ball.center + ball.radius * (radii[:, None, None] * directions).flatten(0, 1)
    rings = ball.radius * parts * radii ** (ball.dimension - 1)
    return Quadrature(points, (rings[:, None] * shares).flatten())


def quasi_monte_carlo(
    domain: Domain,
    count: int,
    *,
    replicates: int = 1,
    concentration: float = 0.0,
    generator: torch.Generator | None = None,
) -> Quadrature:
    """Draw scrambled Sobol points.

    Args:
        domain: The domain.
        count: Points, all parts together; powers of two per part balance best.
        replicates: Independent scramblings, for an error bar.
        concentration: How much denser the middle of a box is, from 0 (even) to below 1.
        generator: Source of random numbers.

    Returns:
        The rule. In a region that was combined, or a ball, the volume is estimated once from 65536
            points.

    Raises:
        SettingsError: If a setting is out of range.

    Example:
        >>> from solvers.pde import Box
        >>> cube = Box(**{f"x{k}": (0, 1) for k in range(10)})
        >>> rule = quasi_monte_carlo(cube, 2**13, replicates=8, concentration=0.8)
        >>> estimate = rule.estimate(torch.sin(torch.pi * rule.points).prod(1))
        >>> exact = (2 / torch.pi) ** 10
        >>> abs(estimate.value - exact) < 4 * estimate.error < 0.05 * exact
        True
    """
    check_kind("domain", domain, Domain, "a solvers.pde domain, as Box(x=(0, 1))")
    check_count("count", count)
    check_count("replicates", replicates)
    if generator is not None:
        check_kind("generator", generator, torch.Generator, "a torch.Generator or None")
    if not 0.0 <= check_number("concentration", concentration) < 1.0:
        raise SettingsError(f"concentration: got {concentration}, expected from 0 to below 1")
    source = torch.Generator().manual_seed(0) if generator is None else generator
    each = max(count // replicates, 1)
    if not isinstance(domain, Box):
        points = [sample(domain, each, generator=source) for _ in range(replicates)]
        volume = _volume(domain)
        total = each * replicates
        weights = torch.full((total,), volume / total, dtype=torch.float64)
        return Quadrature(torch.cat(points), weights, replicates)
    unit = torch.cat(
        [unit_points("sobol", each, domain.dimension, generator=source) for _ in range(replicates)]
    )
    moved = _denser_in_the_middle(unit, concentration)
    density = (1 - concentration + 6 * concentration * moved * (1 - moved)).prod(1)
    volume = float((domain.upper - domain.lower).prod())
    return Quadrature(domain.scale(moved), volume / (len(unit) * density), replicates)


def _denser_in_the_middle(unit: Tensor, a: float) -> Tensor:
    r"""Solve :math:`(1 - a) s + a (3 s^2 - 2 s^3) = u` by bisection, whose halves are exact."""
    if not a:
        return unit
    low, high = torch.zeros_like(unit), torch.ones_like(unit)
    for _ in range(_HALVINGS):
        s = (low + high) / 2
        is_below = (1 - a) * s + a * s * s * (3 - 2 * s) < unit
        low, high = torch.where(is_below, s, low), torch.where(is_below, high, s)
    return (low + high) / 2


def _volume(domain: Domain) -> float:
    """Volume of a domain; where no formula gives it, the share of its bounding box times that."""
    if isinstance(domain, Polygon):
        return domain.area
    if isinstance(domain, Mesh):
        return domain.volume
    points = domain.scale(unit_points("sobol", _VOLUME_POINTS, domain.dimension))
    share = float(domain.contains(points).double().mean())
    return share * float((domain.upper - domain.lower).prod())
