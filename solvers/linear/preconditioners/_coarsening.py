"""Decisions and small dense work that every form of the multigrid cycle shares."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = [
    "CHEBYSHEV_INTERVAL",
    "COARSEST_CELLS",
    "LEAST_PIVOT",
    "REVISIT_BELOW",
    "choose_axes",
    "coarse_shape",
    "symmetric_inverse",
    "wall_factor",
]

COARSEST_CELLS = 128
"""A level of at most so many cells is solved by its inverse."""

REVISIT_BELOW = 0.45
"""Part of the cells of a level that the next one may have to be visited twice."""

CHEBYSHEV_INTERVAL = (0.5, 2.0)
"""Eigenvalues of the scaled operator that the smoother aims at."""

LEAST_PIVOT = 1e-11
"""A matrix with a diagonal of one and a smaller pivot is taken for singular."""

_WEAK = 0.4


def choose_axes(shape: Sequence[int], strengths: Sequence[float]) -> tuple[int, ...]:
    """Axes to coarsen: those coupled at least 0.4 times as strongly as the strongest.

    In a long channel the short axes are merged to one cell: left at two they would couple ever more
    strongly, beyond what the smoother can do for the long one.

    Args:
        shape: Cells along each axis.
        strengths: Mean positive coupling along each axis, 0 if there is none.
    """
    long = [axis for axis, size in enumerate(shape) if size > 1]
    strongest = max((strengths[axis] for axis in long), default=0.0)
    return tuple(axis for axis in long if strengths[axis] >= _WEAK * strongest)


def coarse_shape(shape: Sequence[int], axes: Sequence[int]) -> tuple[int, ...]:
    """Cells along each axis after pairs along ``axes`` are merged."""
    return tuple((size + 1) // 2 if axis in axes else size for axis, size in enumerate(shape))


def wall_factor(level: int, shape: Sequence[int], axes: Sequence[int]) -> float:
    r"""What becomes of the conductance to known values when a level is coarsened in all axes.

    The known value stands half a fine cell beyond the face, on every level:
    :math:`(2^{l-1} + 1/2) / (2^l + 1/2)` is the ratio of the distances.

    Args:
        level: Number of the finer level.
        shape: Its cells along each axis.
        axes: Axes to coarsen.
    """
    if len(axes) < sum(size > 1 for size in shape):
        return 1.0
    return (0.5 * 2.0**level + 0.5) / (2.0**level + 0.5)


def symmetric_inverse(matrix: Tensor) -> Tensor:
    r"""A symmetric inverse of positive semidefinite matrices that skips their null spaces.

    It is :math:`S (S A S)^+ S` with :math:`S` the inverse root of the diagonal; rows that are empty
    stay empty.

    Args:
        matrix: Shape ``(..., n, n)``.
    """
    if matrix.numel() == 0:
        return matrix
    diagonal = matrix.diagonal(dim1=-2, dim2=-1)
    scale = torch.where(diagonal > 0, diagonal.clamp(min=1e-300).rsqrt(), 0.0)
    scaled = scale.unsqueeze(-1) * matrix * scale.unsqueeze(-2)
    filled = scaled + torch.diag_embed((diagonal <= 0).to(matrix.dtype))
    factor, info = torch.linalg.cholesky_ex(filled)
    pivots = factor.diagonal(dim1=-2, dim2=-1).amin(-1)
    if bool(((info == 0) & (pivots > math.sqrt(LEAST_PIVOT))).all()):
        inverse = torch.cholesky_inverse(factor)
    else:
        values, vectors = torch.linalg.eigh(filled)
        kept = torch.where(values > LEAST_PIVOT * values[..., -1:], 1.0 / values, 0.0)
        inverse = (vectors * kept.unsqueeze(-2)) @ vectors.mT
    return scale.unsqueeze(-1) * inverse * scale.unsqueeze(-2)
