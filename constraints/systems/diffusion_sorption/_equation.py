r"""Diffusion of a solute that clings to the grains of a porous medium.

.. math:: u_t = \frac{D}{R(u)}\, u_{xx}, \qquad
          R(u) = 1 + \frac{1 - \phi}{\phi}\, \rho_s k_f n_f\, (u + \epsilon)^{n_f - 1},

Freundlich's isotherm, on :math:`0 < x < 1`, with :math:`u = 1` at the left and
:math:`u = \mp D u_x` at the right. Time is counted in units of the final time here, so that rows of
the equation have the magnitude of those of the conditions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from constraints.experts import Rows
from solvers.core import SettingsError, check_positive
from solvers.kernels import scalar

__all__ = ["DiffusionSorption"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffusionSorption:
    """Parameters, those of PDEBench by default.

    Attributes:
        diffusion: Coefficient ``D`` [m²/day].
        porosity: Share of pores.
        density: Of the bulk [kg/m³].
        freundlich: Parameter ``k_f`` of the isotherm.
        exponent: Exponent ``n_f`` of the isotherm.
        duration: Final time [day].
        outflow: Sign ``s`` of the right boundary ``u = s D u_x``: -1 as in the data of PDEBench, +1
            as in its description and in papers after it.
        smoothing: Width over which the positive part of ``u`` is rounded off: the isotherm has a
            kink at zero, where an iteration would creep.

    Raises:
        SettingsError: If a parameter is not positive, or ``outflow`` is no sign.

    Source: Takamoto et al. 2022, "PDEBench", and Limousin et al. 2007 on isotherms.
    """

    diffusion: float = 5e-4
    porosity: float = 0.29
    density: float = 2880.0
    freundlich: float = 3.5e-4
    exponent: float = 0.874
    duration: float = 500.0
    outflow: int = -1
    smoothing: float = 1e-2

    def __post_init__(self) -> None:
        for name in ("diffusion", "density", "freundlich", "exponent", "duration", "smoothing"):
            check_positive(name, getattr(self, name))
        if not 0 < self.porosity < 1:
            raise SettingsError(f"porosity: got {self.porosity}, expected between 0 and 1")
        if self.outflow not in {-1, 1}:
            raise SettingsError(f"outflow: got {self.outflow}, expected -1 or 1")

    @property
    def sorption(self) -> float:
        """Factor of the power in the retardation."""
        solid = (1 - self.porosity) / self.porosity * self.density
        return solid * self.freundlich * self.exponent

    def retardation(self, u: Any) -> Any:
        """``R(u)`` with the positive part of ``u`` rounded off."""
        positive = 0.5 * (u + scalar.sqrt(u * u + self.smoothing**2))
        return 1.0 + self.sorption * scalar.power(positive + 1e-6, self.exponent - 1)

    def equation(self, u: Any, u_t: Any, u_xx: Any) -> Any:
        """Residual of the equation, times the duration."""
        return u_t - self.diffusion * self.duration / self.retardation(u) * u_xx

    def right(self, u: Any, u_x: Any) -> Any:
        """Residual of the right boundary."""
        return u - self.outflow * self.diffusion * u_x

    def rows(self, *, is_local: bool = True, condition_weight: float = 10.0) -> dict[str, Rows]:
        """Families of rows for a mixture; ``"initial"`` takes the initial value.

        Args:
            is_local: Whether conditions concern only the experts that touch them.
            condition_weight: Factor of the mean squares of conditions beside those of the equation.
        """
        also: dict[str, Any] = {"is_local": is_local, "weight": condition_weight}
        return {
            "equation": Rows(residual=self.equation, features=("u", "u_t", "u_xx")),
            "initial": Rows(residual=_difference, features=("u",), **also),
            "left": Rows(residual=_from_one, features=("u",), **also),
            "right": Rows(residual=self.right, features=("u", "u_x"), **also),
        }

    @staticmethod
    def points(
        count: int, *, seed: int = 0, edge: int = 128, delta: float = 1e-2
    ) -> Mapping[str, Tensor]:
        r"""Points ``(x, t)``: random ones for the equation, regular ones for the conditions.

        Half of the random ones are uniform in time, half in :math:`\sqrt{t + \delta}`: as the layer
        at the boundary grows, where most of the error is.

        Args:
            count: Points inside.
            seed: Of the random points.
            edge: Points of each condition.
            delta: Time from which on the layer is resolved, as in `SimilarityBasis`.
        """
        generator = torch.Generator().manual_seed(seed)
        x, r = torch.rand(count, 2, generator=generator, dtype=torch.float64).unbind(1)
        first, last = math.sqrt(delta), math.sqrt(1 + delta)
        t = torch.where(torch.arange(count) % 2 == 0, r, (first + (last - first) * r) ** 2 - delta)
        s = (torch.arange(edge, dtype=torch.float64) + 0.5) / edge
        zero, one = torch.zeros_like(s), torch.ones_like(s)
        return {
            "equation": torch.stack([x, t.clamp(0, 1)], 1),
            "initial": torch.stack([s, zero], 1),
            "left": torch.stack([zero, s], 1),
            "right": torch.stack([one, s], 1),
        }


def _difference(u: Any, goal: Any) -> Any:
    return u - goal


def _from_one(u: Any) -> Any:
    return u - 1.0
