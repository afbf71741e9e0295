"""A dense symmetric matrix that changes by rank two and is multiplied, in one pass over memory."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from solvers.core import PhysimError
from solvers.kernels import Kernel, aligned_empty, build_kernel, lane_count

__all__ = ["FusedInverse", "InverseMatrix", "PlainInverse", "make_inverse"]

Vector = NDArray[np.float64]

_PAD = 8
_ROWS = 4
"""Rows that the compiled text takes at a time."""


class InverseMatrix(Protocol):
    """Approximation of an inverse Hessian with a change that waits for the next product."""

    def reset(self, scale: float) -> None:
        """Make it a multiple of the identity."""

    def change(self, scale: float, h: Vector, p: Vector, s: Vector, q: Vector) -> None:
        """Let the matrix become ``scale H + h p' + s q'``, which must be symmetric."""

    def product(self, g: Vector) -> Vector:
        """Carry out the change that waits and multiply by a vector."""

    def state(self) -> dict[str, Any]:
        """Matrix ``(n, n)`` and the change that waits; `load` takes both back, bit for bit."""

    def load(self, state: dict[str, Any]) -> None:
        """Take over a matrix and a change that waits."""


class PlainInverse:
    """The plain form on numpy arrays: twin of `FusedInverse`."""

    def __init__(self, size: int) -> None:
        self._matrix = np.eye(size)
        self._waiting: tuple[Any, ...] = _nothing(size)

    def reset(self, scale: float) -> None:
        """Make it a multiple of the identity."""
        self._matrix = scale * np.eye(len(self._matrix))
        self._waiting = _nothing(len(self._matrix))

    def state(self) -> dict[str, Any]:
        """Matrix ``(n, n)`` and the change that waits; `load` takes both back, bit for bit."""
        return _state(self._matrix.copy(), self._waiting)

    def load(self, state: dict[str, Any]) -> None:
        """Take over a matrix and a change that waits."""
        self._matrix = state["matrix"].numpy().copy()
        self._waiting = (state["scale"], *state["change"].numpy().copy())

    def change(self, scale: float, h: Vector, p: Vector, s: Vector, q: Vector) -> None:
        """Let the matrix become ``scale H + h p' + s q'``, which must be symmetric."""
        self._waiting = (scale, h, p, s, q)

    def product(self, g: Vector) -> Vector:
        """Carry out the change that waits and multiply by a vector."""
        scale, h, p, s, q = self._waiting
        self._matrix = scale * self._matrix + np.outer(h, p) + np.outer(s, q)
        self._waiting = _nothing(len(g))
        result: Vector = self._matrix @ g
        return result


def _nothing(size: int) -> tuple[Any, ...]:
    return (1.0, *np.zeros((4, size)))


def _state(matrix: Vector, waiting: tuple[Any, ...]) -> dict[str, Any]:
    return {
        "matrix": torch.from_numpy(matrix),
        "change": torch.from_numpy(np.stack(waiting[1:])),
        "scale": float(waiting[0]),
    }


class FusedInverse:
    """The change and the product in one read and one write of the lower triangle, compiled.

    Raises:
        KernelBuildError: If the compiler refuses the text.
    """

    def __init__(self, size: int) -> None:
        self._kernel = _update_kernel(lane_count())
        self._size = size
        padded = -(-size // _PAD) * _PAD
        self._matrix = aligned_empty(padded, padded).zero_()
        self._buffers = {name: aligned_empty(padded).zero_() for name in "hpsqgy"}
        self._views = {name: buffer.numpy() for name, buffer in self._buffers.items()}
        self._scale = 1.0
        addresses = [self._matrix, *(self._buffers[name] for name in "hpsqgy")]
        self._fixed: list[Any] = [padded, *(x.data_ptr() for x in addresses)]
        self.reset(1.0)

    def reset(self, scale: float) -> None:
        """Make it a multiple of the identity."""
        self._matrix.zero_().diagonal()[: self._size].fill_(scale)
        self._clear()

    def state(self) -> dict[str, Any]:
        """Matrix ``(n, n)`` and the change that waits; `load` takes both back, bit for bit."""
        stored = self._matrix[: self._size, : self._size]
        block = torch.arange(self._size) // max(lane_count(), _ROWS)
        # blocks on the diagonal are whole, and their halves differ by rounding
        matrix = torch.where(block[:, None] >= block, stored, stored.T)
        waiting = (self._scale, *(self._views[name][: self._size] for name in "hpsq"))
        return _state(matrix.numpy(), waiting)

    def load(self, state: dict[str, Any]) -> None:
        """Take over a matrix and a change that waits."""
        self._matrix.zero_()[: self._size, : self._size] = state["matrix"]
        self.change(state["scale"], *state["change"].numpy())

    def _clear(self) -> None:
        self._scale = 1.0
        for name in "hpsq":
            self._views[name].fill(0.0)

    def change(self, scale: float, h: Vector, p: Vector, s: Vector, q: Vector) -> None:
        """Let the matrix become ``scale H + h p' + s q'``, which must be symmetric."""
        self._scale = scale
        for name, vector in zip("hpsq", (h, p, s, q), strict=True):
            self._views[name][: self._size] = vector

    def product(self, g: Vector) -> Vector:
        """Carry out the change that waits and multiply by a vector."""
        self._views["g"][: self._size] = g
        self._kernel.launch_trusted(1, 1, *self._fixed, self._scale)
        self._clear()
        return self._views["y"][: self._size].copy()


def make_inverse(size: int) -> InverseMatrix:
    """Make the identity of this size: compiled, or in numpy where nothing compiles."""
    try:
        return FusedInverse(size)
    except (PhysimError, ImportError):
        return PlainInverse(size)


@cache
def _update_kernel(lanes: int) -> Kernel:
    body = (Path(__file__).parent / "inverse_update.cpp").read_text()
    arguments = [("size", "int"), ("matrix", "double*")]
    arguments += [(name, "double*") for name in "hpsqgy"]
    return build_kernel("inverse_update", body, [*arguments, ("scale", "double")], lanes=lanes)
