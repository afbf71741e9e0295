"""Calls of compiled kernels: checks of the arguments, addresses, threads."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from solvers.core import SettingsError, ShapeError
from solvers.kernels._request import POINTER_KINDS, KernelRequest
from solvers.kernels._warp import NativeFunction

__all__ = ["Kernel"]

_pool_lock = threading.Lock()
_pool: list[ThreadPoolExecutor] = []


class Kernel:
    """Compiled body; call it with the number of blocks and the arguments it was built for.

    Attributes:
        name: Name given at the build.
        body: C++ statements of one block.
        arguments: Pairs of name and kind, in call order.
        lanes: Doubles in a vector ``V``.
        device: ``"cpu"`` or ``"cuda"``.
        parts: Functions that the body calls.
        source: C++ text that was compiled.
    """

    __slots__ = (
        "_call",
        "_converters",
        "_sizes",
        "arguments",
        "body",
        "device",
        "lanes",
        "name",
        "parts",
        "source",
    )

    def __init__(self, request: KernelRequest, call: NativeFunction) -> None:
        """Made by `build_kernel`."""
        self.name = request.name
        self.body = request.body
        self.arguments = request.arguments
        self.lanes = request.lanes
        self.device = request.device
        self.parts = request.parts
        self.source = request.source
        self._call = call
        self._sizes = dict(request.sizes)
        self._converters = [self._converter(*argument) for argument in self.arguments]

    def __repr__(self) -> str:
        """Show the signature."""
        signature = ", ".join(f"{kind} {name}" for name, kind in self.arguments)
        return f"Kernel({self.name}({signature}), lanes={self.lanes})"

    def __call__(self, blocks: int, *values: Any, first_block: int = 0) -> None:
        """Run the body for ``block`` from ``first_block`` to ``first_block + blocks - 1``.

        Args:
            blocks: Number of blocks of lanes.
            values: One value per argument: for a pointer a contiguous numpy array or CPU tensor of
                float64 (int32 for ``int*``), aligned to a whole vector for ``V*``; a number else.
            first_block: First value of ``block``.

        Raises:
            TypeError: If the number, kind or dtype of a value does not fit.
            ShapeError: If an array is not contiguous, not aligned, or too short for the blocks.
            SettingsError: If a block number is negative.
        """
        last_block = first_block + blocks
        self._call([*self._convert(values, first_block, last_block), first_block, last_block])

    def launch_threads(self, blocks: int, threads: int, *values: Any, first_block: int = 0) -> None:
        """Run as `__call__`, with the blocks split among Python threads.

        Blocks are independent and each is computed as before, so the result has the same bits for
        any number of threads, provided the body of one block writes only what is its own.

        Args:
            blocks: Number of blocks of lanes.
            threads: Number of threads at most; the calling thread is one of them.
            values: As in `__call__`.
            first_block: First value of ``block``.

        Raises:
            SettingsError: If ``threads`` is less than 1.
        """
        if threads < 1:
            raise SettingsError(f"{self.name}: threads is {threads}, expected 1 or more")
        addresses = self._convert(values, first_block, first_block + blocks)
        self._launch(blocks, threads, addresses, first_block)

    def launch_trusted(self, blocks: int, threads: int, *values: Any) -> None:
        """Run as `launch_threads`, with nothing checked.

        For small pieces of work, of which the checks would be the larger part.

        Args:
            blocks: Number of blocks of lanes, 1 or more.
            threads: Number of threads at most, 1 or more.
            values: Tensors and numbers as `__call__` accepts them; anything else may end the
                process.
        """
        tensor = torch.Tensor
        addresses = [x.data_ptr() if type(x) is tensor else x for x in values]
        self._launch(blocks, threads, addresses, 0)

    def _launch(self, blocks: int, threads: int, addresses: list[Any], first_block: int) -> None:
        parts = min(threads, blocks)
        if parts <= 1:
            self._call([*addresses, first_block, first_block + blocks])
            return
        cuts = [first_block + blocks * i // parts for i in range(parts + 1)]
        call = self._call
        futures = [
            _thread_pool().submit(call, [*addresses, cuts[i], cuts[i + 1]]) for i in range(1, parts)
        ]
        call([*addresses, cuts[0], cuts[1]])
        for future in futures:
            future.result()

    def _convert(self, values: Sequence[Any], first_block: int, last_block: int) -> list[Any]:
        if len(values) != len(self._converters):
            names = ", ".join(name for name, _ in self.arguments)
            raise TypeError(
                f"{self.name} got {len(values)} values, expected {len(self._converters)}: {names}"
            )
        if first_block < 0 or last_block < first_block:
            raise SettingsError(
                f"{self.name}: blocks run from {first_block} to {last_block}, expected 0 or more"
            )
        return [
            convert(value, last_block)
            for convert, value in zip(self._converters, values, strict=True)
        ]

    def _converter(self, name: str, kind: str) -> Callable[[Any, int], Any]:
        label = f"{self.name}: argument {name!r}"
        if kind == "double":
            return lambda value, last_block: _real(label, value)
        if kind == "int":
            return lambda value, last_block: _whole(label, value)
        torch_type, numpy_type, _ = POINTER_KINDS[kind]
        alignment = 8 * self.lanes if kind == "V*" else numpy_type.itemsize
        per_block = self._sizes.get(name, 0) * (self.lanes if kind == "V*" else 1)
        device = self.device
        takes_arrays = device == "cpu"

        def convert(value: Any, last_block: int) -> int:
            if isinstance(value, torch.Tensor):
                address, count = _tensor_address(label, value, torch_type, device)
            elif takes_arrays and isinstance(value, np.ndarray):
                address, count = _array_address(label, value, numpy_type)
            else:
                wanted = "an array or CPU tensor" if takes_arrays else "a CUDA tensor"
                raise TypeError(
                    f"{label} is {type(value).__name__}, expected {wanted} of {numpy_type}"
                )
            if address % alignment:
                raise ShapeError(
                    f"{label} starts at an address that is no multiple of {alignment} bytes; "
                    "allocate it with solvers.kernels.aligned_empty"
                )
            if per_block and count < per_block * last_block:
                raise ShapeError(
                    f"{label} has {count} numbers, expected {per_block} for each of "
                    f"{last_block} blocks"
                )
            return address

        return convert


def _real(label: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{label} is {type(value).__name__}, expected a number") from error


def _whole(label: str, value: Any) -> int:
    if isinstance(value, (int, np.integer)) and -(2**31) <= value < 2**31:
        return int(value)
    raise TypeError(f"{label} is {value!r}, expected a whole number of 32 bits")


def _tensor_address(
    label: str, value: torch.Tensor, dtype: torch.dtype, device: str
) -> tuple[int, int]:
    if value.dtype is not dtype or value.device.type != device:
        raise TypeError(
            f"{label} is a tensor of {value.dtype} on {value.device}, expected {dtype} on "
            f"{device}; convert it with .to()"
        )
    if not value.is_contiguous():
        raise ShapeError(f"{label} is not contiguous; pass value.contiguous()")
    if value.requires_grad and torch.is_grad_enabled():
        raise TypeError(
            f"{label} requires a gradient, which a kernel cannot give; pass value.detach() or call "
            "the kernel inside a torch.autograd.Function"
        )
    return value.data_ptr(), value.numel()


def _array_address(label: str, value: np.ndarray[Any, Any], dtype: Any) -> tuple[int, int]:
    if value.dtype != dtype:
        raise TypeError(f"{label} is an array of {value.dtype}, expected {dtype}; use .astype()")
    if not value.flags.c_contiguous:
        raise ShapeError(f"{label} is not contiguous; pass numpy.ascontiguousarray(value)")
    return int(value.__array_interface__["data"][0]), value.size


def _thread_pool() -> ThreadPoolExecutor:
    with _pool_lock:
        if not _pool:
            workers = max(1, (os.cpu_count() or 2))
            _pool.append(ThreadPoolExecutor(workers, thread_name_prefix="physim-kernel"))
        return _pool[0]
