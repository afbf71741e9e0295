"""CUDA through Warp: a native text compiled by NVRTC, one block of the body a thread.

NVRTC comes inside Warp, so that a binary for any architecture can be made without a GPU, a driver
or a toolkit.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import torch

from solvers.kernels._warp import captured_standard_error, define_kernel, import_warp, quiet

__all__ = ["DeviceFunction", "architectures", "compile_binary", "load_function"]

DeviceFunction = Callable[[torch.device, Sequence[Any]], None]
"""Puts the compiled text on a device's current stream, with the values of its parameters."""

# one warp a block, so that a small batch reaches many multiprocessors; 8 of them hold the registers
# of a multiprocessor when the body is large
BLOCK_THREADS: Final = 32

THREAD_BLOCKS = """\
import warp as wp

@wp.func_native(SNIPPET)
def {key}_body({parameters}): ...

@wp.kernel(module="unique", enable_backward=False, module_options=OPTIONS)
def {key}({parameters}):
    block = first_block + wp.tid()
    {key}_body({own}block, block + 1)
"""
"""Kernel that runs one block a thread; Warp stops threads beyond the number asked for."""


@lru_cache(maxsize=1)
def architectures() -> tuple[int, ...]:
    """Compute capabilities for which this Warp can compile, 90 for 9.0; empty without NVRTC."""
    # where there is no driver, Warp says so when it starts
    with captured_standard_error():
        warp = import_warp()
        return tuple(warp.get_cuda_supported_archs())


def compile_binary(
    key: str, snippet: str, parameters: Sequence[tuple[str, str]], architecture: int
) -> bytes:
    """Compile a native text to the machine code of one architecture, a cubin.

    Args:
        key: Identifier that names the kernel.
        snippet: C++ statements that see the parameters as local variables.
        parameters: Pairs of a name and its type, the range of blocks last.
        architecture: One of `architectures`.

    Raises:
        Exception: Whatever Warp raises when the compiler refuses the text.
    """
    warp = import_warp()
    kernel = define_kernel(THREAD_BLOCKS, key, snippet, parameters)
    with tempfile.TemporaryDirectory() as folder, quiet(warp):
        warp.compile_aot_module(kernel.module, arch=architecture, module_dir=folder, use_ptx=False)
        (path,) = Path(folder).glob("*.cubin")
        return path.read_bytes()


def load_function(
    key: str, snippet: str, parameters: Sequence[tuple[str, str]], device: torch.device
) -> DeviceFunction:
    """Compile a native text for a device, or load it from Warp's cache on disk.

    Another device compiles or loads it at its first call.

    Args:
        key: Identifier that names the kernel.
        snippet: C++ statements that see the parameters as local variables.
        parameters: Pairs of a name and its type, the range of blocks last.
        device: A CUDA device.

    Raises:
        Exception: Whatever Warp raises when the compiler refuses the text.
    """
    warp = import_warp()
    kernel = define_kernel(THREAD_BLOCKS, key, snippet, parameters)
    with quiet(warp):
        warp.load_module(
            kernel.module, device=warp.device_from_torch(device), block_dim=BLOCK_THREADS
        )

    def call(device: torch.device, values: Sequence[Any]) -> None:
        first_block, last_block = values[-2:]
        warp.launch(
            kernel,
            dim=last_block - first_block,
            inputs=list(values),
            stream=warp.stream_from_torch(torch.cuda.current_stream(device)),
            block_dim=BLOCK_THREADS,
            record_tape=False,
        )

    return call
