"""Every executor runs the same calls with the same results and the same errors."""

from __future__ import annotations

import copy
import operator
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from solvers.core import MissingExtraError, SettingsError
from solvers.parallel import (
    Executor,
    RayExecutor,
    SerialExecutor,
    TaskError,
    ThreadExecutor,
    WorkerLostError,
)

ROOT = Path(__file__).resolve().parents[2]


class Counter:
    """State that lives on a worker."""

    def __init__(self, start: int = 0) -> None:
        self.count = start

    def add(self, amount: int = 1) -> int:
        self.count += amount
        return self.count

    def fail(self) -> None:
        raise KeyError("asked to")

    def die(self) -> None:
        os._exit(3)

    def process(self) -> int:
        return os.getpid()


def make_broken() -> Counter:
    raise OSError("no such device")


def test_calls_give_what_they_give_here(executor: Executor) -> None:
    assert executor.submit(divmod, 17, 5).result() == (3, 2)
    assert executor.submit(sorted, [2, 3, 1], reverse=True).result() == [3, 2, 1]
    offset = 10
    assert executor.submit(lambda x: x + offset, 1).result() == 11


@given(items=st.lists(st.integers(-50, 50), max_size=20), workers=st.integers(1, 4))
def test_map_is_the_map_of_the_language(items: list[int], workers: int) -> None:
    for kind in (SerialExecutor, ThreadExecutor):
        with kind(workers) as executor:
            assert executor.map(lambda x: x * x - 1, items) == [x * x - 1 for x in items]


def test_map_keeps_the_order_when_early_items_are_slow(executor: Executor) -> None:
    waits = [0.1, 0.0, 0.05, 0.0, 0.0]
    start = executor.map(lambda wait, number: (time.sleep(wait), number)[1], waits, range(5))
    assert start == list(range(5))


def test_columns_of_different_lengths_are_refused(executor: Executor) -> None:
    with pytest.raises(ValueError, match="shorter|longer"):
        executor.map(operator.add, [1, 2], [1])


def test_an_error_keeps_its_type_and_a_map_names_the_item(executor: Executor) -> None:
    with pytest.raises(ZeroDivisionError):
        executor.submit(operator.truediv, 1, 0).result()
    with pytest.raises(TaskError, match=r"item 2 of 4: truediv raised ZeroDivisionError") as caught:
        executor.map(operator.truediv, [1, 1, 1, 1], [1, 2, 0, 3])
    assert caught.value.item == 2
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    # And the workers go on.
    assert executor.map(abs, [-1, -2, -3]) == [1, 2, 3]


def test_tensors_arrive_as_they_were(executor: Executor) -> None:
    sent = {
        "float64": torch.linspace(0, 1, 7, dtype=torch.float64),
        "bool": torch.tensor([True, False]),
        "bfloat16": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
        "complex": torch.tensor([1 + 2j]).conj(),
        "strided": torch.arange(24.0).reshape(4, 6).T[::2],
        "scalar": torch.tensor(3),
        "empty": torch.zeros(0, 3),
        "array": np.arange(5.0),
    }
    back = executor.submit(lambda x: x, sent).result()
    for name, value in sent.items():
        assert back[name].dtype == value.dtype
        assert (np.asarray(back[name].tolist()) == np.asarray(value.tolist())).all(), name


def test_what_arrives_may_be_written_to(executor: Executor) -> None:
    # Larger than what travels inside of a message.
    big = torch.zeros(300_000, dtype=torch.float64)
    total = executor.submit(lambda x: float(x.clone().add_(1.0).sum()), big).result()
    assert total == big.numel()
    given_back = executor.submit(torch.ones, 300_000).result()
    given_back += 1.0
    assert float(given_back.sum()) == 2 * 300_000


def test_shared_values_arrive_in_any_place(executor: Executor) -> None:
    for size in (10, 300_000):
        shared = executor.share(torch.ones(size))
        results = executor.map(lambda x, k: float(x.sum()) * k, [shared] * 3, [1, 2, 3])
        assert results == [size, 2 * size, 3 * size]
        named = executor.submit(lambda *, x: float(x.sum()), x=shared).result()
        assert named == size


def test_an_actor_keeps_its_state_and_the_order_of_calls(executor: Executor) -> None:
    first, second = executor.spawn(Counter, 10), executor.spawn(Counter)
    sent = [first.call("add", step) for step in (1, 2, 3)]
    assert [pending.result() for pending in sent] == [11, 13, 16]
    assert second.call("add").result() == 1
    assert first.worker != second.worker
    with pytest.raises(KeyError, match="asked to"):
        first.call("fail").result()
    assert first.call("add", amount=0).result() == 16


def test_an_actor_that_cannot_be_made_says_why(executor: Executor) -> None:
    with pytest.raises(OSError, match="no such device"):
        executor.spawn(make_broken).call("add").result()


def test_an_object_goes_with_its_handle() -> None:
    with SerialExecutor() as executor:
        kept, gone = executor.spawn(Counter), executor.spawn(Counter)
        assert gone.call("add").result() == 1
        assert len(executor._hosts[0]._actors) == 2
        del gone
        assert kept.call("add").result() == 1
        assert len(executor._hosts[0]._actors) == 1


def test_residents_are_made_once(executor: Executor) -> None:
    ones = executor.residents(Counter)
    assert len(ones) == executor.workers
    before = [actor.call("add").result() for actor in ones]
    again = executor.residents(Counter)
    assert [actor.call("add").result() for actor in again] == [n + 1 for n in before]


def test_a_worker_out_of_range_is_refused(executor: Executor) -> None:
    with pytest.raises(SettingsError, match="expected 0 to 1"):
        executor.spawn(Counter, worker=2)


@pytest.mark.parametrize("kind", [SerialExecutor, ThreadExecutor, RayExecutor])
@pytest.mark.parametrize("workers", [0, -1, 1.5, True])
def test_bad_numbers_of_workers_are_refused(kind: type[Executor], workers: object) -> None:
    with pytest.raises(SettingsError, match="workers"):
        kind(workers)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [SerialExecutor, ThreadExecutor, RayExecutor])
def test_a_closed_executor_says_so(kind: type[Executor]) -> None:
    executor = kind(1)
    executor.close()
    executor.close()
    with pytest.raises(SettingsError, match="is closed"):
        executor.submit(abs, 1)
    with pytest.raises(SettingsError, match="is closed"):
        executor.map(abs, [1])
    with pytest.raises(SettingsError, match="is closed"):
        executor.map(abs, [])
    with pytest.raises(SettingsError, match="is closed"), executor:
        pass


def test_copies_share_an_executor_and_a_serial_one_travels() -> None:
    with ThreadExecutor(1) as executor:
        assert copy.copy(executor) is copy.deepcopy(executor) is executor
    again = pickle.loads(pickle.dumps(SerialExecutor(3)))
    assert again.workers == 3
    assert again.map(abs, [-1]) == [1]


@pytest.mark.parametrize("kind", [ThreadExecutor, RayExecutor])
def test_an_executor_does_not_travel(kind: type[Executor]) -> None:
    """On its own worker it would wait for itself without an end."""
    with kind(1) as executor, pytest.raises(SettingsError, match="make another one inside"):
        pickle.dumps(executor)


class Stubborn(Exception):
    """One that arrives nowhere: its arguments are not those that made it."""

    def __init__(self, what: str, where: int) -> None:
        super().__init__(what)


def be_stubborn(_: int) -> None:
    raise Stubborn("no way", 3)


@pytest.mark.slow
def test_what_cannot_travel_is_told_plainly(ray_executor: RayExecutor) -> None:
    lock = threading.Lock()
    with pytest.raises(SettingsError, match="an argument of a call cannot be sent to a process"):
        ray_executor.map(abs, [lock])
    with pytest.raises(SettingsError, match="a value of a call cannot be sent to a process"):
        ray_executor.map(lambda _: lock, [1])
    with pytest.raises(SettingsError, match="make another one inside"):
        ray_executor.map(lambda x: ray_executor.map(abs, [x]), [1])
    with pytest.raises(TaskError, match="raised RuntimeError: Stubborn: no way; run"):
        ray_executor.map(be_stubborn, [1])
    assert ray_executor.map(abs, [-1]) == [1]


def test_sharing_starts_no_workers_for_a_closed_executor() -> None:
    executor = RayExecutor(1)
    executor.close()
    with pytest.raises(SettingsError, match="is closed"):
        executor.share(torch.ones(3))


def test_threads_run_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=20)
    with ThreadExecutor(2) as executor:
        assert sorted(executor.map(lambda _: both.wait(), range(2))) == [0, 1]


def test_closing_drops_what_has_not_begun() -> None:
    gate = threading.Event()
    with ThreadExecutor(1) as executor:
        running = executor.submit(gate.wait, 20)
        waiting = executor.submit(abs, 1)
        while not executor._queues[0].qsize() == 1:
            time.sleep(0.001)
        gate.set()
    assert running.result()
    assert waiting.is_done


def test_threads_of_torch_are_those_of_the_worker() -> None:
    torch.set_num_threads(2)
    with ThreadExecutor(2, threads=1) as executor:
        assert executor.map(lambda _: torch.get_num_threads(), range(4)) == [1] * 4
    assert torch.get_num_threads() == 2


def test_a_worker_that_calls_its_own_executor_is_told() -> None:
    with ThreadExecutor(1) as executor, pytest.raises(SettingsError, match="wait for itself"):
        executor.submit(lambda: executor.submit(abs, -1).result()).result()


def test_a_missing_ray_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match="pip install ray"):
        RayExecutor(1).submit(abs, 1)


def test_ray_waits_for_the_first_call() -> None:
    script = (
        "import sys; from solvers.parallel import RayExecutor\n"
        "with RayExecutor(2): pass\n"
        "sys.exit('ray' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0


# Processes


@pytest.mark.slow
def test_nobody_else_can_reach_ray(ray_executor: RayExecutor) -> None:
    import ray

    assert len(set(ray_executor.processes)) == 2
    assert ray.util.get_node_ip_address() == "127.0.0.1"
    environment = ray_executor.submit(lambda: dict(os.environ)).result()
    assert environment["RAY_USAGE_STATS_ENABLED"] == "0"
    assert ray_executor.submit(torch.get_num_threads).result() == 1


@pytest.mark.slow
def test_a_second_executor_without_room_is_refused(ray_executor: RayExecutor) -> None:
    with pytest.raises(SettingsError, match="workers: 1 want 1 CPU and Ray has 0 free"):
        RayExecutor(workers=1).submit(abs, -1)
    assert ray_executor.submit(abs, -1).result() == 1


@pytest.mark.slow
def test_a_cluster_that_does_not_answer_is_named() -> None:
    script = (
        "from solvers.parallel import RayExecutor\n"
        "RayExecutor(2, address='127.0.0.1:1').submit(abs, 1)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, check=False, capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert "no Ray cluster answers at '127.0.0.1:1'" in done.stderr


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_its_call_repeated(ray_executor: RayExecutor) -> None:
    before = ray_executor.processes
    slow = [ray_executor.submit(lambda k: (time.sleep(1.5), k)[1], k) for k in range(2)]
    time.sleep(0.4)
    os.kill(before[0], signal.SIGKILL)
    assert [pending.result() for pending in slow] == [0, 1]
    after = ray_executor.processes
    assert before[0] not in after


@pytest.mark.slow
def test_lost_state_is_said_and_replayable_methods_go_on(ray_executor: RayExecutor) -> None:
    plain = ray_executor.spawn(Counter, 5, worker=0)
    again = ray_executor.spawn(Counter, 7, worker=0, is_replayable=True)
    assert plain.call("add").result() == 6
    assert again.call("add").result() == 8
    os.kill(ray_executor.processes[0], signal.SIGKILL)
    with pytest.raises(WorkerLostError, match="state of its object is lost"):
        plain.call("add").result()
    # New objects, made as the first ones were.
    assert plain.call("add").result() == 6
    assert again.call("add").result() == 8
    assert (plain.restarts, again.restarts) == (1, 1)


@pytest.mark.slow
def test_a_call_that_always_kills_its_worker_ends(ray_executor: RayExecutor) -> None:
    with pytest.raises(WorkerLostError, match="so did its successors"):
        ray_executor.submit(os._exit, 1).result()
    assert ray_executor.map(abs, [-1, -2, -3]) == [1, 2, 3]


@pytest.mark.slow
def test_room_is_waited_for_until_ray_has_counted_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    free = [{}, {}, {"CPU": 1.0}, {"CPU": 2.0}]
    total = [{}, {"CPU": 2.0}]
    monkeypatch.setattr(ray, "available_resources", lambda: free.pop(0) if free[1:] else free[0])
    monkeypatch.setattr(ray, "cluster_resources", lambda: total.pop(0) if total[1:] else total[0])
    RayExecutor(workers=2)._check_room()
    assert free == [{"CPU": 2.0}]


SCRIPT = """
import os, sys, time
from solvers.parallel import RayExecutor
with RayExecutor(workers=2) as executor:
    import ray
    print(*executor.processes, flush=True)
    pending = [executor.submit(time.sleep, 60) for _ in range(2)]
    if sys.argv[1] == "interrupt":
        print("waiting", flush=True)
        [one.result() for one in pending]
"""


def _marked(session: int) -> set[int]:
    """Processes that carry the mark of a test in their environment."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            if f"PARALLEL_TEST={session}".encode() in (entry / "environ").read_bytes():
                found.add(int(entry.name))
        except (OSError, ValueError):
            continue
    return found


def _parents() -> dict[tuple[int, str], int]:
    """Parent of every process, by its number and the time of its start."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            found[int(entry.name), fields[19]] = int(fields[1])
        except (OSError, ValueError, IndexError):
            continue
    return found


def _descendants(process: int) -> set[tuple[int, str]]:
    """Processes below one; Ray's workers overwrite the environment in which a mark would stand."""
    parents, family, size = _parents(), {process}, 0
    while len(family) > size:
        size = len(family)
        family |= {number for (number, _), parent in parents.items() if parent in family}
    return {key for key in parents if key[0] in family - {process}}


@pytest.mark.slow
@pytest.mark.parametrize("end", ["close", "interrupt"])
def test_no_process_is_left(end: str) -> None:
    mark = time.monotonic_ns()
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, end], cwd=ROOT, stdout=subprocess.PIPE, text=True,
        stderr=subprocess.DEVNULL, env={**os.environ, "PARALLEL_TEST": str(mark)},
    )  # fmt: skip
    assert process.stdout is not None
    workers = {int(word) for word in process.stdout.readline().split()}
    assert len(workers) == 2
    family = _descendants(process.pid)
    assert workers <= {number for number, _ in family}
    if end == "interrupt":
        assert process.stdout.readline().strip() == "waiting"
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
    code = process.wait(timeout=60)
    assert (code == 0) == (end == "close")
    deadline = time.monotonic() + 20
    while (_marked(mark) or family & set(_parents())) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _marked(mark)
    assert not family & set(_parents())
