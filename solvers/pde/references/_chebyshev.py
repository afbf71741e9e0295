r"""Linear elliptic problems on rectangles by Chebyshev collocation.

Source: L. N. Trefethen, Spectral Methods in MATLAB (2000), chapters 6 and 7; evaluation by the
barycentric formula, J.-P. Berrut and L. N. Trefethen (2004), eq. 5.4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.core import SettingsError, check_callable, check_count, check_kind, check_number

__all__ = ["ChebyshevFunction", "chebyshev_derivative", "chebyshev_points", "solve_elliptic"]

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class ChebyshevFunction:
    """A polynomial given by its values on Chebyshev points of a box.

    Args:
        bounds: Lower and upper end of each axis.
        values: Values on the grid, one axis each, from the lower end to the upper.
    """

    bounds: Sequence[tuple[float, float]]
    values: Array

    def __call__(self, *coordinates: Any) -> Array:
        """Evaluate at points.

        Args:
            *coordinates: One array per axis, of shapes that broadcast.

        Returns:
            Values of the common shape.
        """
        arrays = np.broadcast_arrays(*(np.asarray(c, dtype=np.float64) for c in coordinates))
        weights = [
            _barycentric(a.reshape(-1), *ends, self.values.shape[k])
            for k, (a, ends) in enumerate(zip(arrays, self.bounds, strict=True))
        ]
        result = weights[0] @ self.values.reshape(self.values.shape[0], -1)
        for k, weight in enumerate(weights[1:], start=1):
            result = result.reshape(len(result), self.values.shape[k], -1)
            result = np.einsum("nk...,nk->n...", result, weight)
        return result.reshape(arrays[0].shape)


def chebyshev_points(count: int, bounds: tuple[float, float]) -> Array:
    """Make Chebyshev points of the second kind, both ends included, in rising order.

    Args:
        count: Number of points, at least two.
        bounds: Lower and upper end.
    """
    angle = np.pi * np.arange(count) / (count - 1)
    return bounds[0] + (bounds[1] - bounds[0]) * 0.5 * (1 - np.cos(angle))


def chebyshev_derivative(count: int, bounds: tuple[float, float]) -> Array:
    """Make the matrix that differentiates values on Chebyshev points.

    Args:
        count: Number of points.
        bounds: Lower and upper end.

    Returns:
        Matrix of shape ``(count, count)``.
    """
    x = chebyshev_points(count, bounds)
    signs = np.ones(count)
    signs[[0, -1]] = 2.0
    signs *= (-1.0) ** np.arange(count)
    gap = x[:, None] - x + np.eye(count)
    matrix = np.outer(signs, 1 / signs) / gap
    # Rows that sum to zero differentiate constants exactly.
    return matrix - np.diag(matrix.sum(1))


def solve_elliptic(
    diffusion: Callable[[Array, Array], Array],
    source: Callable[[Array, Array], Array],
    *,
    bounds: Sequence[tuple[float, float]],
    boundary: Callable[[Array, Array], Array] | None = None,
    reaction: float = 0.0,
    count: int = 40,
) -> ChebyshevFunction:
    r"""Solve :math:`-\nabla \cdot (a \nabla u) + c\, u = f` with given boundary values.

    Args:
        diffusion: ``a``, smooth and positive for an elliptic problem.
        source: ``f``.
        bounds: Ends of the two axes.
        boundary: Values on the boundary; zero by default.
        reaction: ``c``.
        count: Points along each axis. The error falls geometrically with it for smooth solutions;
            the cost grows with its sixth power.

    Returns:
        The solution as a function of two coordinates.

    Raises:
        SettingsError: If there are not two axes, or fewer than four points.
    """
    for name, function in (("diffusion", diffusion), ("source", source)):
        check_callable(name, function, "a function of two arrays of coordinates")
    if boundary is not None:
        check_callable("boundary", boundary, "a function of two arrays of coordinates, or None")
    check_number("reaction", reaction)
    check_count("count", count, least=4)
    check_kind("bounds", bounds, Sequence, "two axes, as in [(0, 1), (0, 1)]")
    if len(bounds) != 2:
        raise SettingsError(f"bounds: got {len(bounds)} axes, expected two")
    lines = [chebyshev_points(count, ends) for ends in bounds]
    x, y = np.meshgrid(*lines, indexing="ij")
    eye = np.eye(count)
    along = (
        np.kron(chebyshev_derivative(count, bounds[0]), eye),
        np.kron(eye, chebyshev_derivative(count, bounds[1])),
    )
    a = np.broadcast_to(diffusion(x, y), x.shape).reshape(-1)
    matrix = reaction * np.eye(count**2) - sum(d @ (a[:, None] * d) for d in along)
    is_inside = np.zeros((count, count), dtype=bool)
    is_inside[1:-1, 1:-1] = True
    inside = is_inside.reshape(-1)
    values = np.zeros(x.shape) if boundary is None else np.array(boundary(x, y) * np.ones(x.shape))
    u = values.reshape(-1)
    right = np.broadcast_to(source(x, y), x.shape).reshape(-1)[inside]
    right = right - matrix[np.ix_(inside, ~inside)] @ u[~inside]
    u[inside] = np.linalg.solve(matrix[np.ix_(inside, inside)], right)
    return ChebyshevFunction(tuple(bounds), u.reshape(count, count))


def _barycentric(x: Array, lower: float, upper: float, count: int) -> Array:
    nodes = chebyshev_points(count, (lower, upper))
    signs = (-1.0) ** np.arange(count)
    signs[[0, -1]] /= 2
    offset = x[:, None] - nodes
    is_node = offset == 0
    quotient = signs / np.where(is_node, 1.0, offset)
    weights: Array = quotient / quotient.sum(1, keepdims=True)
    on_node = is_node.any(1)
    weights[on_node] = is_node[on_node]
    return weights
