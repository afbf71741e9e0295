"""A handle on an object that lives on a worker."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from solvers.parallel._failure import Forgotten, WorkerLostError
from solvers.parallel._pending import Pending

if TYPE_CHECKING:
    from solvers.parallel._executor import Executor

__all__ = ["Actor"]


class Actor:
    """An object on a worker, as long as this handle lives; made by `Executor.spawn`.

    Calls run one after the other, in the order in which they are made.

    Attributes:
        worker: Number of the worker.
        restarts: How often the object was made anew because its worker had died.
    """

    def __init__(
        self,
        executor: Executor,
        worker: int,
        key: int,
        recipe: tuple[Callable[..., Any], Sequence[Any], Mapping[str, Any]],
        is_replayable: bool,
    ):
        self.worker = worker
        self.restarts = 0
        self._executor = executor
        self._key = key
        self._recipe = recipe
        self._is_replayable = is_replayable
        self._created = executor._post(worker, "create", key, *recipe)
        weakref.finalize(self, executor._released.append, (worker, key)).atexit = False

    def call(self, method: str, /, *args: Any, **kwargs: Any) -> Pending[Any]:
        """Call a method of the object.

        Args:
            method: Name of the method.
            *args: Its arguments; `Shared` ones are replaced by their values.
            **kwargs: Arguments by name.

        Returns:
            The result to come. It raises `WorkerLostError` if the worker died and the object is not
            replayable; the next call then finds a new object, made as the first one was.
        """
        return _Call(self, (method, args, kwargs))

    def _post(self, call: tuple[str, Sequence[Any], Mapping[str, Any]]) -> Pending[Any]:
        return self._executor._post(self.worker, "call", self._key, *call)

    def _restore(self) -> None:
        """Make the object anew on the worker's successor; once for all calls that were lost."""
        self.restarts += 1
        self._created = self._executor._post(self.worker, "create", self._key, *self._recipe)
        self._created.result()


class _Call(Pending[Any]):
    """A call that notices that its object is gone."""

    def __init__(self, actor: Actor, call: tuple[str, Sequence[Any], Mapping[str, Any]]):
        self._actor = actor
        self._call = call
        self._made_for = actor.restarts
        self._creation = actor._created
        self._sent = actor._post(call)

    def result(self) -> Any:
        try:
            return self._sent.result()
        except Forgotten as error:
            actor = self._actor
            # An object that could not be made says why.
            self._creation.result()
            if actor.restarts == self._made_for:
                actor._restore()
            if not actor._is_replayable:
                raise WorkerLostError(
                    f"worker {actor.worker} died during {self._call[0]!r} and the state of its "
                    "object is lost; a new object is in its place"
                ) from error
            self._made_for = actor.restarts
            self._creation = actor._created
            self._sent = actor._post(self._call)
            return self.result()

    @property
    def is_done(self) -> bool:
        return self._sent.is_done
