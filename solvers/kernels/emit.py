"""Emitter: the live part of a tape as C++ statements on lane vectors.

The text uses the vocabulary of `prelude`. One statement per operation, in tape order; every store
stands after every load, so an output array may be an input array as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from solvers.kernels._evaluate import common_tape
from solvers.kernels._prelude import LANE_COUNTS, prelude
from solvers.kernels._symbol import CONDITION_OPERATIONS, Symbol, Tape

__all__ = ["LANE_COUNTS", "emit", "emit_block", "prelude"]

_TEMPLATES = {
    "add": "{0}+{1}",
    "subtract": "{0}-{1}",
    "multiply": "{0}*{1}",
    "divide": "{0}/{1}",
    "negative": "-{0}",
    "sqrt": "vsqrt({0})",
    "exp": "vexp({0})",
    "log": "vlog({0})",
    "tanh": "vtanh({0})",
    "absolute": "vabs({0})",
    "greater": "{0}>{1}",
    "greater_equal": "{0}>={1}",
    "and": "{0}&{1}",
    "or": "{0}|{1}",
    "where": "vselect({0},{1},{2})",
}


def emit(outputs: Sequence[tuple[str, int | None, Any]]) -> str:
    """Write statements that compute and store the outputs.

    Args:
        outputs: Triples of array name, place in it and scalar. Place ``None`` stores to a plain
            variable. A condition is stored as 1.0 or 0.0.

    Returns:
        Statements, one a line. Inputs are read as ``name[index]``; the names of intermediate values
        start with ``t_``, ``s_`` or ``c_`` and a number, so keep them in a block of their own.

    Raises:
        ValueError: If a name is no identifier, two outputs have the same place, or the symbols live
            on several tapes.
        TypeError: If an output is neither a number nor a symbol.

    Example:
        >>> from solvers.kernels.trace import Tape
        >>> x, y = Tape().inputs("x", 2)
        >>> print(emit([("x", 0, x + y)]))
        const V t_2=x[0]+x[1];
        x[0]=t_2;
    """
    _check(outputs)
    symbols = [y for _, _, y in outputs if isinstance(y, Symbol)]
    lines: list[str] = []
    names: dict[int, str] = {}
    if symbols:
        lines, names = _statements(common_tape(symbols), symbols)
    for name, place, y in outputs:
        target = name if place is None else f"{name}[{place}]"
        if not isinstance(y, Symbol):
            lines.append(f"{target}={_constant(float(y))};")
        elif y.is_condition:
            lines.append(f"{target}=vbool({names[y.index]});")
        else:
            lines.append(f"{target}={names[y.index]};")
    return "\n".join(lines)


def emit_block(outputs: Sequence[tuple[str, int | None, Any]]) -> str:
    """Write the statements of `emit` as a block that lets products and sums fuse.

    Fusing (one rounding for ``a*b+c``) makes straight-line code up to a fifth faster and changes
    results by rounding only.
    """
    return "{\n#pragma clang fp contract(fast)\n" + emit(outputs) + "\n}"


def _check(outputs: Sequence[tuple[str, int | None, Any]]) -> None:
    taken: set[tuple[str, int | None]] = set()
    for name, place, y in outputs:
        if not name.isidentifier():
            raise ValueError(f"output name {name!r} is not a C identifier")
        if place is not None and place < 0:
            raise ValueError(f"output {name!r}: index is {place}, expected 0 or more")
        if (name, place) in taken:
            raise ValueError(f"output {name}[{place}] is stored twice; expected distinct places")
        taken.add((name, place))
        if not isinstance(y, Symbol):
            try:
                float(y)
            except (TypeError, ValueError) as error:
                raise TypeError(
                    f"output {name}[{place}] is {type(y).__name__}, expected a Symbol or a number"
                ) from error


def _statements(tape: Tape, outputs: list[Symbol]) -> tuple[list[str], dict[int, str]]:
    nodes = tape.live([y.index for y in outputs])
    alive = set(nodes)
    # a stored input is read first: an earlier store may hit its place
    read_first = {y.index for y in outputs if y.operation == "input"}
    lines: list[str] = []
    names: dict[int, str] = {}
    for i in nodes:
        operation = tape.operations[i][0]
        if operation == "constant":
            names[i] = _constant(tape.value_of(i))
            continue
        if operation == "input":
            name, place = tape.input_of(i)
            names[i] = f"V({name})" if place is None else f"{name}[{place}]"
            if i in read_first:
                lines.append(f"const V t_{i}={names[i]};")
                names[i] = f"t_{i}"
            continue
        if i in names:
            continue
        if operation in {"sin", "cos"}:
            lines.append(_sine_and_cosine(tape, i, names, alive))
            continue
        names[i] = f"t_{i}"
        kind = "M" if operation in CONDITION_OPERATIONS else "V"
        lines.append(f"const {kind} t_{i}={_expression(tape, i, names)};")
    return lines, names


def _expression(tape: Tape, index: int, names: dict[int, str]) -> str:
    operation, arguments = tape.operations[index]
    texts = [names[j] for j in arguments]
    if operation == "not":
        # a mask is all ones or zero per lane, and a bool with one lane
        return f"{texts[0]}==M(0)"
    if operation in {"maximum", "minimum"}:
        number = tape.value_of(arguments[1])
        suffix = "" if number is None or math.isnan(number) else "_number"
        return f"v{operation[:3]}{suffix}({texts[0]},{texts[1] if not suffix else _number(number)})"
    return _TEMPLATES[operation].format(*texts)


def _sine_and_cosine(tape: Tape, index: int, names: dict[int, str], alive: set[int]) -> str:
    operation, (argument,) = tape.operations[index]
    text = names[argument]
    names[index] = f"{operation[0]}_{argument}"
    other = tape.find("cos" if operation == "sin" else "sin", tape.symbol(argument))
    if other is None or other.index not in alive:
        return f"const V {names[index]}=v{operation}({text});"
    names[other.index] = f"{'c' if operation == 'sin' else 's'}_{argument}"
    return f"V s_{argument},c_{argument}; vsincos({text},s_{argument},c_{argument});"


def _number(value: float | None) -> str:
    """Write a number so that C reads exactly the same one."""
    if value is None or math.isnan(value):
        return '__builtin_nan("")'
    if math.isinf(value):
        return "__builtin_inf()" if value > 0 else "(-__builtin_inf())"
    return repr(float(value))


def _constant(value: float | None) -> str:
    return f"V({_number(value)})"
