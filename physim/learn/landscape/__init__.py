"""Why does a training fail, and which method fits: the landscape around a solution.

Spectra, largest stable learning rates, barriers between solutions, intrinsic dimensions and
attention margins of any :class:`solvers.curvature.Objective`.
"""

from __future__ import annotations

from physim.learn.landscape._alignment import Symmetry, align
from physim.learn.landscape._attention import (
    AttentionMargin,
    Norm,
    attention_margin,
    attention_svm,
    direction_cosine,
)
from physim.learn.landscape._connectivity import (
    Barrier,
    Fork,
    angle,
    barrier,
    fork_study,
    layerwise_barriers,
    predicted_barrier,
)
from physim.learn.landscape._intrinsic import (
    IntrinsicDimension,
    SubspaceModule,
    intrinsic_dimension,
    subspace_objective,
)
from physim.learn.landscape._projections import Projection, random_projection
from physim.learn.landscape._report import LandscapeReport, landscape_report
from physim.learn.landscape._spectrum import Kind, Outliers, Spectrum, find_outliers, spectrum
from physim.learn.landscape._stability import (
    Sharpness,
    StabilityMonitor,
    balance_relu,
    largest_stable_rate,
    path_norm,
    relu_trace,
    sharpness,
    stability_threshold,
)
from physim.learn.landscape._sweep import RateSweep, sweep_rates

__all__ = [
    "AttentionMargin",
    "Barrier",
    "Fork",
    "IntrinsicDimension",
    "Kind",
    "LandscapeReport",
    "Norm",
    "Outliers",
    "Projection",
    "RateSweep",
    "Sharpness",
    "Spectrum",
    "StabilityMonitor",
    "SubspaceModule",
    "Symmetry",
    "align",
    "angle",
    "attention_margin",
    "attention_svm",
    "balance_relu",
    "barrier",
    "direction_cosine",
    "find_outliers",
    "fork_study",
    "intrinsic_dimension",
    "landscape_report",
    "largest_stable_rate",
    "layerwise_barriers",
    "path_norm",
    "predicted_barrier",
    "random_projection",
    "relu_trace",
    "sharpness",
    "spectrum",
    "stability_threshold",
    "subspace_objective",
    "sweep_rates",
]
