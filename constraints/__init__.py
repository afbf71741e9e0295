"""Neural-network layers whose output obeys a law.

Status, reports and errors of ``solvers.core`` are here as well, because every layer returns or
raises them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from solvers.core import lazy_exports

__all__ = [
    "CheckpointError",
    "GeneralLeastSquares",
    "ImplicitLeastSquares",
    "InfeasibleError",
    "MissingExtraError",
    "MixtureOfExperts",
    "ModelError",
    "NonFiniteError",
    "NotConvergedError",
    "NumericalWarning",
    "PerformanceWarning",
    "PhysimError",
    "PhysimWarning",
    "Report",
    "SettingsError",
    "ShapeError",
    "Solution",
    "Status",
    "UnitError",
]

if TYPE_CHECKING:
    from constraints.experts._mixture import MixtureOfExperts
    from constraints.least_squares import GeneralLeastSquares, ImplicitLeastSquares
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
    _ROOMS = {
        "constraints.experts._mixture": ("MixtureOfExperts",),
        "constraints.least_squares": ("GeneralLeastSquares", "ImplicitLeastSquares"),
    }
    _OWN = {name: room for room, names in _ROOMS.items() for name in names}
    __getattr__, __dir__ = lazy_exports(
        __name__, {**dict.fromkeys(__all__, "solvers.core"), **_OWN}
    )
