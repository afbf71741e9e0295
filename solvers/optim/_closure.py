r"""What a closure computes, differentiated: gradient, rows, Hessian and products.

Only ordinary autograd is used, so that a closure may itself differentiate (a physics-informed
residual with ``torch.autograd.grad``). The product :math:`J v` comes from reverse mode twice: the
derivative of :math:`u \mapsto J^\top u` is :math:`J^\top`, and transposed again :math:`J`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from solvers.core import SettingsError

__all__ = ["ClosureGraph", "pull_rows"]


@dataclass(frozen=True, slots=True, eq=False)
class ClosureGraph:
    """One evaluation of a closure with its graph.

    Attributes:
        value: What it returned, flattened.
        params: The parameters.
        kind: ``"gauss_newton"``, ``"exact"`` or ``"fisher"``.
        loss: The loss that it stands for.
    """

    value: Tensor
    params: Sequence[Tensor]
    kind: str
    loss: float

    @classmethod
    def trace(
        cls, closure: Callable[[], Tensor], params: Sequence[Tensor], kind: str
    ) -> ClosureGraph:
        """Evaluate a closure."""
        with torch.enable_grad():
            value = closure()
        if not isinstance(value, Tensor) or not value.requires_grad:
            raise SettingsError(
                "closure: its result does not depend on the parameters, expected a tensor with a "
                "graph; return residuals or the loss without backward, detach or item, and give "
                "the optimizer tensors that take gradients"
            )
        if kind == "exact" and value.numel() != 1:
            raise SettingsError(
                f"closure: returned shape {tuple(value.shape)} with hessian='exact', expected a "
                "scalar loss; use hessian='gauss_newton' for residuals"
            )
        flat = value.reshape(-1)
        with torch.no_grad():
            total = 0.5 * flat.square().sum() if kind == "gauss_newton" else flat.mean()
        return cls(flat, params, kind, float(total))

    @property
    def is_finite(self) -> bool:
        """Whether the loss is a number."""
        return math.isfinite(self.loss)

    @property
    def size(self) -> int:
        """Number of parameters."""
        return sum(p.numel() for p in self.params)

    @property
    def count(self) -> int:
        """Number of residuals or samples."""
        return self.value.numel()

    def gradient(self) -> Float[Tensor, " n"]:
        """Gradient of the loss."""
        weights = {
            "gauss_newton": self.value.detach(),
            "exact": torch.ones_like(self.value),
            "fisher": torch.full_like(self.value, 1.0 / self.count),
        }[self.kind]
        return self._pull(self.value, weights)

    def weights(self) -> Float[Tensor, " m"]:
        """Combination of :meth:`rows` that is the gradient."""
        if self.kind == "fisher":
            return torch.full_like(self.value, self.count**-0.5).detach()
        return self.value.detach()

    def rows(self, chunk: int) -> Float[Tensor, "m n"]:
        """Jacobian whose square is the curvature: of residuals, or of losses over root m."""
        scale = self.count**-0.5 if self.kind == "fisher" else 1.0
        eye = scale * torch.eye(self.count, dtype=self.value.dtype, device=self.value.device)
        return torch.cat([self._pull_rows(self.value, block) for block in eye.split(chunk)])

    def hessian(self, chunk: int) -> Float[Tensor, "n n"]:
        """Hessian of a scalar loss."""
        slope = self._pull(self.value, torch.ones_like(self.value), create_graph=True)
        eye = torch.eye(self.size, dtype=slope.dtype, device=slope.device)
        if not slope.requires_grad:
            return torch.zeros_like(eye)
        matrix = torch.cat([self._pull_rows(slope, block) for block in eye.split(chunk)])
        return 0.5 * (matrix + matrix.T)

    def product(self) -> Callable[[Tensor], Tensor]:
        """Product of the curvature with a vector."""
        if self.kind == "exact":
            slope = self._pull(self.value, torch.ones_like(self.value), create_graph=True)
            return lambda v: self._pull(slope, v)
        scale = 1.0 / self.count if self.kind == "fisher" else 1.0
        dummy = torch.zeros_like(self.value, requires_grad=True)
        pulled = self._pull(self.value, dummy, create_graph=True)

        def multiply(v: Tensor) -> Tensor:
            (pushed,) = torch.autograd.grad(
                pulled, dummy, v, retain_graph=True, materialize_grads=True
            )
            return scale * self._pull(self.value, pushed)

        return multiply

    def _pull(self, value: Tensor, weights: Tensor, *, create_graph: bool = False) -> Tensor:
        parts = torch.autograd.grad(
            value, self.params, weights,
            retain_graph=True, create_graph=create_graph, materialize_grads=True,
        )  # fmt: skip
        return torch.cat([part.reshape(-1) for part in parts])

    def _pull_rows(self, value: Tensor, rows: Tensor) -> Tensor:
        return pull_rows(value, self.params, rows)


def pull_rows(
    value: Tensor, params: Sequence[Tensor], rows: Float[Tensor, "k ..."]
) -> Float[Tensor, "k n"]:
    """Vector-Jacobian products of several cotangents, zero where nothing depends.

    All at once where the graph allows it; one by one through a compiled kernel, which does not.
    """
    inputs = list(params)
    try:
        parts = torch.autograd.grad(
            value, inputs, rows, retain_graph=True, is_grads_batched=True, allow_unused=True
        )
    except RuntimeError:
        each = [
            torch.autograd.grad(value, inputs, row, retain_graph=True, materialize_grads=True)
            for row in rows
        ]
        parts = tuple(torch.stack(column) for column in zip(*each, strict=True))
    filled = (
        p.new_zeros(len(rows), p.numel()) if part is None else part.reshape(len(rows), -1)
        for p, part in zip(params, parts, strict=True)
    )
    return torch.cat(list(filled), 1)
