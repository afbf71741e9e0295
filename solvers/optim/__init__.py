"""Optimizers and samplers."""

from __future__ import annotations

from solvers.optim._attack import AttackMethod, Bounds, attack
from solvers.optim._diffgrad import DiffGrad
from solvers.optim._direct_search import householder_directions
from solvers.optim._gns import GNS
from solvers.optim._minimize import Minimum, minimize_gns
from solvers.optim._smoothness import StepReport
from solvers.optim._surrogate import Design, DesignMethod, maximize_through_surrogate

__all__ = [
    "GNS",
    "AttackMethod",
    "Bounds",
    "Design",
    "DesignMethod",
    "DiffGrad",
    "Minimum",
    "StepReport",
    "attack",
    "householder_directions",
    "maximize_through_surrogate",
    "minimize_gns",
]
