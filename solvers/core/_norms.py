"""Norms that stay finite, differentiable and free of units."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["relative_error", "safe_norm", "scaled_max_norm"]


def safe_norm(
    x: Float[Tensor, "..."], *, dim: int | Sequence[int] = -1, keepdim: bool = False
) -> Float[Tensor, "..."]:
    r"""Compute the Euclidean norm :math:`\|x\| = s \sqrt{\sum_i (x_i/s)^2}`.

    The scale :math:`s = \max |x_i|` keeps the squares inside the range of the number type.

    Args:
        x: Values of any unit and shape.
        dim: Axis or axes to sum over.
        keepdim: Keep these axes with size one.

    Returns:
        The norm, in the unit of ``x``; the shape of ``x`` without ``dim``.

    Gradients: :math:`x/\|x\|`, and zero where ``x`` is zero (the subgradient of least norm), of
    every order.
    """
    axes = (dim,) if isinstance(dim, int) else tuple(dim)
    scale = x.detach().abs().amax(axes, keepdim=True)
    scale = torch.where((scale > 0) & torch.isfinite(scale), scale, 1.0)
    squares = (x / scale).square().sum(axes, keepdim=True)
    is_zero = squares == 0
    # The inner `where` keeps the infinite slope of the root at zero out of the backward pass; the
    # outer one alone would multiply that infinity by zero.
    root = torch.sqrt(torch.where(is_zero, 1.0, squares))
    norm = scale * torch.where(is_zero, 0.0, root)
    return norm if keepdim else norm.squeeze(axes)


def scaled_max_norm(
    x: Float[Tensor, "..."],
    *,
    reference: Float[Tensor, "..."],
    rtol: float,
    atol: float,
    dim: int | Sequence[int] = -1,
) -> Float[Tensor, "..."]:
    r"""Compute :math:`\max_i |x_i| / (a + r\,|y_i|)`.

    It is at most one where every entry is within tolerance.

    Args:
        x: Error or residual.
        reference: Magnitudes ``y`` that the relative tolerance refers to; broadcasts with ``x``.
        rtol: Relative tolerance ``r``.
        atol: Absolute tolerance ``a``, in the unit of ``x``.
        dim: Axis or axes to take the maximum over.

    Returns:
        The norm without unit, one per item. An entry with zero tolerance counts as 0 if it is
        exactly zero and as infinity otherwise.
    """
    axes = (dim,) if isinstance(dim, int) else tuple(dim)
    tolerance = atol + rtol * reference.abs()
    ratio = torch.where(x == 0, torch.zeros_like(tolerance), x.abs() / tolerance)
    return ratio.amax(axes)


def relative_error(
    value: Float[Tensor, "..."],
    reference: Float[Tensor, "..."],
    *,
    dim: int | Sequence[int] | None = None,
) -> Float[Tensor, "..."]:
    r"""Compute :math:`\|x - y\| / \|y\|` in the Euclidean norm.

    Args:
        value: The value ``x`` in question.
        reference: The value ``y`` to trust, same shape.
        dim: Axis or axes that make one item; all axes by default.

    Returns:
        The error without unit, one per item; where the reference is zero the absolute error.
    """
    axes = tuple(range(value.ndim)) if dim is None else dim
    difference = safe_norm(value - reference, dim=axes)
    size = safe_norm(reference, dim=axes)
    return difference / torch.where(size > 0, size, 1.0)
