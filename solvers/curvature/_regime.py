r"""Spectral diagnostics of a Fisher matrix: regime parameter, directional regime, deviation tensor.

With eigenvalues :math:`\lambda_1 \le \dots \le \lambda_n` of the Fisher matrix :math:`F`, mass
tensor :math:`M = F^2` and the metric :math:`g = M + \beta F`:

* regime parameter :math:`\alpha \in [0, 1)`, :math:`\beta = \alpha^2 / (1 - \alpha)`;
* convergence time of the natural-gradient model :math:`T(\beta) = \kappa(g)\,\rho(g)
  = [\lambda_n(\lambda_n+\beta)]^2/[\lambda_1(\lambda_1+\beta)]`,
  least at :math:`\beta^* = \max(\lambda_n - 2\lambda_1, 0)`;
* directional regime
  :math:`\alpha(v) = v^\top M v/(v^\top M v + \beta\, v^\top F v)`,
  :math:`\lambda_k/(\lambda_k + \beta)` along an eigenvector;
* deviation tensor :math:`D = M - (\operatorname{tr} M / \operatorname{tr} F) F`, which has no trace
  against :math:`I` and vanishes exactly when :math:`F` is a multiple of the identity.

The optimum belongs to this model of convergence: other ones (:math:`\kappa` alone, :math:`\rho`
alone) put it at zero or infinity. The numbers describe the spectrum of a learner and no more.

Reference: "Verifying good regulator conditions for hypergraph observers: natural gradient learning
from causal invariance via established theorems" (2026), for the mass tensor and the regime
parameter; the optimum is derived from :math:`dT/d\beta = 0`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from solvers.core import SettingsError, check_positive
from solvers.curvature._products import SymmetricOperator
from solvers.curvature._traces import power_traces

__all__ = [
    "Regime",
    "convergence_time",
    "deviation_ratio",
    "deviation_tensor",
    "directional_regime",
    "regime",
]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Regime:
    """The regime of a Fisher spectrum.

    Attributes:
        eigenvalues: Rising, shape ``(n,)``.
        condition: Largest over smallest.
        beta: Optimal weight of the Fisher matrix in the metric.
        alpha: Regime parameter that belongs to it.
        directional: ``alpha`` along each eigenvector, shape ``(n,)``; one where ``beta`` is zero.
        deviation: Frobenius norm of the deviation tensor over that of the mass tensor.
    """

    eigenvalues: Float[Tensor, " n"]
    condition: float
    beta: float
    alpha: float
    directional: Float[Tensor, " n"]
    deviation: float

    def __str__(self) -> str:
        return (
            f"Regime: condition {self.condition:.4g}, beta* {self.beta:.4g}, "
            f"alpha* {self.alpha:.4g}, deviation {self.deviation:.4g}\n"
            "  alpha* minimises condition times spectral radius of F^2 + beta F; another model of "
            "convergence has another optimum"
        )


def regime(matrix: Float[Tensor, "n n"]) -> Regime:
    """Compute the regime of a Fisher matrix in closed form.

    Args:
        matrix: Symmetric positive definite.

    Returns:
        The diagnostics.

    Raises:
        SettingsError: If the matrix is not positive definite: restrict it to its range, or add
            damping, because a zero eigenvalue makes the convergence time infinite.

    Example:
        >>> found = regime(torch.diag(torch.tensor([1.0, 4.0], dtype=torch.float64)))
        >>> found.beta, round(found.alpha, 6)
        (2.0, 0.732051)
    """
    values = torch.linalg.eigvalsh(matrix)
    low, high = float(values[0]), float(values[-1])
    if not low > 0:
        raise SettingsError(
            f"matrix: smallest eigenvalue is {low:.3g}, expected a positive definite matrix; "
            "restrict it to its range or add a multiple of the identity"
        )
    beta = max(high - 2.0 * low, 0.0)
    mass, mean = values.square(), values.square().sum() / values.sum()
    deviation = torch.linalg.vector_norm(mass - mean * values) / torch.linalg.vector_norm(mass)
    return Regime(
        eigenvalues=values,
        condition=high / low,
        beta=beta,
        alpha=0.5 * (-beta + (beta * (beta + 4.0)) ** 0.5),
        directional=values / (values + beta),
        deviation=float(deviation),
    )


def convergence_time(values: Float[Tensor, " n"], beta: float) -> float:
    r"""The model's :math:`T(\beta)`, without unit of time.

    Args:
        values: Eigenvalues of the Fisher matrix, positive.
        beta: Weight of the Fisher matrix in the metric, zero or more.

    Returns:
        Condition times spectral radius of :math:`F^2 + \beta F`.
    """
    check_positive("values", values)
    check_positive("beta", beta, allow_zero=True)
    metric = values * (values + beta)
    return float(metric.max() ** 2 / metric.min())


def directional_regime(
    operator: SymmetricOperator, v: Float[Tensor, "*k n"], *, beta: float
) -> Float[Tensor, "*k"]:
    """Regime along directions, from one product each.

    Args:
        operator: Fisher matrix.
        v: Directions, shape ``(n,)`` or ``(k, n)``; any length.
        beta: Weight of the Fisher matrix in the metric, positive.

    Returns:
        ``alpha(v)`` in [0, 1]; NaN in the kernel of the Fisher matrix.
    """
    check_positive("beta", beta)
    moved = operator(v)
    mass = moved.square().sum(-1)
    return mass / (mass + beta * (v * moved).sum(-1))


def deviation_tensor(matrix: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    r"""Trace-free part :math:`F^2 - (\operatorname{tr} F^2/\operatorname{tr} F) F`.

    Args:
        matrix: Fisher matrix with a positive trace.

    Returns:
        Symmetric matrix of trace zero.
    """
    check_positive("trace of matrix", float(torch.trace(matrix)))
    mass = matrix @ matrix
    return mass - torch.trace(mass) / torch.trace(matrix) * matrix


def deviation_ratio(
    operator: SymmetricOperator, *, probes: int = 32, generator: torch.Generator | None = None
) -> float:
    r"""Estimate :math:`\|D\|_F / \|M\|_F` from traces of powers, without the matrix.

    With :math:`\bar k = \operatorname{tr} F^2/\operatorname{tr} F` it is the root of
    :math:`1 - 2\bar k \operatorname{tr}F^3/\operatorname{tr}F^4 + \bar k^2
    \operatorname{tr}F^2/\operatorname{tr}F^4`.

    Args:
        operator: Fisher matrix.
        probes: Random vectors; exact from the operator's size on.
        generator: Source of the vectors; seed 0 by default.

    Returns:
        The ratio in [0, 1].
    """
    one, two, three, four = power_traces(operator, probes=probes, generator=generator)
    mean = two / one
    return float((1.0 - (2.0 * mean * three - mean**2 * two) / four).clamp(min=0.0).sqrt())
