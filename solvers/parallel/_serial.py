"""Everything in the calling thread, at once."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from solvers.parallel._executor import Executor
from solvers.parallel._host import Host
from solvers.parallel._pending import Pending, Shared

__all__ = ["Held", "SerialExecutor"]

T = TypeVar("T")


class SerialExecutor(Executor):
    """Run every call where it is made; the default of what takes an executor.

    The order of events is that of the program, so this is the executor to debug with.

    Args:
        workers: How many workers to play; the number of parts that domain decomposition makes.

    Example:
        >>> with SerialExecutor() as executor:
        ...     executor.submit(divmod, 7, 2).result()
        (3, 1)
    """

    def __init__(self, workers: int = 1):
        super().__init__(workers)
        self._hosts = [Host() for _ in range(workers)]

    def __reduce__(self) -> tuple[type[SerialExecutor], tuple[int]]:
        """It has nobody to wait for, so it works wherever it gets; what workers keep stays."""
        return SerialExecutor, (self.workers,)

    def share(self, value: T) -> Shared[T]:
        """Keep the value as it is."""
        return Held(value)

    def _send(self, worker: int, method: str, *arguments: Any) -> Pending[Any]:
        try:
            return _Done(getattr(self._hosts[worker], method)(*arguments), None)
        except Exception as error:
            return _Done(None, error)

    def _wait_any(self, pending: list[Pending[Any]]) -> None:
        pass

    def _end(self) -> None:
        self._hosts.clear()


class Held(Shared[T]):
    """A value of the same process.

    Args:
        value: The value.
    """

    def __init__(self, value: T):
        self._value = value

    def value(self) -> T:
        """The value."""
        return self._value


class _Done(Pending[T], Generic[T]):
    def __init__(self, outcome: T, error: Exception | None):
        self._outcome = outcome
        self._error = error

    def result(self) -> T:
        if self._error is not None:
            raise self._error
        return self._outcome

    @property
    def is_done(self) -> bool:
        return True
