"""What every room shares: status, reports, errors, checks, norms, progress, files, checkpoints.

Nothing here knows a method or a problem. Names whose module needs torch load at first use, so that
importing this package stays quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from solvers.core._errors import (
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
    SettingsError,
    ShapeError,
    UnitError,
)
from solvers.core._events import Interrupt, Progress, catch_interrupt, open_progress
from solvers.core._extras import require_extra
from solvers.core._files import check_output, to_json, write_whole
from solvers.core._kinds import check_callable, check_kind, check_names, check_number, describe
from solvers.core._lazy import lazy_exports

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "InfeasibleError",
    "Interrupt",
    "MissingExtraError",
    "ModelError",
    "NonFiniteError",
    "NotConvergedError",
    "NumericalWarning",
    "OnFailure",
    "PerformanceWarning",
    "PhysimError",
    "PhysimWarning",
    "Progress",
    "Report",
    "SettingsError",
    "ShapeError",
    "Solution",
    "Status",
    "UnitError",
    "apply_on_failure",
    "capture_random_state",
    "catch_interrupt",
    "check_callable",
    "check_choice",
    "check_count",
    "check_finite",
    "check_kind",
    "check_names",
    "check_number",
    "check_output",
    "check_positive",
    "check_same_kind",
    "check_shape",
    "combine_status",
    "count_status",
    "describe",
    "full_status",
    "is_mapped",
    "lazy_exports",
    "load_checkpoint",
    "open_progress",
    "relative_error",
    "require_extra",
    "restore_random_state",
    "safe_norm",
    "save_checkpoint",
    "scaled_max_norm",
    "to_json",
    "write_whole",
]

if TYPE_CHECKING:
    from solvers.core._checkpoint import (
        Checkpoint,
        capture_random_state,
        load_checkpoint,
        restore_random_state,
        save_checkpoint,
    )
    from solvers.core._checks import (
        check_choice,
        check_count,
        check_finite,
        check_positive,
        check_same_kind,
        check_shape,
    )
    from solvers.core._norms import relative_error, safe_norm, scaled_max_norm
    from solvers.core._on_failure import OnFailure, apply_on_failure
    from solvers.core._report import Report
    from solvers.core._solution import Solution
    from solvers.core._status import Status, combine_status, count_status, full_status
    from solvers.core._transforms import is_mapped
else:
    _MODULES = {
        "_checkpoint": (
            "Checkpoint",
            "capture_random_state",
            "load_checkpoint",
            "restore_random_state",
            "save_checkpoint",
        ),
        "_checks": (
            "check_choice",
            "check_count",
            "check_finite",
            "check_positive",
            "check_same_kind",
            "check_shape",
        ),
        "_norms": ("relative_error", "safe_norm", "scaled_max_norm"),
        "_on_failure": ("OnFailure", "apply_on_failure"),
        "_report": ("Report",),
        "_solution": ("Solution",),
        "_status": ("Status", "combine_status", "count_status", "full_status"),
        "_transforms": ("is_mapped",),
    }
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {name: f"{__name__}.{module}" for module, names in _MODULES.items() for name in names},
    )
