"""Waves that travel: constant and variable speed, in one and two dimensions, with diffusion."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.core import SettingsError, check_number, check_positive
from solvers.pde._boundaries import Dirichlet, Periodic
from solvers.pde._conditions import Initial
from solvers.pde._domain import Box
from solvers.pde._problem import Problem
from solvers.pde.functions import cos, exp, pi, sin

__all__ = [
    "Convection",
    "ConvectionDiffusion",
    "Rotation",
    "ShearDiffusion",
    "Swirl",
    "VariableConvection",
]

_SHEAR_MODES = 48


def Convection(beta: float = 30.0) -> Problem:
    r"""State :math:`u_t + \beta u_x = 0` on a period with :math:`u(x, 0) = \sin x`.

    A default `LagrangianPINN` reaches 1e-6 in a minute.

    Args:
        beta: Speed.

    Returns:
        The problem; reference :math:`\sin(x - \beta t)`, exact.

    Source: A. Krishnapriyan, A. Gholami, S. Zhe, R. Kirby and M. Mahoney (2021), section 3.1.
    """
    return Problem(
        "convection",
        domain=Box(x=(0, 2 * pi), t=(0, 1)),
        residual=lambda u, beta: u.t + beta * u.x,
        coefficients={"beta": beta},
        conditions=[Initial(u=sin), Periodic("x", order=0)],
        reference=lambda x, t, beta: sin(x - beta * t),
    )


def ConvectionDiffusion(beta: float = 50.0, nu: float = 0.01) -> Problem:
    r"""State :math:`u_t + \beta u_x = \nu u_{xx}` on a period with :math:`u(x, 0) = \sin x`.

    A default `LagrangianPINN` reaches 1e-6 in a minute.

    Args:
        beta: Speed.
        nu: Diffusivity, zero or more.

    Returns:
        The problem; reference :math:`e^{-\nu t} \sin(x - \beta t)`, exact.
    """
    check_positive("nu", nu, allow_zero=True)
    return Problem(
        "convection-diffusion",
        domain=Box(x=(0, 2 * pi), t=(0, 1)),
        residual=lambda u, beta, nu: u.t + beta * u.x - nu * u.xx,
        coefficients={"beta": beta, "nu": nu},
        conditions=[Initial(u=sin), Periodic("x")],
        reference=lambda x, t, beta, nu: exp(-nu * t) * sin(x - beta * t),
    )


def VariableConvection(mean: float = 5.0, modulation: float = 0.5) -> Problem:
    r"""State :math:`u_t + c(x) u_x = 0` with :math:`c = \bar c\,(1 + m \sin x)`.

    Characteristics gather where the speed is low.

    A default `LagrangianPINN` reaches 1e-5 in a minute.

    Args:
        mean: :math:`\bar c`.
        modulation: m, less than one in size.

    Returns:
        The problem with :math:`u(x, 0) = \sin x`; the reference follows characteristics in closed
        form, exact.
    """
    modulation = check_number("modulation", modulation)
    if not abs(modulation) < 1:
        raise SettingsError(
            f"modulation: got {modulation}, expected a size below 1, so that the speed keeps its "
            "sign"
        )
    return Problem(
        "variable convection",
        domain=Box(x=(0, 2 * pi), t=(0, 1)),
        residual=lambda u, x, mean, modulation: u.t + mean * (1 + modulation * sin(x)) * u.x,
        coefficients={"mean": mean, "modulation": modulation},
        conditions=[Initial(u=sin), Periodic("x", order=0)],
        reference=_along_characteristics,
    )


def _along_characteristics(x: Any, t: Any, mean: float, modulation: float) -> Any:
    # w = tan(x / 2) obeys a Riccati equation, whose solution is the tangent of a steady angle.
    root = np.sqrt(1 - modulation**2)
    x, t = np.asarray(x), np.asarray(t)
    angle = np.arctan2(np.sin(x / 2) + modulation * np.cos(x / 2), root * np.cos(x / 2))
    angle = angle - 0.5 * mean * root * t
    half = np.arctan2(root * np.sin(angle) - modulation * np.cos(angle), np.cos(angle))
    return np.sin(2 * half)


def Rotation(turns: float = 1.0, width: float = 0.15) -> Problem:
    r"""State a bump carried round by solid rotation, :math:`u_t + \omega(-y u_x + x u_y) = 0`.

    A default `LagrangianPINN` reaches 1e-3 in a minute.

    Args:
        turns: Number of turns in the time from 0 to 1.
        width: Width of the Gaussian bump, at distance 0.5 from the axis.

    Returns:
        The problem on the square from -1 to 1; reference exact, and given on the boundary, where
        it is below 4e-3 for the default width.
    """
    check_positive("width", width)
    omega = 2 * pi * check_number("turns", turns)

    def carried(x: Any, y: Any, t: Any, omega: Any, width: Any) -> Any:
        along = cos(omega * t) * x + sin(omega * t) * y - 0.5
        across = -sin(omega * t) * x + cos(omega * t) * y
        return exp(-(along * along + across * across) / (2 * width * width))

    return Problem(
        "rotation",
        domain=Box(x=(-1, 1), y=(-1, 1), t=(0, 1)),
        residual=lambda u, x, y, omega: u.t + omega * (x * u.y - y * u.x),
        coefficients={"omega": omega, "width": width},
        conditions=[
            Initial(u=lambda x, y, omega, width: carried(x, y, 0.0, omega, width)),
            Dirichlet(u=carried),
        ],
        reference=carried,
    )


def ShearDiffusion(speed: float = 5.0, nu: float = 0.05) -> Problem:
    r"""State a wave that a shear flow tilts while it diffuses.

    :math:`u_t + a \sin(y)\, u_x = \nu\,(u_{xx} + u_{yy})` with :math:`u(x, y, 0) = \sin x`,
    periodic along both axes.

    A default `LagrangianPINN` reaches 1e-3 in a minute.

    Args:
        speed: a, in size at most 50 for the modes that the reference has.
        nu: Diffusivity, positive.

    Returns:
        The problem; the reference has one mode along x and a series along y, error below 1e-8.
    """
    check_positive("nu", nu)
    return Problem(
        "shear diffusion",
        domain=Box(x=(0, 2 * pi), y=(0, 2 * pi), t=(0, 1)),
        residual=lambda u, y, speed, nu: u.t + speed * sin(y) * u.x - nu * (u.xx + u.yy),
        coefficients={"speed": speed, "nu": nu},
        conditions=[Initial(u=sin), Periodic("x"), Periodic("y")],
        reference=_sheared,
    )


def _sheared(x: Any, y: Any, t: Any, speed: float, nu: float) -> Any:
    """Imaginary part of ``exp(i x) f(y, t)``, the series of f advanced in time."""
    from scipy.integrate import solve_ivp

    x, y, t = np.broadcast_arrays(*(np.asarray(c, dtype=np.float64) for c in (x, y, t)))
    times, place = np.unique(t, return_inverse=True)
    k = np.arange(-_SHEAR_MODES, _SHEAR_MODES + 1)

    def rate(time: float, f: NDArray[np.float64]) -> NDArray[np.float64]:
        before, after = np.append(0.0, f[:-1]), np.append(f[1:], 0.0)
        change: NDArray[np.float64] = -nu * (1 + k**2) * f - 0.5 * speed * (before - after)
        return change

    start = (k == 0).astype(np.float64)
    if times[-1] == 0.0:
        return np.sin(x)
    path = solve_ivp(
        rate, (0.0, times[-1]), start, method="DOP853", t_eval=times, rtol=1e-11, atol=1e-13
    )
    series = path.y.T[place.reshape(t.shape)]
    return (np.exp(1j * x) * (series * np.exp(1j * y[..., None] * k)).sum(-1)).imag


def Swirl(period: float = 1.0, width: float = 0.1) -> Problem:
    r"""State a bump that is swirled and brought back: the velocity turns round at half time.

    The stream function is :math:`\pi^{-1} \sin^2 \pi x \sin^2 \pi y \cos(\pi t / T)`.

    A default `LagrangianPINN` reaches 1e-3 in a minute.

    Args:
        period: T; the solution at T is the initial one.
        width: Width of the Gaussian bump.

    Returns:
        The problem on the unit square, whose walls nothing crosses; the reference follows
        characteristics with an error below 1e-9.

    Source: R. LeVeque (1996), eq. 9.5, with a smooth bump.
    """
    check_positive("period", period)
    check_positive("width", width)

    def bump(x: Any, y: Any, width: Any) -> Any:
        a, b = x - 0.5, y - 0.75
        return exp(-(a * a + b * b) / (2 * width * width))

    def residual(u: Any, x: Any, y: Any, t: Any, period: Any) -> Any:
        right, up = _swirl(x, y, t, period)
        return u.t + right * u.x + up * u.y

    def reference(x: Any, y: Any, t: Any, period: float, width: float) -> Any:
        return bump(*_swirled_back(x, y, t, period), width)

    return Problem(
        "swirl",
        domain=Box(x=(0, 1), y=(0, 1), t=(0, period)),
        residual=residual,
        coefficients={"period": period, "width": width},
        conditions=[Initial(u=bump), Dirichlet(u=reference)],
        reference=reference,
    )


def _swirl(x: Any, y: Any, t: Any, period: Any) -> tuple[Any, Any]:
    strength = cos(pi * t / period)
    right = sin(pi * x) * sin(pi * x) * sin(2 * pi * y) * strength
    up = -sin(pi * y) * sin(pi * y) * sin(2 * pi * x) * strength
    return right, up


def _swirled_back(x: Any, y: Any, t: Any, period: float) -> tuple[Any, Any]:
    """Origins of the characteristics through points, all in one integration."""
    from scipy.integrate import solve_ivp

    x, y, t = np.broadcast_arrays(*(np.asarray(c, dtype=np.float64) for c in (x, y, t)))
    when = t.reshape(-1)

    def backward(share: float, state: NDArray[np.float64]) -> NDArray[np.float64]:
        at_x, at_y = state.reshape(2, -1)
        velocity = _swirl(at_x, at_y, when * (1 - share), period)
        return np.concatenate([-when * part for part in velocity])

    start = np.concatenate([x.reshape(-1), y.reshape(-1)])
    path = solve_ivp(backward, (0.0, 1.0), start, method="DOP853", rtol=1e-11, atol=1e-12)
    origin_x, origin_y = path.y[:, -1].reshape(2, *x.shape)
    return origin_x, origin_y
