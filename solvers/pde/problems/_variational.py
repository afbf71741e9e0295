"""Problems that are given by an energy: nonlinear diffusion, minimal surfaces, phase walls."""

from __future__ import annotations

from functools import reduce
from operator import mul
from typing import Any

from solvers.core import check_positive
from solvers.pde._arguments import with_arguments
from solvers.pde._boundaries import Dirichlet
from solvers.pde._domain import Box
from solvers.pde._euler_lagrange import variational_problem
from solvers.pde._problem import Problem
from solvers.pde.functions import cos, cosh, pi, sin, sqrt, tanh
from solvers.pde.problems._axes import axis_names

__all__ = ["DoubleWell", "MinimalSurface", "NonlinearDiffusion"]


def NonlinearDiffusion(dimension: int = 2, strength: float = 4.0) -> Problem:
    r"""Make :math:`\int \frac12 |\nabla u|^2 + \kappa \sqrt{1 + |\nabla u|^2} - f u` least.

    The second derivative by the slope lies between 1 and :math:`1 + \kappa`: the class of energies
    whose descent in H1 has a known rate. f is such that :math:`u = \prod \sin \pi x_i`.

    A default `PINN` reaches 1e-4 in a minute.

    Args:
        dimension: Number of axes, one to ten.
        strength: :math:`\kappa`, zero or more.

    Returns:
        The problem on the unit cube, zero on its walls; axes ``x, y, z``, or ``x0``, ``x1``, ...
        above three; reference exact.
    """
    check_positive("strength", strength, allow_zero=True)
    axes = axis_names(dimension)

    def density(u: Any, *rest: Any) -> Any:
        *x, kappa = rest
        slope = sum(getattr(u, axis) * getattr(u, axis) for axis in axes)
        return 0.5 * slope + kappa * sqrt(1 + slope) - _force(x, kappa) * u

    return variational_problem(
        "nonlinear diffusion",
        domain=Box(**dict.fromkeys(axes, (0, 1))),
        density=with_arguments(density, ("u", *axes, "strength")),
        coefficients={"strength": strength},
        conditions=[Dirichlet(u=0.0)],
        reference=with_arguments(lambda *x: _product([sin(pi * c) for c in x]), axes),
    )


def _force(x: list[Any], kappa: Any) -> Any:
    r"""Minus the divergence of :math:`(1 + \kappa / s) \nabla u`.

    It is :math:`-(1 + \kappa/s) \Delta u + \kappa\, \nabla u \cdot H \nabla u / s^3` with
    :math:`s^2 = 1 + |\nabla u|^2`.
    """
    sines, cosines = [sin(pi * c) for c in x], [cos(pi * c) for c in x]
    places = range(len(x))

    def derivative(*along: int) -> Any:
        # of a product of sines, each axis at most once
        return pi ** len(along) * _product([cosines[i] if i in along else sines[i] for i in places])

    u = _product(sines)
    slopes = [derivative(i) for i in places]
    square = 1 + sum(q * q for q in slopes)
    bent = sum(-pi * pi * u * slopes[i] * slopes[i] for i in places) + sum(
        2 * slopes[i] * slopes[j] * derivative(i, j) for i in places for j in range(i)
    )
    root = sqrt(square)
    laplacian = -len(x) * pi * pi * u
    return kappa * bent / (square * root) - (1 + kappa / root) * laplacian


def MinimalSurface(length: float = 1.0) -> Problem:
    r"""Make the area :math:`\int \sqrt{1 + |\nabla u|^2}` of a graph least: a soap film.

    A default `PINN` reaches 1e-4 in a minute.

    Args:
        length: Half the length of the piece of a catenoid along its axis.

    Returns:
        The problem with the values of :math:`u = \sqrt{\cosh^2 x - y^2}` on the walls of a box half
        as wide as the neck, L. Euler (1744); reference exact.
    """
    check_positive("length", length)

    def catenoid(x: Any, y: Any) -> Any:
        return sqrt(cosh(x) * cosh(x) - y * y)

    return variational_problem(
        "minimal surface",
        domain=Box(x=(-length, length), y=(-0.5, 0.5)),
        density=lambda u, x, y: sqrt(1 + u.x * u.x + u.y * u.y),
        conditions=[Dirichlet(u=catenoid)],
        reference=catenoid,
    )


def DoubleWell(width: float = 0.1) -> Problem:
    r"""Make :math:`\int \frac{w^2}{2} u_x^2 + \frac14 (u^2 - 1)^2` least: a wall between phases.

    The energy is not convex; with the values of the wall at both ends it has this one minimiser
    among rising fields.

    A default `DeepRitz` reaches 1e-2 in a minute.

    Args:
        width: w, a small part of the interval.

    Returns:
        The problem on the interval from -1 to 1 with :math:`u = \tanh(x / \sqrt 2 w)`, S. Allen and
        J. Cahn (1979); reference exact.
    """
    check_positive("width", width)

    def wall(x: Any, width: Any) -> Any:
        return tanh(x / (2**0.5 * width))

    return variational_problem(
        "double well",
        domain=Box(x=(-1, 1)),
        density=lambda u, x, width: (
            0.5 * width * width * u.x * u.x + 0.25 * (u * u - 1) * (u * u - 1)
        ),
        coefficients={"width": width},
        conditions=[Dirichlet(axis="x", side="both", u=wall)],
        reference=wall,
    )


def _product(factors: list[Any]) -> Any:
    return reduce(mul, factors)
