r"""Spectral density by stochastic Lanczos quadrature.

For a random vector :math:`v` with :math:`E[vv^\top] = I` the measure
:math:`\sum_i (u_i^\top v)^2 \delta(\lambda - \lambda_i)` has the density of states as its mean over
:math:`v`. Lanczos from :math:`v` gives its Gauss quadrature: nodes are the Ritz values, weights the
squared first entries of their vectors, exact for polynomials of degree :math:`2k - 1`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from solvers.core import check_count, check_positive
from solvers.curvature._lanczos import lanczos
from solvers.curvature._products import SymmetricOperator, random_signs

__all__ = ["SpectralDensity", "spectral_density"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SpectralDensity:
    """A discrete measure that stands for the eigenvalues; its total mass is one.

    Attributes:
        nodes: Places, shape ``(m,)``.
        weights: Masses, shape ``(m,)``.
        size: Number of eigenvalues that the measure stands for.
        probes: Random vectors that were averaged.
    """

    nodes: Float[Tensor, " m"]
    weights: Float[Tensor, " m"]
    size: int
    probes: int

    def evaluate(self, grid: Float[Tensor, " g"], *, width: float) -> Float[Tensor, " g"]:
        """Density on a grid, each node smeared to a Gaussian.

        Args:
            grid: Where, shape ``(g,)``.
            width: Standard deviation of the Gaussians, in units of the eigenvalues.

        Returns:
            Density that integrates to one.
        """
        check_positive("width", width)
        distance = (grid[:, None] - self.nodes) / width
        bell: Tensor = torch.exp(-0.5 * distance.square()) / (width * (2 * torch.pi) ** 0.5)
        return bell @ self.weights

    def moment(self, order: int) -> float:
        """Mean of the eigenvalues to a power; order one times the size is the trace."""
        return float(self.weights @ self.nodes**order)

    def share(self, low: float, high: float) -> float:
        """Share of the eigenvalues in ``[low, high]``."""
        inside = (self.nodes >= low) & (self.nodes <= high)
        return float(self.weights[inside].sum())


def spectral_density(
    operator: SymmetricOperator,
    *,
    probes: int = 8,
    steps: int = 40,
    generator: torch.Generator | None = None,
) -> SpectralDensity:
    """Estimate the density of all eigenvalues.

    Args:
        operator: Symmetric.
        probes: Random sign vectors to average.
        steps: Lanczos steps from each.
        generator: Source of the vectors, on the CPU; seed 0 by default.

    Returns:
        The density.

    Raises:
        SettingsError: If probes or steps are not whole and positive.

    Cost: ``probes`` times ``steps`` products.
    Reference: Ubaru, Chen & Saad 2017, "Fast estimation of tr(f(A)) via stochastic Lanczos
    quadrature", algorithm 1.

    Example:
        >>> halves = torch.diag(torch.tensor([1.0] * 10 + [3.0] * 10, dtype=torch.float64))
        >>> density = spectral_density(SymmetricOperator.of_matrix(halves))
        >>> round(density.moment(1), 6), round(density.share(0, 2), 6)
        (2.0, 0.5)
    """
    check_count("probes", probes)
    source = generator or torch.Generator().manual_seed(0)
    nodes, weights = [], []
    for block in random_signs(operator, probes, source):
        for start in block:
            values, vectors, _ = lanczos(operator, steps=steps, start=start).ritz()
            nodes.append(values)
            weights.append(vectors[0].square() / probes)
    return SpectralDensity(
        nodes=torch.cat(nodes), weights=torch.cat(weights), size=operator.size, probes=probes
    )
