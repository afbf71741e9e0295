"""Optimizers and samplers in the style of ``torch.optim``, low-rank factors, design search.

Which one: :class:`SelfScaledBroyden` for smooth losses of up to some thousand parameters; diffGrad
or Adam to come near, then :class:`GNS` on residuals, or :class:`GaussNewton` where their
Jacobian is at hand; Langevin samplers for uncertainty; :class:`NaturalGradient` for policies;
:func:`maximize_through_surrogate` where a network stands between the input and the objective.
"""

from __future__ import annotations

from solvers.optim._attack import AttackMethod, Bounds, attack
from solvers.optim._average import IterateAverage
from solvers.optim._diffgrad import DiffGrad
from solvers.optim._direct_search import householder_directions
from solvers.optim._gauss_newton import GaussNewton
from solvers.optim._gns import GNS
from solvers.optim._inverse import FusedInverse, InverseMatrix, PlainInverse
from solvers.optim._langevin import (
    SGLD,
    SphereMoments,
    SphericalLangevin,
    equator_ratio,
    langevin_average,
)
from solvers.optim._low_rank import (
    LowRankFactor,
    RebalanceOnce,
    TailDiagnosis,
    diagnose_tail,
    predicted_rate,
    rebalance_,
)
from solvers.optim._minimize import Minimum, minimize_gns
from solvers.optim._natural import NaturalGradient, NaturalStep, natural_gradient
from solvers.optim._self_scaled_broyden import (
    BroydenMinimum,
    SelfScaledBroyden,
    minimize_broyden,
)
from solvers.optim._smoothness import StepReport
from solvers.optim._surrogate import Design, DesignMethod, maximize_through_surrogate

__all__ = [
    "GNS",
    "SGLD",
    "AttackMethod",
    "Bounds",
    "BroydenMinimum",
    "Design",
    "DesignMethod",
    "DiffGrad",
    "FusedInverse",
    "GaussNewton",
    "InverseMatrix",
    "IterateAverage",
    "LowRankFactor",
    "Minimum",
    "NaturalGradient",
    "NaturalStep",
    "PlainInverse",
    "RebalanceOnce",
    "SelfScaledBroyden",
    "SphereMoments",
    "SphericalLangevin",
    "StepReport",
    "TailDiagnosis",
    "attack",
    "diagnose_tail",
    "equator_ratio",
    "householder_directions",
    "langevin_average",
    "maximize_through_surrogate",
    "minimize_broyden",
    "minimize_gns",
    "natural_gradient",
    "predicted_rate",
    "rebalance_",
]
