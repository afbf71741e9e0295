"""Workers that are threads of this process."""

from __future__ import annotations

import queue
import threading
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, TypeVar

import torch

from solvers.core import SettingsError, check_positive
from solvers.parallel._executor import Executor
from solvers.parallel._host import Host
from solvers.parallel._pending import Pending, Shared
from solvers.parallel._serial import Held

__all__ = ["ThreadExecutor"]

T = TypeVar("T")
_Item = tuple["Future[Any]", str, tuple[Any, ...]]


class ThreadExecutor(Executor):
    """Run calls in threads; nothing is copied.

    Python runs one thread at a time except inside compiled calls. Threads therefore pay where the
    time goes to large tensors, compiled solves or a graphics card, not to many small operations.

    Args:
        workers: Number of threads.
        threads: Threads that torch may use inside each of them.

    Raises:
        SettingsError: If a number is not positive, or a worker gives its own executor a call.

    Example:
        >>> with ThreadExecutor(2) as executor:
        ...     executor.map(abs, [-1, 2, -3])
        [1, 2, 3]
    """

    def __init__(self, workers: int = 2, *, threads: int = 1):
        super().__init__(workers)
        check_positive("threads", threads)
        before = torch.get_num_threads()
        self._queues: list[queue.SimpleQueue[_Item | None]] = [
            queue.SimpleQueue() for _ in range(workers)
        ]
        ready = threading.Barrier(workers + 1)
        self._threads = [
            # A thread that hangs in a call must not keep the interpreter from ending.
            threading.Thread(target=_serve, args=(line, threads, ready), daemon=True)
            for line in self._queues
        ]
        for thread in self._threads:
            thread.start()
        ready.wait()
        # A thread sets its own number and the one that later threads start with.
        torch.set_num_threads(before)

    def share(self, value: T) -> Shared[T]:
        """Keep the value as it is."""
        return Held(value)

    def _send(self, worker: int, method: str, *arguments: Any) -> Pending[Any]:
        if threading.current_thread() in self._threads:
            raise SettingsError(
                "ThreadExecutor: a worker gave its own executor a call, which would wait for "
                "itself; use another executor inside of calls"
            )
        future: Future[Any] = Future()
        self._queues[worker].put((future, method, arguments))
        return _Promised(future)

    def _wait_any(self, pending: list[Pending[Any]]) -> None:
        futures = [one.future for one in pending if isinstance(one, _Promised)]
        wait(futures, return_when=FIRST_COMPLETED)

    def _end(self) -> None:
        for line in self._queues:
            while not line.empty():
                dropped = line.get()
                if dropped is not None:
                    dropped[0].cancel()
            line.put(None)
        for thread in self._threads:
            thread.join()


class _Promised(Pending[Any]):
    def __init__(self, future: Future[Any]):
        self.future = future

    def result(self) -> Any:
        return self.future.result()

    @property
    def is_done(self) -> bool:
        return self.future.done()


def _serve(line: queue.SimpleQueue[_Item | None], threads: int, ready: threading.Barrier) -> None:
    # The first question of a thread makes it forget what was set before.
    torch.get_num_threads()
    torch.set_num_threads(threads)
    host = Host()
    ready.wait()
    while (item := line.get()) is not None:
        future, method, arguments = item
        if not future.set_running_or_notify_cancel():
            continue
        try:
            future.set_result(getattr(host, method)(*arguments))
        except BaseException as error:
            future.set_exception(error)
        del item, future, arguments
