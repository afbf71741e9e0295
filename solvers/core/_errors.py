"""The errors and warnings of the toolkit.

Every error derives from :class:`PhysimError` and from the built-in exception a Python user would
expect, so both ``except PhysimError`` and ``except ValueError`` work. A message says what was
got, what was expected and what to try. The message is always the only positional argument:
exceptions then survive pickling, hence process borders.
"""

from __future__ import annotations

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
    "SettingsError",
    "ShapeError",
    "UnitError",
]


class PhysimError(Exception):
    """Base of every error that physim raises on purpose."""


class ShapeError(PhysimError, ValueError):
    """An array has the wrong number of axes or sizes that do not fit together."""


class SettingsError(PhysimError, ValueError):
    """A setting is outside the values it may take."""


class UnitError(PhysimError, ValueError):
    """A quantity has the wrong unit, or a magnitude that only a wrong unit explains."""


class ModelError(PhysimError, ValueError):
    """A model description is broken or cannot be honoured.

    Args:
        message: What is wrong and what to try.
        element: Name of the body, joint, shape, actuator or XML element at fault; empty if it is
            the whole model.
    """

    def __init__(self, message: str = "", *, element: str = "") -> None:
        super().__init__(message)
        self.element = element

    def __str__(self) -> str:
        message = super().__str__()
        if self.element and self.element not in message:
            return f"{self.element}: {message}"
        return message


class NotConvergedError(PhysimError, RuntimeError):
    """A solve ended without meeting its tolerance.

    Args:
        message: Which items, with which status, and what to try.
        solution: The best iterate with its report, so that nothing computed is lost.
    """

    def __init__(self, message: str = "", *, solution: object = None) -> None:
        super().__init__(message)
        self.solution = solution


class InfeasibleError(NotConvergedError):
    """A problem has no solution: constraints contradict, or the objective falls forever."""


class NonFiniteError(PhysimError, ArithmeticError):
    """A tensor holds NaN or infinity.

    Args:
        message: Which tensor, where, and what to try.
        name: Name of the first bad tensor.
        index: Index of its first bad entry; the leading number is the batch item.
        step: Step of the loop in which it appeared, if there is one.
        solution: The last solution that was finite, if there is one.
    """

    def __init__(
        self,
        message: str = "",
        *,
        name: str = "",
        index: tuple[int, ...] | None = None,
        step: int | None = None,
        solution: object = None,
    ) -> None:
        super().__init__(message)
        self.name = name
        self.index = index
        self.step = step
        self.solution = solution


class CheckpointError(PhysimError, RuntimeError):
    """A checkpoint file is damaged, of another kind, or written by a newer version."""


class MissingExtraError(PhysimError, ImportError):
    """An optional package is not installed.

    Args:
        message: Which package, for what, and the command that installs it.
        module: The module that could not be imported.
        extra: The extra of the distribution that contains it.
    """

    def __init__(self, message: str = "", *, module: str = "", extra: str = "") -> None:
        super().__init__(message)
        self.module = module
        self.extra = extra


class PhysimWarning(UserWarning):
    """Base of every warning that physim gives."""


class NumericalWarning(PhysimWarning):
    """A number is less accurate than asked for."""


class PerformanceWarning(PhysimWarning):
    """The same result is to be had faster in another way."""
