"""Waves and heat: the string, solitary waves, conduction."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from solvers.core import SettingsError, check_number
from solvers.pde._arguments import with_arguments
from solvers.pde._boundaries import Dirichlet, Periodic
from solvers.pde._conditions import Initial
from solvers.pde._domain import Box
from solvers.pde._problem import Problem
from solvers.pde.functions import cos, exp, pi, sin
from solvers.pde.problems._axes import axis_names
from solvers.pde.references import GridFunction, solve_periodic

__all__ = ["Heat", "KortewegDeVries", "Wave"]

_AXES = ("x", "y", "z")


def Heat(diffusivity: float = 0.1, dimension: int = 1) -> Problem:
    r"""State :math:`u_t = \kappa \Delta u` on the unit cube, zero on its walls.

    A default `PINN` reaches 1e-4 in a minute.

    Args:
        diffusivity: :math:`\kappa`, zero or more.
        dimension: Number of axes in space, one to three.

    Returns:
        The problem from :math:`\prod \sin \pi x_i`; reference exact.
    """
    axes = axis_names(dimension, most=3)

    def residual(u: Any, diffusivity: Any) -> Any:
        return u.t - diffusivity * sum(getattr(u, 2 * axis) for axis in axes)

    def start(*x: Any) -> Any:
        return prod(sin(pi * c) for c in x)

    def reference(*values: Any) -> Any:
        *x, t, kappa = values
        return exp(-dimension * kappa * pi**2 * t) * start(*x)

    return Problem(
        "heat",
        domain=Box(**dict.fromkeys(axes, (0, 1)), t=(0, 1)),
        residual=residual,
        coefficients={"diffusivity": diffusivity},
        conditions=[Initial(u=with_arguments(start, axes)), Dirichlet(u=0.0)],
        reference=with_arguments(reference, (*axes, "t", "diffusivity")),
    )


def Wave(beta: float = 5.0, speed: float = 2.0) -> Problem:
    r"""State :math:`u_{tt} = c^2 u_{xx}` from rest, zero at the ends.

    A default `PINN` reaches 1e-3 in a minute.

    Args:
        beta: Wave number of the second of two modes, in units of the first; a whole number.
        speed: c.

    Returns:
        The problem on x from 0 to 1, t from 0 to 1, from
        :math:`\sin \pi x + \frac12 \sin \beta \pi x`; reference exact.

    Source: P. Rathore, W. Lei, Z. Frangella, L. Lu and M. Udell (2024), appendix A.
    """
    beta = check_number("beta", beta)
    if beta != round(beta):
        raise SettingsError(
            f"beta: got {beta}, expected a whole number, so that the string is fixed at its ends"
        )
    return Problem(
        "wave",
        domain=Box(x=(0, 1), t=(0, 1)),
        residual=lambda u, speed: u.tt - speed * speed * u.xx,
        coefficients={"beta": beta, "speed": speed},
        conditions=[
            Initial(u=lambda x, beta: sin(pi * x) + 0.5 * sin(beta * pi * x), u_t=0.0),
            Dirichlet(axis="x", side="both", u=0.0),
        ],
        reference=lambda x, t, beta, speed: (
            sin(pi * x) * cos(speed * pi * t)
            + 0.5 * sin(beta * pi * x) * cos(beta * speed * pi * t)
        ),
    )


def KortewegDeVries(eta: float = 1.0, mu: float = 0.022) -> Problem:
    r"""State :math:`u_t + \eta u u_x + \mu^2 u_{xxx} = 0` on a period from :math:`\cos \pi x`.

    A default `PINN` reaches 2e-3 in a minute.

    Args:
        eta: Steepening.
        mu: Dispersion.

    Returns:
        The problem on x from -1 to 1, t from 0 to 1, where a wave breaks into solitons; the
        reference is a Fourier solution with 512 modes and 4000 steps, good to 1e-7.

    Source: N. Zabusky and M. Kruskal (1965), eq. 1.
    """
    return Problem(
        "Korteweg-de Vries",
        domain=Box(x=(-1, 1), t=(0, 1)),
        residual=lambda u, eta, mu: u.t + eta * u * u.x + mu * mu * u.xxx,
        coefficients={"eta": eta, "mu": mu},
        conditions=[Initial(u=lambda x: cos(pi * x)), Periodic("x", order=2)],
        reference=lambda x, t, eta, mu: _korteweg_de_vries(eta, mu)(x, t),
    )


@lru_cache(maxsize=8)
def _korteweg_de_vries(eta: float, mu: float) -> GridFunction:
    return solve_periodic(
        lambda x: np.cos(pi * x),
        lambda d: -(mu**2) * d**3,
        lambda u, d: -0.5 * eta * d(u * u),
        bounds=(-1, 1),
        duration=1.0,
        modes=512,
        steps=4000,
    )
