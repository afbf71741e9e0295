"""What cvxpylayers hands to a solver: values of nonzero entries, batch first, and their places.

The canonical program is: minimise ``x'Px/2 + q'x`` so that ``b - Mx`` lies in a product of cones,
equalities first. Its entries come as a flat vector for P, as ``q`` with a constant at the end, and
as a flat vector for the matrix ``[-M, b]``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["CanonicalForm", "CanonicalProgram"]


@dataclass(frozen=True, slots=True, eq=False)
class CanonicalProgram:
    """A batch of canonical programs with dense matrices.

    Attributes:
        P: Hessians ``(B, n, n)``.
        q: Slopes ``(B, n)``.
        M: Rows ``(B, r, n)``.
        b: Right-hand sides ``(B, r)``.
    """

    P: Tensor
    q: Tensor
    M: Tensor
    b: Tensor

    def slack(self, x: Tensor) -> Tensor:
        """``b - M x``."""
        return self.b - (self.M @ x[..., None])[..., 0]


class CanonicalForm:
    """Places of the entries and sizes of the cones.

    Args:
        context: The context that cvxpylayers makes of a problem.
    """

    def __init__(self, context: Any):
        dims = context.cone_dims
        self.zero, self.flat = int(dims.zero), int(dims.nonneg)
        self.second_order = tuple(int(size) for size in dims.soc)
        self.exponential = int(getattr(dims, "exp", 0) or 0)
        self.semidefinite = tuple(int(size) for size in getattr(dims, "psd", ()) or ())
        self.power = tuple(float(value) for value in getattr(dims, "p3d", ()) or ())
        self._P = _places(context.reduced_P.problem_data_index)
        # A problem without rows has no places for their entries.
        nowhere, columns = torch.zeros(0, dtype=torch.int64), context.q.shape[0]
        self._A = _places(context.reduced_A.problem_data_index) or (nowhere, nowhere, (0, columns))
        self.rows, self.unknowns = self._A[2][0], columns - 1
        self._is_triangle = False
        if self._P is not None:
            r, c, _ = self._P
            self._is_triangle = bool((r <= c).all()) and bool((r < c).any())

    @property
    def places(self) -> tuple[Tensor, Tensor]:
        """Row and column of each entry of ``[-M, b]``."""
        return self._A[0], self._A[1]

    @property
    def is_second_order(self) -> bool:
        """Whether there are no cones but the orthant and second-order cones."""
        others = self.exponential or self.semidefinite or self.power
        return not others and all(size >= 2 for size in self.second_order)

    def assemble(self, P: Tensor | None, q: Tensor, A: Tensor) -> CanonicalProgram:
        """Fill the entries in.

        Args:
            P: Entries of the Hessian ``(B, k)``, or None.
            q: Slope and constant ``(B, n + 1)``.
            A: Entries of ``[-M, b]``, ``(B, l)``.
        """
        batch, n = q.shape[0], self.unknowns
        hessian = q.new_zeros(batch, n, n, dtype=torch.float64)
        if P is not None and self._P is not None:
            rows, columns, _ = self._P
            hessian[:, rows, columns] = P.double()
            if self._is_triangle:
                hessian = hessian + hessian.triu(1).mT
        rows, columns, shape = self._A
        augmented = q.new_zeros(batch, *shape, dtype=torch.float64)
        augmented[:, rows, columns] = A.double()
        slope = q[:, :-1].double().contiguous()
        return CanonicalProgram(
            hessian, slope, -augmented[:, :, :-1].contiguous(), augmented[:, :, -1].contiguous()
        )

    def pull_back(
        self, program: CanonicalProgram, x: Tensor, dual: Tensor, u: Tensor, w: Tensor
    ) -> tuple[Tensor | None, Tensor, Tensor]:
        """Gradients of the entries from the adjoints of stationarity and rows.

        Args:
            program: The programs.
            x: Their solutions.
            dual: Their multipliers ``(B, r)``.
            u: Adjoint of stationarity ``(B, n)``.
            w: Adjoint of the rows ``(B, r)``.
        """
        hessian = None
        if self._P is not None:
            r, c, _ = self._P
            hessian = (u[:, r] * x[:, c] + x[:, r] * u[:, c]) / 2.0
            if self._is_triangle:
                hessian = torch.where(r == c, hessian, 2.0 * hessian)
        r, c, _ = self._A
        column = c.clamp(max=self.unknowns - 1)
        inner = w[:, r] * x[:, column] + dual[:, r] * u[:, column]
        entries = -torch.where(c == self.unknowns, w[:, r], inner)
        return hessian, torch.cat([u, torch.zeros_like(u[:, :1])], 1), entries


def _places(index: Any) -> Any:
    """Row and column of each entry of a compressed-column matrix, and its shape."""
    if index is None:
        return None
    indices, starts, shape = index
    columns = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    return torch.as_tensor(indices).long(), torch.as_tensor(columns).long(), tuple(shape)
