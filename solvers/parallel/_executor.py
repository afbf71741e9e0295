"""What an executor is: workers that run calls, keep actors and share values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from solvers.core import SettingsError
from solvers.parallel._actor import Actor
from solvers.parallel._failure import TaskError
from solvers.parallel._pending import Pending, Shared

__all__ = ["Executor"]

P = ParamSpec("P")
T = TypeVar("T")

_AHEAD = 2


class Executor(ABC):
    """Workers that run Python calls; a context manager that ends them.

    All executors give the same results: they differ in where the calls run. A call that is not
    bound to an actor must be repeatable, because a worker that dies is replaced and does the lost
    calls again.

    Args:
        workers: Number of workers.

    Attributes:
        expired: Keys of what calls left on the workers and nobody can ask for any more.

    Raises:
        SettingsError: If there is no worker.
    """

    def __init__(self, workers: int):
        if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
            raise SettingsError(f"workers: got {workers!r}, expected a whole number from 1")
        self.workers = workers
        self._loads: list[list[Pending[Any]]] = [[] for _ in range(workers)]
        self._residents: dict[Callable[..., Any], list[Actor]] = {}
        self._spawned = 0
        self._is_closed = False
        self.expired: deque[str] = deque()
        self._released: deque[tuple[int, int]] = deque()

    @abstractmethod
    def _send(self, worker: int, method: str, *arguments: Any) -> Pending[Any]:
        """Call a method of the `Host` of a worker."""

    @abstractmethod
    def _wait_any(self, pending: list[Pending[Any]]) -> None:
        """Wait until one of several results is there."""

    @abstractmethod
    def _end(self) -> None:
        """End the workers."""

    @abstractmethod
    def share(self, value: T) -> Shared[T]:
        """Send a value to the workers once, to be an argument of many calls.

        Args:
            value: What the calls receive; nobody may change it afterwards.

        Returns:
            A handle to give as a positional or keyword argument.
        """

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Pending[T]:
        """Run a function on the worker with least to do.

        Args:
            function: Any function; with processes one that can be pickled, closures included.
            *args: Its arguments. `Shared` ones are replaced by their values.
            **kwargs: Its arguments by name.

        Returns:
            The result to come.
        """
        return self._assign(function, args, kwargs)

    def map(self, function: Callable[..., T], /, *columns: Iterable[Any]) -> list[T]:
        """Run a function on every item, as the built-in ``map`` does.

        Workers take the next item when they are free. The function travels once.

        Args:
            function: Called with one entry of every column.
            *columns: Items; with several columns they must have the same length.

        Returns:
            Results in the order of the items.

        Raises:
            TaskError: If a call raised, with the number of the item.

        Example:
            >>> from solvers.parallel import SerialExecutor
            >>> with SerialExecutor() as executor:
            ...     executor.map(pow, [2, 3], [5, 2])
            [32, 9]
        """
        self._check_open()
        rows = list(zip(*columns, strict=True))
        called = self.share(function)
        results: list[Any] = [None] * len(rows)
        waiting: dict[int, Pending[T]] = {}
        for item, row in enumerate(rows):
            while len(waiting) >= _AHEAD * self.workers:
                self._collect(function, waiting, results)
            waiting[item] = self._assign(called, row, {})
        while waiting:
            self._collect(function, waiting, results)
        return results

    def spawn(
        self,
        factory: Callable[..., Any],
        /,
        *args: Any,
        worker: int | None = None,
        is_replayable: bool = False,
        **kwargs: Any,
    ) -> Actor:
        """Make an object that stays on one worker and keeps its state there.

        Args:
            factory: A class or function that makes the object.
            *args: Its arguments.
            worker: Number of the worker; by default they take turns.
            is_replayable: Whether its methods may be called again on a new object after the worker
                died. If not, such a call raises `WorkerLostError` and the owner restores the state.
            **kwargs: Arguments by name.

        Returns:
            The handle of the object.
        """
        home = self._spawned % self.workers if worker is None else worker
        if not 0 <= home < self.workers:
            raise SettingsError(f"worker: got {worker}, expected 0 to {self.workers - 1}")
        self._spawned += 1
        return Actor(self, home, self._spawned, (factory, args, kwargs), is_replayable)

    def residents(self, factory: Callable[[], Any]) -> list[Actor]:
        """One object of a kind on every worker, made at first use; its methods may be repeated.

        Args:
            factory: A class or function without arguments.
        """
        if factory not in self._residents:
            self._residents[factory] = [
                self.spawn(factory, worker=worker, is_replayable=True)
                for worker in range(self.workers)
            ]
        return self._residents[factory]

    def take_expired(self) -> list[str]:
        """Empty `expired`."""
        taken = []
        while self.expired:
            taken.append(self.expired.popleft())
        return taken

    def close(self) -> None:
        """End the workers; what they have not begun is dropped. May be called again."""
        if not self._is_closed:
            self._is_closed = True
            self._residents.clear()
            self._end()

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Copies of what uses an executor share its workers."""
        return self

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise SettingsError(
            f"{type(self).__name__}: an executor does not travel to its workers, where it would "
            "wait for itself; make another one inside of the call"
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def is_closed(self) -> bool:
        """Whether its workers have ended."""
        return self._is_closed

    def _check_open(self) -> None:
        if self._is_closed:
            raise SettingsError(f"{type(self).__name__} is closed; make a new one")

    def _post(self, worker: int, method: str, *arguments: Any) -> Pending[Any]:
        self._check_open()
        # Handles end at any moment, in the middle of a message too; so their objects go here.
        while self._released:
            home, key = self._released.popleft()
            self._send(home, "drop", key)
        return self._send(worker, method, *arguments)

    def _assign(self, *call: Any) -> Pending[Any]:
        """Give a call to the worker with the fewest unfinished ones."""
        self._check_open()
        for worker, load in enumerate(self._loads):
            self._loads[worker] = [pending for pending in load if not pending.is_done]
        worker = min(range(self.workers), key=lambda number: len(self._loads[number]))
        pending = self._post(worker, "run", *call)
        self._loads[worker].append(pending)
        return pending

    def _collect(
        self, function: Callable[..., Any], waiting: dict[int, Pending[Any]], results: list[Any]
    ) -> None:
        """Take what is done, at least one."""
        self._wait_any(list(waiting.values()))
        for item, pending in list(waiting.items()):
            if not pending.is_done:
                continue
            del waiting[item]
            try:
                results[item] = pending.result()
            except Exception as error:
                raise TaskError.of_item(function, item, len(results), error) from error
