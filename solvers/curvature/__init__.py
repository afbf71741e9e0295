"""Curvature of objectives: products, eigenvalues, spectral density, traces, Fisher matrices.

Everything takes an :class:`Objective`, a function of one parameter vector, and no more than
products with its Hessian, so that a physics-informed residual of any network fits in.
"""

from __future__ import annotations

from solvers.curvature._density import SpectralDensity, spectral_density
from solvers.curvature._fisher import (
    Family,
    categorical_fisher,
    exponential_family_fisher,
    fisher,
    gaussian_fisher,
    sampled_fisher,
)
from solvers.curvature._lanczos import Eigenpairs, Tridiagonal, extreme_eigenpairs, lanczos
from solvers.curvature._objective import Mode, Objective, ResidualSource
from solvers.curvature._parameters import ParameterSpace
from solvers.curvature._products import SymmetricOperator, gauss_newton, hessian, jacobian
from solvers.curvature._regime import (
    Regime,
    convergence_time,
    deviation_ratio,
    deviation_tensor,
    directional_regime,
    regime,
)
from solvers.curvature._traces import (
    TraceEstimate,
    hutchinson_trace,
    hutchpp_trace,
    power_traces,
)

__all__ = [
    "Eigenpairs",
    "Family",
    "Mode",
    "Objective",
    "ParameterSpace",
    "Regime",
    "ResidualSource",
    "SpectralDensity",
    "SymmetricOperator",
    "TraceEstimate",
    "Tridiagonal",
    "categorical_fisher",
    "convergence_time",
    "deviation_ratio",
    "deviation_tensor",
    "directional_regime",
    "exponential_family_fisher",
    "extreme_eigenpairs",
    "fisher",
    "gauss_newton",
    "gaussian_fisher",
    "hessian",
    "hutchinson_trace",
    "hutchpp_trace",
    "jacobian",
    "lanczos",
    "power_traces",
    "regime",
    "sampled_fisher",
    "spectral_density",
]
