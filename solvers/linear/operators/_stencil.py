r"""The product of a grid operator in difference form, on plain tensors.

.. math:: (A x)_i = e_i x_i + \sum_{\text{faces } ij} c_{ij} (x_i - x_j)

A coupling tensor of an axis holds the face between cell ``i`` and ``i + 1`` at index ``i``. It has
one entry less than the axis, or as many on a periodic axis, where the last face leads back to the
first cell.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["apply_stencil", "coupling_sum", "face_neighbours", "multiply_stencil"]


def face_neighbours(x: Tensor, axis: int, faces: int) -> tuple[Tensor, Tensor]:
    """Values on both sides of every face of an axis.

    Args:
        x: Cell values.
        axis: The axis, negative.
        faces: Number of faces along it: the cells less one, or as many if periodic.
    """
    size = x.shape[axis]
    if faces == size:
        return x, x.roll(-1, axis)
    return x.narrow(axis, 0, size - 1), x.narrow(axis, 1, size - 1)


def apply_stencil(x: Tensor, couplings: Sequence[Tensor], excess: Tensor) -> Tensor:
    """The product in difference form, exact on constants; differentiable in every argument.

    Args:
        x: Cell values, shape ``(..., *grid)``.
        couplings: One tensor for each axis of the grid.
        excess: What the diagonal has beyond the couplings, shape ``(..., *grid)``.
    """
    y = excess * x
    is_plain = _is_plain(x, excess, *couplings)
    for index, coupling in enumerate(couplings):
        axis = index - len(couplings)
        faces, size = coupling.shape[axis], x.shape[axis]
        low, high = face_neighbours(x, axis, faces)
        flux = coupling * (low - high)
        if is_plain and faces < size and flux.shape[:axis] == y.shape[:axis]:
            y.narrow(axis, 0, faces).add_(flux)
            y.narrow(axis, 1, faces).sub_(flux)
        else:
            y = _scatter(y, flux, axis, sign=-1)
    return y


def multiply_stencil(x: Tensor, couplings: Sequence[Tensor], diagonal: Tensor) -> Tensor:
    """The same product from the diagonal: half the memory traffic, for smoothers without gradient.

    Args:
        x: Cell values, shape ``(..., *grid)``.
        couplings: One tensor for each axis of the grid.
        diagonal: Excess plus all couplings of a cell.
    """
    y = diagonal * x
    for index, coupling in enumerate(couplings):
        axis = index - len(couplings)
        faces, size = coupling.shape[axis], x.shape[axis]
        if faces == size:
            y -= coupling * x.roll(-1, axis) + (coupling * x).roll(1, axis)
            continue
        y.narrow(axis, 0, faces).addcmul_(coupling, x.narrow(axis, 1, faces), value=-1)
        y.narrow(axis, 1, faces).addcmul_(coupling, x.narrow(axis, 0, faces), value=-1)
    return y


def coupling_sum(couplings: Sequence[Tensor], like: Tensor) -> Tensor:
    """Sum of the couplings of every cell.

    Args:
        couplings: One tensor for each axis of the grid.
        like: Tensor whose shape, type and device the sum takes at least.
    """
    total = torch.zeros_like(like)
    for index, coupling in enumerate(couplings):
        total = _scatter(total, coupling, index - len(couplings), sign=1)
    return total


def _is_plain(*tensors: Tensor) -> bool:
    """Whether nobody differentiates or maps, so that memory may be reused."""
    is_wrapped = torch._C._functorch.is_functorch_wrapped_tensor
    wants_gradient = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    return not wants_gradient and not any(is_wrapped(t) for t in tensors)


def _scatter(y: Tensor, faces: Tensor, axis: int, *, sign: int) -> Tensor:
    """Add face values to the low cell and ``sign`` times them to the high cell."""
    size = y.shape[axis]
    if faces.shape[axis] == size:
        return y + faces + sign * faces.roll(1, axis)
    shape = list(faces.shape)
    shape[axis] = 1
    edge = faces.new_zeros(shape)
    return y + torch.cat([faces, edge], axis) + sign * torch.cat([edge, faces], axis)
