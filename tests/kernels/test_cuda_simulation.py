"""Kernels of whole simulations for CUDA.

The launches of a simulation in contact and of its gradient are recorded on the CPU, one item a
block. Each is then compiled for GPUs, and replayed: with the text for CUDA compiled for the host,
which must leave the same bits, and on a GPU where there is one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from solvers.kernels import Kernel, build_kernel, compile_cuda, cuda_architectures

LOCAL_MEMORY_LIMIT = 512 * 1024
"""Bytes that CUDA grants a thread, for every compute capability since 2.0."""


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
def test_simulations_compile(launches: list[Any], architecture: int) -> None:
    assert len(launches) >= 2  # the step and its adjoint
    for kernel in (launch.kernel for launch in launches):
        binary = compile_cuda(
            kernel.name,
            kernel.body,
            kernel.arguments,
            architecture=architecture,
            parts=kernel.parts,
        )
        print(binary)
        assert binary.local_bytes < LOCAL_MEMORY_LIMIT


@pytest.mark.parametrize("robot", ["hopper", pytest.param("ant", marks=pytest.mark.slow)])
def test_simulations_mean_the_same(launches: list[Any], device_text: Callable[..., Kernel]) -> None:
    assert len(launches) >= 2
    for launch in launches:
        twin = device_text(launch.kernel.body, launch.kernel.arguments, launch.kernel.parts)
        left = launch.replay(twin)
        for (name, _), ours, theirs in zip(twin.arguments, left, launch.after, strict=True):
            np.testing.assert_array_equal(ours, theirs, err_msg=name)


@pytest.mark.gpu
@pytest.mark.parametrize("robot", ["hopper", "ant"])
def test_simulations_run_on_a_gpu(launches: list[Any], gpu: str) -> None:
    for launch in launches:
        kernel = launch.kernel
        on_gpu = build_kernel(
            kernel.name, kernel.body, kernel.arguments, lanes=1, device="cuda", parts=kernel.parts
        )
        left = launch.replay(on_gpu, gpu)
        for (name, _), ours, theirs in zip(kernel.arguments, left, launch.after, strict=True):
            # a residual next to its tolerance may take another iteration after other roundings
            is_close = np.isclose(ours, theirs, rtol=1e-6, atol=1e-7, equal_nan=True)
            assert is_close.mean() > 0.95, name
