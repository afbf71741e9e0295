"""Difference matrices of sixth order on even points.

Source: B. Fornberg (1988), weights from the conditions that powers are differentiated exactly.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

__all__ = ["difference", "periodic_difference"]

Array = NDArray[np.float64]

_REACH = 3
"""Points to each side; twice this is the order."""


def difference(points: Array, order: int) -> Any:
    """Make the matrix of a derivative on an interval, from one side near its ends.

    Args:
        points: Evenly spaced, both ends included.
        order: Order of the derivative, 1 or 2.

    Returns:
        Sparse matrix.
    """
    count, spacing = len(points), points[1] - points[0]
    matrix = sparse.lil_array((count, count))
    for row in range(count):
        is_inner = _REACH <= row < count - _REACH
        # A centred difference gains an order by symmetry; others need a point more for it.
        width = 2 * _REACH + (1 if is_inner else order)
        start = min(max(row - _REACH, 0), count - width)
        columns = np.arange(start, start + width)
        matrix[row, columns] = _weights((columns - row) * spacing, order)
    return matrix.tocsr()


def periodic_difference(points: Array, order: int) -> Any:
    """Make the matrix of a derivative on a circle.

    Args:
        points: Evenly spaced; the first is not repeated.
        order: Order of the derivative, 1 or 2.

    Returns:
        Sparse matrix.
    """
    count, offsets = len(points), np.arange(-_REACH, _REACH + 1)
    rows = np.repeat(np.arange(count), len(offsets))
    columns = (rows + np.tile(offsets, count)) % count
    weights = np.tile(_weights(offsets * (points[1] - points[0]), order), count)
    return sparse.csr_array((weights, (rows, columns)), shape=(count, count))


def _weights(offsets: Array, order: int) -> Array:
    right = np.zeros(len(offsets))
    right[order] = math.factorial(order)
    powers = np.vander(offsets, increasing=True).T
    return np.asarray(np.linalg.solve(powers, right), dtype=np.float64)
