"""Traces from products with random vectors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from solvers.core import check_count
from solvers.curvature._products import SymmetricOperator, random_signs

__all__ = ["TraceEstimate", "hutchinson_trace", "hutchpp_trace", "power_traces"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceEstimate:
    """A trace with its uncertainty.

    Attributes:
        value: The estimate.
        standard_error: Of the random part; zero if the trace is exact, NaN from one sample.
        products: Products with the operator that it took.
    """

    value: float
    standard_error: float
    products: int


def hutchinson_trace(
    operator: SymmetricOperator, *, probes: int = 32, generator: torch.Generator | None = None
) -> TraceEstimate:
    r"""Estimate :math:`\operatorname{tr} A` as the mean of :math:`v^\top A v` over random signs.

    Args:
        operator: Symmetric.
        probes: Random vectors.
        generator: Source of the vectors, on the CPU; seed 0 by default.

    Returns:
        The estimate; its variance is :math:`2 \sum_{i \ne j} A_{ij}^2` over ``probes``.

    Raises:
        SettingsError: If there is no probe.

    Reference: Hutchinson 1990, "A stochastic estimator of the trace of the influence matrix".

    Example:
        >>> eye = SymmetricOperator.of_matrix(torch.eye(7, dtype=torch.float64))
        >>> hutchinson_trace(eye, probes=4).value
        7.0
    """
    check_count("probes", probes)
    source = generator or torch.Generator().manual_seed(0)
    samples = torch.cat([(v * operator(v)).sum(1) for v in random_signs(operator, probes, source)])
    return TraceEstimate(
        value=float(samples.mean()), standard_error=_standard_error(samples), products=probes
    )


def hutchpp_trace(
    operator: SymmetricOperator, *, products: int = 48, generator: torch.Generator | None = None
) -> TraceEstimate:
    r"""Estimate a trace with a low-rank part taken exactly.

    A third of the products finds an orthonormal basis :math:`Q` of the range of :math:`A S`, a
    third gives :math:`\operatorname{tr}(Q^\top A Q)` and the last third samples what is left,
    :math:`(I - QQ^\top) A (I - QQ^\top)`. Exact if the rank is at most a third of ``products``.

    Args:
        operator: Symmetric; the gain over :func:`hutchinson_trace` is large when few eigenvalues
            dominate, as in the Hessian of a trained network.
        products: Budget, at least 3.
        generator: Source of the vectors, on the CPU; seed 0 by default.

    Returns:
        The estimate.

    Raises:
        SettingsError: If the budget is below 3.

    Reference: Meyer, Musco, Musco & Woodruff 2021, "Hutch++: optimal stochastic trace estimation",
    algorithm 1.

    Example:
        >>> one = torch.outer(torch.arange(9.0), torch.arange(9.0)).double()
        >>> round(hutchpp_trace(SymmetricOperator.of_matrix(one), products=6).value, 6)
        204.0
    """
    check_count("products", products, least=3)
    source = generator or torch.Generator().manual_seed(0)
    third = min(products // 3, operator.size)
    sketch = torch.cat(list(random_signs(operator, third, source)))
    q = torch.linalg.qr(operator(sketch).T).Q
    exact = (q.T * operator(q.T.contiguous())).sum()
    if q.shape[1] == operator.size:
        return TraceEstimate(value=float(exact), standard_error=0.0, products=2 * third)
    rest = products - 2 * third
    samples = []
    for v in random_signs(operator, rest, source):
        outside = v - (v @ q) @ q.T
        samples.append((outside * operator(outside)).sum(1))
    remainder = torch.cat(samples)
    return TraceEstimate(
        value=float(exact + remainder.mean()),
        standard_error=_standard_error(remainder),
        products=2 * third + rest,
    )


def power_traces(
    operator: SymmetricOperator, *, probes: int = 32, generator: torch.Generator | None = None
) -> Float[Tensor, " 4"]:
    r"""Estimate the traces of :math:`A, A^2, A^3, A^4` from two products a probe.

    Args:
        operator: Symmetric.
        probes: Random vectors, or the operator's size for exact traces by unit vectors.
        generator: Source of the vectors, on the CPU; seed 0 by default.

    Returns:
        The four traces.

    Raises:
        SettingsError: If there is no probe.

    Example:
        >>> matrix = torch.diag(torch.tensor([1.0, 2.0], dtype=torch.float64))
        >>> power_traces(SymmetricOperator.of_matrix(matrix)).tolist()
        [3.0, 5.0, 9.0, 17.0]
    """
    check_count("probes", probes)
    source = generator or torch.Generator().manual_seed(0)
    if probes >= operator.size:
        unit = torch.eye(operator.size, dtype=operator.dtype, device=operator.device)
        blocks, weight = [unit], 1.0
    else:
        blocks, weight = list(random_signs(operator, probes, source)), 1.0 / probes
    total = torch.zeros(4, dtype=operator.dtype, device=operator.device)
    for v in blocks:
        once = operator(v)
        twice = operator(once)
        pairs = ((v, once), (once, once), (once, twice), (twice, twice))
        total += weight * torch.stack([(a * b).sum() for a, b in pairs])
    return total


def _standard_error(samples: Tensor) -> float:
    if samples.numel() < 2:
        return math.nan
    return float(samples.std() / samples.numel() ** 0.5)
