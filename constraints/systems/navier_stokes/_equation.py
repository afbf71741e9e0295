r"""Vorticity of a plane incompressible flow on the unit torus.

.. math:: w_t + u \cdot \nabla w = \nu\, \Delta w, \qquad
          u = (\psi_y, -\psi_x), \qquad \Delta \psi = -w.

Time is counted in units of the duration here. The field is :math:`w = w_0 + t\,(\dots)`, so that
the initial condition holds exactly and the equation is the only family of rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from constraints.experts import Rows
from constraints.systems.navier_stokes._spectral import coefficients, evaluate
from solvers.core import check_positive

__all__ = ["NavierStokes"]

_LIFTED = ("w_x", "w_y", "laplacian", "psi_x", "psi_y")


@dataclass(frozen=True, slots=True, kw_only=True)
class NavierStokes:
    """Parameters, without forcing.

    Attributes:
        viscosity: Of the fluid, one over the Reynolds number [m²/s].
        duration: Final time [s].

    Raises:
        SettingsError: If a parameter is not positive.

    Source: Chalapathi, Du & Krishnapriyan 2024, appendix C.2: Reynolds number 1e4, 5 s.
    """

    viscosity: float = 1e-4
    duration: float = 5.0

    def __post_init__(self) -> None:
        check_positive("viscosity", self.viscosity)
        check_positive("duration", self.duration)

    def equation(
        self,
        w_t: Any, w_x: Any, w_y: Any, laplacian: Any, psi_x: Any, psi_y: Any,
        w0_x: Any, w0_y: Any, laplacian0: Any, psi0_x: Any, psi0_y: Any,
    ) -> Any:  # fmt: skip
        """Residual, times the duration: features of the departure, then of the initial field."""
        advection = (psi_y + psi0_y) * (w_x + w0_x) - (psi_x + psi0_x) * (w_y + w0_y)
        return w_t + self.duration * (advection - self.viscosity * (laplacian + laplacian0))

    def derivatives(self, initial: Tensor) -> tuple[Tensor, Tensor]:
        """First and second derivative in time of fields on a grid, ``(S, n, n)`` each."""
        x0, y0, laplacian, px0, py0 = _on_grid(initial, _LIFTED)
        first = self.duration * (px0 * y0 - py0 * x0 + self.viscosity * laplacian)
        x1, y1, laplacian, px1, py1 = _on_grid(first, _LIFTED)
        advection = px1 * y0 - py1 * x0 + px0 * y1 - py0 * x1
        return first, self.duration * (advection + self.viscosity * laplacian)

    @staticmethod
    def velocity(vorticity: Tensor) -> tuple[Tensor, Tensor]:
        """Velocity of fields on a grid, ``(S, n, n)`` each, in units of its largest mode."""
        psi_x, psi_y = _on_grid(vorticity, ("psi_x", "psi_y"))
        return 2 * math.pi * psi_y, -2 * math.pi * psi_x

    def rows(self, *, is_local: bool = True) -> dict[str, Rows]:
        """The family of rows of a mixture."""
        features = ("w_t", "w_x", "w_y", "laplacian", "psi_x", "psi_y")
        return {"equation": Rows(residual=self.equation, features=features, is_local=is_local)}

    @staticmethod
    def points(count: int, *, seed: int = 0) -> Mapping[str, Tensor]:
        """Random points ``(x, y, t)`` for the equation."""
        generator = torch.Generator().manual_seed(seed)
        return {"equation": torch.rand(count, 3, generator=generator, dtype=torch.float64)}

    @staticmethod
    def lift(initial: Tensor, points: Tensor) -> list[Tensor]:
        """What the equation takes of the initial field at points: five tensors ``(S, m)``.

        Args:
            initial: Vorticity on a grid, shape ``(S, n, n)``.
            points: Shape ``(m, 3)``.
        """
        known = coefficients(initial, (initial.shape[-1] - 1) // 2)
        return evaluate(known, points[:, :2], _LIFTED)


def _on_grid(fields: Tensor, features: tuple[str, ...]) -> list[Tensor]:
    """Features at the points of the fields; products of two of them have no aliases."""
    n = fields.shape[-1]
    x = torch.arange(n, dtype=fields.dtype) / n
    known = coefficients(fields, (n - 1) // 3)
    found = evaluate(known, torch.cartesian_prod(x, x), features)
    return [one.reshape(fields.shape) for one in found]
