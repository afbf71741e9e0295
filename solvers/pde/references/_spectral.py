r"""Periodic evolution :math:`u_t = L u + N(u)` by Fourier series and exponential Runge-Kutta.

Sources: exponential time differencing of fourth order, S. Cox and P. Matthews (2002), eq. 26-29;
its coefficients by contour integrals, A.-K. Kassam and L. N. Trefethen (2005), section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from solvers.core import (
    NonFiniteError,
    SettingsError,
    check_callable,
    check_count,
    check_kind,
    check_positive,
)
from solvers.pde.references._grid import GridFunction

__all__ = ["solve_periodic"]

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]
_STORED = 1024
_PADDING = 4


def solve_periodic(
    initial: Callable[[Array], Array],
    linear: Callable[[Complex], Complex],
    nonlinear: Callable[[Array, Callable[[Array], Array]], Array] | None = None,
    *,
    bounds: tuple[float, float],
    duration: float,
    modes: int = 512,
    steps: int = 1000,
    degree: int = 9,
) -> GridFunction:
    r"""Solve a scalar periodic problem in one dimension.

    Args:
        initial: Values at time zero.
        linear: Symbol of L: takes :math:`ik` and gives its eigenvalue, for example
            ``lambda d: nu * d**2`` for :math:`\nu u_{xx}`.
        nonlinear: N: takes the values and a function that differentiates values, for example
            ``lambda u, d: -u * d(u)``. Products are freed of aliases by the two-thirds rule.
        bounds: Ends of the period.
        duration: Length of time.
        modes: Number of grid points, hence of Fourier modes.
        steps: Number of time steps.
        degree: Degree of the interpolation in time and space.

    Returns:
        The solution as a function of ``x`` and ``t``. The error falls faster than any power of
        ``modes`` for smooth solutions, and as the fourth power of ``1 / steps``.

    Raises:
        NonFiniteError: If the solution blows up.

    Example:
        >>> heat = solve_periodic(np.sin, lambda d: 0.1 * d**2, bounds=(0, 2 * np.pi),
        ...                       duration=1.0, modes=64, steps=64)
        >>> bool(abs(heat(1.0, 1.0) - np.exp(-0.1) * np.sin(1.0)) < 1e-9)
        True
    """
    for name, function in (("initial", initial), ("linear", linear)):
        check_callable(name, function, "a function of an array")
    if nonlinear is not None:
        check_callable("nonlinear", nonlinear, "a function of values and a derivative, or None")
    check_count("modes", modes, least=16)
    if modes % 2:
        raise SettingsError(f"modes: got {modes}, expected an even number")
    check_count("steps", steps)
    check_count("degree", degree)
    check_positive("duration", duration)
    check_kind("bounds", bounds, Sequence, "both ends of the period, as in (0, 1)")
    if len(bounds) != 2:
        raise SettingsError(f"bounds: got {bounds}, expected both ends of the period, as in (0, 1)")
    length = bounds[1] - bounds[0]
    x = bounds[0] + length * np.arange(modes) / modes
    derivative = np.asarray(2j * np.pi * np.arange(modes // 2 + 1) / length, dtype=np.complex128)
    # The highest mode has no derivative of odd order on the grid.
    odd = derivative.copy()
    odd[-1] = 0
    kept = np.arange(modes // 2 + 1) <= modes // 3
    eigenvalues = np.asarray(linear(derivative), dtype=np.complex128) * np.ones(modes // 2 + 1)
    eigenvalues[-1] = eigenvalues[-1].real

    def differentiate(u: Array) -> Array:
        return np.fft.irfft(odd * np.fft.rfft(u), modes)

    def forcing(v: Complex) -> Complex:
        if nonlinear is None:
            return np.zeros_like(v)
        result: Complex = kept * np.fft.rfft(
            nonlinear(np.fft.irfft(kept * v, modes), differentiate)
        )
        return result

    step = _ExponentialStep(eigenvalues, duration / steps)
    stride = max(1, steps // _STORED)
    stored = [np.asarray(initial(x), dtype=np.float64)]
    v: Complex = np.fft.rfft(stored[0])
    saved = [v]
    # Whole strides only, so that the stored times stay equidistant.
    total = -(-steps // stride) * stride
    step = _ExponentialStep(eigenvalues, duration / total)
    for k in range(1, total + 1):
        v = step(v, forcing)
        if k % stride == 0:
            saved.append(v)
    if not np.isfinite(v).all():
        raise NonFiniteError(
            f"solve_periodic: the solution is not finite at time {duration}; take more steps than "
            f"{steps} or look at the sign of the linear part",
            name="u",
        )
    padding = max(1, min(_PADDING, 4096 // modes))
    fine = padding * modes
    values = padding * np.fft.irfft(np.stack(saved), fine, axis=1)
    if padding == 1:
        values[0] = stored[0]
    return GridFunction((bounds[0], 0.0), (bounds[1], duration), values.T, (True, False), degree)


class _ExponentialStep:
    """One step of fourth order."""

    def __init__(self, eigenvalues: Complex, h: float) -> None:
        circle = np.exp(2j * np.pi * (np.arange(64) + 0.5) / 64)
        z = h * eigenvalues[:, None] + circle
        e, half = np.exp(z), np.exp(z / 2)
        self.e, self.half = np.exp(h * eigenvalues), np.exp(h * eigenvalues / 2)
        self.q = h * ((half - 1) / z).mean(1)
        self.f1 = h * ((-4 - z + e * (4 - 3 * z + z**2)) / z**3).mean(1)
        self.f2 = h * ((2 + z + e * (z - 2)) / z**3).mean(1)
        self.f3 = h * ((-4 - 3 * z - z**2 + e * (4 - z)) / z**3).mean(1)

    def __call__(self, v: Complex, forcing: Callable[[Complex], Complex]) -> Complex:
        at_v = forcing(v)
        a = self.half * v + self.q * at_v
        at_a = forcing(a)
        b = self.half * v + self.q * at_a
        at_b = forcing(b)
        c = self.half * a + self.q * (2 * at_b - at_v)
        at_c = forcing(c)
        result: Complex = self.e * v + self.f1 * at_v + 2 * self.f2 * (at_a + at_b) + self.f3 * at_c
        return result
