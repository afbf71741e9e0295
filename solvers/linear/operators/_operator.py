"""What a linear operator is: shapes, products, transpose, and the tensors it is made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor

from solvers.core import SettingsError, ShapeError, check_finite

__all__ = ["LinearOperator", "NullSpace"]


class NullSpace(ABC):
    """The null space of a symmetric operator, as the orthogonal projector that removes it."""

    @abstractmethod
    def remove(self, x: Tensor) -> Tensor:
        """Take the part in the null space out of ``x`` of shape ``(..., *domain)``."""


class LinearOperator(ABC):
    r"""A linear map :math:`A: x \mapsto A x` made of tensors.

    Vectors have shape ``(..., *domain)``: any leading batch axes, then the axes of one vector,
    for example ``(n,)`` or the shape of a grid. An operator may itself be a batch of systems; the
    leading axes of its coefficients then broadcast with those of the vectors.

    Subclasses say how to apply the map and which tensors it is made of; everything else (gradients
    of solves, composition, conversion) follows from these two.

    Example:
        >>> from solvers.linear import DenseOperator
        >>> A = DenseOperator(torch.tensor([[2.0, 1.0], [1.0, 3.0]]))
        >>> (A @ torch.tensor([1.0, 0.0])).tolist()
        [2.0, 1.0]
    """

    @property
    @abstractmethod
    def domain(self) -> tuple[int, ...]:
        """Shape of one vector that the map takes."""

    @property
    def codomain(self) -> tuple[int, ...]:
        """Shape of one vector that the map gives; the domain unless the map is rectangular."""
        return self.domain

    @property
    def batch(self) -> tuple[int, ...]:
        """Batch shape of the operator itself; ``()`` for a single system."""
        return ()

    @property
    @abstractmethod
    def coefficients(self) -> Mapping[str, Tensor]:
        """The tensors that the map depends on, by name; solves are differentiable in each."""

    @abstractmethod
    def with_coefficients(self, coefficients: Mapping[str, Tensor]) -> Self:
        """The same structure with other numbers.

        Args:
            coefficients: One tensor for each name of `coefficients`; leading batch axes may be
                added.
        """

    @abstractmethod
    def apply(self, x: Tensor) -> Tensor:
        """Compute ``A x``, differentiable in ``x`` and in every coefficient.

        Args:
            x: Vectors, shape ``(..., *domain)``.

        Returns:
            Vectors, shape ``(..., *codomain)``.
        """

    def pull_back(self, x: Tensor, y: Tensor) -> Mapping[str, Tensor]:
        """Gradients of ``<y, A x>`` in the coefficients, at fixed ``x`` and ``y``.

        Args:
            x: Vectors, shape ``(..., *domain)``.
            y: Cotangents of the products, shape ``(..., *codomain)``.

        Returns:
            One tensor for each coefficient, differentiable again.
        """
        names = list(self.coefficients)

        def product(*tensors: Tensor) -> Tensor:
            return self.with_coefficients(dict(zip(names, tensors, strict=True))).apply(x)

        pull = torch.func.vjp(product, *self.coefficients.values())[1]
        return dict(zip(names, pull(y), strict=True))

    @abstractmethod
    def transpose(self) -> LinearOperator:
        """The transposed map; the operator itself if it is symmetric."""

    @property
    def is_symmetric(self) -> bool:
        """Whether ``A`` equals its transpose."""
        return False

    def diagonal(self) -> Tensor:
        """The diagonal of the matrix, shape ``(*batch, *domain)``.

        Raises:
            SettingsError: If this kind of operator does not know its diagonal.
        """
        raise SettingsError(
            f"{type(self).__name__} does not know its diagonal; pass diagonal= where you make it, "
            "or use a preconditioner that needs none"
        )

    def to_scipy(self) -> Any:
        """The matrix as ``scipy.sparse.csr_array`` over flattened vectors.

        By default the map is applied to every unit vector, which costs ``n`` products.

        Raises:
            SettingsError: If the operator is a batch of systems.
        """
        self._check_single("to_scipy")
        import scipy.sparse

        size = self.size
        unit = torch.eye(size, dtype=self.dtype, device=self.device).reshape(size, *self.domain)
        with torch.no_grad():
            columns = self.apply(unit).reshape(size, -1)
        return scipy.sparse.csr_array(columns.T.cpu().numpy())

    def null_space(self) -> NullSpace | None:
        """The null space if its structure is known (walls on all sides), else None."""
        return None

    def mask(self, x: Tensor) -> Tensor:
        """Set to zero what is no unknown, for example cells inside solids."""
        return x

    def check(self) -> None:
        """Check the numbers of the operator before a solve.

        Raises:
            NonFiniteError: If a coefficient is NaN or infinite.
        """
        for name, tensor in self.coefficients.items():
            check_finite(f"coefficient {name!r} of {type(self).__name__}", tensor)

    @property
    def size(self) -> int:
        """Number of unknowns of one vector."""
        return int(torch.Size(self.domain).numel())

    @property
    def dtype(self) -> torch.dtype:
        """Type of the coefficients."""
        return next(iter(self.coefficients.values())).dtype

    @property
    def device(self) -> torch.device:
        """Device of the coefficients."""
        return next(iter(self.coefficients.values())).device

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Self:
        """Move the coefficients to a device or type.

        Args:
            device: Where to; unchanged by default.
            dtype: Which type; unchanged by default.
        """
        moved = {
            name: tensor.to(device=device or tensor.device, dtype=dtype or tensor.dtype)
            for name, tensor in self.coefficients.items()
        }
        return self.with_coefficients(moved)

    def detach(self) -> Self:
        """The same operator without gradients."""
        return self.with_coefficients(
            {name: tensor.detach() for name, tensor in self.coefficients.items()}
        )

    @property
    def T(self) -> LinearOperator:
        """The transposed map."""
        return self.transpose()

    def check_vector(self, name: str, x: Tensor, *, shape: tuple[int, ...] | None = None) -> None:
        """Check that a tensor is a batch of vectors of this operator.

        Args:
            name: Name of the argument, for the message.
            x: The tensor.
            shape: Axes of one vector; the codomain by default.

        Raises:
            ShapeError: If the last axes are not those of a vector.
            SettingsError: If type or device differ from the coefficients.
        """
        expected = self.codomain if shape is None else shape
        if not isinstance(x, Tensor):
            raise ShapeError(
                f"{name}: got {type(x).__name__}, expected a tensor of shape (..., "
                f"{', '.join(map(str, expected))}); convert it with torch.as_tensor"
            )
        if tuple(x.shape[x.ndim - len(expected) :]) != expected or x.ndim < len(expected):
            raise ShapeError(
                f"{name}: got shape {tuple(x.shape)}, expected the last axes to be {expected} "
                f"as in {type(self).__name__}; reshape it or build the operator for this shape"
            )
        if x.dtype != self.dtype or x.device != self.device:
            raise SettingsError(
                f"{name}: got {x.dtype} on {x.device}, expected {self.dtype} on {self.device} as "
                f"in {type(self).__name__}; convert it with {name}.to(A.device, A.dtype)"
            )

    def _check_single(self, what: str) -> None:
        if self.batch:
            raise SettingsError(
                f"{what}: the operator is a batch of shape {self.batch}, expected one system; "
                "take one item of its coefficients"
            )

    def __matmul__(self, other: Any) -> Any:
        if isinstance(other, LinearOperator):
            from solvers.linear.operators._composed import ProductOperator

            return ProductOperator(self, other)
        self.check_vector("x", other, shape=self.domain)
        return self.apply(other)

    def __add__(self, other: LinearOperator) -> LinearOperator:
        from solvers.linear.operators._composed import SumOperator

        return SumOperator(self, other)

    def __rmul__(self, factor: float | Tensor) -> LinearOperator:
        from solvers.linear.operators._composed import ScaledOperator

        return ScaledOperator(torch.as_tensor(factor, dtype=self.dtype, device=self.device), self)

    def __repr__(self) -> str:
        batch = f", batch={self.batch}" if self.batch else ""
        return f"{type(self).__name__}({self.codomain} x {self.domain}{batch}, {self.dtype})"
