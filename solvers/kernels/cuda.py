"""Machine code for NVIDIA GPUs, made without one.

`build_kernel` compiles for the GPU at hand. This compiles the same body for any architecture, to
see before it runs that it compiles, and what a thread of it occupies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from solvers.core import SettingsError
from solvers.kernels._cubin import thread_resources
from solvers.kernels._cuda import architectures, compile_binary
from solvers.kernels._failure import compiled
from solvers.kernels._part import KernelPart
from solvers.kernels._request import KernelRequest

__all__ = ["CudaBinary", "compile_cuda", "cuda_architectures"]


@dataclass(frozen=True, repr=False)
class CudaBinary:
    """Machine code of one kernel for one architecture.

    Attributes:
        name: Name of the kernel.
        architecture: Compute capability, 90 for 9.0.
        registers: Registers of 32 bits that a thread takes, 255 at most; a multiprocessor has
            65536 of them and so holds ``65536 / registers`` threads at most.
        local_bytes: Memory of one thread outside registers, for arrays with run-time indices and
            what does not fit into registers. It lies in the GPU's main memory, behind its caches.
        code: The binary, a cubin (an ELF file).
    """

    name: str
    architecture: int
    registers: int
    local_bytes: int
    code: bytes

    def __repr__(self) -> str:
        """Show what a thread occupies."""
        return (
            f"CudaBinary({self.name} for sm_{self.architecture}: {self.registers} registers and "
            f"{self.local_bytes} bytes of local memory a thread, {len(self.code)} bytes of code)"
        )

    def save(self, path: str | Path) -> None:
        """Write the cubin to a file, for disassemblers and profilers."""
        Path(path).write_bytes(self.code)


def cuda_architectures() -> tuple[int, ...]:
    """List the architectures that `compile_cuda` takes; none if this Warp has no CUDA compiler.

    Example:
        >>> all(architecture >= 50 for architecture in cuda_architectures())
        True
    """
    return architectures()


def compile_cuda(
    name: str,
    body: str,
    arguments: Sequence[tuple[str, str]],
    *,
    architecture: int,
    parts: Sequence[KernelPart] = (),
) -> CudaBinary:
    """Compile a kernel for an architecture; needs neither GPU nor driver nor toolkit.

    Args:
        name: Identifier for messages.
        body: C++ statements of one block, as for `build_kernel`; ``V`` is ``double``.
        arguments: Pairs of name and kind, as for `build_kernel`.
        architecture: Compute capability without the point: 80 for the A100, 90 for the H100.
        parts: Functions that the body calls by name, as for `build_kernel`.

    Returns:
        The binary and what a thread of it occupies.

    Raises:
        SettingsError: If a name, kind or the architecture is not allowed.
        KernelBuildError: If the compiler refuses the body.

    Example:
        >>> binary = compile_cuda("twice", "y[block]=2.0*x[block];", [("x", "V*"), ("y", "V*")],
        ...                       architecture=90)
        >>> binary.local_bytes
        0
    """
    request = KernelRequest(
        name,
        body,
        tuple((str(argument), str(kind)) for argument, kind in arguments),
        lanes=1,
        device="cuda",
        sizes={},
        parts=tuple(parts),
    )
    known = architectures()
    if architecture not in known:
        raise SettingsError(
            f"{name}: architecture is {architecture!r}, expected "
            + (f"one of {known}" if known else "a build of warp-lang with CUDA to be installed")
        )
    code = compiled(
        request,
        lambda text: compile_binary(request.key, text, request.parameters, architecture),
    )
    return CudaBinary(name, architecture, *thread_resources(code), code)
