"""Burgers' equation: viscous with a standing or a moving front, and without viscosity."""

from __future__ import annotations

from typing import Any

import numpy as np

from solvers.core import check_positive
from solvers.pde._boundaries import Dirichlet, Periodic
from solvers.pde._conditions import Initial
from solvers.pde._domain import Box
from solvers.pde._problem import Problem
from solvers.pde.functions import pi, sin
from solvers.pde.references import cole_hopf, lax_oleinik

__all__ = ["Burgers", "InviscidBurgers", "MovingBurgers"]


def Burgers(nu: float = 0.01 / pi) -> Problem:
    r"""State :math:`u_t + u u_x = \nu u_{xx}` from :math:`-\sin \pi x`, zero at the ends.

    A front of width :math:`\nu` stands at the origin.

    A default `PINN` reaches 1e-4 in a minute.

    Args:
        nu: Viscosity, more than zero.

    Returns:
        The problem on x from -1 to 1, t from 0 to 1; the reference is the Cole-Hopf solution by
        quadrature, exact to rounding for :math:`\nu` from 0.01 / pi up.

    Source: C. Basdevant et al. (1986); M. Raissi, P. Perdikaris and G. Karniadakis (2019).
    """
    check_positive("nu", nu)
    return Problem(
        "Burgers",
        domain=Box(x=(-1, 1), t=(0, 1)),
        residual=lambda u, nu: u.t + u * u.x - nu * u.xx,
        coefficients={"nu": nu},
        conditions=[
            Initial(u=lambda x: -sin(pi * x)),
            Dirichlet(axis="x", side="both", u=0.0),
        ],
        reference=lambda x, t, nu: cole_hopf(
            x,
            t,
            nu=nu,
            initial=lambda y: -np.sin(pi * y),
            potential=lambda y: np.cos(pi * y) / pi,
        ),
    )


def MovingBurgers(speed: float = 50.0, nu: float = 0.01, duration: float = 1.0) -> Problem:
    r"""State :math:`u_t + u u_x = \nu u_{xx}` on a period from :math:`C + \sin x`.

    The front steepens while it moves; without viscosity it breaks at t = 1.

    A default `LagrangianPINN` reaches 1e-4 in a minute.

    Args:
        speed: C, the mean speed.
        nu: Viscosity, more than zero.
        duration: Length of time.

    Returns:
        The problem; the reference is the Cole-Hopf solution in the moving frame, exact to rounding.
        Measure errors relative to the fluctuation u - C.

    Source: R. Mojgani, M. Balajewicz and P. Hassanzadeh (2023).
    """
    check_positive("nu", nu)
    check_positive("duration", duration)

    def reference(x: Any, t: Any, speed: float, nu: float) -> Any:
        moved = np.asarray(x) - speed * np.asarray(t)
        still = cole_hopf(moved, t, nu=nu, initial=np.sin, potential=lambda y: -np.cos(y))
        return speed + still

    return Problem(
        "moving Burgers",
        domain=Box(x=(0, 2 * pi), t=(0, duration)),
        residual=lambda u, nu: u.t + u * u.x - nu * u.xx,
        coefficients={"speed": speed, "nu": nu},
        conditions=[Initial(u=lambda x, speed: speed + sin(x)), Periodic("x")],
        reference=reference,
    )


def InviscidBurgers(duration: float = 0.5) -> Problem:
    r"""State :math:`u_t + u u_x = 0` on a period from :math:`\sin x`.

    Characteristics meet at t = 1: with a longer duration the solution holds a shock at
    :math:`x = \pi`, and the equation must be read as a conservation law.

    A default `PINN` reaches 1e-4 in a minute.

    Args:
        duration: Length of time.

    Returns:
        The problem; the reference is the entropy solution of Lax and Oleinik, exact to rounding.
    """
    check_positive("duration", duration)

    def reference(x: Any, t: Any) -> Any:
        return lax_oleinik(x, t, initial=np.sin, potential=lambda y: -np.cos(y), reach=1.0)

    return Problem(
        "inviscid Burgers",
        domain=Box(x=(0, 2 * pi), t=(0, duration)),
        residual=lambda u: u.t + u * u.x,
        conditions=[Initial(u=sin), Periodic("x", order=0)],
        reference=reference,
    )
