"""Public names of a package, loaded at first use.

``import physim`` and ``physim --help`` must not wait for torch. A package therefore lists where
its public names live and this module gives it the two hooks of :pep:`562` which fetch them when
they are asked for.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping

__all__ = ["lazy_exports"]


def lazy_exports(
    package: str, sources: Mapping[str, str]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Make the ``__getattr__`` and ``__dir__`` of a package whose names load at first use.

    Place the call under ``if not TYPE_CHECKING`` and real imports in the other branch, so that
    type checkers and editors see the true types and still report misspelled names.

    Args:
        package: The package's ``__name__``.
        sources: Public name to the module that defines it.

    Returns:
        The two functions to bind to ``__getattr__`` and ``__dir__``. The first raises
        ``AttributeError`` for a name that is not listed.

    Example:
        >>> getter, lister = lazy_exports("solvers.core", {"Status": "solvers.core"})
        >>> getter("Status").__name__
        'Status'
    """

    def load(name: str) -> object:
        try:
            source = sources[name]
        except KeyError:
            # With name and obj Python itself suggests the nearest public name.
            raise AttributeError(
                f"module {package!r} has no attribute {name!r}",
                name=name,
                obj=sys.modules.get(package),
            ) from None
        value: object = getattr(importlib.import_module(source), name)
        # Bound in the package so that the next access is an ordinary attribute look-up.
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *sources})

    return load, names
