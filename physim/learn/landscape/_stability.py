r"""Dynamical stability: the largest learning rate at which a minimum holds SGD.

Near an interpolating minimum of :math:`\frac1{2m}\sum_i (a_i^\top\theta - y_i)^2` with
:math:`H = \frac1m\sum a_i a_i^\top` the second moment S of the deviation obeys, with batches of B
drawn with replacement,

.. math:: S \leftarrow (I - \eta H) S (I - \eta H)
    + \frac{\eta^2}{B}\left(\frac1m\sum_i a_i a_i^\top S a_i a_i^\top - H S H\right),

and the minimum is stable exactly if the spectral radius of this map on the row space is at most
one. It needs :math:`\eta\lambda_{\max} \le 2` (all of it for gradient descent) and, for batch one,
:math:`\eta \operatorname{tr} H \le 2`, an equality for rows of one length. In between,
:math:`2/(\lambda + (\operatorname{tr} - \lambda)/B)` is a close lower estimate for such rows.

For a two-layer ReLU network with Gaussian inputs
:math:`\operatorname{tr} H = \tfrac12\sum_j (\|b_j\|^2 + d\,a_j^2) \ge \sqrt d \sum_j |a_j|\|b_j\|`:
what SGD can hold has a bounded path norm. A small trace near a minimum that does not interpolate
says nothing; look at the loss beside it.

Reference: Wu & Su 2023, "The implicit regularization of dynamical stability in stochastic gradient
descent"; the exact operator and the closed forms are derived here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from solvers.core import SettingsError, check_finite, check_positive, check_shape
from solvers.curvature import (
    Objective,
    extreme_eigenpairs,
    gauss_newton,
    hutchpp_trace,
    jacobian,
    power_traces,
)

__all__ = [
    "Sharpness",
    "StabilityMonitor",
    "balance_relu",
    "largest_stable_rate",
    "path_norm",
    "relu_trace",
    "sharpness",
    "stability_threshold",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharpness:
    """Size of the Gauss-Newton matrix at a point.

    Attributes:
        trace: Bounds the rate of SGD with batch one by ``2 / trace``.
        frobenius: Frobenius norm.
        largest: Largest eigenvalue; bounds the rate of gradient descent by ``2 / largest``.
        loss: At the point; the bounds belong to a loss near zero.
    """

    trace: float
    frobenius: float
    largest: float
    loss: float

    def rate(self, batch: int) -> float:
        """Estimate of the largest stable rate for a batch, from below for rows of one length."""
        return 2.0 / (self.largest + (self.trace - self.largest) / batch)


def sharpness(
    objective: Objective,
    theta: Float[Tensor, " n"] | None = None,
    *,
    products: int = 96,
    generator: torch.Generator | None = None,
) -> Sharpness:
    """Measure the Gauss-Newton matrix by products.

    Args:
        objective: With outputs.
        theta: Where; the objective's start by default.
        products: Budget for the trace.
        generator: Source of random vectors; seed 0 by default.

    Returns:
        Trace, Frobenius norm, largest eigenvalue and loss.
    """
    point = objective.start if theta is None else theta
    operator = gauss_newton(objective, point)
    top = extreme_eigenpairs(operator, tolerance=1e-6, generator=generator, on_failure="warn")
    squares = power_traces(operator, probes=max(products // 2, 1), generator=generator)
    return Sharpness(
        trace=hutchpp_trace(operator, products=products, generator=generator).value,
        frobenius=float(squares[1].clamp(min=0.0).sqrt()),
        largest=float(top.values[0]),
        loss=float(objective.check_repeatable(point)),
    )


def stability_threshold(
    rows: Float[Tensor, "m n"], batch: int, *, iterations: int = 800, halvings: int = 30
) -> float:
    r"""Largest stable learning rate of a linear least-squares problem, exactly.

    Args:
        rows: Gradients :math:`a_i` of the m predictions; the loss is the mean of half their
            squared errors.
        batch: Rows drawn, with replacement, in a step.
        iterations: Power iterations for one spectral radius.
        halvings: Bisections.

    Returns:
        The rate :math:`\eta^*`.

    Raises:
        SettingsError: If there are more than 2000 rows: take a sample of them; or all are zero.
        NonFiniteError: If a row holds NaN or infinity.

    Cost: ``halvings * iterations`` products of matrices of the rank of the rows.

    Example:
        >>> rows = torch.eye(4, dtype=torch.float64)
        >>> round(stability_threshold(rows, 1) * float(rows.square().sum() / 4), 3)
        2.0
    """
    sizes = check_shape("rows", rows, "m n")
    check_positive("batch", batch)
    check_finite("rows", rows)
    if not bool((rows != 0).any()):
        raise SettingsError("rows: got only zeros, expected a prediction that moves with theta")
    if sizes["m"] > 2000:
        raise SettingsError(
            f"rows: got {sizes['m']}, expected at most 2000, because matrices of that size are "
            "multiplied; take a sample of the rows"
        )
    _, values, basis = torch.linalg.svd(rows, full_matrices=False)
    q = rows @ basis[values > 1e-12 * values[0]].T
    m, rank = q.shape
    h = q.T @ q / m
    largest = float(torch.linalg.eigvalsh(h)[-1])
    check_positive("largest eigenvalue of the rows", largest)

    def radius(eta: float) -> float:
        s = torch.eye(rank, dtype=q.dtype, device=q.device) / rank**0.5
        growth = 0.0
        for _ in range(iterations):
            # Kept symmetric: round-off in the skew part would grow and give false thresholds.
            s = 0.5 * (s + s.T)
            hs = h @ s
            weights = ((q @ s) * q).sum(1) / (m * batch)
            noise = (q.T * weights) @ q - hs @ h / batch
            moved = s - eta * (hs + hs.T) + eta**2 * (hs @ h + noise)
            before, growth = growth, float(torch.linalg.matrix_norm(moved))
            s = moved / growth
            if abs(growth - before) <= 1e-10 * growth:
                break
        return growth

    low, high = 0.0, 2.2 / largest
    for _ in range(halvings):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if radius(middle) > 1.0 else (middle, high)
    return low


def largest_stable_rate(
    objective: Objective,
    theta: Float[Tensor, " n"] | None = None,
    *,
    batch: int,
    rows: int = 512,
    generator: torch.Generator | None = None,
) -> float:
    r"""Largest learning rate at which SGD on an objective holds at a point.

    Args:
        objective: Least squares, :math:`\tfrac12\|r\|^2`, whose m residuals are its samples; SGD
            draws a batch of them and scales their sum by ``m / batch``.
        theta: Where; the objective's start by default. Meant for a point near a minimum with a
            loss near zero.
        batch: Residuals in a step.
        rows: Residuals that are looked at, a random sample where there are more.
        generator: Source of the sample; seed 0 by default.

    Returns:
        The rate for the objective's own scale of the loss.
    """
    point = objective.start if theta is None else theta
    _ = objective.residual
    j = jacobian(objective, point)
    count = len(j)
    if count > rows:
        source = generator or torch.Generator().manual_seed(0)
        j = j[torch.randperm(count, generator=source)[:rows].to(j.device)]
    return stability_threshold(count**0.5 * j, batch)


def relu_trace(inner: Float[Tensor, "j d"], outer: Float[Tensor, " j"]) -> float:
    """Trace of the Gauss-Newton matrix of ``outer . relu(inner x)`` over standard normal x.

    Args:
        inner: Weights of the hidden units.
        outer: Weights of the output.

    Returns:
        Its closed form.
    """
    d = inner.shape[1]
    return float(0.5 * (inner.square().sum() + d * outer.square().sum()))


def path_norm(inner: Float[Tensor, "j d"], outer: Float[Tensor, " j"]) -> float:
    """Sum over hidden units of output weight times length of the input weights.

    Args:
        inner: Weights of the hidden units.
        outer: Weights of the output.

    Returns:
        The norm; times the root of d it bounds :func:`relu_trace` from below.
    """
    return float((outer.abs() * torch.linalg.vector_norm(inner, dim=1)).sum())


def balance_relu(
    inner: Float[Tensor, "j d"], outer: Float[Tensor, " j"]
) -> tuple[Float[Tensor, "j d"], Float[Tensor, " j"]]:
    r"""Rescale each hidden unit, keeping the function, so that the trace is least.

    Args:
        inner: Weights of the hidden units.
        outer: Weights of the output.

    Returns:
        New weights with :math:`\|b_j\| = \sqrt d\,|a_j|`, whose trace is root d times path norm;
        zero for a unit that adds nothing because one of its weights is zero.
    """
    length = torch.linalg.vector_norm(inner, dim=1)
    is_alive = (length > 0) & (outer != 0)
    scale = (length / (inner.shape[1] ** 0.5 * outer.abs())).sqrt()
    scale = torch.where(is_alive, scale, 1.0)
    return (
        torch.where(is_alive[:, None], inner / scale[:, None], 0.0),
        torch.where(is_alive, outer * scale, 0.0),
    )


class StabilityMonitor:
    """Logs how close a training is to the edge of stability.

    Args:
        optimizer: Its learning rate is read, and its steps are counted.
        module: Whose parameters the objective was built from.
        objective: Built from the module, with outputs.
        every: Steps between looks.
        products: Budget of a look.

    Attributes:
        history: Records of ``step``, ``rate``, ``rate_trace`` (SGD holds up to 2),
            ``rate_largest`` (gradient descent holds up to 2) and ``loss``.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        module: nn.Module,
        objective: Objective,
        *,
        every: int = 50,
        products: int = 48,
    ) -> None:
        check_positive("every", every)
        self.history: list[dict[str, float]] = []
        self._module, self._objective = module, objective
        self._every, self._products, self._steps = every, products, 0
        self._handle = optimizer.register_step_post_hook(self._look)

    def stop(self) -> None:
        """Look no more."""
        self._handle.remove()

    def _look(self, optimizer: Optimizer, *_: Any) -> None:
        self._steps += 1
        if self._steps % self._every:
            return
        named = {name: p.detach() for name, p in self._module.named_parameters()}
        theta = self._objective.space.flatten(named)
        found = sharpness(self._objective, theta, products=self._products)
        rate = float(optimizer.param_groups[0]["lr"])
        self.history.append({
            "step": self._steps, "rate": rate, "rate_trace": rate * found.trace,
            "rate_largest": rate * found.largest, "loss": found.loss,
        })  # fmt: skip
