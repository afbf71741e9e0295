"""What a relative tolerance of a linear solve may be."""

from __future__ import annotations

from solvers.core import SettingsError, check_positive

__all__ = ["check_rtol"]


def check_rtol(rtol: float) -> None:
    """Check that a relative tolerance asks for something.

    Args:
        rtol: Largest residual relative to the right-hand side.

    Raises:
        SettingsError: If it is not positive, or 1 or more: zero meets that for every system.
    """
    check_positive("rtol", rtol)
    if rtol >= 1:
        raise SettingsError(
            f"rtol: got {rtol}, expected less than 1; x = 0 has a relative residual of 1 for every "
            "system, so nothing would be solved"
        )
