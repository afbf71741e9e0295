r"""Bulk and outliers of a curvature spectrum.

The Hessian of a trained network is a bulk near zero with a few large outliers. Width adds to the
bulk; data sets the outliers: for k tight clusters and a softmax over k classes the Gauss-Newton
matrix is a sum of k parts of rank k - 1, so it has k(k - 1) eigenvalues that are not negligible,
k dominant ones among them where labels are nearly pure.

Reference: Sagun, Evci, Guney, Dauphin & Bottou 2018, "Empirical analysis of the Hessian of
over-parametrized neural networks"; the count k(k - 1) is derived here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from solvers.core import SettingsError, check_choice
from solvers.curvature import (
    Mode,
    Objective,
    SpectralDensity,
    extreme_eigenpairs,
    gauss_newton,
    hessian,
    hutchpp_trace,
    spectral_density,
)

__all__ = ["Kind", "Outliers", "Spectrum", "find_outliers", "spectrum"]

Kind = Literal["hessian", "gauss_newton"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Spectrum:
    """Ends, density and trace of a curvature matrix.

    Attributes:
        top: Largest eigenvalues, falling; of a repeated one a single copy.
        lowest: Smallest eigenvalue.
        trace: Estimate.
        density: Of all eigenvalues.
        kind: Of the matrix.
    """

    top: Float[Tensor, " k"]
    lowest: float
    trace: float
    density: SpectralDensity
    kind: Kind


def spectrum(
    objective: Objective,
    theta: Float[Tensor, " n"] | None = None,
    *,
    kind: Kind = "hessian",
    mode: Mode | None = None,
    count: int = 20,
    probes: int = 4,
    steps: int = 40,
    products: int = 48,
    generator: torch.Generator | None = None,
) -> Spectrum:
    """Look at a curvature matrix by products.

    Args:
        objective: What is minimised; with outputs for ``"gauss_newton"``.
        theta: Where; the objective's start by default.
        kind: Which matrix.
        mode: Of the Hessian's products, see :func:`solvers.curvature.hessian`; the objective's
            own by default.
        count: Largest eigenvalues wanted.
        probes: Random vectors for the density.
        steps: Lanczos steps from each.
        products: Budget for the trace.
        generator: Source of random vectors; seed 0 by default.

    Returns:
        The spectrum. Values of losses with different weights compare only after division by the
        trace.

    Cost: ``probes * steps + products`` products and some ten for each eigenvalue.
    """
    check_choice("kind", kind, ("hessian", "gauss_newton"))
    if kind == "hessian":
        operator = hessian(objective, theta, mode=mode)
    else:
        operator = gauss_newton(objective, theta)
    source = generator or torch.Generator().manual_seed(0)
    count = min(count, operator.size)
    top = extreme_eigenpairs(operator, count, tolerance=1e-5, generator=source, on_failure="mask")
    low = extreme_eigenpairs(
        operator, which="smallest", tolerance=1e-7, generator=source, on_failure="mask"
    )
    return Spectrum(
        top=top.values,
        lowest=float(low.values[0]),
        trace=hutchpp_trace(operator, products=products, generator=source).value,
        density=spectral_density(operator, probes=probes, steps=steps, generator=source),
        kind=kind,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outliers:
    """Eigenvalues that stand apart from the bulk.

    Attributes:
        count: How many; None if no gap is wide enough to tell.
        gap_ratio: Last outlier over first of the bulk, at the widest gap.
        edge: Where the bulk begins.
    """

    count: int | None
    gap_ratio: float
    edge: float


def find_outliers(
    values: Float[Tensor, " k"], *, at_most: int | None = None, least_ratio: float = 3.0
) -> Outliers:
    """Count outliers by the widest gap on a logarithmic scale.

    Args:
        values: Largest eigenvalues, two or more beyond the expected outliers.
        at_most: Look for no more outliers than this.
        least_ratio: Gaps below this ratio do not count.

    Returns:
        The outliers.

    Raises:
        SettingsError: If there are fewer than three values or none is positive.

    Example:
        >>> find_outliers(torch.tensor([50.0, 30.0, 20.0, 0.2, 0.1])).count
        3
    """
    falling = values.sort(descending=True).values
    if len(falling) < 3 or not bool(falling[0] > 0):
        raise SettingsError(
            f"values: got {len(falling)} with largest {float(falling[:1].sum()):.3g}, expected "
            "three or more and a positive largest one"
        )
    floor = falling[0] * 1e-15
    ratios = falling[:-1].clamp(min=floor) / falling[1:].clamp(min=floor)
    limit = len(ratios) if at_most is None else min(at_most, len(ratios))
    place = int(ratios[:limit].argmax())
    ratio = float(ratios[place])
    return Outliers(
        count=place + 1 if ratio >= least_ratio else None,
        gap_ratio=ratio,
        edge=float(falling[place + 1]),
    )
