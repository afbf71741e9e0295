"""Generative flows: Gaussian paths from noise to data, the kinetic optimal one, flow matching."""

from __future__ import annotations

from physim.learn.flows._data import (
    data_separation,
    marginal_velocity,
    normalize_data,
    posterior_mean,
    sliced_wasserstein,
)
from physim.learn.flows._kinetic import (
    KineticOptimalPath,
    estimate_gamma,
    kinetic_energy,
    kinetic_optimal_path,
)
from physim.learn.flows._matching import flow_matching_loss, sample
from physim.learn.flows._paths import (
    Coefficients,
    ConditionalOT,
    GaussianPath,
    Trigonometric,
    VariancePreserving,
)

__all__ = [
    "Coefficients",
    "ConditionalOT",
    "GaussianPath",
    "KineticOptimalPath",
    "Trigonometric",
    "VariancePreserving",
    "data_separation",
    "estimate_gamma",
    "flow_matching_loss",
    "kinetic_energy",
    "kinetic_optimal_path",
    "marginal_velocity",
    "normalize_data",
    "posterior_mean",
    "sample",
    "sliced_wasserstein",
]
