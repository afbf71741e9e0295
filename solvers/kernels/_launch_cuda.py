"""Calls of kernels on a CUDA device: all blocks in one launch on torch's current stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from solvers.core import SettingsError
from solvers.kernels._cuda import DeviceFunction
from solvers.kernels._request import KernelRequest
from solvers.kernels.launch import Kernel

__all__ = ["CudaKernel"]


class CudaKernel(Kernel):
    """Body compiled for CUDA; one thread runs one block, which is one item."""

    __slots__ = ("_put",)

    def __init__(self, request: KernelRequest, put: DeviceFunction) -> None:
        """Made by `build_kernel`."""
        super().__init__(request, _never)
        self._put = put

    def __call__(self, blocks: int, *values: Any, first_block: int = 0) -> None:
        """Put the blocks on the current stream of the tensors' device and return.

        Like an operation of torch it comes after what is already on that stream and before what
        is put there later; an error of the device shows at a later synchronisation.

        Args:
            blocks: Number of items.
            values: One value per argument: for a pointer a contiguous CUDA tensor of float64 (int32
                for ``int*``), all on one device; a number else.
            first_block: First value of ``block``.

        Raises:
            TypeError: If the number, kind, dtype or device of a value does not fit.
            ShapeError: If an array is not contiguous or too short for the blocks.
            SettingsError: If a block number is negative.
        """
        last_block = first_block + blocks
        addresses = self._convert(values, first_block, last_block)
        if blocks:
            self._put(self._device_of(values), [*addresses, first_block, last_block])

    def launch_threads(self, blocks: int, threads: int, *values: Any, first_block: int = 0) -> None:
        """Run as `__call__`: one launch holds all blocks, whatever the number of CPU threads.

        Raises:
            SettingsError: If ``threads`` is less than 1.
        """
        if threads < 1:
            raise SettingsError(f"{self.name}: threads is {threads}, expected 1 or more")
        self(blocks, *values, first_block=first_block)

    def _device_of(self, values: Sequence[Any]) -> torch.device:
        devices = {value.device for value in values if isinstance(value, torch.Tensor)}
        if len(devices) > 1:
            found = ", ".join(sorted(map(str, devices)))
            raise TypeError(f"{self.name}: the tensors lie on {found}, expected one device")
        return devices.pop() if devices else torch.device("cuda", torch.cuda.current_device())


def _never(values: Sequence[Any]) -> None:
    raise AssertionError("a CUDA kernel has no native call on the CPU")
