"""Axes of problems that there are in several dimensions."""

from __future__ import annotations

from solvers.core import SettingsError, check_count

__all__ = ["axis_names"]


def axis_names(dimension: int, *, most: int = 10) -> tuple[str, ...]:
    """Name the axes of space.

    Args:
        dimension: How many.
        most: Largest number.

    Returns:
        ``x, y, z``, or ``x0, x1, ...`` where these do not suffice.

    Raises:
        SettingsError: If there are none or too many.
    """
    check_count("dimension", dimension)
    if dimension > most:
        raise SettingsError(f"dimension: got {dimension}, expected 1 to {most}")
    if dimension > 3:
        return tuple(f"x{k}" for k in range(dimension))
    return ("x", "y", "z")[:dimension]
