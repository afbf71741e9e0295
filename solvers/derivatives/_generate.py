"""The text of an engine: residuals, gradient and Jacobian of a network, eight points at a time.

A lane is a point. Buffers are ``[group of points][channel][unit]``, so that what a layer touches
lies together; a few groups go through all layers forward and back before the next ones, so that
what the way back needs is still in the second-level cache.

A block of the kernel is a thread. Threads take chunks of groups one by one, and sums are kept per
chunk: cores of different speed end together, and the result does not depend on who took what.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from solvers.derivatives._activation import slopes_from_values
from solvers.derivatives._activation_program import record_activation
from solvers.derivatives._channels import ChannelPlan
from solvers.derivatives._layers import Branches, Layers
from solvers.derivatives._program import ResidualProgram
from solvers.derivatives._tiles import FUSED, gradient_tiles, jacobian_rows, layer_product
from solvers.kernels import Tape, emit_block

__all__ = ["ARGUMENTS", "EngineText", "Operation", "write_engine"]

ARGUMENTS = (
    ("operation", "int"),
    ("groups", "int"),
    ("chunks", "int"),
    ("cuts", "int*"),
    ("taken", "int*"),
    ("theta", "double*"),
    ("jets", "V*"),
    ("values", "V*"),
    ("known", "double*"),
    ("weights", "double*"),
    ("scratch", "V*"),
    ("out", "double*"),
    ("residuals", "V*"),
    ("losses", "double*"),
)


class Operation:
    """What a call does."""

    RESIDUALS = 0
    GRADIENT = 1
    JACOBIAN = 2
    SUM = 3


GROUPS = 4
"""Groups of points that go through the layers together: 32 points stay in the cache."""

# only the absolute error counts where the result is added to others: 2.3e-16
_TANH = """\
const auto layer_tanh = [&](V x) __attribute__((always_inline)) -> V {
#pragma clang fp contract(fast)
  const V a = vabs(x);
  const V b = a < 20.0 ? a : V(20.0);
  const V u = -2.0*b;
  const V k = (u*0x1.71547652b82fep+0 + VROUND_) - VROUND_;
  const V r = (u - k*0x1.62e42fee00000p-1) - k*0x1.a39ef35793c76p-33;
  const V z = r*r, z2 = z*z, z4 = z2*z2;
  const V c01 = 1.0 + r, c23 = 0.5 + r*(1.0/6.0), c45 = 1.0/24.0 + r*(1.0/120.0);
  const V c67 = 1.0/720.0 + r*(1.0/5040.0), c89 = 1.0/40320.0 + r*(1.0/362880.0);
  const V cab = 1.0/3628800.0 + r*(1.0/39916800.0), ccd = 1.0/479001600.0 + r*(1.0/6227020800.0);
  const V p = ((c01 + z*c23) + z2*(c45 + z*c67)) + z4*((c89 + z*cab) + z2*ccd);
  const VBITS n = __builtin_bit_cast(VBITS, k + VROUND_) << 52;
  const V e = __builtin_bit_cast(V, __builtin_bit_cast(VBITS, p) + n);
  const V y = (1.0 - e)/(1.0 + e);
  const VBITS sign = __builtin_bit_cast(VBITS, x) & (1LL << 63);
  const V t = __builtin_bit_cast(V, __builtin_bit_cast(VBITS, y) | sign);
  return x == x ? t : x;
};
"""


@dataclass(frozen=True)
class EngineText:
    """Body of a kernel and the memory that it works in.

    Attributes:
        body: C++ statements for `solvers.kernels.build_kernel` with `ARGUMENTS`.
        scratch: Vectors of scratch memory that each thread needs.
    """

    body: str
    scratch: int


def write_engine(program: ResidualProgram, layers: Layers | Branches, registers: int) -> EngineText:
    """Write the kernel of a program.

    Args:
        program: Residuals over the channels of a network.
        layers: Shape of the network.
        registers: Vector registers of the machine.
    """
    channels = len(program.plan)
    lines = [f"enum {{ C = {channels}, GROUPS = {GROUPS} }};", _TANH, _coefficients(program)]
    for b, (part, first) in enumerate(zip(layers.parts, layers.starts(), strict=True)):
        lines += _products(b, part, first, channels, registers)
    lines.append(_activation(program.plan, layers.activation))
    lines.append(_residual(program))
    places, total = _layout(program, layers)
    lines.append(_driver(program, layers, places, total))
    return EngineText("\n".join(lines), total)


def _products(b: int, part: Layers, first: int, channels: int, registers: int) -> list[str]:
    """Functions of the layers of one branch."""
    lines = []
    for l, (columns, rows) in enumerate(itertools.pairwise(part.sizes)):
        weight = first + part.offsets()[l]
        shape = {"channels": channels, "weight": weight}
        lines.append(
            layer_product(
                f"forward{b}_{l}", rows=rows, columns=columns, registers=registers,
                bias=weight + rows * columns, is_transposed=False, **shape,
            )
        )  # fmt: skip
        if l:
            lines.append(
                layer_product(
                    f"backward{b}_{l}", rows=columns, columns=rows, registers=registers,
                    bias=None, is_transposed=True, **shape,
                )
            )  # fmt: skip
        lines.append(
            gradient_tiles(f"sum{b}_{l}", rows=rows, columns=columns, registers=registers, **shape)
        )
        lines.append(jacobian_rows(f"row{b}_{l}", rows=rows, columns=columns, **shape))
    return lines


def _coefficients(program: ResidualProgram) -> str:
    """Coefficients as vectors: known ones from a table, unknown ones from the parameters."""
    names, first = list(program.values), program.layers.parameter_count
    unknown = {name: f"theta[{first + i}]" for i, name in enumerate(program.unknown)}
    lines = [f"V s[{max(1, len(names))}]; V a[{max(1, program.plan.weights)}];"]
    lines += [f"s[{i}] = V({unknown.get(n, f'known[{i}]')});" for i, n in enumerate(names)]
    lines += [f"a[{i}] = V(weights[{i}]);" for i in range(program.plan.weights)]
    return "\n".join(lines)


def _activation(plan: ChannelPlan, activation: str) -> str:
    recorded = record_activation(plan)
    is_tanh = activation == "tanh"
    tape = Tape()
    values = tuple(tape.inputs("v", 1 if is_tanh else 2))

    def slopes(order: int) -> str:
        made = slopes_from_values(activation, values, order)
        return f"V f[{order}];\n" + emit_block([("f", m, f) for m, f in enumerate(made)])

    load = f"V z[C]; for (int c = 0; c < C; ++c) z[c] = Z[c*units+i]; V v[{len(values)}];"
    evaluate = "v[0] = layer_tanh(z[0]);" if is_tanh else "vsincos(z[0], v[0], v[1]);"
    again = "v[0] = H[i];" if is_tanh else evaluate
    forward: list[tuple[str, int | None, Any]] = [
        ("h", c + 1, y) for c, y in enumerate(recorded.forward)
    ]
    backward: list[tuple[str, int | None, Any]] = [
        ("d", c, y) for c, y in enumerate(recorded.backward)
    ]
    return "\n".join(
        [
            "const auto activate = [&](int units, const V* __restrict Z, V* __restrict H) {",
            FUSED,
            f"for (int i = 0; i < units; ++i) {{ {load} {evaluate}",
            slopes(recorded.order),
            "V h[C]; h[0] = v[0];",
            emit_block(forward) if forward else "",
            "for (int c = 0; c < C; ++c) H[c*units+i] = h[c]; }",
            "};",
            "const auto deactivate = [&](int units, const V* __restrict Z, const V* __restrict H, "
            "V* __restrict G) {",
            FUSED,
            f"for (int i = 0; i < units; ++i) {{ {load} {again}",
            slopes(recorded.order + 1),
            "V g[C]; for (int c = 0; c < C; ++c) g[c] = G[c*units+i]; V d[C];",
            emit_block(backward),
            "for (int c = 0; c < C; ++c) G[c*units+i] = d[c]; }",
            "};",
        ]
    )


def _residual(program: ResidualProgram) -> str:
    equations, width = program.equations, _width(program)
    results = program.expressions
    outputs: list[tuple[str, int | None, Any]] = [
        ("r", e, y) for e, y in enumerate(results[:equations])
    ]
    outputs += [("slopes", k, y) for k, y in enumerate(results[equations:])]
    assert len(results) == equations * (1 + width)
    return "\n".join(
        [
            "const auto residual = [&](const V* __restrict o, const V* __restrict p, "
            "V* __restrict r, V* __restrict slopes) {",
            emit_block(outputs),
            "};",
        ]
    )


def _width(program: ResidualProgram) -> int:
    """Derivatives of one residual: by the channels of all outputs, then by unknown coefficients."""
    return len(program.plan) * program.layers.sizes[-1] + len(program.unknown)


def _layout(program: ResidualProgram, layers: Layers | Branches) -> tuple[dict[str, int], int]:
    channels, equations = len(program.plan), program.equations
    sections = {}
    for b, part in enumerate(layers.parts):
        for l, units in enumerate(part.sizes[1:-1]):
            sections[f"Z{b}_{l}"] = GROUPS * channels * units
            sections[f"H{b}_{l}"] = GROUPS * channels * units
        sections[f"G{b}"] = GROUPS * channels * max(part.sizes)
        sections[f"N{b}"] = GROUPS * channels * max(part.sizes)
    sections["R"] = GROUPS * equations
    sections["S"] = GROUPS * equations * _width(program)
    sections["T"] = program.parameter_count
    places, place = {}, 0
    for name, size in sections.items():
        places[name] = place
        place += size
    return places, place


def _driver(
    program: ResidualProgram, layers: Layers | Branches, places: dict[str, int], scratch: int
) -> str:
    inputs, units = layers.sizes[0], layers.sizes[-1]
    equations, width = program.equations, _width(program)
    outputs, values = len(program.plan) * units, len(program.point_symbols)
    count, network = program.parameter_count, program.layers.parameter_count
    lines = [
        f"V* const work = scratch + (long long)block*{scratch};",
        *(f"V* const {name} = work + {place};" for name, place in places.items()),
        "const bool adds = operation == 1 || operation == 3;",
        "for (;;) {",
        "const int chunk = __atomic_fetch_add(taken, 1, __ATOMIC_RELAXED);",
        "if (chunk >= chunks) break;",
        "const int first = cuts[chunk], end = cuts[chunk+1];",
        "V total = V(0.0);",
        f"if (adds) for (int i = 0; i < {count}; ++i) T[i] = V(0.0);",
        "for (int start = first; start < end; start += GROUPS) {",
        "const int some = end - start < GROUPS ? end - start : GROUPS;",
        f"const V* const points = jets + (long long)start*C*{inputs};",
        "for (int g = 0; g < some; ++g) {",
        f"V o[{outputs}];",
    ]
    ends = list(itertools.accumulate(part.sizes[-1] for part in layers.parts))
    for b, part in enumerate(layers.parts):
        lines += _forward(b, part, inputs, units, ends[b] - part.sizes[-1])
    lines += [
        f"residual(o, values + (long long)(start+g)*{values}, R + g*{equations}, "
        f"S + g*{equations * width});",
        f"for (int e = 0; e < {equations}; ++e) {{ const V r = R[g*{equations}+e]; "
        "total += operation == 3 ? r : 0.5*r*r; residuals[(long long)e*groups+start+g] = r; }",
        "}",
        "if (operation == 0) continue;",
        f"for (int e = 0; e < (adds ? 1 : {equations}); ++e) {{",
        f"for (int g = 0; g < some; ++g) for (int j = 0; j < {width}; ++j) {{",
        FUSED,
        "V slope = V(0.0);",
        f"if (adds) for (int q = 0; q < {equations}; ++q)",
        f"slope += (operation == 1 ? R[g*{equations}+q] : V(1.0))*S[(g*{equations}+q)*{width}+j];",
        f"else slope = S[(g*{equations}+e)*{width}+j];",
        f"if (j < {outputs}) {{ const int c = j/{units}, k = j%{units};",
    ]
    for b, part in enumerate(layers.parts):
        n = part.sizes[-1]
        lines.append(
            f"{'else ' if b else ''}if (k < {ends[b]}) G{b}[(g*C+c)*{n}+k-{ends[b] - n}] = slope;"
        )
    lines += [
        "}",
        f"else if (adds) T[{network - outputs}+j] += slope;",
        "else ((V*)out)"
        f"[({network - outputs}+j)*(long long){equations}*groups+(long long)e*groups+start+g] "
        "= slope;",
        "}",
        "V* const rows = (V*)out + (long long)e*groups + start;",
        f"const long long stride = (long long){equations}*groups;",
    ]
    for b, part in enumerate(layers.parts):
        lines += _backward(b, part)
    lines += [
        "}",
        "}",
        f"if (adds) for (int i = 0; i < {count}; ++i)",
        f"out[(long long)chunk*{count}+i] = vsum(T[i]);",
        "losses[chunk] = vsum(total);",
        "}",
    ]
    return "\n".join(lines)


def _forward(b: int, part: Layers, inputs: int, units: int, first: int) -> list[str]:
    """Layers of a branch, and its outputs among those of the network."""
    lines, before = [], f"points + g*C*{inputs}"
    for l, n in enumerate(part.sizes[1:-1]):
        at = f"+ g*C*{n}"
        lines.append(f"forward{b}_{l}({before}, Z{b}_{l} {at});")
        lines.append(f"activate({n}, Z{b}_{l} {at}, H{b}_{l} {at});")
        before = f"H{b}_{l} {at}"
    last, n = len(part.sizes) - 2, part.sizes[-1]
    if n == units:
        return [*lines, f"forward{b}_{last}({before}, o);"]
    return [
        *lines,
        f"{{ V q[C*{n}]; forward{b}_{last}({before}, q);",
        f"for (int c = 0; c < C; ++c) for (int k = 0; k < {n}; ++k) "
        f"o[c*{units}+{first}+k] = q[c*{n}+k]; }}",
    ]


def _backward(b: int, part: Layers) -> list[str]:
    """Layers of a branch on the way back: sums of the gradient or rows of the Jacobian."""
    lines, sizes = [], part.sizes
    here, there = f"G{b}", f"N{b}"
    for l in range(len(sizes) - 2, -1, -1):
        inputs = f"H{b}_{l - 1}" if l else "points"
        lines.append(f"if (adds) sum{b}_{l}(some, {here}, {inputs}, T);")
        lines.append(f"else row{b}_{l}(some, {here}, {inputs}, rows, stride);")
        if l:
            n, m = sizes[l], sizes[l + 1]
            at = f"+ g*C*{n}"
            lines += [
                "for (int g = 0; g < some; ++g) {",
                f"backward{b}_{l}({here} + g*C*{m}, {there} {at});",
                f"deactivate({n}, Z{b}_{l - 1} {at}, H{b}_{l - 1} {at}, {there} {at});",
                "}",
            ]
            here, there = there, here
    return lines
