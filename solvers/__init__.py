"""Solvers for linear, nonlinear, differential and learning problems: numbers in, numbers out.

Each room has its own public path, for example ``solvers.linear``. Status, reports and errors are
here as well, because every room returns or raises them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from solvers.core import lazy_exports

__all__ = [
    "CheckpointError",
    "InfeasibleError",
    "MissingExtraError",
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
    __getattr__, __dir__ = lazy_exports(__name__, dict.fromkeys(__all__, "solvers.core"))
