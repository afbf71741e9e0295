"""Functions known on regular grids, evaluated anywhere by local polynomials of high degree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.core import SettingsError, check_count, check_kind

__all__ = ["GridFunction"]

_CHUNK = 8192
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class GridFunction:
    r"""Tensor-product Lagrange interpolation on a regular grid.

    In each direction the polynomial through the ``degree + 1`` nearest grid points is taken, so
    that the error falls as :math:`h^{degree+1}` with the mesh size h.

    Args:
        lower: Lower end of each axis.
        upper: Upper end of each axis.
        values: Values on the grid, one axis each. A periodic axis does not repeat its first point.
        periodic: Which axes are periodic.
        degree: Degree of the polynomials.

    Source: barycentric weights on equal spacing, J.-P. Berrut and L. N. Trefethen (2004), eq. 5.1.

    Example:
        >>> import numpy as np
        >>> x = np.arange(32) * 2 * np.pi / 32
        >>> sine = GridFunction((0.0,), (2 * np.pi,), np.sin(x), (True,))
        >>> bool(abs(sine(1.0) - np.sin(1.0)) < 1e-8)
        True
    """

    lower: Sequence[float]
    upper: Sequence[float]
    values: Array
    periodic: Sequence[bool]
    degree: int = 9

    def __post_init__(self) -> None:
        check_kind("values", self.values, np.ndarray, "an array of values on the grid")
        check_count("degree", self.degree)
        for name in ("lower", "upper", "periodic"):
            given = getattr(self, name)
            check_kind(name, given, Sequence, "one entry for each axis of values")
            if len(given) != self.values.ndim:
                raise SettingsError(
                    f"{name}: got {len(given)} entries, expected {self.values.ndim}, one for each "
                    "axis of values"
                )
        for axis, count in enumerate(self.values.shape):
            if count <= self.degree:
                raise SettingsError(
                    f"values: axis {axis} has {count} points, expected more than the degree "
                    f"{self.degree}"
                )

    def __call__(self, *coordinates: Any) -> Array:
        """Evaluate at points.

        Args:
            *coordinates: One array per axis, of shapes that broadcast.

        Returns:
            Values of the common shape.
        """
        arrays = np.broadcast_arrays(*(np.asarray(c, dtype=np.float64) for c in coordinates))
        flat = np.stack([a.reshape(-1) for a in arrays])
        parts = [
            self._evaluate(flat[:, start : start + _CHUNK])
            for start in range(0, flat.shape[1], _CHUNK)
        ]
        return np.concatenate(parts).reshape(arrays[0].shape)

    def _evaluate(self, points: Array) -> Array:
        rows, weights = zip(*(self._local(k, x) for k, x in enumerate(points)), strict=True)
        dimension = len(rows)
        places = tuple(
            row.reshape(len(row), *(-1 if j == k else 1 for j in range(dimension)))
            for k, row in enumerate(rows)
        )
        result: Array = self.values[places]
        for weight in reversed(weights):
            result = np.einsum("n...k,nk->n...", result, weight)
        return result

    def _local(self, axis: int, x: Array) -> tuple[NDArray[np.int64], Array]:
        """Grid points around each x and their weights."""
        count, nodes = self.values.shape[axis], self.degree + 1
        cells = count if self.periodic[axis] else count - 1
        place = (x - self.lower[axis]) / (self.upper[axis] - self.lower[axis]) * cells
        start = np.floor(place).astype(np.int64) - self.degree // 2
        if not self.periodic[axis]:
            start = np.clip(start, 0, count - nodes)
        offset = (place - start)[:, None] - np.arange(nodes)
        signs = np.array([(-1) ** j * comb(self.degree, j) for j in range(nodes)], dtype=np.float64)
        is_node = np.abs(offset) < 1e-12
        quotient = signs / np.where(is_node, 1.0, offset)
        weights = quotient / quotient.sum(1, keepdims=True)
        on_node = is_node.any(1)
        weights[on_node] = is_node[on_node]
        return (start[:, None] + np.arange(nodes)) % count, weights
