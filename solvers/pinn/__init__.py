"""Physics-informed networks: an equation, its conditions, and a network that satisfies both.

>>> from solvers.pde import Box, Dirichlet, Problem
>>> problem = Problem(
...     name="rod", domain=Box(x=(0, 1)), residual=lambda u, x: u.xx + 1.0,
...     conditions=[Dirichlet(axis="x", side="both", u=0.0)],
... )
>>> result = PINN(problem, MLP(width=8, depth=2), points=100).fit(tolerance=1e-5)
>>> round(result(0.5).item(), 4)
0.125
"""

from __future__ import annotations

from solvers.pde import problems
from solvers.pinn._arguments import LOSS_WEIGHTS
from solvers.pinn._causal import CausalWeights
from solvers.pinn._curriculum import Curriculum
from solvers.pinn._export import check_export
from solvers.pinn._gradient_norm import GradientNormWeights
from solvers.pinn._lagrangian import LagrangianPINN, LagrangianResult
from solvers.pinn._lagrangian_branches import TwoBranchMLP
from solvers.pinn._landscape import (
    LossLandscape,
    gauss_newton_operator,
    hessian_operator,
    loss_landscape,
)
from solvers.pinn._load import load
from solvers.pinn._marching import TimeMarching
from solvers.pinn._networks import MLP, ModifiedMLP, OwnNetwork
from solvers.pinn._pieces import PiecewiseResult
from solvers.pinn._pinn import PINN
from solvers.pinn._result import FieldNetwork, PINNResult
from solvers.pinn._subdomains import XPINN
from solvers.pinn._tangent_kernel import TangentKernelWeights
from solvers.pinn.variational._descent import DescentResult, SobolevDescent
from solvers.pinn.variational._quadrature import (
    Estimate,
    Quadrature,
    gauss_legendre,
    quasi_monte_carlo,
)
from solvers.pinn.variational._result import RitzResult
from solvers.pinn.variational._ritz import DeepRitz
from solvers.pinn.variational._unrolled import UnrolledDescent, UnrolledResult

__all__ = [
    "LOSS_WEIGHTS",
    "MLP",
    "PINN",
    "DeepRitz",
    "DescentResult",
    "Estimate",
    "XPINN",
    "CausalWeights",
    "Curriculum",
    "FieldNetwork",
    "GradientNormWeights",
    "LagrangianPINN",
    "LagrangianResult",
    "LossLandscape",
    "ModifiedMLP",
    "OwnNetwork",
    "PINNResult",
    "Quadrature",
    "RitzResult",
    "SobolevDescent",
    "TwoBranchMLP",
    "UnrolledDescent",
    "UnrolledResult",
    "check_export",
    "gauss_legendre",
    "gauss_newton_operator",
    "hessian_operator",
    "PiecewiseResult",
    "TangentKernelWeights",
    "TimeMarching",
    "load",
    "loss_landscape",
    "problems",
    "quasi_monte_carlo",
]
