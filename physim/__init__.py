"""Differentiable physics: simulation, control and what learns with it.

``import physim`` is quick: heavy packages, torch among them, load when a name that needs them is
first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from physim._ownership import check_ownership

# Before anything is taken from `solvers`, which may be somebody else's.
check_ownership()

from solvers.core import lazy_exports  # noqa: E402

__all__ = [
    "CheckpointError",
    "InfeasibleError",
    "MissingExtraError",
    "Model",
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
    "Simulator",
    "Solution",
    "State",
    "Status",
    "Trajectory",
    "UnitError",
    "load_model",
    "__version__",
]

__version__ = "0.1.0"

if TYPE_CHECKING:
    from physim.dynamics import Simulator, State, Trajectory
    from physim.model import Model, load_model
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
    _MODULES = {
        "load_model": "physim.model",
        "Model": "physim.model",
        "Simulator": "physim.dynamics",
        "State": "physim.dynamics",
        "Trajectory": "physim.dynamics",
    }
    __getattr__, __dir__ = lazy_exports(
        __name__, {name: _MODULES.get(name, "solvers.core") for name in __all__}
    )
