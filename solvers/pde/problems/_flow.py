"""Incompressible flow in two dimensions: decaying vortices, wakes of a grid and of a cylinder."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from solvers.core import SettingsError, check_number, check_positive
from solvers.pde._boundaries import Dirichlet, Periodic
from solvers.pde._conditions import Initial
from solvers.pde._domain import Box
from solvers.pde._problem import Problem
from solvers.pde._shapes import Ball
from solvers.pde.functions import cos, exp, pi, sin
from solvers.pde.references import CylinderSolution, solve_cylinder

__all__ = ["CylinderFlow", "Kovasznay", "TaylorGreen", "navier_stokes"]


def navier_stokes(u: Any, v: Any, p: Any, nu: Any, *, is_steady: bool) -> dict[str, Any]:
    """Residuals of momentum and mass for velocity ``u, v`` and pressure over density ``p``."""
    rate_u, rate_v = (0.0, 0.0) if is_steady else (u.t, v.t)
    return {
        "momentum x": rate_u + u * u.x + v * u.y + p.x - nu * (u.xx + u.yy),
        "momentum y": rate_v + u * v.x + v * v.y + p.y - nu * (v.xx + v.yy),
        "mass": u.x + v.y,
    }


def TaylorGreen(nu: float = 0.01) -> Problem:
    r"""State vortices that decay, :math:`u = \cos x \sin y\, e^{-2 \nu t}` and so on.

    A default `PINN` reaches 1e-4 in a minute.

    Args:
        nu: Kinematic viscosity, more than zero.

    Returns:
        The Navier-Stokes problem for ``u``, ``v``, ``p`` on two periods, t from 0 to 1, with the
        initial pressure given to fix its constant; reference exact.

    Source: G. I. Taylor (1923).
    """
    check_positive("nu", nu)

    def reference(x: Any, y: Any, t: Any, nu: Any) -> tuple[Any, Any, Any]:
        decay = exp(-2 * nu * t)
        return (
            cos(x) * sin(y) * decay,
            -sin(x) * cos(y) * decay,
            -0.25 * (cos(2 * x) + cos(2 * y)) * decay * decay,
        )

    return Problem(
        "Taylor-Green",
        domain=Box(x=(0, 2 * pi), y=(0, 2 * pi), t=(0, 1)),
        fields=("u", "v", "p"),
        residual=lambda u, v, p, nu: navier_stokes(u, v, p, nu, is_steady=False),
        coefficients={"nu": nu},
        conditions=[
            Initial(
                u=lambda x, y: cos(x) * sin(y),
                v=lambda x, y: -sin(x) * cos(y),
                p=lambda x, y: -0.25 * (cos(2 * x) + cos(2 * y)),
            ),
            Periodic("x"),
            Periodic("y"),
        ],
        reference=reference,
    )


def Kovasznay(nu: float = 0.025) -> Problem:
    r"""State the steady flow behind a grid, :math:`u = 1 - e^{\lambda x} \cos 2 \pi y`.

    A default `PINN` reaches 1e-4 in a minute.

    Args:
        nu: Kinematic viscosity, more than zero.

    Returns:
        The steady Navier-Stokes problem for ``u``, ``v``, ``p`` with boundary values of the
        solution; reference exact.

    Source: L. Kovasznay (1948).
    """
    check_positive("nu", nu)

    def reference(x: Any, y: Any, nu: Any) -> tuple[Any, Any, Any]:
        rate = 0.5 / nu - (0.25 / (nu * nu) + 4 * pi**2) ** 0.5
        return (
            1 - exp(rate * x) * cos(2 * pi * y),
            rate / (2 * pi) * exp(rate * x) * sin(2 * pi * y),
            0.5 * (1 - exp(2 * rate * x)),
        )

    return Problem(
        "Kovasznay",
        domain=Box(x=(-0.5, 1), y=(-0.5, 1.5)),
        fields=("u", "v", "p"),
        residual=lambda u, v, p, nu: navier_stokes(u, v, p, nu, is_steady=True),
        coefficients={"nu": nu},
        conditions=[
            Dirichlet(
                u=lambda x, y, nu: reference(x, y, nu)[0],
                v=lambda x, y, nu: reference(x, y, nu)[1],
                p=lambda x, y, nu: reference(x, y, nu)[2],
            )
        ],
        reference=reference,
    )


def CylinderFlow(reynolds: float = 20.0) -> Problem:
    r"""State the steady flow past a cylinder, with a pair of eddies behind it above 7 or so.

    Lengths in diameters, speeds in that of the stream.

    A default `PINN` reaches 1e-3 in a minute.

    Args:
        reynolds: Reynolds number with the diameter, 5 to 60.

    Returns:
        The Navier-Stokes problem for ``u``, ``v``, ``p`` on a box from 2 diameters before to 5
        behind the axis, 2.5 to each side, without the cylinder. No slip on the cylinder, on the
        box the velocity of the unbounded flow; the pressure is free up to a constant. The
        reference, :func:`solvers.pde.references.solve_cylinder`, is good to 0.1 %.

    Source: B. Fornberg (1980).
    """
    reynolds = check_number("reynolds", reynolds)
    if not 5.0 <= reynolds <= 60.0:
        raise SettingsError(
            f"reynolds: got {reynolds:g}, expected 5 to 60, where the reference is known to be good"
        )
    cylinder = Ball(radius=0.5, x=0.0, y=0.0)
    box = Box(x=(-2, 5), y=(-2.5, 2.5))

    def reference(x: Any, y: Any, reynolds: Any) -> tuple[Any, Any, Any]:
        return _cylinder(float(reynolds))(x, y)

    return Problem(
        "cylinder flow",
        domain=box - cylinder,
        fields=("u", "v", "p"),
        residual=lambda u, v, p, reynolds: navier_stokes(u, v, p, 1 / reynolds, is_steady=True),
        coefficients={"reynolds": reynolds},
        conditions=[
            Dirichlet(on=cylinder, u=0.0, v=0.0),
            Dirichlet(
                on=box,
                u=lambda x, y, reynolds: reference(x, y, reynolds)[0],
                v=lambda x, y, reynolds: reference(x, y, reynolds)[1],
            ),
        ],
        reference=reference,
    )


@lru_cache(maxsize=4)
def _cylinder(reynolds: float) -> CylinderSolution:
    return solve_cylinder(reynolds)
