"""What goes wrong on workers: a call that raises, and a worker that dies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from solvers.core import PhysimError

__all__ = ["Forgotten", "TaskError", "WorkerLostError"]


class TaskError(PhysimError, RuntimeError):
    """A call on a worker raised; the error itself is the ``__cause__``.

    Args:
        message: Which item, and what it raised.
        item: Number of the item.
    """

    def __init__(self, message: str = "", *, item: int | None = None) -> None:
        super().__init__(message)
        self.item = item

    @classmethod
    def of_item(
        cls, function: Callable[..., Any], item: int, count: int, error: BaseException
    ) -> TaskError:
        """Name the item of a map that failed.

        Args:
            function: What was called.
            item: Number of the item.
            count: How many items there are.
            error: What was raised.
        """
        name = getattr(function, "__qualname__", type(function).__name__)
        return cls(
            f"item {item} of {count}: {name} raised {type(error).__name__}: {error}; "
            "run this item alone to look closer",
            item=item,
        )


class WorkerLostError(PhysimError, RuntimeError):
    """A worker died (killed, out of memory, crashed) and what it held is gone."""


class Forgotten(Exception):
    """A worker does not know an actor: it is the successor of one that died."""
