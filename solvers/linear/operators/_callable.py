"""An operator that is only a function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Self

import torch
from torch import Tensor

from solvers.core import SettingsError
from solvers.linear.operators._operator import LinearOperator

__all__ = ["CallableOperator"]


class CallableOperator(LinearOperator):
    r"""A linear map given by a function of torch tensors.

    The transpose comes from the function itself: reverse mode of a linear map applies its
    transpose.

    Args:
        function: Takes ``x`` of shape ``(..., *domain)`` and the coefficients by keyword; linear
            in ``x``; broadcasts over leading axes.
        domain: Shape of one vector.
        coefficients: Tensors that the function needs, at least one, by keyword.
        codomain: Shape of one result; the domain by default.
        is_symmetric: Whether the map equals its transpose.
        diagonal: Function of the coefficients that gives the diagonal, shape ``domain``.

    Raises:
        SettingsError: If there is no coefficient.

    Example:
        >>> A = CallableOperator(
        ...     lambda x, scale: scale * x.roll(1, -1), (3,), {"scale": torch.tensor(2.0)}
        ... )
        >>> (A.T @ torch.tensor([1.0, 2.0, 3.0])).tolist()
        [4.0, 6.0, 2.0]
    """

    def __init__(
        self,
        function: Callable[..., Tensor],
        domain: tuple[int, ...],
        coefficients: Mapping[str, Tensor],
        *,
        codomain: tuple[int, ...] | None = None,
        is_symmetric: bool = False,
        diagonal: Callable[..., Tensor] | None = None,
    ):
        if not coefficients:
            raise SettingsError(
                "coefficients: got none, expected at least one tensor; it tells the type and "
                "device of the vectors"
            )
        self.function = function
        self._domain = tuple(domain)
        self._codomain = self._domain if codomain is None else tuple(codomain)
        self._coefficients = dict(coefficients)
        self._is_symmetric = is_symmetric
        self._diagonal = diagonal

    @property
    def domain(self) -> tuple[int, ...]:
        """Shape of one vector."""
        return self._domain

    @property
    def codomain(self) -> tuple[int, ...]:
        """Shape of one result."""
        return self._codomain

    @property
    def coefficients(self) -> Mapping[str, Tensor]:
        """As given."""
        return self._coefficients

    def with_coefficients(self, coefficients: Mapping[str, Tensor]) -> Self:
        """The same function with other coefficients."""
        return type(self)(
            self.function,
            self._domain,
            coefficients,
            codomain=self._codomain,
            is_symmetric=self._is_symmetric,
            diagonal=self._diagonal,
        )

    @property
    def is_symmetric(self) -> bool:
        """As told."""
        return self._is_symmetric

    def apply(self, x: Tensor) -> Tensor:
        """Call the function."""
        return self.function(x, **self._coefficients)

    def transpose(self) -> LinearOperator:
        """The transposed map, by reverse mode."""
        if self._is_symmetric:
            return self
        function, domain = self.function, self._domain

        def turned(y: Tensor, **coefficients: Tensor) -> Tensor:
            batch = y.shape[: y.ndim - len(self._codomain)]
            zero = torch.zeros((*batch, *domain), dtype=y.dtype, device=y.device)
            pull = torch.func.vjp(lambda x: function(x, **coefficients), zero)[1]
            result: Tensor = pull(y)[0]
            return result

        return CallableOperator(
            turned,
            self._codomain,
            self._coefficients,
            codomain=self._domain,
            diagonal=self._diagonal,
        )

    def diagonal(self) -> Tensor:
        """From the function given for it."""
        if self._diagonal is None:
            return super().diagonal()
        return self._diagonal(**self._coefficients)
