r"""Low-rank factors :math:`M = F G^\top` whose descent is fast, and a diagnosis of slow tails.

Gradient descent on a factorised square loss with more columns k than the rank r of the answer
behaves in three ways:

* symmetric, :math:`F = G`: the loss falls as :math:`1/T^2`;
* two factors from a balanced start, :math:`F^\top F = G^\top G`: as slow;
* two factors from an unbalanced start: exponentially. The imbalance
  :math:`\Delta = F^\top F - G^\top G` is conserved by gradient flow, the superfluous columns of the
  product decay as :math:`(1 - \eta \lambda_{\min}(\Delta))^t`, hence the loss at the rate
  :math:`2 \eta \lambda_{\min}(\Delta)`.

With orthonormal columns of lengths :math:`\alpha` and :math:`\alpha/3` the imbalance is
:math:`\tfrac89 \alpha^2 I`, so the rate still depends on the start. Near a solution one step
removes that: with :math:`F = P S Q^\top` replace F by :math:`\beta P` and G by
:math:`G Q S / \beta`. The product is unchanged and the imbalance becomes nearly
:math:`\beta^2 I`.

Reference: Xiong, Ding & Du 2024, "How over-parameterization slows down gradient descent in matrix
sensing: the curses of symmetry and initialization"; rates and the one step are re-derived here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from solvers.core import SettingsError, check_positive

__all__ = [
    "LowRankFactor",
    "RebalanceOnce",
    "TailDiagnosis",
    "diagnose_tail",
    "predicted_rate",
    "rebalance_",
]


class LowRankFactor(nn.Module):
    r"""A matrix of given rank at most, as a product of factors with orthonormal columns at start.

    Args:
        rows: Rows of the matrix.
        columns: Columns of the matrix.
        rank: Columns k of the factors; may exceed the rank of the answer.
        is_symmetric: One factor, :math:`F F^\top`; slow if k exceeds the rank, see the module.
        scale: Length :math:`\alpha` of the columns of F.
        imbalance: Length of F's columns over that of G's; 1 is the slow balanced start.
        generator: Source of the start; seed 0 by default.
        dtype: Type of the factors.

    Example:
        >>> factor = LowRankFactor(5, 4, 2)
        >>> factor().shape, bool(torch.linalg.eigvalsh(factor.imbalance())[0] > 0.14)
        (torch.Size([5, 4]), True)
    """

    def __init__(
        self,
        rows: int,
        columns: int,
        rank: int,
        *,
        is_symmetric: bool = False,
        scale: float = 0.4,
        imbalance: float = 3.0,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        check_positive("scale", scale)
        check_positive("imbalance", imbalance)
        if not 1 <= rank <= min(rows, columns) or (is_symmetric and rows != columns):
            raise SettingsError(
                f"rank: got {rank} for a matrix of shape ({rows}, {columns}), expected 1 to "
                f"{min(rows, columns)}, and a square matrix if it is symmetric"
            )
        source = generator or torch.Generator().manual_seed(0)

        def orthonormal(size: int) -> Tensor:
            draw = torch.randn(size, rank, generator=source, dtype=torch.float64)
            q: Tensor = torch.linalg.qr(draw).Q
            return q.to(dtype)

        self.left = nn.Parameter(scale * orthonormal(rows))
        self.right: nn.Parameter | None = None
        if not is_symmetric:
            self.right = nn.Parameter(scale / imbalance * orthonormal(columns))

    def forward(self) -> Float[Tensor, "rows columns"]:
        """The matrix."""
        product: Tensor = self.left @ (self.left if self.right is None else self.right).T
        return product

    def imbalance(self) -> Float[Tensor, "k k"]:
        """Difference of the factors' Gram matrices, conserved by gradient flow."""
        right = self.left if self.right is None else self.right
        difference: Tensor = self.left.T @ self.left - right.T @ right
        return difference.detach()


def predicted_rate(factor: LowRankFactor, lr: float) -> float:
    r"""Rate at which the loss will fall in the end: :math:`2 \eta \lambda_{\min}(\Delta)`.

    Args:
        factor: With more columns than the rank of the answer.
        lr: Learning rate of gradient descent on half the squared error.

    Returns:
        Decrease of the log of the loss per iteration; zero for symmetric or balanced factors.
    """
    lowest = float(torch.linalg.eigvalsh(factor.imbalance())[0])
    return 2.0 * lr * max(lowest, 0.0)


@torch.no_grad()
def rebalance_(factor: LowRankFactor, beta: float = 1.0) -> None:
    r"""Make the left factor :math:`\beta` times orthonormal and keep the product.

    Args:
        factor: Changed in place; unsymmetric.
        beta: New length of F's columns; the loss then falls at about
            :math:`2 \eta\, (\beta^2 - \sigma^2/\beta^2)` in the worst column, so take it of the
            order of the root of the largest singular value.

    Raises:
        SettingsError: If the factor is symmetric.

    Example:
        >>> factor = LowRankFactor(6, 6, 3)
        >>> before = factor().detach()
        >>> rebalance_(factor)
        >>> bool(torch.allclose(factor().detach(), before, atol=1e-12))
        True
    """
    check_positive("beta", beta)
    if factor.right is None:
        raise SettingsError(
            "factor: is symmetric, expected two factors; build it with is_symmetric=False, the "
            "only form that descends fast"
        )
    p, s, q = torch.linalg.svd(factor.left, full_matrices=False)
    factor.left.copy_(beta * p)
    factor.right.copy_(factor.right @ q.T * (s / beta))


class RebalanceOnce:
    """Rebalance a factor during training, once the loss is low enough, and never again.

    It hooks into the optimizer: nothing in the training loop changes. The momentum of both factors
    is dropped, because it belongs to the old ones.

    Args:
        optimizer: Steps the factor.
        factor: Unsymmetric.
        loss: Gives the present loss; called after every ``every`` steps.
        level: Loss below which the iterate counts as near a solution, a hundredth of the first
            loss by default.
        beta: See :func:`rebalance_`.
        every: Steps between looks at the loss.

    Attributes:
        fired_at: Step at which it happened, None before.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        factor: LowRankFactor,
        loss: Callable[[], Tensor | float],
        *,
        level: float | None = None,
        beta: float = 1.0,
        every: int = 1,
    ) -> None:
        check_positive("beta", beta)
        if factor.right is None:
            raise SettingsError("factor: is symmetric, expected two factors")
        self.fired_at: int | None = None
        self._factor, self._loss, self._beta, self._every = factor, loss, beta, every
        self._level = 0.01 * self._now() if level is None else level
        self._steps = 0
        self._handle = optimizer.register_step_post_hook(self._look)

    def _now(self) -> float:
        with torch.no_grad():
            return float(self._loss())

    def _look(self, optimizer: Optimizer, *_: Any) -> None:
        self._steps += 1
        if self._steps % self._every or not self._now() < self._level:
            return
        rebalance_(self._factor, self._beta)
        for p in self._factor.parameters():
            optimizer.state.pop(p, None)
        self.fired_at = self._steps
        self._handle.remove()


@dataclass(frozen=True, slots=True, kw_only=True)
class TailDiagnosis:
    """How a loss falls in the end.

    Attributes:
        kind: ``"exponential"`` or ``"power"``, whichever line fits better.
        rate: Decrease of the log of the loss per iteration, of the exponential fit.
        exponent: Slope of log loss against log iteration, of the power fit.
        fit: Share of the variance that the better line explains.
    """

    kind: Literal["exponential", "power"]
    rate: float
    exponent: float
    fit: float

    @property
    def advice(self) -> str:
        """What the tail suggests."""
        if self.kind == "exponential":
            return "The loss falls exponentially; more iterations pay."
        if -2.4 <= self.exponent <= -1.6 and self.fit > 0.99:
            return (
                "The loss falls as one over the square of the iterations, the mark of equal or "
                "balanced factors with superfluous columns: use two unbalanced factors, or "
                "rebalance them once."
            )
        return "The loss falls as a power of the iterations: look for a flat or degenerate minimum."


def diagnose_tail(losses: Float[Tensor, " t"], *, share: float = 0.8) -> TailDiagnosis:
    """Fit the tail of a training curve by an exponential and by a power.

    Args:
        losses: One loss an iteration, from the first; positive.
        share: Part of the curve, from its end, that is the tail.

    Returns:
        The diagnosis.

    Raises:
        SettingsError: If there are fewer than ten losses in the tail or one is not positive: cut
            the curve where it reaches rounding.

    Example:
        >>> diagnose_tail(1.0 / torch.arange(1, 1001).double() ** 2).kind
        'power'
    """
    t = torch.arange(1, len(losses) + 1, dtype=torch.float64, device=losses.device)
    first = int(len(losses) * (1.0 - share))
    tail = losses[first:].double()
    if len(tail) < 10 or not bool((tail > 0).all()):
        raise SettingsError(
            f"losses: the tail has {len(tail)} entries and smallest {float(tail.min()):.3g}, "
            "expected ten or more positive losses; cut the curve where it reaches rounding"
        )
    rate, straight = _line(t[first:], tail.log())
    exponent, curved = _line(t[first:].log(), tail.log())
    return TailDiagnosis(
        kind="exponential" if straight >= curved else "power",
        rate=-rate,
        exponent=exponent,
        fit=max(straight, curved),
    )


def _line(x: Tensor, y: Tensor) -> tuple[float, float]:
    x, y = x - x.mean(), y - y.mean()
    slope = (x @ y) / (x @ x)
    explained = 1.0 - (y - slope * x).square().sum() / y.square().sum()
    return float(slope), float(explained)
