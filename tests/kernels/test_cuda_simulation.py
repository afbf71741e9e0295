"""Kernels of whole simulations for CUDA.

The launches of a simulation in contact and of its gradient are recorded on the CPU, one item a
block. Each is then compiled for GPUs, and replayed: with the text for CUDA compiled for the host,
which must leave the same bits, and on a GPU where there is one.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import pytest
import torch

import physim
from solvers.kernels import Kernel, build, build_kernel, compile_cuda, cuda_architectures

LOCAL_MEMORY_LIMIT = 512 * 1024
"""Bytes that CUDA grants a thread, for every compute capability since 2.0."""


class Launch(NamedTuple):
    """One launch: what it got and what it left."""

    kernel: Kernel
    blocks: int
    before: list[Any]
    after: list[Any]


@pytest.fixture
def launches(robot: str, monkeypatch: pytest.MonkeyPatch) -> list[Launch]:
    """The last launch of each kernel that steps of a robot and their gradient use."""
    recorded: dict[int, Launch] = {}
    ordinary = Kernel.launch_threads

    def launch(kernel: Kernel, blocks: int, threads: int, *values: Any, **options: Any) -> None:
        before = copy.deepcopy(list(values))
        ordinary(kernel, blocks, threads, *values, **options)
        recorded[id(kernel)] = Launch(kernel, blocks, before, copy.deepcopy(list(values)))

    with monkeypatch.context() as patch:
        patch.setenv("PHYSIM_LANES", "1")
        patch.setattr(build, "_built", {})
        patch.setattr(Kernel, "launch_threads", launch)
        simulate(robot)
    return list(recorded.values())


def simulate(robot: str) -> None:
    file = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / f"{robot}.xml"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = physim.load_model(file)
    simulator = physim.Simulator(model, timestep=0.01)
    controls = torch.from_numpy(np.random.default_rng(5).uniform(-1, 1, (20, 16, model.nu)))
    trajectory = simulator.rollout(simulator.initial_state(batch=16), controls.requires_grad_())
    trajectory.q[-1].square().sum().backward()


def replay(launch: Launch, kernel: Kernel, device: str = "cpu") -> list[Any]:
    """What another kernel leaves of the arguments of a launch."""
    values = [x.to(device, copy=True) if isinstance(x, torch.Tensor) else x for x in launch.before]
    kernel(launch.blocks, *values)
    return [x.cpu() if isinstance(x, torch.Tensor) else x for x in values]


@pytest.mark.skipif(
    not {80, 90} <= set(cuda_architectures()), reason="warp-lang here has no CUDA compiler"
)
@pytest.mark.parametrize(
    ("robot", "architecture"),
    [
        ("hopper", 90),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (("hopper", 80), ("ant", 80), ("ant", 90))
        ),
    ],
)
def test_simulations_compile(launches: list[Launch], architecture: int) -> None:
    assert len(launches) >= 2  # the step and its adjoint
    for kernel in (launch.kernel for launch in launches):
        binary = compile_cuda(kernel.name, kernel.body, kernel.arguments, architecture=architecture)
        print(binary)
        assert binary.local_bytes < LOCAL_MEMORY_LIMIT


@pytest.mark.parametrize("robot", ["hopper", pytest.param("ant", marks=pytest.mark.slow)])
def test_simulations_mean_the_same(
    launches: list[Launch], device_text: Callable[..., Kernel]
) -> None:
    assert len(launches) >= 2
    for launch in launches:
        twin = device_text(launch.kernel.body, launch.kernel.arguments)
        left = replay(launch, twin)
        for (name, _), ours, theirs in zip(twin.arguments, left, launch.after, strict=True):
            np.testing.assert_array_equal(ours, theirs, err_msg=name)


@pytest.mark.gpu
@pytest.mark.parametrize("robot", ["hopper", "ant"])
def test_simulations_run_on_a_gpu(launches: list[Launch], gpu: str) -> None:
    for launch in launches:
        kernel = launch.kernel
        on_gpu = build_kernel(kernel.name, kernel.body, kernel.arguments, lanes=1, device="cuda")
        left = replay(launch, on_gpu, gpu)
        for (name, _), ours, theirs in zip(kernel.arguments, left, launch.after, strict=True):
            # a residual next to its tolerance may take another iteration after other roundings
            is_close = np.isclose(ours, theirs, rtol=1e-6, atol=1e-7, equal_nan=True)
            assert is_close.mean() > 0.95, name
