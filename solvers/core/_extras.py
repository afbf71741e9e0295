"""Optional packages: imported at first use, with a helpful error if they are absent."""

from __future__ import annotations

import importlib
from types import ModuleType

from solvers.core._errors import MissingExtraError

__all__ = ["require_extra"]


def require_extra(module: str, extra: str) -> ModuleType:
    """Import an optional module or say which command installs it.

    Args:
        module: Dotted name of the module, for example ``"matplotlib.pyplot"``.
        extra: The extra of the distribution ``physim`` that brings it, for example ``"viz"``.

    Returns:
        The imported module.

    Raises:
        MissingExtraError: If the package that holds ``module`` is not installed. An import that
            fails inside an installed package (a broken installation) is passed on unchanged,
            because installing again is no cure.

    Example:
        >>> require_extra("math", "viz").pi > 3
        True
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing != module and not module.startswith(f"{missing}."):
            raise
        raise MissingExtraError(
            f"{module} is not installed and this function needs it. It comes with the extra "
            f'{extra!r}; run: pip install "physim[{extra}]"',
            module=module,
            extra=extra,
        ) from error
