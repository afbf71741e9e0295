r"""Products with the Hessian and the Gauss-Newton matrix of an objective, without the matrices.

With :math:`f = \ell \circ z`, Jacobian :math:`J = \partial z/\partial\theta` and
:math:`S = \nabla^2\ell`,

.. math:: \nabla^2 f = J^\top S J + \sum_i \partial_i\ell\, \nabla^2 z_i ,

and the first part is the (generalised) Gauss-Newton matrix, positive semidefinite.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import grad, jacrev, jvp, vjp, vmap

from solvers.core import SettingsError, ShapeError, check_choice
from solvers.curvature._objective import Mode, Objective

__all__ = ["SymmetricOperator", "gauss_newton", "hessian", "jacobian"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SymmetricOperator:
    """A symmetric matrix that is known by its product with vectors.

    Attributes:
        product: Vector ``(n,)`` to vector ``(n,)``.
        size: n.
        dtype: Type of the vectors.
        device: Where they live.
        chunk: How many vectors of a batch are multiplied at once; bounds the memory.
        is_vectorized: Whether ``torch.vmap`` can trace the product; one vector at a time if not.

    Example:
        >>> twice = SymmetricOperator(product=lambda v: 2 * v, size=3, dtype=torch.float64)
        >>> twice.dense().diagonal().tolist()
        [2.0, 2.0, 2.0]
    """

    product: Callable[[Tensor], Tensor]
    size: int
    dtype: torch.dtype
    device: torch.device | str = "cpu"
    chunk: int = 64
    is_vectorized: bool = True

    @classmethod
    def of_matrix(cls, matrix: Float[Tensor, "n n"]) -> SymmetricOperator:
        """Wrap a symmetric matrix.

        Args:
            matrix: Shape ``(n, n)``.

        Returns:
            The operator.

        Raises:
            ShapeError: If the matrix is not square.
        """
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise ShapeError(f"matrix: got shape {tuple(matrix.shape)}, expected (n, n)")
        return cls(
            product=lambda v: matrix @ v,
            size=matrix.shape[0],
            dtype=matrix.dtype,
            device=matrix.device,
        )

    def __call__(self, v: Float[Tensor, "*k n"]) -> Float[Tensor, "*k n"]:
        """Multiply a vector ``(n,)`` or every row of ``(k, n)``."""
        if v.shape[-1:] != (self.size,) or v.ndim > 2:
            raise ShapeError(
                f"v: got shape {tuple(v.shape)}, expected ({self.size},) or (k, {self.size})"
            )
        if v.ndim == 1:
            return self.product(v)
        if not self.is_vectorized:
            return torch.stack([self.product(row) for row in v])
        result: Tensor = vmap(self.product, chunk_size=self.chunk)(v)
        return result

    def dense(self) -> Float[Tensor, "n n"]:
        """The matrix itself: n products and n squared numbers."""
        rows: Tensor = self(torch.eye(self.size, dtype=self.dtype, device=self.device))
        return 0.5 * (rows + rows.T)


def hessian(
    objective: Objective,
    theta: Float[Tensor, " n"] | None = None,
    *,
    mode: Mode | None = None,
    chunk: int = 64,
) -> SymmetricOperator:
    r"""Hessian of the loss by products: :math:`\nabla^2 f\, v = \partial_v \nabla f`.

    Args:
        objective: What is minimised; must give the same loss twice.
        theta: Where; the objective's start by default.
        mode: ``"forward"`` over reverse, by ``torch.func``; ``"reverse"`` twice, by ordinary
            autograd, for losses that call ``torch.autograd.grad`` themselves or run the reference
            simulator; or central ``"difference"`` of gradients, for gradients of compiled code,
            which has no second derivatives. The objective's own mode by default.
        chunk: Vectors that are multiplied at once in forward mode.

    Returns:
        The operator. A product costs about four evaluations of the loss, a difference two
        gradients; differences are exact to some nine digits of the largest eigenvalue.

    Raises:
        SettingsError: If the objective is random, or has no graph for the mode.
        NonFiniteError: If the loss is not finite there.

    Reference: Pearlmutter 1994, "Fast exact multiplication by the Hessian".

    Example:
        >>> cubic = Objective.of_loss(lambda p: (p**3).sum(), torch.tensor([1.0, 2.0]))
        >>> hessian(cubic).dense().diagonal().tolist()
        [6.0, 12.0]
    """
    chosen = objective.mode if mode is None else mode
    check_choice("mode", chosen, ("forward", "reverse", "difference"))
    if objective.source is not None and chosen != "difference":
        raise SettingsError(
            f"mode: got {chosen!r} for residuals that bring their own derivatives, which autograd "
            "does not see; expected 'difference'"
        )
    point = _point(objective, theta)
    if chosen == "reverse":
        return _twice_reversed(objective, point)
    if chosen == "difference":
        return _difference(objective, point)
    slope = grad(objective.loss)

    def product(v: Tensor) -> Tensor:
        result: Tensor = jvp(slope, (point,), (v,))[1]
        return result

    return _operator(product, point, chunk)


def gauss_newton(
    objective: Objective, theta: Float[Tensor, " n"] | None = None, *, chunk: int = 64
) -> SymmetricOperator:
    r"""Gauss-Newton matrix :math:`J^\top S J`, forward then reverse.

    Args:
        objective: With outputs; :math:`S` is the identity for least squares.
        theta: Where; the objective's start by default.
        chunk: Vectors that are multiplied at once.

    Returns:
        The operator, positive semidefinite. A product costs about four evaluations.

    Raises:
        SettingsError: If the objective has no outputs or is random.
        NonFiniteError: If the loss is not finite there.

    Reference: Schraudolph 2002, "Fast curvature matrix-vector products", section 3.
    """
    outputs, output_loss = objective.outputs, objective.output_loss
    if outputs is None or output_loss is None:
        raise SettingsError(
            "objective: has no outputs, expected a residual or outputs with their loss; build it "
            "with of_residual, of_outputs or of_module, or use hessian instead"
        )
    point = _point(objective, theta)
    if objective.source is not None:
        j = objective.source.jacobian(point)
        return _operator(lambda v: j.T @ (j @ v), point, chunk)
    slope = grad(output_loss)

    def product(v: Tensor) -> Tensor:
        z, moved = jvp(outputs, (point,), (v,))[:2]
        weighted = moved if objective.is_least_squares else jvp(slope, (z,), (moved,))[1]
        result: Tensor = vjp(outputs, point)[1](weighted)[0]
        return result

    return _operator(product, point, chunk)


def jacobian(
    objective: Objective, theta: Float[Tensor, " n"] | None = None, *, chunk: int = 64
) -> Float[Tensor, "m n"]:
    """Jacobian of the outputs, rows flattened.

    Args:
        objective: With outputs.
        theta: Where; the objective's start by default.
        chunk: Rows that are computed at once.

    Returns:
        Matrix of shape ``(m, n)``.

    Raises:
        SettingsError: If the objective has no outputs or is random.
        NonFiniteError: If the loss is not finite there.
    """
    outputs = objective.outputs
    if outputs is None:
        raise SettingsError("objective: has no outputs, expected a residual or outputs")
    point = _point(objective, theta)
    if objective.source is not None:
        return objective.source.jacobian(point).detach()
    matrix: Tensor = jacrev(lambda p: outputs(p).reshape(-1), chunk_size=chunk)(point)
    return matrix.detach()


def _twice_reversed(objective: Objective, point: Tensor) -> SymmetricOperator:
    with torch.enable_grad():
        leaf = point.clone().requires_grad_()
        (slope,) = torch.autograd.grad(objective.loss(leaf), leaf, create_graph=True)

    def product(v: Tensor) -> Tensor:
        (result,) = torch.autograd.grad(slope, leaf, v, retain_graph=True, materialize_grads=True)
        return result

    return SymmetricOperator(
        product=product,
        size=point.numel(),
        dtype=point.dtype,
        device=point.device,
        is_vectorized=False,
    )


def _difference(objective: Objective, point: Tensor) -> SymmetricOperator:
    scale = torch.finfo(point.dtype).eps ** (1 / 3) * (1.0 + float(point.abs().max()))

    def product(v: Tensor) -> Tensor:
        length = float(v.norm())
        if length == 0.0:
            return torch.zeros_like(v)
        move = (scale / length) * v
        rise = objective.gradient(point + move) - objective.gradient(point - move)
        result: Tensor = rise * (length / (2.0 * scale))
        return result

    return SymmetricOperator(
        product=product,
        size=point.numel(),
        dtype=point.dtype,
        device=point.device,
        is_vectorized=False,
    )


def random_signs(
    operator: SymmetricOperator, count: int, generator: torch.Generator
) -> Iterator[Float[Tensor, "k n"]]:
    """Rademacher vectors in blocks of the operator's chunk, the same on every device."""
    left = count
    while left > 0:
        k = min(operator.chunk, left)
        left -= k
        bits = torch.randint(0, 2, (k, operator.size), generator=generator)
        yield (2 * bits - 1).to(operator.device, operator.dtype)


def _point(objective: Objective, theta: Tensor | None) -> Tensor:
    point = (objective.start if theta is None else theta).detach()
    objective.check_repeatable(point)
    return point


def _operator(product: Callable[[Tensor], Tensor], point: Tensor, chunk: int) -> SymmetricOperator:
    return SymmetricOperator(
        product=product, size=point.numel(), dtype=point.dtype, device=point.device, chunk=chunk
    )
