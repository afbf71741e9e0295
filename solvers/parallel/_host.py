"""What lives on a worker: the actors it keeps and the shared values it has fetched."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from solvers.parallel._failure import Forgotten
from solvers.parallel._pending import Shared

__all__ = ["Host"]


class Host:
    """Runs calls for an executor, in the order in which they come."""

    def __init__(self) -> None:
        self._actors: dict[int, Any] = {}
        self._fetched: dict[object, Any] = {}

    def run(
        self,
        function: Callable[..., Any] | Shared[Callable[..., Any]],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> Any:
        """Call a function."""
        called = self._fetch(function)
        named = {name: self._fetch(value) for name, value in kwargs.items()}
        return called(*map(self._fetch, args), **named)

    def create(
        self,
        key: int,
        factory: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> None:
        """Make an actor, or make it anew."""
        self._actors[key] = self.run(factory, args, kwargs)

    def call(self, key: int, method: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call a method of an actor.

        Raises:
            Forgotten: If there is no such actor.
        """
        if key not in self._actors:
            raise Forgotten
        return self.run(getattr(self._actors[key], method), args, kwargs)

    def drop(self, key: int) -> None:
        """Let an actor go."""
        self._actors.pop(key, None)

    def expire(self, keys: Sequence[object]) -> None:
        """Let shared values go that no caller holds any more."""
        for key in keys:
            self._fetched.pop(key, None)

    def _fetch(self, value: Any) -> Any:
        """Replace a shared value by itself, fetched once."""
        if not isinstance(value, Shared):
            return value
        if value.key is None:
            return value.value()
        if value.key not in self._fetched:
            self._fetched[value.key] = value.value()
        return self._fetched[value.key]
