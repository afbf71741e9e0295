r"""Basis functions from a network, with exact derivatives in space and time.

Value, first and second derivatives go through the layers together: with :math:`a = W h + b` and
:math:`h' = \tanh a`,

.. math:: \partial_i h' = (1 - h'^2)\, \partial_i a, \qquad
          \partial_{ii} h' = (1 - h'^2)\, (\partial_{ii} a - 2 h' (\partial_i a)^2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from solvers.core import SettingsError, check_count, check_positive, check_shape

__all__ = ["JetBasis", "derivative_axes"]


def derivative_axes(feature: str, coordinates: str) -> str:
    """Axes that a feature differentiates along: ``""`` for ``"u"``, ``"xx"`` for ``"u_xx"``.

    Raises:
        SettingsError: If it is no such name, or an axis is not among the coordinates.
    """
    head, _, axes = feature.partition("_")
    if not head or (not axes and "_" in feature) or not set(axes) <= set(coordinates):
        raise SettingsError(
            f"features: got {feature!r}, expected a name such as 'u' or 'u_{coordinates[0]}' with "
            f"axes among {coordinates!r}"
        )
    return axes


class JetBasis(nn.Module):
    """Network from points and conditions to ``N`` functions and their derivatives.

    Args:
        coordinates: Letters of the coordinates, in the order of the columns of points.
        functions: Number of basis functions ``N``.
        width: Units of a hidden layer.
        depth: Hidden layers.
        conditions: Numbers that describe a sample (initial value, coefficients), beside the point.
        frequency: Factor of the first layer: how fast functions vary over the domain.
        lifted: Number of inputs that `lift` makes of a point; as many as coordinates by default.
        seed: Of the initial weights.

    Raises:
        SettingsError: If a size is no positive whole number, or coordinates are not different.

    Example:
        >>> basis = JetBasis("xt", functions=4)
        >>> points = torch.rand(10, 2, dtype=torch.float64)
        >>> basis(points, None, ("u", "u_t", "u_xx")).shape      # samples, points, features, N
        torch.Size([1, 10, 3, 4])
    """

    def __init__(
        self,
        coordinates: str,
        functions: int,
        *,
        width: int = 64,
        depth: int = 2,
        conditions: int = 0,
        frequency: float = 2.0,
        lifted: int | None = None,
        seed: int = 0,
    ):
        super().__init__()
        for name, size in (("functions", functions), ("width", width), ("depth", depth)):
            check_count(name, size)
        check_count("conditions", conditions, least=0)
        check_positive("frequency", frequency)
        if not coordinates or len(set(coordinates)) != len(coordinates):
            raise SettingsError(
                f"coordinates: got {coordinates!r}, expected different letters, as 'xt'"
            )
        self.coordinates, self.functions, self.conditions = coordinates, functions, conditions
        first = len(coordinates) if lifted is None else lifted
        sizes = [first + conditions, *[width] * depth, functions]
        generator = torch.Generator().manual_seed(seed)
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for layer, (before, after) in enumerate(pairwise(sizes)):
            reach = (frequency if layer == 0 else 1.0) / math.sqrt(before)
            for kind, shape in ((self.weights, (after, before)), (self.biases, (after,))):
                drawn = torch.rand(shape, generator=generator, dtype=torch.float64)
                kind.append(nn.Parameter(reach * (2 * drawn - 1)))

    def forward(self, points: Tensor, condition: Tensor | None, features: Sequence[str]) -> Tensor:
        """Evaluate.

        Args:
            points: Shape ``(n, d)``.
            condition: Shape ``(S, c)``, or None if there is none (one sample).
            features: Names such as ``"u"``, ``"u_t"``, ``"u_xx"``; at most two equal axes.

        Returns:
            Shape ``(S, n, k, N)`` for ``k`` features.

        Raises:
            ShapeError: If points or condition have other sizes.
            SettingsError: If a feature is not known.
        """
        check_shape("points", points, "n d", sizes={"d": len(self.coordinates)})
        if isinstance(features, str) or not features:
            raise SettingsError(
                f"features: got {features!r}, expected a tuple of names, as ('u', 'u_x')"
            )
        points = points.to(self.weights[0].dtype)
        wanted = [derivative_axes(name, self.coordinates) for name in features]
        for name, axes in zip(features, wanted, strict=True):
            if len(axes) > 2 or len(set(axes)) > 1:
                raise SettingsError(
                    f"features: got {name!r}, expected at most two derivatives along one axis"
                )
        z, dz, ddz = self.lift(points)
        h = self._join(z, condition)
        # The condition does not change along any axis.
        slopes = {axes[0]: self._pad(dz[axes[0]]) for axes in wanted if axes}
        curves = {
            axes[0]: None if axes[0] not in ddz else self._pad(ddz[axes[0]])
            for axes in wanted
            if len(axes) == 2
        }
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = h @ weight.T + bias
            slopes = {axis: slope @ weight.T for axis, slope in slopes.items()}
            curves = {a: None if curve is None else curve @ weight.T for a, curve in curves.items()}
            if layer == last:
                break
            h = torch.tanh(h)
            steep = 1 - h * h
            for axis, curve in curves.items():
                bend = -2 * h * slopes[axis].square()
                curves[axis] = steep * (bend if curve is None else bend + curve)
            slopes = {axis: steep * slope for axis, slope in slopes.items()}
        parts = [h if not a else slopes[a] if len(a) == 1 else curves[a[0]] for a in wanted]
        return torch.stack([h if part is None else part.expand_as(h) for part in parts], -2)

    def lift(self, points: Tensor) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """What of a point the network sees: the coordinates themselves; for subclasses to change.

        Args:
            points: Shape ``(n, d)``.

        Returns:
            Inputs of shape ``(n, q)``, and their first and second derivatives along each axis;
            second ones that are zero may be left out.
        """
        slopes = {}
        for place, axis in enumerate(self.coordinates):
            slopes[axis] = torch.zeros_like(points)
            slopes[axis][:, place] = 1.0
        return points, slopes, {}

    def _pad(self, slope: Tensor) -> Tensor:
        return torch.nn.functional.pad(slope, (0, self.conditions))

    def _join(self, inputs: Tensor, condition: Tensor | None) -> Tensor:
        if condition is None:
            if self.conditions:
                raise SettingsError(f"condition: got None, expected shape (S, {self.conditions})")
            return inputs[None]
        check_shape("condition", condition, "S c", sizes={"c": self.conditions})
        condition, samples, n = condition.to(inputs.dtype), len(condition), len(inputs)
        return torch.cat(
            [inputs.expand(samples, *inputs.shape), condition[:, None].expand(-1, n, -1)], -1
        )
