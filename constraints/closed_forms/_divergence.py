r"""Fields without divergence on a periodic grid, by the Helmholtz decomposition.

.. math:: \hat u \leftarrow \hat u - \frac{\overline{\kappa}\,(\kappa \cdot \hat u)}{|\kappa|^2}

where :math:`\kappa` is the symbol of the divergence: the wave vector (spectral), or that of central
or staggered differences, so that the *discrete* divergence vanishes to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from constraints._tensors import check_real
from constraints.closed_forms._closed_form import AbstractClosedForm, Inputs
from constraints.closed_forms._inputs import read_settings
from constraints.failure import FailurePolicy
from solvers.core import SettingsError, ShapeError, Solution, check_choice

__all__ = ["DivergenceFree"]


class DivergenceFree(AbstractClosedForm):
    r"""Nearest field without divergence on a periodic grid of two or three axes.

    Args:
        spacing: Distance of grid points along each axis [m]; one for each axis of the grid.
        difference: Which divergence vanishes: ``"spectral"``, ``"central"``
            :math:`(u_{i+1} - u_{i-1})/2h`, or ``"staggered"`` :math:`(u_i - u_{i-1})/h` with
            component k at the faces ahead of the cells along axis k.
        on_failure: What to do with fields that hold NaN or infinity, see
            :mod:`constraints.failure`; under ``"warn"`` and ``"mask"`` they are zero.

    Raises:
        SettingsError: If a spacing is not positive and finite, a word is unknown, or the policy is
            ``"project"``.
        ShapeError: If there are not two or three spacings.

    Backward: the projection itself, which is symmetric; any order.

    Cost: two fast Fourier transforms of each component.

    Reference: Chorin 1968 (projection); Helmholtz 1858 (decomposition).

    Example:
        >>> import torch
        >>> project = DivergenceFree((1.0, 1.0), difference="staggered")
        >>> u = project(torch.randn(2, 8, 8, dtype=torch.float64))
        >>> bool(project.divergence(u).abs().max() < 1e-13)
        True
    """

    def __init__(
        self,
        spacing: Sequence[float],
        *,
        difference: str = "spectral",
        on_failure: FailurePolicy = "raise",
    ):
        super().__init__(on_failure)
        check_choice("difference", difference, ("spectral", "central", "staggered"))
        self.spacing = read_settings("spacing", spacing)
        if len(self.spacing) not in (2, 3):
            raise ShapeError(
                f"spacing: got {len(self.spacing)} numbers, expected 2 or 3, one an axis"
            )
        if math.inf in self.spacing:
            raise SettingsError(f"spacing: got {self.spacing}, expected finite numbers")
        self.difference = difference

    def forward(self, velocity: Float[Tensor, "*B d *grid"]) -> Float[Tensor, "*B d *grid"]:
        """Remove the divergence.

        Args:
            velocity: Components first, then the grid: ``(..., 2, nx, ny)`` or
                ``(..., 3, nx, ny, nz)``; the result has their type.

        Returns:
            Field of the same mean.

        Raises:
            ShapeError: If components and axes do not fit the spacing.
            SettingsError: If the velocity is no real tensor.
            NonFiniteError: Under ``"raise"``, if an item holds NaN or infinity.
        """
        return self._answer(self._read(velocity))

    def solve(self, velocity: Float[Tensor, "*B d *grid"]) -> Solution[Tensor]:
        """The same with a report: status of each field, and its largest divergence that is left.

        Args:
            velocity: As in `forward`.

        Returns:
            Field and report.

        Raises:
            NonFiniteError: As in `forward`.
        """
        inputs = self._read(velocity)
        return self._settle(inputs, self._nearest(velocity))

    @property
    def _item_axes(self) -> int:
        return len(self.spacing) + 1

    def _nearest(self, *inputs: Tensor) -> Tensor:
        (velocity,) = inputs
        if velocity.numel() == 0:
            return velocity.clone()
        axes = tuple(range(-len(self.spacing), 0))
        modes = torch.fft.rfftn(velocity.double(), dim=axes)
        symbol = self._symbol(velocity)
        size = sum(part.abs().square() for part in symbol)
        assert isinstance(size, Tensor)
        component = -len(self.spacing) - 1
        flux = sum(s * m for s, m in zip(symbol, modes.unbind(component), strict=True))
        assert isinstance(flux, Tensor)
        pressure = flux / torch.where(size > 0, size, 1.0)
        change = torch.stack([part.conj() * pressure for part in symbol], component)
        grid = velocity.shape[-len(self.spacing) :]
        out: Tensor = torch.fft.irfftn(modes - change, s=grid, dim=axes)
        return out.to(velocity.dtype)

    def divergence(self, velocity: Float[Tensor, "*B d *grid"]) -> Float[Tensor, "*B *grid"]:
        """The divergence that the layer removes [1/s for a velocity in m/s].

        Args:
            velocity: As in `forward`.

        Returns:
            Divergence at the grid points, in float64.

        Raises:
            ShapeError: As in `forward`.
            SettingsError: As in `forward`.
        """
        self._read(velocity)
        axes = tuple(range(-len(self.spacing), 0))
        if velocity.numel() == 0:
            return velocity.double().sum(-len(self.spacing) - 1)
        modes = torch.fft.rfftn(velocity.double(), dim=axes)
        parts = modes.unbind(-len(self.spacing) - 1)
        flux = sum(s * m for s, m in zip(self._symbol(velocity), parts, strict=True))
        assert isinstance(flux, Tensor)
        out: Tensor = torch.fft.irfftn(flux, s=velocity.shape[-len(self.spacing) :], dim=axes)
        return out

    def _violation(self, value: Tensor, *inputs: Tensor) -> Tensor:
        flux = self.divergence(value).abs().flatten(-len(self.spacing))
        return flux.amax(-1)

    def _read(self, velocity: Tensor) -> Inputs:
        check_real("velocity", velocity)
        d = len(self.spacing)
        shape = tuple(velocity.shape)
        if len(shape) < d + 1 or shape[-d - 1] != d or 0 in shape[-d:]:
            raise ShapeError(
                f"velocity: got shape {shape}, expected (..., {d}, and {d} axes "
                f"of the grid) for {d} spacings"
            )
        return {"velocity": velocity}

    def _symbol(self, velocity: Tensor) -> list[Tensor]:
        d = len(self.spacing)
        grid = velocity.shape[-d:]
        parts = []
        for axis, (n, h) in enumerate(zip(grid, self.spacing, strict=True)):
            make = torch.fft.rfftfreq if axis == d - 1 else torch.fft.fftfreq
            angle = 2.0 * math.pi * make(n, dtype=torch.float64, device=velocity.device)
            if self.difference == "spectral":
                # The highest mode of an even grid has no derivative that is real.
                angle = torch.where((angle.abs() - math.pi).abs() < 1e-9, 0.0, angle)
                symbol = 1j * angle / h
            elif self.difference == "central":
                symbol = 1j * torch.sin(angle) / h
            else:
                symbol = (1.0 - torch.exp(-1j * angle)) / h
            shape = [1] * d
            shape[axis] = -1
            parts.append(symbol.reshape(shape))
        return parts
