"""Kernels: a C++ body, run once per block of lanes, compiled, cached and callable with arrays.

The body is compiled by the compilers that come with Warp (clang for the CPU, NVRTC for CUDA); Warp
caches the machine code on disk by content, so a program started again loads what it built before.
A call hands addresses over and runs all blocks in one go: on the calling thread, with the
interpreter lock released meanwhile, or as one launch on a GPU.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import torch

from solvers.core import SettingsError
from solvers.kernels._cuda import load_function
from solvers.kernels._failure import KernelBuildError, compiled
from solvers.kernels._launch_cuda import CudaKernel
from solvers.kernels._part import KernelPart
from solvers.kernels._request import KernelRequest
from solvers.kernels._warp import compile_native
from solvers.kernels.launch import Kernel

__all__ = ["KernelBuildError", "KernelPart", "build_kernel"]

_lock = threading.RLock()
_built: dict[tuple[object, ...], Kernel] = {}


def build_kernel(
    name: str,
    body: str,
    arguments: Sequence[tuple[str, str]],
    *,
    lanes: int,
    device: str = "cpu",
    sizes: Mapping[str, int] | None = None,
    parts: Sequence[KernelPart] = (),
) -> Kernel:
    """Compile a body that runs once per block of lanes, or load it from the cache.

    Args:
        name: Identifier for messages and for the files in the cache.
        body: C++ statements of one block. In scope are the arguments by name, the int ``block``,
            and everything that `prelude` defines. ``continue`` outside an inner loop ends the block
            early; ``return`` would end all blocks. No preprocessor line may share its line.
        arguments: Pairs of name and kind: ``"V*"`` (array of lane vectors), ``"double*"``,
            ``"int*"`` (32 bits), ``"double"``, ``"int"``.
        lanes: Doubles in a vector ``V``: 1, 2, 4 or 8, see `lane_count`; 1 on CUDA.
        device: ``"cpu"``, or ``"cuda"``: one thread runs one block, and calls take CUDA tensors.
        sizes: Elements of a pointer argument that each block uses, by argument name; calls then
            check that the array is long enough for all blocks.
        parts: Functions that the body calls by name; on the CPU all texts are compiled at the same
            time.

    Returns:
        Callable kernel. The same content gives the same object within a process.

    Raises:
        SettingsError: If a name, kind, device or lane count is not allowed, or there is no GPU.
        KernelBuildError: If the compiler refuses the body.

    Example:
        >>> from solvers.kernels import aligned_empty
        >>> kernel = build_kernel("twice", "y[block]=2.0*x[block];", [("x", "V*"), ("y", "V*")],
        ...                       lanes=4)
        >>> x = aligned_empty(2, 1, 4)
        >>> kernel(2, x.fill_(1.5), y := aligned_empty(2, 1, 4))
        >>> y.sum().item()
        24.0
    """
    request = KernelRequest(
        name,
        body,
        tuple((str(argument), str(kind)) for argument, kind in arguments),
        lanes,
        device,
        sizes or {},
        tuple(parts),
    )
    known = (request.key, device, *sorted(request.sizes.items()))
    with _lock:
        if known not in _built:
            _built[known] = _cuda_kernel(request) if device == "cuda" else _kernel(request)
        return _built[known]


def _kernel(request: KernelRequest) -> Kernel:
    call = compiled(
        request,
        lambda text: compile_native(request.key, text, request.parameters, request.units),
    )
    return Kernel(request, call)


def _cuda_kernel(request: KernelRequest) -> CudaKernel:
    if not torch.cuda.is_available():
        raise SettingsError(
            f"{request.name}: device is 'cuda' and torch sees no GPU, expected 'cpu' on this "
            "machine; compile_cuda compiles without a GPU"
        )
    device = torch.device("cuda", torch.cuda.current_device())
    put = compiled(
        request, lambda text: load_function(request.key, text, request.parameters, device)
    )
    return CudaKernel(request, put)
