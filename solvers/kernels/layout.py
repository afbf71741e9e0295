"""Batches in lane blocks: item ``i`` of a batch sits in lane ``i % lanes`` of block ``i // lanes``.

A buffer has shape ``(blocks, n, lanes)``: the ``n`` numbers of a block lie one vector after the
other, so that a kernel reads one number of all its items with one load. The last block is filled
up with copies of the last item, which then takes the same path as a real one.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import torch

from solvers.core import SettingsError, ShapeError
from solvers.kernels._prelude import LANE_COUNTS

__all__ = ["aligned_empty", "block_count", "lane_count", "pack", "unpack"]

_ALIGNMENT = 64
_VARIABLE = "PHYSIM_LANES"


def lane_count() -> int:
    """Give the number of float64 lanes that suits this machine.

    Returns:
        8 with AVX-512, 4 with AVX2, else 2; or the value of the environment variable
        ``PHYSIM_LANES``.

    Raises:
        SettingsError: If ``PHYSIM_LANES`` is set to something other than 1, 2, 4 or 8.
    """
    text = os.environ.get(_VARIABLE)
    if not text:
        return _machine_lanes()
    if text not in {str(n) for n in LANE_COUNTS}:
        raise SettingsError(f"{_VARIABLE} is {text!r}, expected one of {LANE_COUNTS}")
    return int(text)


@lru_cache(maxsize=1)
def _machine_lanes() -> int:
    features = _cpu_features()
    if "avx512f" in features:
        return 8
    return 4 if "avx2" in features else 2


def _cpu_features() -> frozenset[str]:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return frozenset(line.partition(":")[2].split())
    except OSError:
        pass
    # elsewhere than on Linux, torch knows the instruction set it dispatches to
    name = torch.backends.cpu.get_cpu_capability().lower()
    return frozenset({"avx512": ("avx512f", "avx2"), "avx2": ("avx2",)}.get(name, ()))


def block_count(batch: int, lanes: int) -> int:
    """Count the blocks that hold ``batch`` items."""
    return -(-batch // lanes)


def aligned_empty(
    *shape: int, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Allocate a contiguous tensor that starts at a multiple of 64 bytes.

    Args:
        shape: Sizes of the axes.
        dtype: Element type.
        device: Where it lies.

    Returns:
        Uninitialised tensor.
    """
    size = torch.empty((), dtype=dtype).element_size()
    count = 1
    for n in shape:
        count *= n
    raw = torch.empty(count * size + _ALIGNMENT, dtype=torch.uint8, device=device)
    skip = -raw.data_ptr() % _ALIGNMENT
    return raw[skip : skip + count * size].view(dtype).view(shape)


def pack(array: torch.Tensor, lanes: int, *, out: torch.Tensor | None = None) -> torch.Tensor:
    """Arrange a batch in lane blocks.

    Args:
        array: Tensor or numpy array, shape ``(B, n)`` or ``(B,)`` (then ``n`` is 1), ``B > 0``.
        lanes: Items in a block.
        out: Buffer to fill, shape ``(blocks, n, lanes)``; a new one otherwise.

    Returns:
        Float64 tensor of shape ``(blocks, n, lanes)`` on the device of ``array``, aligned to 64
        bytes; int32 arrays stay int32.

    Raises:
        ShapeError: If ``array`` has another number of axes, no item, or ``out`` has another shape.
    """
    source = torch.as_tensor(array).detach()
    if source.dim() == 1:
        source = source.unsqueeze(1)
    if source.dim() != 2 or source.shape[0] == 0:
        raise ShapeError(f"array has shape {tuple(source.shape)}, expected (B, n) with B > 0")
    batch, n = source.shape
    blocks = block_count(batch, lanes)
    if out is None:
        dtype = torch.int32 if source.dtype is torch.int32 else torch.float64
        out = aligned_empty(blocks, n, lanes, dtype=dtype, device=source.device)
    elif out.shape != (blocks, n, lanes):
        raise ShapeError(f"out has shape {tuple(out.shape)}, expected {(blocks, n, lanes)}")
    whole = batch // lanes
    out[:whole].copy_(source[: whole * lanes].view(whole, lanes, n).transpose(1, 2))
    if whole < blocks:
        rest = source[whole * lanes :]
        out[whole, :, : len(rest)].copy_(rest.T)
        out[whole, :, len(rest) :].copy_(rest[-1:].T.expand(n, lanes - len(rest)))
    return out


def unpack(buffer: torch.Tensor, batch: int) -> torch.Tensor:
    """Arrange lane blocks as a batch again; the inverse of `pack`.

    Args:
        buffer: Shape ``(blocks, n, lanes)``.
        batch: Number of items ``B``.

    Returns:
        New tensor, shape ``(B, n)``.

    Raises:
        ShapeError: If the blocks do not hold ``batch`` items.
    """
    blocks, n, lanes = buffer.shape
    if block_count(batch, lanes) != blocks:
        raise ShapeError(
            f"buffer has {blocks} blocks of {lanes} lanes, which is not what {batch} items need"
        )
    items = buffer.transpose(1, 2).reshape(blocks * lanes, n)[:batch]
    return items.clone() if items.data_ptr() == buffer.data_ptr() else items
