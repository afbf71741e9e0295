"""What NVRTC writes, run on the CPU.

The compiler's output before registers are given out, PTX, is a small assembly language. Each of its
instructions is one statement of C++, so that a kernel for CUDA can be run without a GPU: one grid
of threads after the other. This checks what compiling alone cannot: which thread takes which block,
where arguments arrive, and what the arithmetic gives.

Reference: NVIDIA, Parallel Thread Execution ISA, chapter on the instruction set.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from solvers.kernels import aligned_empty, build_kernel, cuda_architectures, pack
from solvers.kernels._cuda import THREAD_BLOCKS
from solvers.kernels._request import KernelRequest
from solvers.kernels._warp import define_kernel, import_warp, quiet

pytestmark = pytest.mark.skipif(
    90 not in cuda_architectures(), reason="warp-lang here has no CUDA compiler"
)

POINTS = [("points", "V*"), ("values", "V*")]

REGISTERS = {
    "p": "bool",
    "rs": "unsigned short",
    "r": "unsigned",
    "rd": "unsigned long long",
    "fd": "double",
}
TYPES = {
    "pred": "bool",
    "f64": "double",
    **dict.fromkeys(("b32", "u32"), "unsigned"),
    **dict.fromkeys(("b64", "u64"), "unsigned long long"),
    **dict.fromkeys(("b16", "u16"), "unsigned short"),
    **dict.fromkeys(("b8", "u8"), "unsigned char"),
    "s8": "signed char",
    "s16": "short",
    "s32": "int",
    "s64": "long long",
}
WRAPPING = {"int": "unsigned", "long long": "unsigned long long"}
WRAPPING |= {kind: kind for kind in WRAPPING.values()}
INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/", "and": "&", "or": "|", "xor": "^"}
ORDERED = {"eq": "==", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
OPPOSITE = {"neu": "==", "ltu": ">=", "leu": ">", "gtu": "<=", "geu": "<"}
SPECIAL = {
    "%tid.x": "(unsigned)(block % block_threads)",
    "%ctaid.x": "(unsigned)(block / block_threads)",
    "%ntid.x": "(unsigned)block_threads",
    "%nctaid.x": "(unsigned)grid",
}


def bits(value: str, kind: str) -> str:
    return f"__builtin_bit_cast({kind}, {value})"


def kind_of(register: str) -> str:
    return REGISTERS.get(re.match(r"%([a-z]*)", register)[1], "unsigned long long")


def read(operand: str, kind: str) -> str:
    """C++ expression of an operand as a value of a C++ type."""
    if operand in SPECIAL:
        return SPECIAL[operand]
    if operand.startswith("0d"):
        return bits(f"0x{operand[2:]}ull", "double")
    if operand.startswith("%"):
        name = operand[1:]
        is_cast = (kind_of(operand) == "double") != (kind == "double")
        return bits(name, kind) if is_cast else f"({kind}){name}"
    if operand.lstrip("-").isdigit():
        return f"({kind}){int(operand) % 2**64:#x}ull"
    return f"({kind}){operand}"


def address(operand: str) -> str:
    base, _, offset = operand.strip("[]").partition("+")
    return f"({read(base, TYPES['u64'])} + {offset or 0})"


def statement(opcode: str, operands: list[str]) -> str:
    """C++ statement of one instruction."""
    name, *modifiers = opcode.split(".")
    kind = TYPES.get(modifiers[-1] if modifiers else "", "")
    if name in {"ld", "st"}:
        return memory(name, modifiers, operands)
    target, *rest = operands
    x = [read(operand, kind) for operand in rest] if kind else []
    if name in {"mov", "cvta"}:
        value = read(rest[0], kind_of(target))
    elif name == "cvt":
        value = f"({TYPES[modifiers[-2]]}){x[0]}"
    elif name == "mul" and modifiers[0] == "wide":
        wide = "long long" if kind == "int" else TYPES["u64"]
        value = f"({wide}){x[0]} * ({wide}){x[1]}"
    elif name in INFIX:
        if name in {"add", "sub", "mul"} and kind != "double":  # which wrap around
            x = [f"({WRAPPING[kind]}){y}" for y in x]
        value = f"{x[0]} {INFIX[name]} {x[1]}"
    elif name in {"shl", "shr"}:
        value = f"{x[0]} {'<<' if name == 'shl' else '>>'} ({read(rest[1], 'unsigned')})"
    elif name == "setp":
        value = compared(modifiers[0], *x)
    elif name == "selp":
        value = f"{read(rest[2], 'bool')} ? {x[0]} : {x[1]}"
    else:
        width = 32 if kind in {"int", "unsigned"} else 64
        value = {
            "fma": "__builtin_fma({}, {}, {})",
            "rcp": "1.0 / {}",
            "sqrt": "__builtin_elementwise_sqrt({})",
            "abs": "__builtin_elementwise_abs({})",
            "neg": "-({})",
            "min": "({0}) < ({1}) ? ({0}) : ({1})",
            "max": "({0}) > ({1}) ? ({0}) : ({1})",
            "not": "!({})" if kind == "bool" else "~({})",
            "mad": "{} * {} + {}",
            "popc": "__builtin_popcountll({})",
            "clz": f"({{0}}) ? __builtin_clzll({{0}}) - {64 - width} : {width}",
            "brev": f"__builtin_bitreverse{width}({{}})",
        }[name].format(*x)
    return f"{target[1:]} = {value};"


def compared(relation: str, a: str, b: str) -> str:
    if relation in ORDERED:
        return f"{a} {ORDERED[relation]} {b}"
    if relation in OPPOSITE:
        return f"!({a} {OPPOSITE[relation]} {b})"
    if relation == "ne":
        return f"({a} < {b}) | ({a} > {b})"
    is_nan = f"({a} != {a}) | ({b} != {b})"
    return {"nan": is_nan, "num": f"!({is_nan})"}[relation]


def memory(name: str, modifiers: list[str], operands: list[str]) -> str:
    space, of = modifiers[0], modifiers[-1]
    if space == "shared":
        return ""  # Warp's own book-keeping for tiles
    if space == "param" and name == "st":  # for a call
        return f"{operands[0].strip('[]').removesuffix('+0')} = {read(operands[1], TYPES[of])};"
    if space == "param":
        source = re.search(r"param_\d+(\+\d+)?", operands[1])[0]
        return f"{operands[0][1:]} = {source.replace('+', '_at_')};"
    place, registers = (operands[1], operands[0]) if name == "ld" else (operands[0], operands[1])
    pointer = f"(({TYPES[of]}*){address(place)})"
    lines = []
    for i, register in enumerate(registers.strip("{}").split(",")):
        register = register.strip()
        lines.append(
            f"{register[1:]} = {pointer}[{i}];"
            if name == "ld"
            else f"{pointer}[{i}] = {read(register, TYPES[of])};"
        )
    return " ".join(lines)


def translated(text: str) -> str:
    """C++ text of a PTX kernel, one thread a block."""
    text = re.sub(r"//.*", "", text).replace("$", "").replace("\0", "")
    lines = ["{", "#pragma clang fp contract(off)"]
    table = r"^\.(?:const|global) \.align (\d+) \.b8 (\w+)\[\d+\] = (\{.*?\});"
    for alignment, name, values in re.findall(table, text, re.MULTILINE):
        lines.append(f"alignas({alignment}) static const unsigned char {name}[] = {values};")
    function = r"(\.entry|\.func)\s+(\w+)\s*\(([^)]*)\)\s*\{(.*?)^\}"
    for kind, name, parameters, code in re.findall(function, text, re.MULTILINE | re.DOTALL):
        if kind == ".func":
            types = [TYPES[of] for of in re.findall(r"\.param \.(\w+) ", parameters)]
            head = ", ".join(f"{of} param_{i}" for i, of in enumerate(types))
            lines.append(f"const auto {name} = [&]({head})")
        lines.append("{")
        lines += statements(code)
        lines.append("};")
    return "\n".join([*lines, "}"])


def statements(code: str) -> Iterator[str]:
    """C++ statements of the body of a PTX function."""
    for name in re.findall(r"\.shared \.align \d+ \.b8 (\w+)\[", code):
        yield f"const unsigned {name} = 0;"
    for alignment, name, size in re.findall(r"\.local \.align (\d+) \.b8\s+(\w+)\[(\d+)\];", code):
        yield f"alignas({alignment}) unsigned char {name}[{size}];"
    for prefix, count in re.findall(r"\.reg \.\w+\s+%([a-z]+)<(\d+)>;", code):
        yield f"{REGISTERS[prefix]} {', '.join(f'{prefix}{i}' for i in range(int(count)))};"
    yield f"{TYPES['u64']} SP, SPL;"
    code = re.sub(r"call\.uni\s+(\w+),\s*\(([^)]*)\)", in_one_line, code)
    for line in code.splitlines():
        yield from instruction(line.strip().rstrip(";"))
    yield "done: ;"


def in_one_line(call: re.Match[str]) -> str:
    return f"call {call[1]}, {' '.join(call[2].split())}"


def instruction(line: str) -> Iterator[str]:
    if line in {"{", "}"}:
        yield line
    if line.endswith(":"):
        yield f"{line} ;"
    if argument := re.fullmatch(r"\.param \.(\w+) (\w+)", line):
        yield f"{TYPES[argument[1]]} {argument[2]};"
    found = re.fullmatch(r"(?:@(!?)%(p\d+)\s+)?([a-z][\w.]*)(?:\s+(.*))?", line)
    if not found:
        return
    negated, guard, opcode, rest = found.groups()
    if opcode == "ret":
        text = "goto done;"
    elif opcode in {"bra", "bra.uni"}:
        text = f"goto {rest};"
    elif opcode == "call":
        function, _, values = rest.partition(", ")
        text = f"{function}({values});"
    else:
        text = statement(opcode, re.split(r",\s*(?![^{]*\})", rest))
    yield f"if ({negated}{guard}) {{ {text} }}" if guard else text


def compile_ptx(request: KernelRequest) -> str:
    warp = import_warp()
    kernel = define_kernel(THREAD_BLOCKS, request.key, request.source, request.parameters)
    with tempfile.TemporaryDirectory() as folder, quiet(warp):
        warp.compile_aot_module(kernel.module, arch=90, module_dir=folder, use_ptx=True)
        (path,) = Path(folder).glob("*.ptx")
        return path.read_text()


def emulated(
    name: str, body: str, arguments: Sequence[tuple[str, str]], *, grid: int | None = None
) -> Callable[..., None]:
    """Kernel for CUDA whose threads run on the CPU, in blocks of 32."""
    request = KernelRequest(name, body, tuple(arguments), 1, "cuda", {})
    places = [*arguments, ("first", "int"), ("last", "int")]
    # the first parameter is Warp's: shape, number of threads, threads with equal coordinates
    numbers = ["const unsigned long long param_0_at_8 = last - first, param_0_at_16 = 1;"]
    numbers += [
        f"const auto param_{i} = {f'(unsigned long long){n}' if kind.endswith('*') else n};"
        for i, (n, kind) in enumerate(places, 1)
    ]
    kernel = build_kernel(
        name,
        "\n".join([*numbers, translated(compile_ptx(request))]),
        [*places, ("grid", "int"), ("block_threads", "int")],
        lanes=1,
    )

    def call(blocks: int, *values: Any, first_block: int = 0) -> None:
        size = grid or -(-blocks // 32)
        kernel(32 * size, *values, first_block, first_block + blocks, size, 32)

    return call


@pytest.mark.parametrize("grid", [None, 1])
def test_each_block_runs_once(grid: int | None) -> None:
    """With as many threads as items, and with fewer."""
    body = "if (flags[block] > n) continue; y[block] += factor * block; flags[block] = n;"
    arguments = [("y", "double*"), ("flags", "int*"), ("factor", "double"), ("n", "int")]
    kernel = emulated("count", body, arguments, grid=grid)
    y, flags = torch.zeros(100, dtype=torch.float64), torch.zeros(100, dtype=torch.int32)
    flags[40] = 8
    kernel(77, y, flags, 1.5, 7, first_block=11)
    items = torch.arange(100, dtype=torch.float64)
    runs = (items >= 11) & (items < 88) & (items != 40)
    torch.testing.assert_close(y, torch.where(runs, 1.5 * items, 0.0), rtol=0, atol=0)
    assert flags.tolist() == [7 if run else 8 if i == 40 else 0 for i, run in enumerate(runs)]


def test_functions(functions: str, function_points: np.ndarray) -> None:
    """Within the error bounds of both sides."""
    x = function_points
    points, values = pack(torch.from_numpy(x), 1), aligned_empty(2, len(x), 20, 1)
    build_kernel("functions", functions, POINTS, lanes=1)(len(x), points, values[0])
    emulated("functions", functions, POINTS)(len(x), points, values[1])
    np.testing.assert_allclose(values[1], values[0], rtol=2e-15)


@pytest.mark.parametrize("seed", range(3))
def test_traced_functions(seed: int, random_body: Callable[..., str]) -> None:
    body = random_body(seed, smooth=True)
    x = np.random.default_rng(seed).normal(size=(200, 5))
    points, values = pack(torch.from_numpy(x), 1), aligned_empty(2, len(x), 4, 1)
    build_kernel("traced", body, POINTS, lanes=1)(len(x), points, values[0])
    emulated("traced", body, POINTS)(len(x), points, values[1])
    np.testing.assert_allclose(values[1], values[0], rtol=1e-11, atol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("robot", ["hopper", "ant"])
def test_simulations(launches: list[Any]) -> None:
    """Adjoints; the PTX of steps calls functions in a form that is not read here."""
    adjoints = [launch for launch in launches if launch.kernel.name == "adjoint"]
    assert adjoints
    for launch in adjoints:
        kernel = launch.kernel
        left = launch.replay(emulated(kernel.name, kernel.body, kernel.arguments))
        for (name, _), ours, theirs in zip(kernel.arguments, left, launch.after, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7, err_msg=name)
