"""Named problems by the name that a user types."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from solvers.core import SettingsError, check_choice, check_kind
from solvers.pde._problem import Problem
from solvers.pde.problems import (
    _burgers,
    _elliptic,
    _flow,
    _reaction,
    _transport,
    _variational,
    _waves,
)

__all__ = ["find_problem", "forget_references", "problem_names", "problem_settings"]

_MODULES = (_transport, _burgers, _reaction, _waves, _elliptic, _flow, _variational)


def problem_names() -> tuple[str, ...]:
    """List the names of all problems as a command line takes them.

    Returns:
        Words joined by hyphens.

    Example:
        >>> "convection-diffusion" in problem_names()
        True
    """
    return tuple(_makers())


def problem_settings(name: str) -> dict[str, Any]:
    """List the settings of a problem with their defaults.

    Args:
        name: One of :func:`problem_names`, in any spelling of case, hyphens and underscores.

    Returns:
        Setting to default.

    Raises:
        SettingsError: If there is no such problem, with the nearest name.

    Example:
        >>> problem_settings("Convection")
        {'beta': 30.0}
    """
    parameters = inspect.signature(_maker(name)).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters}


def find_problem(name: str, **settings: Any) -> Problem:
    """Make a problem by name.

    Args:
        name: One of :func:`problem_names`, in any spelling of case, hyphens and underscores.
        **settings: Settings of the problem.

    Returns:
        The problem.

    Raises:
        SettingsError: If there is no such problem or setting, with the nearest name.

    Example:
        >>> find_problem("burgers", nu=0.1).coefficients
        {'nu': 0.1}
    """
    known = problem_settings(name)
    for setting in settings:
        if setting not in known:
            check_choice(f"setting of {name}", setting, known or ("none",))
    try:
        return _maker(name)(**settings)
    except TypeError as error:
        raise SettingsError(f"{name}: {error}; expected settings like {known}") from error


def forget_references() -> None:
    """Drop the reference solutions that were kept, so that their time can be measured.

    Example:
        >>> forget_references()
    """
    for module in _MODULES:
        for value in vars(module).values():
            if hasattr(value, "cache_clear"):
                value.cache_clear()


def _maker(name: str) -> Callable[..., Problem]:
    check_kind("name", name, str, "a name of problem_names(), as 'convection'")
    makers = {_plain(key): maker for key, maker in _makers().items()}
    if _plain(name) not in makers:
        check_choice("problem", name.lower().replace("_", "-"), _makers())
    return makers[_plain(name)]


def _makers() -> dict[str, Callable[..., Problem]]:
    return {
        _hyphens(name): getattr(module, name)
        for module in _MODULES
        for name in module.__all__
        if name[0].isupper()
    }


def _hyphens(name: str) -> str:
    return "".join(f"-{c.lower()}" if c.isupper() else c for c in name).lstrip("-")


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")
