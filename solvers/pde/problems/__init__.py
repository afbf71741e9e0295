"""Named problems with reference solutions.

Each is a function of its coefficients: ``problems.Convection(beta=30)``. References are closed
forms or come from :mod:`solvers.pde.references`; none was trained. Each states the relative L2
error that a network of `solvers.pinn` with default settings reaches in a minute of CPU time on one
slow core, an AMD EPYC without AVX-512 (``benchmarks/pinn_defaults.py``).
"""

from __future__ import annotations

from solvers.pde.problems._burgers import Burgers, InviscidBurgers, MovingBurgers
from solvers.pde.problems._elliptic import Darcy, Helmholtz, NonlinearElliptic, Poisson
from solvers.pde.problems._find import (
    find_problem,
    forget_references,
    problem_names,
    problem_settings,
)
from solvers.pde.problems._flow import CylinderFlow, Kovasznay, TaylorGreen
from solvers.pde.problems._reaction import AllenCahn, Reaction, ReactionDiffusion
from solvers.pde.problems._transport import (
    Convection,
    ConvectionDiffusion,
    Rotation,
    ShearDiffusion,
    Swirl,
    VariableConvection,
)
from solvers.pde.problems._variational import DoubleWell, MinimalSurface, NonlinearDiffusion
from solvers.pde.problems._waves import Heat, KortewegDeVries, Wave

__all__ = [
    "AllenCahn",
    "Burgers",
    "Convection",
    "ConvectionDiffusion",
    "CylinderFlow",
    "Darcy",
    "DoubleWell",
    "Heat",
    "Helmholtz",
    "InviscidBurgers",
    "KortewegDeVries",
    "Kovasznay",
    "MinimalSurface",
    "MovingBurgers",
    "NonlinearDiffusion",
    "NonlinearElliptic",
    "Poisson",
    "Reaction",
    "ReactionDiffusion",
    "Rotation",
    "ShearDiffusion",
    "Swirl",
    "TaylorGreen",
    "VariableConvection",
    "Wave",
    "find_problem",
    "forget_references",
    "problem_names",
    "problem_settings",
]
