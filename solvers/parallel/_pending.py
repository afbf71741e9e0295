"""What stands for a value elsewhere: a result to come, and a value sent ahead."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

__all__ = ["Pending", "Shared"]

T_co = TypeVar("T_co", covariant=True)


class Pending(ABC, Generic[T_co]):
    """A result that may not be there yet."""

    @abstractmethod
    def result(self) -> T_co:
        """Wait for the result.

        Raises:
            WorkerLostError: If the worker died, also when the call was repeated.
            Exception: What the call raised.
        """

    @property
    @abstractmethod
    def is_done(self) -> bool:
        """Whether `result` would not wait."""


class Shared(ABC, Generic[T_co]):
    """A value that went to the workers once.

    Give it as an argument of a call; the function receives the value. Nobody may change it.
    """

    key: object = None
    """What tells values apart that are costly to fetch; None where `value` costs nothing."""

    @abstractmethod
    def value(self) -> T_co:
        """The value, where it is needed."""
