"""What a thread of a CUDA kernel occupies, read from the machine code.

A cubin is an ELF file. Its section ``.nv.info`` is a list of records of one byte for the format,
one for the attribute, two for a size, and the payload; those of a kernel as a whole pair the
symbol's number with a value. Every entry point is listed under ``REGCOUNT``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

__all__ = ["thread_resources"]

_SIZED: Final = 4
_MIN_STACK_SIZE: Final = 0x12
_REGISTER_COUNT: Final = 0x2F


def thread_resources(binary: bytes) -> tuple[int, int]:
    """Count registers (of 32 bits) and bytes of local memory of one thread.

    Args:
        binary: Machine code that holds one kernel.

    Returns:
        The two numbers.

    Raises:
        ValueError: If this is no cubin, or not with one kernel.

    Reference: Hayes et al. (2019), Decoding CUDA Binary, CGO.
    """
    values: dict[int, list[int]] = {_REGISTER_COUNT: [], _MIN_STACK_SIZE: []}
    for attribute, payload in _records(_section(binary, ".nv.info")):
        if attribute in values:
            values[attribute].append(struct.unpack("<II", payload)[1])
    registers, stack = values[_REGISTER_COUNT], values[_MIN_STACK_SIZE]
    if len(registers) != 1 or len(stack) > 1:
        raise ValueError(f"the binary lists {len(registers)} kernels, expected 1")
    return registers[0], stack[0] if stack else 0


def _section(binary: bytes, wanted: str) -> bytes:
    if binary[:5] != b"\x7fELF\x02":
        raise ValueError("the binary is no ELF file of 64 bits")
    (table,) = struct.unpack_from("<Q", binary, 40)
    size, count, of_names = struct.unpack_from("<HHH", binary, 58)
    headers = [struct.unpack_from("<IIQQQQ", binary, table + i * size) for i in range(count)]
    names = headers[of_names][4]
    for name, _, _, _, offset, length in headers:
        if binary[names + name : binary.index(b"\0", names + name)] == wanted.encode():
            return binary[offset : offset + length]
    raise ValueError(f"the binary has no section {wanted}")


def _records(info: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(info):
        form, attribute, size = struct.unpack_from("<BBH", info, at)
        length = size if form == _SIZED else 0
        yield attribute, info[at + 4 : at + 4 + length]
        at += 4 + length
