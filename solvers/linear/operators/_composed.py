"""Products, sums and multiples of operators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor

from solvers.core import ShapeError
from solvers.linear.operators._operator import LinearOperator

__all__ = ["ProductOperator", "ScaledOperator", "SumOperator"]


class _PairOperator(LinearOperator):
    """Two operators; the coefficients are those of both, prefixed ``first.`` and ``second.``."""

    def __init__(self, first: LinearOperator, second: LinearOperator):
        self.first, self.second = first, second

    @property
    def domain(self) -> tuple[int, ...]:
        """Of the second operator."""
        return self.second.domain

    @property
    def codomain(self) -> tuple[int, ...]:
        """Of the first operator."""
        return self.first.codomain

    @property
    def batch(self) -> tuple[int, ...]:
        """Of both, broadcast."""
        return tuple(torch.broadcast_shapes(self.first.batch, self.second.batch))

    @property
    def coefficients(self) -> Mapping[str, Tensor]:
        """Those of both operators."""
        return {
            f"{place}.{name}": tensor
            for place, operator in (("first", self.first), ("second", self.second))
            for name, tensor in operator.coefficients.items()
        }

    def with_coefficients(self, coefficients: Mapping[str, Tensor]) -> Self:
        """The same pair with other numbers."""
        parts: dict[str, dict[str, Tensor]] = {"first": {}, "second": {}}
        for name, tensor in coefficients.items():
            place, _, rest = name.partition(".")
            parts[place][rest] = tensor
        return type(self)(
            self.first.with_coefficients(parts["first"]),
            self.second.with_coefficients(parts["second"]),
        )


class ProductOperator(_PairOperator):
    """``first @ second``: the second is applied first.

    Args:
        first: The outer map.
        second: The inner map.

    Raises:
        ShapeError: If the shapes do not fit together.
    """

    def __init__(self, first: LinearOperator, second: LinearOperator):
        if first.domain != second.codomain:
            raise ShapeError(
                f"A @ B: B gives vectors of shape {second.codomain}, expected {first.domain}, "
                "which A takes"
            )
        super().__init__(first, second)

    def apply(self, x: Tensor) -> Tensor:
        """Apply one after the other."""
        return self.first.apply(self.second.apply(x))

    def transpose(self) -> LinearOperator:
        """The transposes in reverse order."""
        return ProductOperator(self.second.transpose(), self.first.transpose())

    def to_scipy(self) -> Any:
        """The product of the matrices."""
        return self.first.to_scipy() @ self.second.to_scipy()


class SumOperator(_PairOperator):
    """``first + second``.

    Args:
        first: One map.
        second: Another map between the same spaces.

    Raises:
        ShapeError: If the shapes differ.
    """

    def __init__(self, first: LinearOperator, second: LinearOperator):
        if (first.domain, first.codomain) != (second.domain, second.codomain):
            raise ShapeError(
                f"A + B: A maps {first.domain} to {first.codomain}, B maps {second.domain} to "
                f"{second.codomain}, expected the same shapes"
            )
        super().__init__(first, second)

    @property
    def is_symmetric(self) -> bool:
        """If both are."""
        return self.first.is_symmetric and self.second.is_symmetric

    def apply(self, x: Tensor) -> Tensor:
        """Apply both and add."""
        return self.first.apply(x) + self.second.apply(x)

    def transpose(self) -> LinearOperator:
        """The sum of the transposes."""
        if self.is_symmetric:
            return self
        return SumOperator(self.first.transpose(), self.second.transpose())

    def diagonal(self) -> Tensor:
        """The sum of the diagonals."""
        return self.first.diagonal() + self.second.diagonal()

    def to_scipy(self) -> Any:
        """The sum of the matrices."""
        return self.first.to_scipy() + self.second.to_scipy()


class ScaledOperator(LinearOperator):
    """``factor * inner``.

    Args:
        factor: One number, or one per item of a batch.
        inner: The map to scale.
    """

    def __init__(self, factor: Tensor, inner: LinearOperator):
        self.factor, self.inner = factor, inner

    @property
    def domain(self) -> tuple[int, ...]:
        """Of the inner operator."""
        return self.inner.domain

    @property
    def codomain(self) -> tuple[int, ...]:
        """Of the inner operator."""
        return self.inner.codomain

    @property
    def batch(self) -> tuple[int, ...]:
        """Of factor and operator, broadcast."""
        return tuple(torch.broadcast_shapes(self.factor.shape, self.inner.batch))

    @property
    def coefficients(self) -> Mapping[str, Tensor]:
        """``factor`` and those of the inner operator, prefixed ``inner.``."""
        inner = {f"inner.{name}": tensor for name, tensor in self.inner.coefficients.items()}
        return {"factor": self.factor, **inner}

    def with_coefficients(self, coefficients: Mapping[str, Tensor]) -> Self:
        """The same structure with other numbers."""
        inner = {
            name.removeprefix("inner."): tensor
            for name, tensor in coefficients.items()
            if name != "factor"
        }
        return type(self)(coefficients["factor"], self.inner.with_coefficients(inner))

    @property
    def is_symmetric(self) -> bool:
        """If the inner operator is."""
        return self.inner.is_symmetric

    def _spread(self, axes: int) -> Tensor:
        return self.factor.reshape(*self.factor.shape, *(1,) * axes)

    def apply(self, x: Tensor) -> Tensor:
        """Apply and scale."""
        return self._spread(len(self.codomain)) * self.inner.apply(x)

    def transpose(self) -> LinearOperator:
        """The scaled transpose."""
        return self if self.is_symmetric else ScaledOperator(self.factor, self.inner.transpose())

    def diagonal(self) -> Tensor:
        """The scaled diagonal."""
        return self._spread(len(self.domain)) * self.inner.diagonal()

    def to_scipy(self) -> Any:
        """The scaled matrix."""
        self._check_single("to_scipy")
        return float(self.factor) * self.inner.to_scipy()
