"""Steady problems: Poisson, Helmholtz, flow through porous rock, a nonlinear energy."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from solvers.core import SettingsError, check_count, check_kind, check_number
from solvers.pde._arguments import with_arguments
from solvers.pde._boundaries import Dirichlet
from solvers.pde._domain import Box
from solvers.pde._problem import Problem
from solvers.pde.functions import pi, sin
from solvers.pde.problems._axes import axis_names
from solvers.pde.references import ChebyshevFunction, solve_elliptic

__all__ = ["Darcy", "Helmholtz", "NonlinearElliptic", "Poisson"]


def Poisson(dimension: int = 2) -> Problem:
    r"""State :math:`-\Delta u = f` on the unit cube with :math:`u = \prod \sin \pi x_i`.

    A default `PINN` reaches 1e-4 in a minute.

    Args:
        dimension: Number of axes, one to ten.

    Returns:
        The problem, zero on the boundary; axes ``x, y, z``, or ``x0``,
        ``x1``, ... above three; reference exact.
    """
    axes = axis_names(dimension)

    def residual(u: Any, *x: Any) -> Any:
        return _laplacian(u, axes) + dimension * pi**2 * _product(*x)

    def energy(u: Any, *x: Any) -> Any:
        return 0.5 * _slope_square(u, axes) - dimension * pi**2 * _product(*x) * u

    return Problem(
        "Poisson",
        domain=Box(**dict.fromkeys(axes, (0, 1))),
        residual=with_arguments(residual, ("u", *axes)),
        conditions=[Dirichlet(u=0.0)],
        energy=with_arguments(energy, ("u", *axes)),
        reference=with_arguments(_product, axes),
    )


def Helmholtz(wave_number: float = 1.0, modes: tuple[int, int] = (1, 4)) -> Problem:
    r"""State :math:`\Delta u + k^2 u = q` on the square from -1 to 1, zero on its walls.

    A default `PINN` reaches 1e-3 in a minute.

    Args:
        wave_number: k.
        modes: Half waves :math:`a_1, a_2` of the solution per unit of length.

    Returns:
        The problem with :math:`u = \sin(a_1 \pi x) \sin(a_2 \pi y)`; reference exact.

    Source: S. Wang, Y. Teng and P. Perdikaris (2021), section 3.2.
    """
    check_kind("modes", modes, Sequence, "two positive whole numbers, as in (1, 4)")
    if len(modes) != 2:
        raise SettingsError(f"modes: got {modes}, expected two positive whole numbers")
    first, second = modes
    check_count("modes[0]", first)
    check_count("modes[1]", second)

    def solution(x: Any, y: Any) -> Any:
        return sin(first * pi * x) * sin(second * pi * y)

    def residual(u: Any, x: Any, y: Any, wave_number: Any) -> Any:
        factor = wave_number * wave_number - (first**2 + second**2) * pi**2
        return u.xx + u.yy + wave_number * wave_number * u - factor * solution(x, y)

    return Problem(
        "Helmholtz",
        domain=Box(x=(-1, 1), y=(-1, 1)),
        residual=residual,
        coefficients={"wave_number": wave_number},
        conditions=[Dirichlet(u=0.0)],
        reference=solution,
    )


def Darcy(contrast: float = 0.8) -> Problem:
    r"""State :math:`-\nabla \cdot (a \nabla u) = 1` on the unit square, zero on its walls.

    The permeability is :math:`a = 1 + s \sin 2 \pi x \sin 2 \pi y`.

    A default `PINN` reaches 1e-3 in a minute.

    Args:
        contrast: s, less than one in size.

    Returns:
        The problem; the reference is a Chebyshev solution with 48 points along each axis, good to
        1e-7: corners, where u is not smooth, limit it.
    """
    contrast = check_number("contrast", contrast)
    if not abs(contrast) < 1:
        raise SettingsError(
            f"contrast: got {contrast}, expected a size below 1; the permeability must stay "
            "positive or the problem is ill-posed"
        )

    def residual(u: Any, x: Any, y: Any, contrast: Any) -> Any:
        sx, sy = sin(2 * pi * x), sin(2 * pi * y)
        cx, cy = sin(2 * pi * x + pi / 2), sin(2 * pi * y + pi / 2)
        a = 1 + contrast * sx * sy
        a_x, a_y = 2 * pi * contrast * cx * sy, 2 * pi * contrast * sx * cy
        return a * (u.xx + u.yy) + a_x * u.x + a_y * u.y + 1

    def energy(u: Any, x: Any, y: Any, contrast: Any) -> Any:
        a = 1 + contrast * sin(2 * pi * x) * sin(2 * pi * y)
        return 0.5 * a * (u.x * u.x + u.y * u.y) - u

    return Problem(
        "Darcy",
        domain=Box(x=(0, 1), y=(0, 1)),
        residual=residual,
        coefficients={"contrast": contrast},
        conditions=[Dirichlet(u=0.0)],
        energy=energy,
        reference=lambda x, y, contrast: _darcy(contrast)(x, y),
    )


@lru_cache(maxsize=8)
def _darcy(contrast: float) -> ChebyshevFunction:
    return solve_elliptic(
        lambda x, y: 1 + contrast * np.sin(2 * pi * x) * np.sin(2 * pi * y),
        lambda x, y: np.ones_like(x),
        bounds=((0, 1), (0, 1)),
        count=48,
    )


def NonlinearElliptic(dimension: int = 2) -> Problem:
    r"""State :math:`-\Delta u + u^3 = f`, the minimiser of a convex energy.

    :math:`E(u) = \int \frac12 |\nabla u|^2 + \frac14 u^4 - f u` on the unit cube, zero on its
    walls, with f such that :math:`u = \prod \sin \pi x_i`.

    A default `PINN` reaches 1e-4 in a minute.

    Args:
        dimension: Number of axes, one to ten.

    Returns:
        The problem with its energy; axes ``x, y, z``, or ``x0``,
        ``x1``, ... above three; reference exact.
    """
    axes = axis_names(dimension)

    def force(*x: Any) -> Any:
        solution = _product(*x)
        return dimension * pi**2 * solution + solution * solution * solution

    def residual(u: Any, *x: Any) -> Any:
        return -_laplacian(u, axes) + u * u * u - force(*x)

    def energy(u: Any, *x: Any) -> Any:
        return 0.5 * _slope_square(u, axes) + 0.25 * u * u * u * u - force(*x) * u

    return Problem(
        "nonlinear elliptic",
        domain=Box(**dict.fromkeys(axes, (0, 1))),
        residual=with_arguments(residual, ("u", *axes)),
        conditions=[Dirichlet(u=0.0)],
        energy=with_arguments(energy, ("u", *axes)),
        reference=with_arguments(_product, axes),
    )


def _product(*x: Any) -> Any:
    return prod(sin(pi * c) for c in x)


def _laplacian(u: Any, axes: tuple[str, ...]) -> Any:
    return sum(getattr(u, 2 * axis) for axis in axes)


def _slope_square(u: Any, axes: tuple[str, ...]) -> Any:
    return sum(getattr(u, axis) * getattr(u, axis) for axis in axes)
