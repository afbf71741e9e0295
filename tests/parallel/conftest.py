"""Executors to hold to the same laws."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from solvers.parallel import Executor, RayExecutor, SerialExecutor, ThreadExecutor


@pytest.fixture(scope="module")
def ray_executor() -> Iterator[RayExecutor]:
    """Two processes, started once; they end with the file, as tests elsewhere want Ray's CPUs."""
    with RayExecutor(workers=2) as executor:
        executor.start()
        yield executor


@pytest.fixture(
    params=["serial", "threads", pytest.param("ray", marks=pytest.mark.slow)],
)
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    """Each kind of executor, with two workers."""
    if request.param == "ray":
        yield request.getfixturevalue("ray_executor")
        return
    kind = SerialExecutor if request.param == "serial" else ThreadExecutor
    with kind(2) as made:
        yield made


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Sums over threads of torch round differently."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
