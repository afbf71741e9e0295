r"""Fields of a prescribed integral: a shift along the weights."""

from __future__ import annotations

from numbers import Real
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from constraints._tensors import check_real
from constraints.closed_forms._closed_form import AbstractClosedForm, Inputs
from constraints.closed_forms._inputs import check_batch, check_device, check_fixed, read_values
from constraints.failure import FailurePolicy
from solvers.core import SettingsError, ShapeError, Solution, check_count, check_finite

__all__ = ["Integral"]


class Integral(AbstractClosedForm):
    r"""Give a field a prescribed integral: mass, momentum, mean.

    .. math:: \int u = \sum_i w_i u_i = M, \qquad
              u = u_0 + \frac{w}{w \cdot w}\,(M - w \cdot u_0)

    the nearest field in the Euclidean norm of its values. Equal weights shift the field by a
    constant.

    Args:
        weights: Quadrature weights of the cells or nodes, any shape; their axes are the last ones
            of every field. A number: that weight for each of ``axes`` axes.
        axes: How many axes are summed over if ``weights`` is a number.
        on_failure: What to do with fields that hold NaN or infinity, see
            :mod:`constraints.failure`; under ``"warn"`` and ``"mask"`` they are zero.

    Raises:
        SettingsError: If all weights are zero, weights are no real numbers or require gradients,
            or the policy is unknown or ``"project"``.

    Backward: the projection itself, any order.

    Example:
        >>> import torch
        >>> mean_free = Integral(0.25)
        >>> mean_free(torch.tensor([1.0, 2.0, 3.0, 6.0]), 0.0).tolist()
        [-2.0, -1.0, 0.0, 3.0]
    """

    weights: Tensor

    def __init__(
        self,
        weights: Float[Tensor, "..."] | float,
        *,
        axes: int = 1,
        on_failure: FailurePolicy = "raise",
    ):
        super().__init__(on_failure)
        is_number = isinstance(weights, Real)
        check_fixed("weights", weights)
        device = weights.device if isinstance(weights, Tensor) else torch.device("cpu")
        value = read_values("weights", weights, dtype=torch.float64, device=device)
        if is_number:
            check_count("axes", axes)
        elif value.ndim == 0:
            raise SettingsError(
                "weights: got a tensor without axes, expected one weight for each node; give a "
                "number for equal weights"
            )
        self._axes = axes if is_number else value.ndim
        self.register_buffer("weights", value)
        self._check_weights()

    def forward(self, field: Float[Tensor, "..."], total: Tensor | float) -> Float[Tensor, "..."]:
        """Shift a field along the weights until its integral is ``total``.

        Args:
            field: Values ``(..., *grid)``; the result has their type.
            total: Integral of each item ``(...)``, or one for all.

        Returns:
            The field with that integral, to rounding of its type.

        Raises:
            ShapeError: If the last axes are not those of the weights, or there are not as many
                totals as fields.
            SettingsError: If an argument is not real.
            NonFiniteError: Under ``"raise"``, if an item holds NaN or infinity.
        """
        return self._answer(self._read(field, total))

    def solve(self, field: Float[Tensor, "..."], total: Tensor | float) -> Solution[Tensor]:
        """The same with a report: status of each item, and how far its integral is from ``total``.

        Args:
            field: As in `forward`.
            total: As in `forward`.

        Returns:
            Field and report.

        Raises:
            NonFiniteError: As in `forward`.
        """
        inputs = self._read(field, total)
        return self._settle(inputs, self._nearest(*inputs.values()))

    @property
    def _item_axes(self) -> int:
        return self._axes

    def _nearest(self, *inputs: Tensor) -> Tensor:
        field, total = inputs
        weights = self.weights.expand(field.shape[field.ndim - self._axes :])
        # Of size one, so that squares neither overflow nor vanish.
        size = self.weights.abs().amax()
        unit = weights / size
        direction = unit / unit.square().sum()
        wanted = self._to_item(total / size)
        value = field.double()
        for _ in range(2):
            missing = wanted - self._to_item(self._sum(unit * value))
            value = value + missing * direction
        return value.to(field.dtype)

    def _violation(self, value: Tensor, *inputs: Tensor) -> Tensor:
        return (self._sum(self.weights * value) - inputs[1]).abs()

    def _sum(self, values: Tensor) -> Tensor:
        return values.sum(tuple(range(-self._axes, 0)))

    def _read(self, field: Tensor, total: Tensor | float) -> Inputs:
        check_real("field", field)
        grid = field.shape[field.ndim - self._axes :]
        if (
            field.ndim < self._axes
            or 0 in grid
            or (self.weights.ndim and self.weights.shape != grid)
        ):
            raise ShapeError(
                f"field: got shape {tuple(field.shape)}, expected (..., "
                f"{', '.join(map(str, self.weights.shape)) or f'{self._axes} axes'})"
            )
        check_device("weights", self.weights, "field", field)
        wanted = read_values("total", total, dtype=torch.float64, device=field.device)
        check_batch({"field": field.shape[: field.ndim - self._axes], "total": wanted.shape})
        return {"field": field, "total": wanted}

    def _check_weights(self) -> None:
        check_finite("weights", self.weights)
        if not bool((self.weights != 0).any()):
            raise SettingsError("weights: got zeros only, expected at least one other number")

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._check_weights()
