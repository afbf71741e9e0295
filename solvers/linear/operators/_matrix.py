"""Operators with a matrix: dense, or sparse with a fixed pattern."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from solvers.core import SettingsError, ShapeError
from solvers.linear.operators._operator import LinearOperator
from solvers.linear.operators._written import Facts

__all__ = ["DenseOperator", "SparseOperator"]

_SYMMETRY = 1e-12
_OF_SCIPY = (torch.float32, torch.float64)


class DenseOperator(LinearOperator):
    """A dense matrix, or a batch of them.

    Args:
        matrix: Floating-point tensor, shape ``(..., m, n)``.
        is_symmetric: Whether the matrix equals its transpose; measured if None.

    Raises:
        ShapeError: If there are fewer than two axes.
        SettingsError: If the numbers are not floating point.
    """

    def __init__(self, matrix: Float[Tensor, "*b m n"], *, is_symmetric: bool | None = None):
        if matrix.ndim < 2:
            raise ShapeError(
                f"matrix: got shape {tuple(matrix.shape)}, expected at least two axes (m, n)"
            )
        _check_floating("matrix", matrix)
        self.matrix = matrix
        self._told = is_symmetric
        self._facts = Facts()

    @property
    def domain(self) -> tuple[int, ...]:
        """``(n,)``."""
        return (self.matrix.shape[-1],)

    @property
    def codomain(self) -> tuple[int, ...]:
        """``(m,)``."""
        return (self.matrix.shape[-2],)

    @property
    def batch(self) -> tuple[int, ...]:
        """Leading axes of the matrix."""
        return tuple(self.matrix.shape[:-2])

    @property
    def coefficients(self) -> Mapping[str, Tensor]:
        """``matrix``."""
        return {"matrix": self.matrix}

    def with_coefficients(self, coefficients: Mapping[str, Tensor]) -> Self:
        """Another matrix of the same symmetry."""
        return type(self)(coefficients["matrix"], is_symmetric=self._known_symmetry)

    @property
    def is_symmetric(self) -> bool:
        """As told, or measured to rounding."""
        if self._told is None:
            return self._facts.find("is_symmetric", [self.matrix], self._measure_symmetry)
        return self._told

    @property
    def _known_symmetry(self) -> bool | None:
        """As told or measured before; None if neither."""
        known: bool | None = self._facts.known("is_symmetric", [self.matrix])
        return known if self._told is None else self._told

    def _measure_symmetry(self) -> bool:
        self.check()
        matrix = self.matrix.detach()
        is_square = matrix.shape[-1] == matrix.shape[-2]
        return is_square and bool(
            (matrix - matrix.mT).abs().max() <= _SYMMETRY * matrix.abs().max()
        )

    def apply(self, x: Tensor) -> Tensor:
        """Multiply with the matrix."""
        return (self.matrix @ x.unsqueeze(-1)).squeeze(-1)

    def transpose(self) -> LinearOperator:
        """The transposed matrix; symmetry is not measured for it."""
        symmetry = self._known_symmetry
        return self if symmetry else DenseOperator(self.matrix.mT, is_symmetric=symmetry)

    def diagonal(self) -> Tensor:
        """The diagonal."""
        return self.matrix.diagonal(dim1=-2, dim2=-1)

    def largest_of_rows(self) -> Tensor:
        """The largest entry of every row in magnitude, shape ``(..., m)``."""
        return self.matrix.detach().abs().amax(-1)

    def to_scipy(self) -> Any:
        """The matrix in compressed rows."""
        self._check_single("to_scipy")
        import scipy.sparse

        return scipy.sparse.csr_array(_numbers(self.matrix))


class SparseOperator(LinearOperator):
    """A sparse matrix with a fixed pattern and values that may carry gradients.

    Args:
        rows: Row of every entry, shape ``(nnz,)``.
        columns: Column of every entry, shape ``(nnz,)``.
        values: Entries, shape ``(..., nnz)``; leading axes make a batch of systems.
        shape: Rows and columns of the matrix.
        is_symmetric: Whether the matrix equals its transpose; measured if None.

    Raises:
        ShapeError: If the lists differ in length or point outside of the matrix.
        SettingsError: If the values are not floating point.

    Example:
        >>> import scipy.sparse
        >>> A = SparseOperator.from_scipy(scipy.sparse.eye_array(3) * 2.0)
        >>> (A @ torch.ones(3, dtype=torch.float64)).tolist()
        [2.0, 2.0, 2.0]
    """

    def __init__(
        self,
        rows: Int[Tensor, " nnz"],
        columns: Int[Tensor, " nnz"],
        values: Float[Tensor, "*b nnz"],
        shape: tuple[int, int],
        *,
        is_symmetric: bool | None = None,
    ):
        if rows.shape != columns.shape or values.shape[-1:] != rows.shape:
            raise ShapeError(
                f"rows, columns and values have shapes {tuple(rows.shape)}, "
                f"{tuple(columns.shape)}, {tuple(values.shape)}, expected one number an entry"
            )
        for name, index, limit in (("rows", rows, shape[0]), ("columns", columns, shape[1])):
            if index.numel() and not (0 <= int(index.min()) and int(index.max()) < limit):
                raise ShapeError(
                    f"{name}: run from {int(index.min())} to {int(index.max())}, expected 0 to "
                    f"{limit - 1} for a matrix of shape {shape}"
                )
        _check_floating("values", values)
        self.rows, self.columns, self.values, self.shape = rows, columns, values, shape
        self._told = is_symmetric
        self._facts = Facts()

    @classmethod
    def from_scipy(cls, matrix: Any, *, is_symmetric: bool | None = None) -> Self:
        """Take a ``scipy.sparse`` matrix; float64 unless it holds float32.

        Args:
            matrix: Any sparse matrix or array of two axes.
            is_symmetric: Whether it equals its transpose; measured if None.
        """
        if np.iscomplexobj(matrix):
            raise SettingsError(
                f"matrix: got type {matrix.dtype}, expected real numbers; solve "
                "[[Re, -Im], [Im, Re]] for the real and the imaginary part"
            )
        entries = matrix.tocsr()
        entries.sum_duplicates()
        entries = entries.tocoo()
        kind = np.float32 if entries.dtype == np.float32 else np.float64
        return cls(
            torch.as_tensor(np.asarray(entries.row, dtype=np.int64)),
            torch.as_tensor(np.asarray(entries.col, dtype=np.int64)),
            torch.as_tensor(np.array(entries.data, dtype=kind)),
            tuple(entries.shape),
            is_symmetric=is_symmetric,
        )

    @classmethod
    def from_torch(cls, matrix: Tensor, *, is_symmetric: bool | None = None) -> Self:
        """Take a torch sparse tensor (any layout); gradients flow to its values.

        Args:
            matrix: Sparse tensor of two axes.
            is_symmetric: Whether it equals its transpose; measured if None.
        """
        if matrix.layout is torch.strided:
            raise SettingsError("matrix: got a dense tensor; use DenseOperator")
        if matrix.ndim != 2:
            raise ShapeError(
                f"matrix: got a sparse tensor of shape {tuple(matrix.shape)}, expected two axes; "
                "for a batch give SparseOperator values of shape (..., nnz)"
            )
        entries = matrix if matrix.layout is torch.sparse_coo else matrix.to_sparse_coo()
        entries = entries.coalesce()
        rows, columns = entries.indices()
        shape = (entries.shape[0], entries.shape[1])
        return cls(rows, columns, entries.values(), shape, is_symmetric=is_symmetric)

    @property
    def domain(self) -> tuple[int, ...]:
        """``(n,)``."""
        return (self.shape[1],)

    @property
    def codomain(self) -> tuple[int, ...]:
        """``(m,)``."""
        return (self.shape[0],)

    @property
    def batch(self) -> tuple[int, ...]:
        """Leading axes of the values."""
        return tuple(self.values.shape[:-1])

    @property
    def coefficients(self) -> Mapping[str, Tensor]:
        """``values``."""
        return {"values": self.values}

    def with_coefficients(self, coefficients: Mapping[str, Tensor]) -> Self:
        """The same pattern with other values."""
        values = coefficients["values"]
        rows, columns = self.rows.to(values.device), self.columns.to(values.device)
        return type(self)(rows, columns, values, self.shape, is_symmetric=self._known_symmetry)

    @property
    def is_symmetric(self) -> bool:
        """As told, or measured to rounding."""
        if self._told is None:
            return self._facts.find("is_symmetric", [self.values], self._measure_symmetry)
        return self._told

    @property
    def _known_symmetry(self) -> bool | None:
        """As told or measured before; None if neither."""
        known: bool | None = self._facts.known("is_symmetric", [self.values])
        return known if self._told is None else self._told

    def apply(self, x: Tensor) -> Tensor:
        """Multiply with the matrix; on the CPU through SciPy where no gradient is wanted."""
        if self._is_plain(x):
            flat = x.reshape(-1, self.shape[1]).T.numpy()
            product = torch.from_numpy(np.ascontiguousarray((self.to_scipy() @ flat).T))
            return product.reshape(*x.shape[:-1], self.shape[0])
        terms = self.values * x.index_select(-1, self.columns)
        zero = torch.zeros(
            (*terms.shape[:-1], self.shape[0]), dtype=terms.dtype, device=terms.device
        )
        return zero.index_add(-1, self.rows, terms)

    def transpose(self) -> LinearOperator:
        """The transposed matrix; symmetry is not measured for it."""
        symmetry = self._known_symmetry
        if symmetry:
            return self
        turned = (self.shape[1], self.shape[0])
        return SparseOperator(self.columns, self.rows, self.values, turned, is_symmetric=symmetry)

    def diagonal(self) -> Tensor:
        """The diagonal."""
        on = self.rows == self.columns
        size = min(self.shape)
        zero = torch.zeros((*self.batch, size), dtype=self.dtype, device=self.device)
        return zero.index_add(-1, self.rows[on], self.values[..., on])

    def largest_of_rows(self) -> Tensor:
        """The largest entry of every row in magnitude, shape ``(..., m)``."""
        entries = self.values.detach().abs()
        zero = entries.new_zeros(*self.batch, self.shape[0])
        return zero.scatter_reduce(-1, self.rows.expand_as(entries), entries, "amax")

    def to_scipy(self) -> Any:
        """The matrix in compressed rows."""
        self._check_single("to_scipy")
        return self._facts.find("scipy", [self.values], lambda: self._matrix_of(self.values))

    def _matrix_of(self, values: Tensor) -> Any:
        import scipy.sparse

        rows, columns = self.rows.cpu().numpy(), self.columns.cpu().numpy()
        entries = (_numbers(values), (rows, columns))
        return scipy.sparse.coo_array(entries, shape=self.shape).tocsr()

    def _measure_symmetry(self) -> bool:
        if self.shape[0] != self.shape[1]:
            return False
        self.check()
        flat = self.values.detach().flatten(0, -2) if self.batch else self.values.detach()[None]
        for item in flat:
            matrix = self._matrix_of(item)
            if abs(matrix - matrix.T).max() > _SYMMETRY * abs(matrix).max():
                return False
        return True

    def _is_plain(self, x: Tensor) -> bool:
        wants_gradient = torch.is_grad_enabled() and (x.requires_grad or self.values.requires_grad)
        is_traced = torch._C._functorch.is_functorch_wrapped_tensor
        is_hidden = is_traced(x) or is_traced(self.values)
        has_matrix = x.device.type == "cpu" and not self.batch and x.dtype in _OF_SCIPY
        return has_matrix and not (wants_gradient or is_hidden)


def _numbers(tensor: Tensor) -> np.ndarray[Any, Any]:
    """Plain numbers in a type that SciPy knows."""
    plain = tensor.detach().cpu()
    numbers: np.ndarray[Any, Any] = (plain if plain.dtype in _OF_SCIPY else plain.float()).numpy()
    return numbers


def _check_floating(name: str, tensor: Tensor) -> None:
    if not tensor.is_floating_point():
        raise SettingsError(
            f"{name}: got type {tensor.dtype}, expected a floating-point type; "
            "convert it with .double()"
        )
