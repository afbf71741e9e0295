"""Products of layers as C++ loops over register tiles, one lane a point."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

__all__ = ["gradient_tiles", "layer_product", "jacobian_rows"]

_WAIT = 6.0
"""Fewest cycles of a step: four until a multiply-add is done, and loads before it."""

FUSED = "#pragma clang fp contract(fast)"


def strips(length: int, tile: int) -> Iterator[tuple[int, int, int]]:
    """Cut a length into tiles: pairs of loops ``(tile, first, end)``, the second for the rest.

    One loop of full tiles and one shorter tile, rather than all tiles written out, keep the text
    and the time to compile it small.
    """
    whole = length - length % tile
    if whole:
        yield tile, 0, whole
    if whole < length:
        yield length - whole, whole, length


def best_tile(rows: int, columns: int, registers: int, *, least: int = 1) -> tuple[int, int]:
    """Rows and columns of the sums that are kept in registers at a time.

    A step over one row and one column of numbers loads ``h + w`` of them for ``h w`` multiply-adds.
    Two of each start in a cycle, and the next multiply-add on the same sum waits for the last one:
    the tile that takes the fewest cycles for all sums, then the fewest loops, then loads.

    Args:
        rows: Sums along the first direction.
        columns: Sums along the second; a step holds these numbers and one of the others.
        registers: Vector registers of the machine.
        least: Fewest columns of a tile.
    """

    def cost(tile: tuple[int, int]) -> tuple[float, int, int]:
        cycles, loops, loads = 0.0, 0, 0
        for (h, top, bottom), (w, left, right) in itertools.product(
            strips(rows, tile[0]), strips(columns, tile[1])
        ):
            count = (bottom - top) // h * ((right - left) // w)
            cycles += count * max(0.5 * h * w, 0.5 * (h + w), _WAIT)
            loads += count * (h + w)
            loops += 1
        return cycles, loops, loads

    fitting = [
        (h, w)
        for h in range(1, rows + 1)
        for w in range(least, columns + 1)
        if h * w + w + 1 <= registers
    ]
    return min(fitting, key=cost, default=(1, least))


def _loop(registers: int) -> str:
    """Start of a loop over steps: with few registers, two steps at a time would spill sums."""
    return "for" if registers >= 32 else "\n#pragma clang loop unroll(disable)\nfor"


def layer_product(
    name: str,
    *,
    rows: int,
    columns: int,
    channels: int,
    registers: int,
    weight: int,
    bias: int | None,
    is_transposed: bool,
) -> str:
    """Function that multiplies all channels of one group of points by a weight matrix.

    Args:
        name: Name of the function.
        rows: Units that it writes.
        columns: Units that it reads.
        channels: Number of channels.
        registers: Vector registers of the machine.
        weight: Place of the matrix among the parameters.
        bias: Place of the bias of channel 0; None for none.
        is_transposed: Whether the matrix lies with rows and columns swapped.
    """
    tile, _ = best_tile(rows, channels, registers, least=channels)
    lines = [
        f"const auto {name} = [&](const V* __restrict in, V* __restrict out) {{\n{FUSED}",
    ]
    for high, first, end in strips(rows, tile):
        pairs = [(q, c) for q in range(high) for c in range(channels)]
        start = f"theta + {weight} + " + ("o" if is_transposed else f"o*{columns}")
        step = (1, rows) if is_transposed else (columns, 1)
        zero = {
            (q, c): f"V(theta[{bias}+o+{q}])" if c == 0 and bias is not None else "V(0.0)"
            for q, c in pairs
        }
        lines += [
            f"for (int o = {first}; o < {end}; o += {high}) {{ const double* w = {start};",
            "V " + ", ".join(f"a{q}_{c} = {zero[q, c]}" for q, c in pairs) + ";",
            f"{_loop(registers)} (int i = 0; i < {columns}; ++i) {{",
            *(f"const V h{c} = in[{c * columns}+i];" for c in range(channels)),
        ]
        for q in range(high):
            lines.append(f"{{ const double v = w[{q * step[0]} + i*{step[1]}];")
            lines += [f"a{q}_{c} += v*h{c};" for c in range(channels)]
            lines.append("}")
        lines += ["}", *(f"out[{c * rows}+o+{q}] = a{q}_{c};" for q, c in pairs), "}"]
    return "\n".join([*lines, "};"])


def gradient_tiles(
    name: str, *, rows: int, columns: int, channels: int, registers: int, weight: int
) -> str:
    """Function that adds the gradient of a layer over a few groups, lanes apart."""
    tall, broad = best_tile(rows, columns, registers)
    lines = [
        f"const auto {name} = [&](int count, const V* __restrict bar, const V* __restrict in, "
        f"V* __restrict sums) {{\n{FUSED}"
    ]
    for high, first, end in strips(rows, tall):
        for wide, left, right in strips(columns, broad):
            pairs = [(x, y) for x in range(high) for y in range(wide)]
            lines += [
                f"for (int o = {first}; o < {end}; o += {high})",
                f"for (int i = {left}; i < {right}; i += {wide}) {{",
                f"const V* d = bar + o; const V* h = in + i; V* s = sums + {weight}+o*{columns}+i;",
                "V " + ", ".join(f"a{x}_{y} = V(0.0)" for x, y in pairs) + ";",
                f"{_loop(registers)} (int k = 0; k < {channels}*count; "
                f"++k, d += {rows}, h += {columns}) {{",
                *(f"const V h{y} = h[{y}];" for y in range(wide)),
            ]
            for x in range(high):
                products = " ".join(f"a{x}_{y} += e*h{y};" for y in range(wide))
                lines.append(f"{{ const V e = d[{x}]; {products} }}")
            lines += ["}", *(f"s[{x * columns + y}] += a{x}_{y};" for x, y in pairs), "}"]
    lines.append(
        f"for (int o = 0; o < {rows}; ++o) {{ V b = V(0.0); "
        f"for (int g = 0; g < count; ++g) b += bar[g*{channels * rows}+o]; "
        f"sums[{weight + rows * columns}+o] += b; }}"
    )
    return "\n".join([*lines, "};"])


def jacobian_rows(name: str, *, rows: int, columns: int, channels: int, weight: int) -> str:
    """Function that stores the derivatives by the parameters of a layer, point by point."""
    product = " + ".join(
        f"bar[(g*{channels}+{c})*{rows}+o]*in[(g*{channels}+{c})*{columns}+i]"
        for c in range(channels)
    )
    return "\n".join(
        [
            f"const auto {name} = [&](int count, const V* __restrict bar, const V* __restrict in, "
            f"V* __restrict out, long long stride) {{\n{FUSED}",
            f"for (int o = 0; o < {rows}; ++o) {{",
            f"for (int i = 0; i < {columns}; ++i) {{",
            f"V* j = out + ({weight}+o*{columns}+i)*stride;",
            f"for (int g = 0; g < count; ++g) j[g] = {product}; }}",
            f"V* b = out + ({weight + rows * columns}+o)*stride;",
            f"for (int g = 0; g < count; ++g) b[g] = bar[g*{channels * rows}+o]; }}",
            "};",
        ]
    )
