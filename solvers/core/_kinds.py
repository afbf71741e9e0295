"""Checks of the kind of an argument, before anything is asked of it that it does not have."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from solvers.core._errors import SettingsError

__all__ = ["check_callable", "check_kind", "check_names", "check_number", "describe"]


def check_kind(name: str, value: object, kind: type | tuple[type, ...], expected: str) -> None:
    """Check what an argument is.

    Args:
        name: Name of the argument.
        value: The argument.
        kind: Class or classes of which it is an instance.
        expected: What it should be and how to get one, for the message.

    Raises:
        SettingsError: If it is an instance of none of them.

    Example:
        >>> check_kind("settings", {"k": 1}, dict, "settings by name")
    """
    if not isinstance(value, kind):
        raise SettingsError(f"{name}: got {describe(value)}, expected {expected}")


def check_callable(name: str, value: object, expected: str) -> None:
    """Check that an argument is a function.

    Args:
        name: Name of the argument.
        value: The argument.
        expected: What the function takes and gives, for the message.

    Raises:
        SettingsError: If it cannot be called.

    Example:
        >>> check_callable("function", lambda t, y: -y, "a function of times and states")
    """
    if not callable(value):
        raise SettingsError(f"{name}: got {describe(value)}, expected {expected}")


def check_number(name: str, value: Any) -> float:
    """Check that an argument is one finite real number.

    Args:
        name: Name of the argument.
        value: A number, or an array or tensor that holds one.

    Returns:
        The number.

    Raises:
        SettingsError: If it is none, or not finite.

    Example:
        >>> check_number("radius", 2)
        2.0
    """
    try:
        number = math.nan if isinstance(value, str | bytes | bool) else float(value)
    except (TypeError, ValueError, RuntimeError):
        number = math.nan
    if not math.isfinite(number):
        got = value if isinstance(value, float | bool) else describe(value)
        raise SettingsError(f"{name}: got {got}, expected one finite number")
    return number


def check_names(name: str, value: Any) -> tuple[str, ...]:
    """Check that an argument is a row of names.

    Args:
        name: Name of the argument.
        value: Texts in a row.

    Returns:
        The names.

    Raises:
        SettingsError: If it is one text, or holds something else.

    Example:
        >>> check_names("fields", ["u", "v"])
        ('u', 'v')
    """
    if isinstance(value, str):
        raise SettingsError(f"{name}: got the text {value!r}, expected a tuple, as in ({value!r},)")
    if not isinstance(value, Iterable):
        raise SettingsError(f"{name}: got {describe(value)}, expected names in a row, as in ('u',)")
    names = tuple(value)
    for each in names:
        if not isinstance(each, str):
            raise SettingsError(
                f"{name}: got {describe(each)} among them, expected names, as in ('u',)"
            )
    return names


def describe(value: object) -> str:
    """Say what an argument is, short enough for a message.

    Args:
        value: The argument.

    Returns:
        The class or the text itself, for everything else the name of its class.

    Example:
        >>> describe(int), describe("a"), describe([1, 2])
        ('the class int', "the text 'a'", 'list')
    """
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return f"the text {value!r}" if isinstance(value, str) else type(value).__name__
