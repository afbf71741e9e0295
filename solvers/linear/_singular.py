r"""Singular matrices through factors of a matrix beside them."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["SingularMatrix"]

_SHIFT = 1e-8
_SWEEPS = 4
_LARGEST_IMAGE = 1e-12

Array = np.ndarray[Any, Any]


class SingularMatrix:
    r"""Solutions of :math:`A x = b` for a singular matrix, and proofs that there are none.

    With a small :math:`\varepsilon`, powers of :math:`\varepsilon (A + \varepsilon)^{-1}` leave of
    a vector what the null space holds of it and take away the rest. The rest of ``b`` is solved by
    iterative refinement with the same factors. A vector :math:`y` with :math:`A^\top y = 0` and
    :math:`y^\top b \ne 0` proves that there is no solution. What a matrix without a basis of
    eigenvectors to the value zero does to this is judged by the caller, from the true residual.

    Args:
        matrix: Square sparse matrix, in compressed columns.

    Cost: one more factorisation, 24 solves for each right-hand side.
    Reference: the shifted powers are those of Peters & Wilkinson 1979, "Inverse iteration,
    ill-conditioned equations and Newton's method"; x is the solution of the group inverse.
    """

    def __init__(self, matrix: Any):
        import scipy.sparse
        import scipy.sparse.linalg

        self._matrix = matrix
        self._size = float(abs(matrix).sum(0).max())
        self._shift = _SHIFT * self._size
        unit = scipy.sparse.eye_array(matrix.shape[0], format="csc")
        try:
            self._factors = scipy.sparse.linalg.splu((matrix + self._shift * unit).tocsc())
        except RuntimeError:
            self._factors = None

    def solve(self, b: Array) -> Array | None:
        """Solve as nearly as can be; None if that does not work.

        Args:
            b: Right-hand side, shape ``(n,)``.
        """
        if self._factors is None:
            return None
        r = self._in_range(b)
        x = np.zeros_like(b)
        for _ in range(_SWEEPS):
            step = self._factors.solve(r)
            x, r = x + step, r - self._matrix @ step
        return self._in_range(x)

    def is_contradicted(self, b: Array, rtol: float) -> bool:
        r"""Whether no x whatever leaves less than ``rtol`` of ``b``.

        Args:
            b: Right-hand side, shape ``(n,)``.
            rtol: Relative tolerance.
        """
        if self._factors is None:
            return False
        limit = rtol * float(np.linalg.norm(b))
        for start in (b, self._in_null_space(b)):
            y = self._in_null_space(start, trans="T")
            length = float(np.linalg.norm(y))
            if not 0 < length < np.inf:
                continue
            y /= length
            image = float(np.linalg.norm(self._matrix.T @ y))
            if image <= _LARGEST_IMAGE * self._size and abs(float(y @ b)) > limit:
                return True
        return False

    def _in_range(self, v: Array) -> Array:
        # The factors are ill-conditioned along the null space; the second time removes the error.
        for _ in range(2):
            v = v - self._in_null_space(v)
        return v

    def _in_null_space(self, v: Array, trans: str = "N") -> Array:
        for _ in range(_SWEEPS):
            v = self._shift * self._factors.solve(v, trans=trans)
        return v
