"""Families of initial fields, each with many parameters."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from solvers.core import check_choice, check_positive

__all__ = ["FAMILIES", "initial_fields"]

_LENGTH = 0.8
_VORTICES = 4


def initial_fields(
    count: int, *, cells: int = 32, family: str = "smooth", generator: torch.Generator | None = None
) -> Tensor:
    r"""Draw vorticities of mean zero.

    Args:
        count: Number of fields ``S``.
        cells: Points ``n`` along a side, at ``(i / n, j / n)``.
        family: ``"smooth"``: a Gaussian random field of variance one with covariance
            :math:`\exp(-2 (\sin^2 \pi x + \sin^2 \pi y) / \ell^2)`, :math:`\ell = 0.8`;
            ``"rough"``: one with covariance :math:`7^3 (-\Delta + 49)^{-5}`, brought to variance
            one; ``"vortices"``: four Gaussian vortices of random place, strength and width.
        generator: Source of random numbers; seed 0 by default.

    Returns:
        Fields of shape ``(S, n, n)``. The numbers drawn do not depend on ``cells``, so that grids
        of different size hold the same fields.

    Raises:
        SettingsError: If a number is not positive or the family is not known.

    Source: Chalapathi, Du & Krishnapriyan 2024, appendix C.2 (smooth); Li et al. 2021, "Fourier
    neural operator", section 5.3 (rough).

    Example:
        >>> coarse, fine = (initial_fields(2, cells=n) for n in (32, 64))
        >>> bool((coarse - fine[:, ::2, ::2]).abs().max() < 1e-6)
        True
    """
    check_positive("count", count)
    check_positive("cells", cells)
    check_choice("family", family, tuple(FAMILIES))
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    return FAMILIES[family](count, cells, generator)


def _smooth(count: int, cells: int, generator: torch.Generator) -> Tensor:
    x = torch.arange(_FINE, dtype=torch.float64) / _FINE
    line = torch.exp(-2 * torch.sin(math.pi * x).square() / _LENGTH**2)
    spectrum = torch.fft.fft(line).real[: _MOST + 1].clamp(min=0) / _FINE
    k = _WAVES.abs()
    return _random_field(spectrum[k[:, 0]] * spectrum[k[:, 1]], count, cells, generator)


def _rough(count: int, cells: int, generator: torch.Generator) -> Tensor:
    spectrum = ((2 * math.pi * _WAVES.double()).square().sum(1) + 49.0) ** -5
    return _random_field(spectrum / (2 * spectrum.sum()), count, cells, generator)


def _random_field(spectrum: Tensor, count: int, cells: int, generator: torch.Generator) -> Tensor:
    """Sum of waves with random amplitudes of the given variances."""
    drawn = torch.randn(count, 2, len(_WAVES), generator=generator, dtype=torch.float64)
    amplitude = drawn * (2 * spectrum).sqrt()
    x = torch.arange(cells, dtype=torch.float64) / cells
    phase = 2 * math.pi * torch.cartesian_prod(x, x) @ _WAVES.double().T
    waves = torch.stack([torch.cos(phase), torch.sin(phase)])
    return torch.einsum("scm,cpm->sp", amplitude, waves).reshape(count, cells, cells)


def _vortices(count: int, cells: int, generator: torch.Generator) -> Tensor:
    drawn = torch.rand(count, _VORTICES, 4, generator=generator, dtype=torch.float64)
    x = torch.arange(cells, dtype=torch.float64) / cells
    width = 0.08 + 0.08 * drawn[..., 2, None]
    # The distance of a periodic domain, smooth where it is largest.
    across, along = (
        torch.exp(
            -(torch.sin(math.pi * (x - drawn[..., j, None])) / (math.pi * width)).square() / 2
        )
        for j in range(2)
    )
    strength = 4 * (2 * drawn[..., 3] - 1)
    fields = torch.einsum("sv,svx,svy->sxy", strength, across, along)
    return fields - fields.mean((1, 2), keepdim=True)


_FINE, _MOST = 256, 12
_WAVES = torch.tensor(
    [(a, b) for a in range(-_MOST, _MOST + 1) for b in range(_MOST + 1) if b > 0 or a > 0]
)
FAMILIES: dict[str, Callable[[int, int, torch.Generator], Tensor]] = {
    "smooth": _smooth,
    "rough": _rough,
    "vortices": _vortices,
}
