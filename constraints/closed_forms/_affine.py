r"""Nearest point of an affine set: one factorisation, then two products.

.. math:: \min \tfrac12|x - x_0|^2 \text{ with } Ax = b
          \quad\Rightarrow\quad x = x_0 - A^+ (A x_0 - b)
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from constraints.closed_forms._inputs import check_real
from solvers.core import (
    InfeasibleError,
    SettingsError,
    ShapeError,
    check_finite,
    check_positive,
    check_shape,
)

__all__ = ["AffineEquality", "Integral"]


class AffineEquality(nn.Module):
    r"""Project onto :math:`\{x : Ax = b\}`, with A fixed at construction or given per call.

    A fixed A is factored once and costs two products per call. Its rows are orthogonalised by
    a singular value decomposition, which leaves a violation at rounding and allows dependent rows;
    they must agree with b.

    Args:
        A: Rows ``(p, n)``, fixed; None to give them with every call.
        rtol: Singular values below this part of the largest count as zero.

    Raises:
        ShapeError: If A has not two axes.
        SettingsError: If A is not float, or rtol is not positive.

    Backward: :math:`\bar x_0 = (I - A^+A)\bar x` and :math:`\bar b = A^{+\top}\bar x`, exact; with
    A given per call also its gradient, through the normal equations. Any order.

    Cost: ``2 p n`` multiplications per item and pass with A fixed; a factorisation of ``p^2 n`` per
    item with A per call, which then must have full row rank.

    Example:
        >>> import torch
        >>> conserve = AffineEquality(torch.ones(1, 3, dtype=torch.float64))
        >>> x = conserve(torch.tensor([[1.0, 2.0, 6.0]]).double(), torch.tensor([[6.0]]).double())
        >>> x.round(decimals=12).abs().tolist()
        [[0.0, 1.0, 5.0]]
    """

    A: Tensor | None
    _basis: Tensor
    _inverse: Tensor

    def __init__(self, A: Float[Tensor, "p n"] | None = None, *, rtol: float = 1e-10):
        super().__init__()
        check_positive("rtol", rtol)
        self.rtol = rtol
        if A is None:
            self.register_buffer("A", None)
            return
        check_shape("A", A, "p n")
        if not A.is_floating_point():
            raise SettingsError(f"A: got type {A.dtype}, expected floating point; use .double()")
        check_finite("A", A)
        A = A.detach().double()
        self.register_buffer("A", A)
        # Rows of length one, so that the rank does not depend on their units.
        length = A.norm(dim=1, keepdim=True)
        unit = A / torch.where(length > 0, length, 1.0)
        left, values, right = torch.linalg.svd(unit, full_matrices=False)
        largest = values[:1].sum()
        keep = values > rtol * torch.where(largest > 0, largest, 1.0)
        basis = right[keep]
        scaled = left[:, keep] / values[keep]
        inverse = (scaled / torch.where(length > 0, length, 1.0)).mT
        self.register_buffer("_basis", basis, persistent=False)
        self.register_buffer("_inverse", inverse, persistent=False)

    def forward(
        self,
        x: Float[Tensor, "*B n"],
        b: Float[Tensor, "*B p"],
        A: Float[Tensor, "*B p n"] | None = None,
    ) -> Float[Tensor, "*B n"]:
        """Move x to the nearest point with ``A x = b``.

        Args:
            x: Points ``(..., n)``; the result has their type.
            b: Right-hand sides ``(p,)`` or ``(..., p)``.
            A: Rows of each item, if none were fixed.

        Returns:
            Nearest points.

        Raises:
            ShapeError: If sizes do not fit.
            SettingsError: If A is given twice or not at all, or x or A is no real tensor.
            InfeasibleError: If dependent rows contradict each other.
            NonFiniteError: If A, given per call, holds NaN or infinity.
        """
        if (self.A is None) == (A is None):
            raise SettingsError(
                f"A: got {'none' if A is None else 'two'}, expected one, at construction or in "
                "the call"
            )
        check_real("x", x)
        b = torch.as_tensor(b, dtype=torch.float64, device=x.device)
        if A is not None:
            check_real("A", A)
            return self._per_item(x, b, A)
        assert self.A is not None
        self._check(x, b, self.A)
        rows, right = self.A, b
        point = x.to(torch.float64)
        if self._inverse.shape[0] < rows.shape[0]:
            self._check_consistent(right)
        # x0 - V'(V x0 - c) with c = V x*: orthonormal rows leave no error to correct.
        gap = point @ self._basis.mT - right @ self._inverse.mT
        return (point - gap @ self._basis).to(x.dtype)

    def _per_item(self, x: Tensor, b: Tensor, A: Tensor) -> Tensor:
        self._check(x, b, A)
        rows, right, point = A.double(), b.double(), x.double()
        length = rows.detach().norm(dim=-1, keepdim=True)
        length = torch.where(length > 0, length, 1.0)
        rows, right = rows / length, right / length[..., 0]
        factor, failed = torch.linalg.cholesky_ex(rows @ rows.mT)
        pivots = factor.detach().diagonal(dim1=-2, dim2=-1)
        dependent = (failed != 0) | (pivots < self.rtol**0.5).any(-1)
        if bool(dependent.any()):
            check_finite("A", A.detach())
            raise InfeasibleError(
                f"A: the rows of item {tuple(dependent.nonzero()[0].tolist())} depend on each "
                "other, expected full row rank where A is given per call; drop the dependent rows "
                "or fix A at construction"
            )
        for _ in range(2):
            gap = (rows @ point[..., None])[..., 0] - right
            point = point - (rows.mT @ torch.cholesky_solve(gap[..., None], factor))[..., 0]
        return point.to(x.dtype)

    def _check_consistent(self, right: Tensor) -> None:
        assert self.A is not None
        reached = (right.detach() @ self._inverse.mT @ self._basis) @ self.A.mT
        gap = (reached - right.detach()).abs() / (1.0 + right.detach().abs())
        if bool((gap > 1e-9).any()):
            where = tuple(int(i) for i in (gap > 1e-9).nonzero()[0])
            raise InfeasibleError(
                f"b: no x satisfies dependent rows of A with this right-hand side, first at index "
                f"{where} where A x misses b by {float(gap[where]):.2g} of its size; make equal "
                "rows have equal right-hand sides or drop one"
            )

    @staticmethod
    def _check(x: Tensor, b: Tensor, A: Tensor) -> None:
        p, n = A.shape[-2:]
        for name, tensor, size in (("x", x, n), ("b", b, p)):
            if tensor.ndim == 0 or tensor.shape[-1] != size:
                raise ShapeError(
                    f"{name}: got shape {tuple(tensor.shape)}, expected (..., {size}) for A of "
                    f"shape {tuple(A.shape)}"
                )


class Integral(nn.Module):
    r"""Give a field a prescribed integral: mass, momentum, mean.

    .. math:: \int u = \sum_i w_i u_i = M, \qquad
              u = u_0 + \frac{w}{w \cdot w}\,(M - w \cdot u_0)

    the nearest field in the Euclidean norm of its values. Equal weights shift the field by a
    constant.

    Args:
        weights: Quadrature weights of the cells or nodes, any shape; their axes are the last ones
            of every field. A number: that weight for each of ``axes`` axes.
        axes: How many axes are summed over if ``weights`` is a number.

    Raises:
        SettingsError: If all weights are zero.

    Backward: the projection itself, any order.

    Example:
        >>> import torch
        >>> mean_free = Integral(0.25)
        >>> mean_free(torch.tensor([1.0, 2.0, 3.0, 6.0]), 0.0).tolist()
        [-2.0, -1.0, 0.0, 3.0]
    """

    weights: Tensor

    def __init__(self, weights: Float[Tensor, "..."] | float, *, axes: int = 1):
        super().__init__()
        is_number = not isinstance(weights, Tensor)
        value: Any = torch.as_tensor(weights, dtype=torch.float64).detach()
        check_finite("weights", value)
        if not bool((value != 0).any()):
            raise SettingsError("weights: got zeros only, expected at least one other number")
        self._axes = axes if is_number else value.ndim
        if self._axes < 1:
            raise SettingsError(f"axes: got {self._axes}, expected 1 or more")
        self.register_buffer("weights", value)

    def forward(self, field: Float[Tensor, "..."], total: Tensor | float) -> Float[Tensor, "..."]:
        """Shift a field along the weights until its integral is ``total``.

        Args:
            field: Values ``(..., *grid)``; the result has their type.
            total: Integral of each item ``(...)``, or one for all.

        Returns:
            The field with that integral, to rounding of its type.

        Raises:
            ShapeError: If the last axes are not those of the weights.
            SettingsError: If the field is no real tensor.
        """
        check_real("field", field)
        grid = field.shape[field.ndim - self._axes :]
        if field.ndim < self._axes or (self.weights.ndim and self.weights.shape != grid):
            raise ShapeError(
                f"field: got shape {tuple(field.shape)}, expected (..., "
                f"{', '.join(map(str, self.weights.shape)) or f'{self._axes} axes'})"
            )
        weights = self.weights.expand(grid)
        axes = tuple(range(-self._axes, 0))
        wanted = torch.as_tensor(total, dtype=torch.float64, device=field.device)
        wanted = wanted.reshape(*wanted.shape, *(1,) * self._axes)
        value = field.double()
        for _ in range(2):
            missing = wanted - (weights * value).sum(axes, keepdim=True)
            value = value + missing * (weights / weights.square().sum())
        return value.to(field.dtype)
