r"""One damped Newton step: :math:`d = -(H + \lambda B)^{-1} g` in the way that fits the sizes.

* dense: Cholesky of :math:`H + \lambda B`, n cubed operations;
* Woodbury, for :math:`H = J^\top J` with fewer rows than columns and :math:`g = J^\top w`:
  :math:`d = -B^{-1} J^\top (\lambda I + J B^{-1} J^\top)^{-1} w`, m cubed operations;
* conjugate gradients on products, preconditioned by :math:`B`, where neither fits in memory.

The decrease that the model predicts needs no further product, because
:math:`d^\top H d = -g^\top d - \lambda\, d^\top B d`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from solvers.core import SettingsError, ShapeError

__all__ = ["DenseModel", "LocalModel", "Metric", "ProductModel", "RowModel"]


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """A positive definite metric: identity, diagonal or dense.

    Attributes:
        matrix: None for the identity, the diagonal ``(n,)`` or the matrix ``(n, n)``.
        factor: Cholesky factor of a dense one.
    """

    matrix: Tensor | None = None
    factor: Tensor | None = None

    @classmethod
    def of(cls, matrix: Tensor | None, size: int) -> Metric:
        """Check a metric and factorise it."""
        if matrix is None:
            return cls()
        if matrix.shape == (size,) and bool((matrix > 0).all()):
            return cls(matrix)
        if matrix.shape != (size, size):
            raise ShapeError(
                f"metric: got shape {tuple(matrix.shape)}, expected ({size}, {size}), or a "
                f"positive vector of length {size} for a diagonal one"
            )
        factor, info = torch.linalg.cholesky_ex(matrix)
        if int(info) or not bool(torch.isfinite(factor).all()):
            raise SettingsError(
                "metric: is not positive definite, expected a symmetric positive definite matrix; "
                "add a multiple of the identity"
            )
        return cls(matrix, factor)

    def apply(self, v: Tensor) -> Tensor:
        """Multiply columns by the metric."""
        if self.matrix is None:
            return v
        if self.factor is None:
            return self.matrix * v if v.ndim == 1 else self.matrix[:, None] * v
        return self.matrix @ v

    def solve(self, v: Tensor) -> Tensor:
        """Multiply columns by the inverse."""
        if self.matrix is None:
            return v
        if self.factor is None:
            return v / self.matrix if v.ndim == 1 else v / self.matrix[:, None]
        columns = v[:, None] if v.ndim == 1 else v
        solved: Tensor = torch.cholesky_solve(columns, self.factor)
        return solved[:, 0] if v.ndim == 1 else solved

    def dual_norm(self, g: Tensor) -> float:
        r""":math:`\sqrt{g^\top B^{-1} g}`."""
        return float((g @ self.solve(g)).clamp(min=0.0).sqrt())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LocalModel(ABC):
    """A quadratic model of a loss; ``step`` is None where the damped system is not definite."""

    gradient: Float[Tensor, " n"]
    metric: Metric

    @abstractmethod
    def step(self, damping: float) -> Float[Tensor, " n"] | None:
        """Minimise the model with damping times the metric added."""

    def predicted(self, step: Float[Tensor, " n"], damping: float) -> float:
        """Decrease of the model without damping along its damped minimiser."""
        slope = -(self.gradient @ step)
        return float(0.5 * slope + 0.5 * damping * (step @ self.metric.apply(step)))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DenseModel(LocalModel):
    """With the matrix ``hessian``, shape ``(n, n)``."""

    hessian: Float[Tensor, "n n"]

    def step(self, damping: float) -> Float[Tensor, " n"] | None:
        """Solve by Cholesky."""
        eye = torch.eye(len(self.gradient), dtype=self.gradient.dtype, device=self.gradient.device)
        return _cholesky(self.hessian + damping * self.metric.apply(eye), -self.gradient)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RowModel(LocalModel):
    """With the rows of a Jacobian, ``H = J' J`` and ``g = J' weights``; m below n."""

    rows: Float[Tensor, "m n"]
    weights: Float[Tensor, " m"]

    def step(self, damping: float) -> Float[Tensor, " n"] | None:
        """Solve in the space of the rows."""
        lifted = self.metric.solve(self.rows.T)
        inner = self.rows @ lifted
        inner.diagonal().add_(damping)
        solved = _cholesky(inner, -self.weights)
        return None if solved is None else lifted @ solved


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ProductModel(LocalModel):
    """With products only; conjugate gradients to a relative residual."""

    product: Callable[[Tensor], Tensor]
    tolerance: float = 1e-6
    iterations: int = 200

    def step(self, damping: float) -> Float[Tensor, " n"] | None:
        """Solve by preconditioned conjugate gradients; the best iterate if they run out."""
        x = torch.zeros_like(self.gradient)
        r = -self.gradient
        z = self.metric.solve(r)
        p, rz = z, r @ z
        goal = self.tolerance**2 * float(rz)
        for _ in range(self.iterations):
            if not float(rz) > goal:
                break
            q = self.product(p) + damping * self.metric.apply(p)
            curvature = p @ q
            if not float(curvature) > 0:
                return None
            alpha = rz / curvature
            x, r = x + alpha * p, r - alpha * q
            z = self.metric.solve(r)
            before, rz = rz, r @ z
            p = z + rz / before * p
        return x


def _cholesky(matrix: Tensor, right: Tensor) -> Tensor | None:
    factor, info = torch.linalg.cholesky_ex(matrix)
    if int(info):
        return None
    solved: Tensor = torch.cholesky_solve(right[:, None], factor)[:, 0]
    return solved if bool(torch.isfinite(solved).all()) else None
