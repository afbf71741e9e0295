r"""Reference solutions by Fourier series.

The linear part is integrated exactly and the advection by the classical Runge-Kutta method of
fourth order, with products freed of aliases by the two-thirds rule.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from constraints.systems.navier_stokes._equation import NavierStokes
from solvers.core import (
    NotConvergedError,
    SettingsError,
    check_finite,
    check_positive,
    check_shape,
)

__all__ = ["reference"]


def reference(
    initial: Tensor,
    system: NavierStokes | None = None,
    *,
    times: int = 11,
    steps: int = 500,
    points: int | None = None,
) -> Tensor:
    """Integrate the equation.

    Args:
        initial: Vorticity at ``(i / n, j / n)``, shape ``(S, n, n)``; its mean is left out.
        system: Parameters.
        times: Output times, from 0 to the duration.
        steps: Time steps, a multiple of ``times - 1``. The advection is explicit: a step must not
            carry the fluid much further than a cell.
        points: Points ``p`` along a side of the output, a divisor of ``n``; all by default.

    Returns:
        Vorticity of shape ``(S, times, p, p)``. The error falls faster than any power of ``n`` for
        smooth fields, and as the fourth power of ``1 / steps``.

    Raises:
        SettingsError: If a number is out of range.
        ShapeError: If ``initial`` has another shape.
        NonFiniteError: If ``initial`` is not finite.
        NotConvergedError: If fields blow up; the message names them, the error carries all of them.

    Cost: ten transforms a step, ``O(S n^2 log n)``.

    Source: Orszag 1971 (two-thirds rule); the integrating factor as in Canuto et al. 2006,
    "Spectral Methods", section D.2.

    Example:
        >>> x = torch.arange(16, dtype=torch.float64) * 2 * math.pi / 16
        >>> vortices = torch.sin(x)[None, :, None] * torch.sin(x)
        >>> w = reference(vortices, NavierStokes(viscosity=0.01), times=2, steps=50)
        >>> decay = math.exp(-0.01 * 8 * math.pi**2 * 5)
        >>> bool((w[:, 1] - decay * vortices).abs().max() < 1e-13)
        True
    """
    system = system or NavierStokes()
    check_shape("initial", initial, "S n n")
    check_finite("initial", initial)
    check_positive("steps", steps)
    cells = initial.shape[-1]
    points = cells if points is None else points
    check_positive("points", points)
    if cells % points:
        raise SettingsError(f"points: got {points}, expected a divisor of {cells}")
    if times < 2 or steps % (times - 1):
        raise SettingsError(
            f"times, steps: got {times} and {steps}, expected at least two times and steps that "
            "are a multiple of times - 1"
        )
    if not len(initial):
        return initial.double().new_zeros(0, times, points, points)
    step = _Step(cells, system, system.duration / steps)
    w = torch.fft.rfft2(initial.detach().double())
    w[:, 0, 0] = 0
    frames = [w]
    for _ in range(times - 1):
        for _ in range(steps // (times - 1)):
            w = step(w)
        frames.append(w)
    fields: Tensor = torch.fft.irfft2(torch.stack(frames, 1), s=initial.shape[1:])
    bad = (~fields.isfinite().flatten(1).all(1)).nonzero()[:, 0].tolist()
    if bad:
        raise NotConvergedError(
            f"reference: fields {bad} of {len(fields)} blow up in {steps} steps; take more steps",
            solution=fields,
        )
    stride = cells // points
    return fields[..., ::stride, ::stride]


class _Step:
    """One step of time."""

    def __init__(self, cells: int, system: NavierStokes, h: float):
        k = torch.fft.fftfreq(cells, 1 / cells, dtype=torch.float64)
        along, across = torch.meshgrid(k, k[: cells // 2 + 1].abs(), indexing="ij")
        square = (2 * math.pi) ** 2 * (along.square() + across.square())
        kept = (along.abs() < cells / 3) & (across < cells / 3)
        self.dx, self.dy = (2j * math.pi * kept * axis for axis in (along, across))
        self.inverse = torch.where(square > 0, 1 / square.clamp(min=1.0), 0.0)
        self.half = torch.exp(-0.5 * h * system.viscosity * square)
        self.h, self.kept, self.cells = h, kept, cells

    def __call__(self, w: Tensor) -> Tensor:
        h, half, whole = self.h, self.half, self.half**2
        a = self.advect(w)
        b = self.advect(half * (w + 0.5 * h * a))
        c = self.advect(half * w + 0.5 * h * b)
        d = self.advect(whole * w + h * half * c)
        return whole * w + h / 6 * (whole * a + 2 * half * (b + c) + d)

    def advect(self, w: Tensor) -> Tensor:
        """Transform of ``-u grad w``."""
        psi = self.inverse * w
        parts = torch.stack([self.dy * psi, self.dx * psi, self.dx * w, self.dy * w])
        psi_y, psi_x, w_x, w_y = torch.fft.irfft2(parts, s=(self.cells, self.cells))
        change: Tensor = self.kept * torch.fft.rfft2(psi_x * w_y - psi_y * w_x)
        return change
