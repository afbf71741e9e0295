"""Workers that are processes, on this machine or on a cluster, through Ray."""

from __future__ import annotations

import itertools
import logging
import os
import pickle
import socket
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from solvers.core import MissingExtraError, SettingsError, check_positive
from solvers.parallel._executor import Executor
from solvers.parallel._failure import WorkerLostError
from solvers.parallel._host import Host
from solvers.parallel._pending import Pending, Shared
from solvers.parallel._wire import send_tensors_as_arrays

__all__ = ["RayExecutor"]

T = TypeVar("T")

_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
# Makes Ray take the loopback address for that of the machine, so that nobody else can reach it.
_SMALL = 500_000
_PATIENCE = 5.0
_RELEASE = 5.0
"""Time that Ray may take to count its nodes, or to give back what a closed executor held [s]."""
_LOCAL = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


class RayExecutor(Executor):
    """Run calls in processes, each with its own interpreter and its own threads of torch.

    Ray starts at the first call: on this machine, reachable from this machine only, without its
    dashboard and without reports of its use. With an address, or where Ray runs already, the
    executor joins it. Tensors travel as NumPy arrays; `share` puts a value into shared memory once.

    A worker that dies is replaced, and its lost calls are made again. Closing ends the workers, and
    Ray too if this executor started it; so does the end of the program, by Ctrl-C as well.

    Args:
        workers: Number of processes.
        threads: Threads of torch in each of them.
        address: Of a cluster to join, for example ``"auto"`` or ``"10.0.0.1:6379"``.
        retries: How often a call is made again when its worker died; then it raises
            `WorkerLostError`.
        gpus: Graphics cards of a worker, fractions allowed.

    Raises:
        SettingsError: If a number is out of range.
        MissingExtraError: At the first call, if Ray is not installed.

    Cost: seconds to start; then about a millisecond for a call, and a copy of its arrays.

    Example:
        >>> executor = RayExecutor(workers=2)   # nothing starts yet
        >>> executor.close()
    """

    def __init__(
        self,
        workers: int = 2,
        *,
        threads: int = 1,
        address: str | None = None,
        retries: int = 2,
        gpus: float = 0.0,
    ):
        super().__init__(workers)
        check_positive("threads", threads)
        check_positive("retries", retries, allow_zero=True)
        check_positive("gpus", gpus, allow_zero=True)
        self._threads = threads
        self._address = address
        self._retries = retries
        self._gpus = gpus
        self._hosts: list[Any] = []
        self._is_ours = False
        self._keys = itertools.count()
        self._outdated: deque[int] = deque()

    def start(self) -> None:
        """Start the workers now and wait for them; the first call would start them otherwise."""
        asked = [self._post(w, "run", os.getpid, (), {}) for w in range(self.workers)]
        for pending in asked:
            pending.result()

    @property
    def processes(self) -> list[int]:
        """Process id of every worker."""
        asked = [self._post(w, "run", os.getpid, (), {}) for w in range(self.workers)]
        return [pending.result() for pending in asked]

    def share(self, value: T) -> Shared[T]:
        """Put the value into shared memory; every worker fetches it once."""
        self._open()
        import ray

        small = _sending("a value", lambda: _pickle_small(value))
        if small is not None:
            return _Sent(small)
        while self._outdated:
            outdated = [self._outdated.popleft() for _ in range(len(self._outdated))]
            for worker in range(self.workers):
                self._post(worker, "expire", outdated)
        handle: _Put[T] = _Put(ray.put(value), next(self._keys))
        weakref.finalize(handle, self._outdated.append, handle.key).atexit = False
        return handle

    def _open(self) -> None:
        self._check_open()
        if self._hosts:
            return
        self._is_ours = _start_ray(self.workers, self._address)
        import ray

        self._check_room()

        remote = ray.remote(
            num_cpus=1, num_gpus=self._gpus, max_restarts=-1, max_task_retries=self._retries
        )(_ProcessHost)
        self._hosts = [remote.remote(self._threads) for _ in range(self.workers)]

    def _check_room(self) -> None:
        """Refuse what Ray would wait for without a word."""
        import ray

        deadline = time.monotonic() + _RELEASE
        for kind, wanted in (("CPU", float(self.workers)), ("GPU", self.workers * self._gpus)):
            free = ray.available_resources()
            while free.get(kind, 0.0) < wanted and time.monotonic() < deadline:
                total = ray.cluster_resources()
                if "CPU" in total and total.get(kind, 0.0) < wanted:
                    break
                time.sleep(0.05)
                free = ray.available_resources()
            if wanted > free.get(kind, 0.0):
                raise SettingsError(
                    f"workers: {self.workers} want {wanted:g} {kind} and Ray has "
                    f"{free.get(kind, 0.0):g} free; take fewer, close another executor, or join a "
                    "larger cluster with address="
                )

    def _send(self, worker: int, method: str, *arguments: Any) -> Pending[Any]:
        self._open()
        call = getattr(self._hosts[worker], method).remote
        return _Remote(_sending("an argument", lambda: call(*arguments)), worker)

    def _wait_any(self, pending: list[Pending[Any]]) -> None:
        import ray

        ray.wait([one.reference for one in pending if isinstance(one, _Remote)], num_returns=1)

    def _end(self) -> None:
        if not self._hosts:
            return
        import ray

        if ray.is_initialized():
            for host in self._hosts:
                ray.kill(host)
            if self._is_ours:
                ray.shutdown()
        self._hosts = []


class _ProcessHost(Host):
    """A host that has its process to itself."""

    def __init__(self, threads: int):
        super().__init__()
        torch.set_num_threads(threads)
        send_tensors_as_arrays()

    def run(self, *call: Any) -> Any:
        """Call a function; an error that cannot travel is told by one that can."""
        try:
            return super().run(*call)
        except Exception as error:
            if not _travels(error):
                raise RuntimeError(f"{type(error).__qualname__}: {error}") from error
            raise


class _Sent(Shared[T]):
    """A small value that travels with every call, as Ray would send its argument."""

    def __init__(self, pickled: tuple[bytes, list[bytes]]):
        self._pickled = pickled

    def value(self) -> T:
        from ray import cloudpickle

        head, buffers = self._pickled
        found: T = cloudpickle.loads(head, buffers=buffers)
        return found


class _Put(Shared[T]):
    """A value in shared memory."""

    def __init__(self, reference: Any, key: int):
        self._reference = reference
        self.key: int = key

    def value(self) -> T:
        import ray

        found: T = ray.get(self._reference)
        return found


class _Remote(Pending[Any]):
    def __init__(self, reference: Any, worker: int):
        self.reference = reference
        self._worker = worker

    def result(self) -> Any:
        import ray
        from ray.exceptions import ObjectLostError, RayActorError, RayTaskError

        try:
            return ray.get(self.reference)
        except RayTaskError as error:
            cause = error.cause
            raise (cause if isinstance(cause, Exception) else error) from error
        except (RayActorError, ObjectLostError) as error:
            raise WorkerLostError(
                f"worker {self._worker} died and so did its successors ({type(error).__name__}); "
                "look for a crash or for memory that ran out, or allow more with retries="
            ) from error

    @property
    def is_done(self) -> bool:
        import ray

        done, _ = ray.wait([self.reference], timeout=0)
        return bool(done)


def _sending(what: str, send: Callable[[], T]) -> T:
    """Send, and say it plainly where something in it stays here."""
    try:
        return send()
    except (AttributeError, TypeError, pickle.PicklingError) as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise SettingsError(
            f"RayExecutor: {what} of a call cannot be sent to a process ({reason}); make what it "
            "holds (locks, open files, generators) inside of the call, or use ThreadExecutor"
        ) from error


def _travels(error: Exception) -> bool:
    from ray import cloudpickle

    try:
        cloudpickle.loads(cloudpickle.dumps(error))
    except Exception:
        return False
    return True


def _pickle_small(value: Any) -> tuple[bytes, list[bytes]] | None:
    """Pickle a value that is so small that shared memory would only delay it."""
    from ray import cloudpickle

    buffers: list[Any] = []
    head: bytes = cloudpickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    raw = [buffer.raw() for buffer in buffers]
    if len(head) + sum(part.nbytes for part in raw) > _SMALL:
        return None
    return head, [bytes(part) for part in raw]


def _check_reachable(address: str) -> None:
    """Refuse at once what Ray would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return  # a word that Ray knows, such as "auto"
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()
    except OSError as error:
        raise ConnectionError(str(error)) from error


def _start_ray(workers: int, address: str | None) -> bool:
    """Start or join Ray; whether it was started here."""
    settings = _QUIET if address is not None else {**_QUIET, **_LOCAL}
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        import ray

        is_ours = not ray.is_initialized()
        if is_ours and address is not None:
            _check_reachable(address)
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        elif is_ours:
            ray.init(
                num_cpus=workers,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _system_config={"max_direct_call_object_size": 1_000_000},
            )
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "ray is not installed and RayExecutor needs it; run: pip install ray, or use "
            "SerialExecutor or ThreadExecutor",
            module="ray",
        ) from error
    except ConnectionError as error:
        raise SettingsError(
            f"address: no Ray cluster answers at {address!r} ({error}); start one with "
            "'ray start --head', or leave the address out to start Ray on this machine"
        ) from error
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    send_tensors_as_arrays()
    return is_ours
