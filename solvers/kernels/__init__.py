"""Native kernels from readable programs.

The way in: write physics on generic scalars (`scalar`, `algebra`), record it with a `Tape`,
differentiate it with `reverse`, turn it into lane code with `emit_block`, compile it with
`build_kernel` and feed it batches through `pack` and `unpack`. The program that was recorded also
runs on torch tensors as it stands: the reference of every kernel.

Example:
    >>> import torch
    >>> tape = Tape()
    >>> x, y = tape.inputs("x", 2)
    >>> body = ("const V* x = points + 2*block; V* z = values + block;"
    ...         + emit_block([("z", 0, scalar.sqrt(x * x + y * y))]))
    >>> kernel = build_kernel("distance", body, [("points", "V*"), ("values", "V*")], lanes=4)
    >>> points = pack(torch.tensor([[3.0, 4.0], [5.0, 12.0]]), 4)
    >>> kernel(1, points, values := aligned_empty(1, 1, 4))
    >>> unpack(values, 2)[:, 0].tolist()
    [5.0, 13.0]
"""

from __future__ import annotations

from solvers.kernels import algebra, scalar
from solvers.kernels.build import KernelBuildError, KernelPart, build_kernel
from solvers.kernels.cuda import CudaBinary, compile_cuda, cuda_architectures
from solvers.kernels.emit import emit, emit_block, prelude
from solvers.kernels.launch import Kernel
from solvers.kernels.layout import aligned_empty, block_count, lane_count, pack, unpack
from solvers.kernels.scalar import Condition, Scalar
from solvers.kernels.trace import (
    Symbol,
    Tape,
    TorchTape,
    constant_value,
    evaluate,
    operation_count,
    reverse,
)

__all__ = [
    "Condition",
    "CudaBinary",
    "Kernel",
    "KernelBuildError",
    "KernelPart",
    "Scalar",
    "Symbol",
    "Tape",
    "TorchTape",
    "aligned_empty",
    "algebra",
    "block_count",
    "build_kernel",
    "compile_cuda",
    "constant_value",
    "cuda_architectures",
    "emit",
    "emit_block",
    "evaluate",
    "lane_count",
    "operation_count",
    "pack",
    "prelude",
    "reverse",
    "scalar",
    "unpack",
]
