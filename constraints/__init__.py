"""Neural-network layers whose output obeys a law.

Closed forms (`AffineEquality`, `Integral`, `Box`, `Simplex`, `DivergenceFree`, the lifts), programs
that are solved (`QuadraticProgram`, `ConeProgram`, `ConvexLayer`). What a layer does with items
that have no solution is in :mod:`constraints.failure`. Status, reports and errors of
``solvers.core`` are here as well, because every layer returns or raises them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from solvers.core import lazy_exports

__all__ = [
    "AffineEquality",
    "Box",
    "CheckpointError",
    "ConeProgram",
    "ConvexLayer",
    "DirichletLift",
    "DivergenceFree",
    "GeneralLeastSquares",
    "ImplicitLeastSquares",
    "InfeasibleError",
    "InitialLift",
    "Integral",
    "MissingExtraError",
    "MixtureOfExperts",
    "ModelError",
    "NonFiniteError",
    "NotConvergedError",
    "NumericalWarning",
    "PerformanceWarning",
    "PeriodicLift",
    "PhysimError",
    "PhysimWarning",
    "QuadraticProgram",
    "Report",
    "SettingsError",
    "ShapeError",
    "Simplex",
    "Solution",
    "Status",
    "UnitError",
]

if TYPE_CHECKING:
    from constraints.closed_forms._affine import AffineEquality
    from constraints.closed_forms._divergence import DivergenceFree
    from constraints.closed_forms._integral import Integral
    from constraints.closed_forms._lifts import DirichletLift, InitialLift, PeriodicLift
    from constraints.closed_forms._sets import Box, Simplex
    from constraints.convex._layer import ConvexLayer
    from constraints.experts._mixture import MixtureOfExperts
    from constraints.least_squares import GeneralLeastSquares, ImplicitLeastSquares
    from constraints.quadratic._layer import ConeProgram, QuadraticProgram
    from solvers.core import (
        CheckpointError,
        InfeasibleError,
        MissingExtraError,
        ModelError,
        NonFiniteError,
        NotConvergedError,
        NumericalWarning,
        PerformanceWarning,
        PhysimError,
        PhysimWarning,
        Report,
        SettingsError,
        ShapeError,
        Solution,
        Status,
        UnitError,
    )
else:
    _LAYERS = {
        "closed_forms._affine": ("AffineEquality",),
        "closed_forms._divergence": ("DivergenceFree",),
        "closed_forms._integral": ("Integral",),
        "closed_forms._lifts": ("DirichletLift", "InitialLift", "PeriodicLift"),
        "closed_forms._sets": ("Box", "Simplex"),
        "convex._layer": ("ConvexLayer",),
        "experts._mixture": ("MixtureOfExperts",),
        "least_squares": ("GeneralLeastSquares", "ImplicitLeastSquares"),
        "quadratic._layer": ("ConeProgram", "QuadraticProgram"),
    }
    _MODULES = {name: f"{__name__}.{room}" for room, names in _LAYERS.items() for name in names}
    __getattr__, __dir__ = lazy_exports(
        __name__, {name: _MODULES.get(name, "solvers.core") for name in __all__}
    )
