"""Functions called with the names that they ask for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from solvers.core import SettingsError, ShapeError, check_callable, describe

__all__ = ["argument_names", "call_by_name", "check_known", "point_values", "with_arguments"]


@lru_cache(maxsize=512)
def argument_names(function: Callable[..., Any]) -> tuple[str, ...]:
    """Names of a function's arguments.

    Args:
        function: Takes plain arguments.

    Returns:
        Names of arguments without default.

    Raises:
        SettingsError: If it takes ``*args``, ``**kwargs`` or has no signature.
    """
    check_callable("function", function, "a function of named arguments")
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise SettingsError(
            f"{function!r} has no readable signature; wrap it, as in lambda x, t: f(x, t)"
        ) from error
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise SettingsError(
                f"{function!r} takes {parameter}, expected named arguments only, which say what "
                "it needs"
            )
    # A default belongs to the function, as in lambda x, k=3: ...
    return tuple(p.name for p in parameters if p.default is p.empty)


def call_by_name(function: Callable[..., Any], known: Mapping[str, Any], *, what: str) -> Any:
    """Call a function with those of the known values that its arguments name.

    Args:
        function: The function.
        known: Values by name.
        what: What the function is, for the message.

    Returns:
        Its result.

    Raises:
        SettingsError: If it asks for a name that is not known.
    """
    names = argument_names(function)
    check_known(names, known, what=what)
    return function(**{name: known[name] for name in names})


def check_known(names: Iterable[str], known: Iterable[str], *, what: str) -> None:
    """Refuse names that are not known, with the nearest one."""
    allowed = tuple(known)
    for name in names:
        if name not in allowed:
            near = get_close_matches(name, allowed, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise SettingsError(
                f"{what}: argument {name!r} is unknown, expected among {', '.join(allowed)}{hint}"
            )


def point_values(what: str, given: Any, count: int) -> Float[Tensor, " n"]:
    """Bring what a function gave to one number per point.

    Args:
        what: What the function is, for the message.
        given: A number, or one per point.
        count: Number of points.

    Returns:
        Shape ``(n,)``, float64, with the graph of what was given.

    Raises:
        SettingsError: If these are no numbers.
        ShapeError: If there is neither one number nor one per point.
    """
    try:
        values = torch.as_tensor(given, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise SettingsError(
            f"{what}: gave {describe(given)}, expected a number or one per point"
        ) from error
    if values.ndim and values.shape != (count,):
        raise ShapeError(
            f"{what}: gave shape {tuple(values.shape)} for {count} points, expected one number per "
            f"point, shape ({count},), or one for all"
        )
    return values.expand(count)


def with_arguments(function: Callable[..., Any], names: tuple[str, ...]) -> Callable[..., Any]:
    """Name the arguments of a function that takes any number of them.

    Args:
        function: Takes ``*args``.
        names: One name per argument.

    Returns:
        A function that :func:`call_by_name` can call.
    """

    def call(**values: Any) -> Any:
        return function(*(values[name] for name in names))

    kind = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter(name, kind) for name in names]
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return call
