"""Reactions: growth to saturation, growth with diffusion, and phase separation."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from solvers.core import check_positive
from solvers.pde._boundaries import Periodic
from solvers.pde._conditions import Initial
from solvers.pde._domain import Box
from solvers.pde._problem import Problem
from solvers.pde.functions import cos, exp, pi
from solvers.pde.references import GridFunction, solve_periodic

__all__ = ["AllenCahn", "Reaction", "ReactionDiffusion"]

_WIDTH = pi / 4


def _bump(x: Any) -> Any:
    return exp(-((x - pi) * (x - pi)) / (2 * _WIDTH**2))


def Reaction(rho: float = 5.0) -> Problem:
    r"""State logistic growth :math:`u_t = \rho u (1 - u)` from a Gaussian bump.

    A default `PINN` reaches 1e-3 in a minute.

    Args:
        rho: Growth rate.

    Returns:
        The problem on x from 0 to 2 pi, t from 0 to 1; reference exact. Small values grow by
        :math:`e^\rho`, and their errors with them.

    Source: A. Krishnapriyan et al. (2021), section 3.2.
    """

    def reference(x: Any, t: Any, rho: Any) -> Any:
        start = _bump(x)
        grown = start * exp(rho * t)
        return grown / (grown + 1 - start)

    return Problem(
        "reaction",
        domain=Box(x=(0, 2 * pi), t=(0, 1)),
        residual=lambda u, rho: u.t - rho * u * (1 - u),
        coefficients={"rho": rho},
        conditions=[Initial(u=_bump), Periodic("x", order=0)],
        reference=reference,
    )


def ReactionDiffusion(rho: float = 5.0, nu: float = 3.0) -> Problem:
    r"""State :math:`u_t = \nu u_{xx} + \rho u (1 - u)` on a period from a Gaussian bump.

    A default `PINN` reaches 1e-4 in a minute.

    Args:
        rho: Growth rate.
        nu: Diffusivity, more than zero.

    Returns:
        The problem; the reference is a Fourier solution with 1024 modes and 2000 steps. The
        periodic bump has a kink of slope 3e-3 at the ends, which limits it to 1e-6 just after the
        start and 2e-8 from t = 0.01.

    Source: A. Krishnapriyan et al. (2021), section 4.
    """
    check_positive("nu", nu)
    return Problem(
        "reaction-diffusion",
        domain=Box(x=(0, 2 * pi), t=(0, 1)),
        residual=lambda u, rho, nu: u.t - nu * u.xx - rho * u * (1 - u),
        coefficients={"rho": rho, "nu": nu},
        conditions=[Initial(u=_bump), Periodic("x")],
        reference=lambda x, t, rho, nu: _reaction_diffusion(rho, nu)(x, t),
    )


@lru_cache(maxsize=8)
def _reaction_diffusion(rho: float, nu: float) -> GridFunction:
    return solve_periodic(
        lambda x: np.exp(-((x - pi) ** 2) / (2 * _WIDTH**2)),
        lambda d: nu * d**2,
        lambda u, _: rho * u * (1 - u),
        bounds=(0, 2 * pi),
        duration=1.0,
        modes=1024,
        steps=2000,
    )


def AllenCahn(diffusivity: float = 1e-4, rate: float = 5.0) -> Problem:
    r"""State :math:`u_t = \epsilon u_{xx} + r (u - u^3)` from :math:`x^2 \cos \pi x`.

    A default `PINN` reaches 1e-3 in a minute.

    Args:
        diffusivity: :math:`\epsilon`, more than zero.
        rate: r.

    Returns:
        The problem on a period from -1 to 1; the reference is a Fourier solution with 4096 modes.
        Its initial slope jumps by 4 at the ends, so that the reference itself is good to 1e-6.

    Source: M. Raissi, P. Perdikaris and G. Karniadakis (2019).
    """
    check_positive("diffusivity", diffusivity)
    return Problem(
        "Allen-Cahn",
        domain=Box(x=(-1, 1), t=(0, 1)),
        residual=lambda u, diffusivity, rate: u.t - diffusivity * u.xx - rate * (u - u * u * u),
        coefficients={"diffusivity": diffusivity, "rate": rate},
        conditions=[Initial(u=lambda x: x * x * cos(pi * x)), Periodic("x")],
        reference=lambda x, t, diffusivity, rate: _allen_cahn(diffusivity, rate)(x, t),
    )


@lru_cache(maxsize=8)
def _allen_cahn(diffusivity: float, rate: float) -> GridFunction:
    return solve_periodic(
        lambda x: x**2 * np.cos(pi * x),
        lambda d: diffusivity * d**2 + rate,
        lambda u, _: -rate * u**3,
        bounds=(-1, 1),
        duration=1.0,
        modes=4096,
        steps=1000,
        degree=5,
    )
