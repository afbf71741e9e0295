r"""A Fourier neural operator whose outputs are fields in space, times polynomials of time.

The torus is homogeneous, so the network sees no coordinates: shifting the initial field shifts its
outputs. To them come the first two derivatives in time of the field at the start. Each field
:math:`g_p` counts with every polynomial,

.. math:: b_{pj}(x, y, t) = g_p(x, y)\; t\, T_j(2t - 1),

so that derivatives are exact in space and time and every function vanishes at :math:`t = 0`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from constraints.systems.navier_stokes._equation import NavierStokes
from constraints.systems.navier_stokes._spectral import coefficients, evaluate
from solvers.core import SettingsError, check_positive, check_shape

__all__ = ["OperatorBasis"]

_DERIVATIVES = 2
_CHANNELS = 5
"""Vorticity, velocity, two derivatives in time."""


class OperatorBasis(nn.Module):
    """Functions of ``(x, y, t)`` that depend on the initial vorticity.

    Args:
        fields: Fields ``P``, two of them derivatives of the initial field.
        degrees: Polynomials ``J`` of time; there are ``P J`` functions.
        system: The equation.
        cells: Points along a side of the network's grid.
        modes: Largest wave number of its layers and of its fields.
        width: Channels of a layer.
        depth: Fourier layers.
        seed: Of the initial weights.

    Raises:
        SettingsError: If a size is too small, or the grid too coarse for the modes.

    Source: Li et al. 2021, "Fourier neural operator for parametric partial differential equations".

    Example:
        >>> basis = OperatorBasis(4, 3, cells=16, modes=5, width=4)
        >>> points = torch.rand(10, 3, dtype=torch.float64)
        >>> fields = torch.randn(2, 16, 16, dtype=torch.float64)
        >>> basis(points, fields, ("w", "w_t")).shape      # samples, points, features, P J
        torch.Size([2, 10, 2, 12])
    """

    coordinates = "xyt"

    def __init__(
        self,
        fields: int,
        degrees: int,
        *,
        system: NavierStokes | None = None,
        cells: int = 32,
        modes: int = 10,
        width: int = 24,
        depth: int = 4,
        seed: int = 0,
    ):
        super().__init__()
        sizes = {"degrees": degrees, "cells": cells, "modes": modes, "width": width, "depth": depth}
        for name, size in sizes.items():
            check_positive(name, size)
        if fields <= _DERIVATIVES:
            raise SettingsError(f"fields: got {fields}, expected more than {_DERIVATIVES}")
        if 2 * modes >= cells:
            raise SettingsError(
                f"modes: got {modes}, expected fewer than {cells / 2:g}, half of cells"
            )
        self.system = system or NavierStokes()
        self.functions, self.degrees = fields * degrees, degrees
        self.cells, self.modes = cells, modes
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape: int, size: float) -> nn.Parameter:
            drawn = torch.randn(*shape, generator=generator, dtype=torch.float64)
            return nn.Parameter(size * drawn)

        seen = width + _CHANNELS
        self.first = draw(_CHANNELS, width, size=_CHANNELS**-0.5)
        # Small, so that a field which is the sum of all begins as its Taylor polynomial.
        self.last = draw(seen, fields - _DERIVATIVES, size=0.01 * seen**-0.5)
        self.local, self.spectral, self.biases = (nn.ParameterList() for _ in range(3))
        for _ in range(depth):
            self.local.append(draw(width, width, size=width**-0.5))
            self.biases.append(draw(width, size=0.1))
            self.spectral.append(draw(2, 2 * modes + 1, modes + 1, width, width, size=width**-0.5))

    def forward(self, points: Tensor, condition: Tensor | None, features: Sequence[str]) -> Tensor:
        """Evaluate.

        Args:
            points: Shape ``(m, 3)``.
            condition: Initial vorticity on the grid, shape ``(S, n, n)``.
            features: ``"w"``, ``"w_t"``, ``"w_x"``, ``"w_y"``, ``"laplacian"``, ``"psi_x"``,
                ``"psi_y"``.

        Returns:
            Shape ``(S, m, k, P J)`` for ``k`` features.

        Raises:
            ShapeError: If points or condition have other sizes.
            SettingsError: If a feature is not known, or there is no condition.
        """
        check_shape("points", points, "m d", sizes={"d": 3})
        if condition is None:
            raise SettingsError("condition: got None, expected initial fields (S, n, n)")
        known = coefficients(self.fields(condition), self.modes)
        in_space = ["w" if name == "w_t" else name for name in features]
        values, slopes = self._polynomials(points[:, 2])
        parts = evaluate(known, points[:, :2], in_space)
        in_time = [slopes if name == "w_t" else values for name in features]
        products = [
            part.mT[..., None] * time[:, None] for part, time in zip(parts, in_time, strict=True)
        ]
        return torch.stack(products, 2).flatten(-2)

    def own_coefficients(self) -> Tensor:
        r"""Coefficients, shape ``(P J,)``, with which the network gives a field by itself.

        They are those of the Taylor polynomial for the derivatives, and one of
        :math:`t\, T_j(2t - 1)` for the j-th output field.

        Raises:
            SettingsError: If there are not as many output fields as polynomials, at least two.
        """
        outputs = self.functions // self.degrees - _DERIVATIVES
        if not outputs == self.degrees >= _DERIVATIVES:
            raise SettingsError(
                f"fields, degrees: got {outputs} output fields and {self.degrees} polynomials, "
                "expected equal numbers of at least 2"
            )
        half = torch.zeros(_DERIVATIVES, self.degrees, dtype=torch.float64)
        half[0, 0] = 1.0
        half[1, :2] = 0.25
        return torch.cat([half, torch.eye(self.degrees, dtype=torch.float64)]).flatten()

    def fields(self, condition: Tensor) -> Tensor:
        """The fields on the grid, shape ``(S, P, n, n)``."""
        check_shape("condition", condition, "S n n", sizes={"n": self.cells})
        derivatives = self.system.derivatives(condition)
        seen = torch.stack(
            [
                condition,
                *self.system.velocity(condition),
                *(one / self.system.duration**k for k, one in enumerate(derivatives, 1)),
            ],
            -1,
        )
        h = seen @ self.first
        for local, spectral, bias in zip(self.local, self.spectral, self.biases, strict=True):
            h = h + nn.functional.gelu(h @ local + self._convolve(h, spectral) + bias)
        outputs = torch.cat([h, seen], -1) @ self.last
        return torch.cat([torch.stack(derivatives, 1), outputs.movedim(-1, 1)], 1)

    def _convolve(self, h: Tensor, weights: Tensor) -> Tensor:
        n, m = self.cells, self.modes
        transform = torch.fft.rfft2(h, dim=(1, 2))
        rows = torch.arange(-m, m + 1)
        low = transform[:, rows][:, :, : m + 1]
        kernel = torch.complex(weights[0], weights[1])
        mixed = torch.einsum("sxyi,xyio->sxyo", low, kernel)
        whole = torch.zeros_like(transform)
        whole[:, rows[:, None], torch.arange(m + 1)] = mixed
        fields: Tensor = torch.fft.irfft2(whole, s=(n, n), dim=(1, 2))
        return fields

    def _polynomials(self, t: Tensor) -> tuple[Tensor, Tensor]:
        r"""Values and slopes of :math:`t\, T_j(2t - 1)`, shape ``(m, J)``."""
        angle = torch.arccos((2 * t - 1).clamp(-1, 1))
        j = torch.arange(self.degrees, dtype=t.dtype)
        values = torch.cos(j * angle[:, None])
        # T_j' = j U_(j-1), with U from its recurrence, which is regular at the ends.
        second = [torch.zeros_like(t), torch.ones_like(t)]
        for _ in range(self.degrees - 2):
            second.append(2 * (2 * t - 1) * second[-1] - second[-2])
        slopes = 2 * j * torch.stack(second[: self.degrees], 1)
        return t[:, None] * values, values + t[:, None] * slopes
