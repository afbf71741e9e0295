"""Classical solvers behind the named problems: what a network is measured against."""

from __future__ import annotations

from solvers.pde.references._burgers import cole_hopf, lax_oleinik
from solvers.pde.references._chebyshev import ChebyshevFunction, solve_elliptic
from solvers.pde.references._cylinder import solve_cylinder
from solvers.pde.references._cylinder_solution import CylinderSolution
from solvers.pde.references._finite_volume import solve_conservation_law
from solvers.pde.references._grid import GridFunction
from solvers.pde.references._spectral import solve_periodic

__all__ = [
    "ChebyshevFunction",
    "CylinderSolution",
    "GridFunction",
    "cole_hopf",
    "lax_oleinik",
    "solve_conservation_law",
    "solve_cylinder",
    "solve_elliptic",
    "solve_periodic",
]
