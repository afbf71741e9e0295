"""Small vectors, matrices and rotations of generic scalars, as Python lists.

A vector is a list of scalars, a matrix a list of rows. Every entry may be a number, a tensor or a
traced symbol (see `solvers.kernels.scalar`); zero and one entries cost nothing, so a rotation about
a coordinate axis or a sparse constant matrix needs only the products that it really has.

Quaternions are ``[w, x, y, z]`` and turn body vectors into world vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from solvers.kernels.scalar import add, multiply, negative, subtract

__all__ = [
    "Matrix",
    "Vector",
    "conjugate",
    "cross",
    "dot",
    "identity",
    "madd",
    "matmul",
    "matvec",
    "mscale",
    "msub",
    "outer",
    "quaternion_matrix",
    "quaternion_product",
    "rotate",
    "skew",
    "trace_of",
    "transpose",
    "vadd",
    "vneg",
    "vscale",
    "vsub",
    "zeros",
]

Vector: TypeAlias = Sequence[Any]
"""Generic scalars in a row."""

Matrix: TypeAlias = Sequence[Sequence[Any]]
"""Rows of generic scalars."""


def _same_length(name: str, a: Sequence[Any], b: Sequence[Any]) -> None:
    if len(a) != len(b):
        raise ValueError(f"{name}: lengths are {len(a)} and {len(b)}, expected the same length")


def dot(a: Vector, b: Vector) -> Any:
    """Compute the inner product of two vectors.

    Raises:
        ValueError: If the lengths differ.
    """
    _same_length("dot", a, b)
    total: Any = 0.0
    for x, y in zip(a, b, strict=True):
        total = add(total, multiply(x, y))
    return total


def cross(a: Vector, b: Vector) -> list[Any]:
    """Compute the cross product of two vectors of length 3."""
    return [
        subtract(multiply(a[1], b[2]), multiply(a[2], b[1])),
        subtract(multiply(a[2], b[0]), multiply(a[0], b[2])),
        subtract(multiply(a[0], b[1]), multiply(a[1], b[0])),
    ]


def vadd(a: Vector, b: Vector) -> list[Any]:
    """Add two vectors."""
    _same_length("vadd", a, b)
    return [add(x, y) for x, y in zip(a, b, strict=True)]


def vsub(a: Vector, b: Vector) -> list[Any]:
    """Subtract vector ``b`` from vector ``a``."""
    _same_length("vsub", a, b)
    return [subtract(x, y) for x, y in zip(a, b, strict=True)]


def vscale(a: Vector, factor: Any) -> list[Any]:
    """Multiply a vector by a scalar."""
    return [multiply(x, factor) for x in a]


def vneg(a: Vector) -> list[Any]:
    """Change the sign of a vector."""
    return [negative(x) for x in a]


def matvec(matrix: Matrix, vector: Vector) -> list[Any]:
    """Multiply a matrix by a column vector."""
    return [dot(row, vector) for row in matrix]


def matmul(a: Matrix, b: Matrix) -> list[list[Any]]:
    """Multiply two matrices.

    Raises:
        ValueError: If the columns of ``a`` are not as many as the rows of ``b``.
    """
    columns = transpose(b)
    return [[dot(row, column) for column in columns] for row in a]


def transpose(matrix: Matrix) -> list[list[Any]]:
    """Swap rows and columns."""
    return [list(column) for column in zip(*matrix, strict=True)]


def madd(a: Matrix, b: Matrix) -> list[list[Any]]:
    """Add two matrices."""
    _same_length("madd", a, b)
    return [vadd(x, y) for x, y in zip(a, b, strict=True)]


def msub(a: Matrix, b: Matrix) -> list[list[Any]]:
    """Subtract matrix ``b`` from matrix ``a``."""
    _same_length("msub", a, b)
    return [vsub(x, y) for x, y in zip(a, b, strict=True)]


def mscale(matrix: Matrix, factor: Any) -> list[list[Any]]:
    """Multiply a matrix by a scalar."""
    return [vscale(row, factor) for row in matrix]


def outer(a: Vector, b: Vector) -> list[list[Any]]:
    """Compute the matrix ``a b^T``."""
    return [[multiply(x, y) for y in b] for x in a]


def skew(a: Vector) -> list[list[Any]]:
    """Build the matrix with ``skew(a) b = cross(a, b)``."""
    return [
        [0.0, negative(a[2]), a[1]],
        [a[2], 0.0, negative(a[0])],
        [negative(a[1]), a[0], 0.0],
    ]


def identity(size: int) -> list[list[Any]]:
    """Build the identity matrix of numbers."""
    return [[1.0 if i == j else 0.0 for j in range(size)] for i in range(size)]


def zeros(rows: int, columns: int) -> list[list[Any]]:
    """Build a matrix of number zeros."""
    return [[0.0] * columns for _ in range(rows)]


def trace_of(matrix: Matrix) -> Any:
    """Sum the diagonal of a square matrix."""
    total: Any = 0.0
    for i, row in enumerate(matrix):
        total = add(total, row[i])
    return total


def quaternion_product(p: Vector, q: Vector) -> list[Any]:
    """Compute the Hamilton product ``p q``: first turn by ``q``, then by ``p``."""
    pw, pv, qw, qv = p[0], p[1:4], q[0], q[1:4]
    vector = vadd(vadd(vscale(qv, pw), vscale(pv, qw)), cross(pv, qv))
    return [subtract(multiply(pw, qw), dot(pv, qv)), *vector]


def conjugate(q: Vector) -> list[Any]:
    """Give the inverse of a unit quaternion."""
    return [q[0], negative(q[1]), negative(q[2]), negative(q[3])]


def quaternion_matrix(q: Vector) -> list[list[Any]]:
    """Build the rotation matrix of a unit quaternion, body to world.

    No normalisation takes place: for a quaternion of length ``s`` the result is not a rotation.
    """
    w, x, y, z = q
    x2, y2, z2 = add(x, x), add(y, y), add(z, z)
    xx, yy, zz = multiply(x, x2), multiply(y, y2), multiply(z, z2)
    xy, xz, yz = multiply(x, y2), multiply(x, z2), multiply(y, z2)
    wx, wy, wz = multiply(w, x2), multiply(w, y2), multiply(w, z2)
    return [
        [subtract(1.0, add(yy, zz)), subtract(xy, wz), add(xz, wy)],
        [add(xy, wz), subtract(1.0, add(xx, zz)), subtract(yz, wx)],
        [subtract(xz, wy), add(yz, wx), subtract(1.0, add(xx, yy))],
    ]


def rotate(q: Vector, vector: Vector) -> list[Any]:
    """Turn a vector of length 3 by a unit quaternion: ``v + 2 w (u x v) + 2 u x (u x v)``."""
    u = q[1:4]
    t = cross(u, vector)
    t = vadd(t, t)
    return vadd(vadd(vector, vscale(t, q[0])), cross(u, t))
