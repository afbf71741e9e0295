"""Products of layers as C++ loops over register tiles, one lane a point."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["gradient_tiles", "layer_product", "jacobian_rows"]

FUSED = "#pragma clang fp contract(fast)"


def strips(length: int, largest: int) -> Iterator[tuple[int, int, int]]:
    """Cut a length into tiles: pairs of loops ``(tile, first, end)``, the second for the rest.

    One loop of full tiles and one shorter tile, rather than all tiles written out, keep the text
    and the time to compile it small.
    """
    largest = min(largest, length)
    tile = next((b for b in range(largest, largest // 2, -1) if length % b == 0), largest)
    whole = length - length % tile
    yield tile, 0, whole
    if whole < length:
        yield length - whole, whole, length


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
    lines = [
        f"const auto {name} = [&](const V* __restrict in, V* __restrict out) {{\n{FUSED}",
    ]
    for tile, first, end in strips(rows, max(1, (registers - 4 - channels) // channels)):
        pairs = [(q, c) for q in range(tile) for c in range(channels)]
        start = f"theta + {weight} + " + ("o" if is_transposed else f"o*{columns}")
        step = (1, rows) if is_transposed else (columns, 1)
        zero = {
            (q, c): f"V(theta[{bias}+o+{q}])" if c == 0 and bias is not None else "V(0.0)"
            for q, c in pairs
        }
        lines += [
            f"for (int o = {first}; o < {end}; o += {tile}) {{ const double* w = {start};",
            "V " + ", ".join(f"a{q}_{c} = {zero[q, c]}" for q, c in pairs) + ";",
            f"for (int i = 0; i < {columns}; ++i) {{",
            *(f"const V h{c} = in[{c * columns}+i];" for c in range(channels)),
        ]
        for q in range(tile):
            lines.append(f"{{ const double v = w[{q * step[0]} + i*{step[1]}];")
            lines += [f"a{q}_{c} += v*h{c};" for c in range(channels)]
            lines.append("}")
        lines += ["}", *(f"out[{c * rows}+o+{q}] = a{q}_{c};" for q, c in pairs), "}"]
    return "\n".join([*lines, "};"])


def gradient_tiles(
    name: str, *, rows: int, columns: int, channels: int, registers: int, weight: int
) -> str:
    """Function that adds the gradient of a layer over a few groups, lanes apart."""
    largest = 5 if registers >= 32 else 3
    lines = [
        f"const auto {name} = [&](int count, const V* __restrict bar, const V* __restrict in, "
        f"V* __restrict sums) {{\n{FUSED}"
    ]
    for high, first, end in strips(rows, largest):
        for wide, left, right in strips(columns, largest):
            pairs = [(x, y) for x in range(high) for y in range(wide)]
            lines += [
                f"for (int o = {first}; o < {end}; o += {high})",
                f"for (int i = {left}; i < {right}; i += {wide}) {{",
                f"const V* d = bar + o; const V* h = in + i; V* s = sums + {weight}+o*{columns}+i;",
                "V " + ", ".join(f"a{x}_{y} = V(0.0)" for x, y in pairs) + ";",
                f"for (int k = 0; k < {channels}*count; ++k, d += {rows}, h += {columns}) {{",
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
