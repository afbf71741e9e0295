"""Memory of contact candidates: on the stack, or on the heap where there are many of them."""

from __future__ import annotations

from collections.abc import Sequence

STACK_MOST = 1 << 14
"""Lane vectors of records that one native function keeps on the stack, a megabyte of 8 lanes."""


def record_space(sizes: Sequence[int]) -> list[str]:
    """Declare ``record0``, ``record1``, ... with so many lane vectors each.

    A thread's stack is a few megabytes. Memory from the heap is given back where the block of the
    declaration ends, and the next call gets the same again.
    """
    total = sum(sizes)
    if total <= STACK_MOST:
        return [f"V record{g}[{size}];" for g, size in enumerate(sizes)]
    lines = [
        f"struct Space {{ void* const from = __builtin_malloc({total + 1} * sizeof(V));",
        "  ~Space() { __builtin_free(from); } } space;",
        "V* const records = (V*)((size_t)space.from / sizeof(V) * sizeof(V) + sizeof(V));",
    ]
    first = 0
    for g, size in enumerate(sizes):
        lines.append(f"V* const record{g} = records + {first};")
        first += size
    return lines
