r"""Trigonometric polynomials on the unit torus, and the operators that vorticity needs.

A field with modes :math:`|k_x|, |k_y| \le K` is kept as the real coefficients of
:math:`\cos 2\pi k \cdot x` and :math:`\sin 2\pi k \cdot x` over half of the modes, without the
mean. Operators multiply coefficients, or swap cosines and sines where they are odd.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from solvers.core import SettingsError

__all__ = ["FEATURES", "coefficients", "evaluate", "wave_numbers"]

FEATURES = ("w", "w_x", "w_y", "laplacian", "psi_x", "psi_y")
r"""Vorticity, its slopes and Laplacian, slopes of the stream function :math:`\Delta\psi = -w`."""


@lru_cache(maxsize=16)
def wave_numbers(modes: int) -> Tensor:
    """Wave vectors of half of the modes, without the mean, shape ``(M, 2)``."""
    k = torch.arange(-modes, modes + 1)
    pairs = torch.cartesian_prod(k, k)
    is_kept = (pairs[:, 1] > 0) | ((pairs[:, 1] == 0) & (pairs[:, 0] > 0))
    return pairs[is_kept]


def coefficients(fields: Tensor, modes: int) -> Tensor:
    """Coefficients of fields on a grid.

    Args:
        fields: Values at ``(i / n, j / n)``, shape ``(..., n, n)``.
        modes: Largest wave number ``K``, below ``n / 2``.

    Returns:
        Of cosines, then of sines, shape ``(..., 2, M)``.

    Raises:
        SettingsError: If the grid is too coarse.
    """
    n = fields.shape[-1]
    if 2 * modes >= n:
        raise SettingsError(f"modes: got {modes} on {n} cells, expected fewer than {n / 2:g}")
    k = wave_numbers(modes)
    transform = torch.fft.rfft2(fields)[..., k[:, 0], k[:, 1]] * (2 / n**2)
    return torch.stack([transform.real, -transform.imag], -2)


def evaluate(coefficient: Tensor, points: Tensor, features: Sequence[str]) -> list[Tensor]:
    """Features of fields at points.

    Args:
        coefficient: Shape ``(..., 2, M)``.
        points: Shape ``(n, 2)``.
        features: Names among `FEATURES`.

    Returns:
        Tensors of shape ``(..., n)``, one for each feature.

    Raises:
        SettingsError: If a feature is not known.

    Cost: ``4 n M`` multiplications for a feature of a field.

    Example:
        >>> x = torch.arange(8, dtype=torch.float64) / 8
        >>> field = torch.sin(2 * math.pi * x)[:, None].expand(8, 8)
        >>> place = torch.tensor([[0.0, 0.3]], dtype=torch.float64)
        >>> [round(a.item(), 4) for a in evaluate(coefficients(field, 2), place, ("w_x", "psi_x"))]
        [6.2832, 0.1592]
    """
    half = coefficient.shape[-1]
    modes = round((math.sqrt(2 * half + 1) - 1) / 2)
    k = 2 * math.pi * wave_numbers(modes).to(points)
    phase = points @ k.T
    waves = torch.cat([torch.cos(phase), torch.sin(phase)], 1)
    rows = [_apply(name, coefficient, k).flatten(-2) for name in features]
    return list((torch.stack(rows) @ waves.T).unbind(0))


def _apply(feature: str, coefficient: Tensor, k: Tensor) -> Tensor:
    operator = _OPERATORS.get(feature)
    if operator is None:
        raise SettingsError(f"features: got {feature!r}, expected names among {FEATURES}")
    factor, is_odd = operator(k)
    if not is_odd:
        return factor * coefficient
    cosine, sine = coefficient.unbind(-2)
    return torch.stack([factor * sine, -factor * cosine], -2)


_OPERATORS: dict[str, Callable[[Tensor], tuple[Tensor, bool]]] = {
    "w": lambda k: (torch.ones_like(k[:, 0]), False),
    "w_x": lambda k: (k[:, 0], True),
    "w_y": lambda k: (k[:, 1], True),
    "laplacian": lambda k: (-k.square().sum(1), False),
    "psi_x": lambda k: (k[:, 0] / k.square().sum(1), True),
    "psi_y": lambda k: (k[:, 1] / k.square().sum(1), True),
}
