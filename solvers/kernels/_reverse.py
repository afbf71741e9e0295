"""Reverse mode on a tape: derivatives of a recorded program, recorded on the same tape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from solvers.kernels._symbol import LEAF_OPERATIONS, Symbol, Tape
from solvers.kernels.scalar import add, multiply, negative, subtract

__all__ = ["reverse"]


def reverse(seeds: Sequence[tuple[Any, Any]], wrt: Sequence[Symbol]) -> list[Any]:
    r"""Record the vector-Jacobian product of a traced program.

    For outputs :math:`y_i` with cotangents :math:`\bar y_i` it gives
    :math:`\sum_i \bar y_i \, \partial y_i / \partial x_j` for every :math:`x_j` in ``wrt``. Every
    :math:`x_j` counts as independent, also where one of them is computed from another.

    Args:
        seeds: Pairs of an output and its cotangent; Python numbers are allowed in both places.
        wrt: Symbols to differentiate by, inputs or intermediate values.

    Returns:
        One scalar for each symbol of ``wrt``; the number 0.0 where no output depends on it.

    Raises:
        ValueError: If symbols of two tapes are mixed.
        TypeError: If an output or an entry of ``wrt`` is a condition.

    Gradients: a choice passes the cotangent to the branch taken; ``maximum`` and ``minimum`` at a
    tie to their first operand on the tape; the absolute value at 0 has derivative 0. The result
    may be differentiated again.
    Cost: linear in the length of the tape; at most about four operations per recorded operation.
    Reference: Griewank and Walther (2008), Evaluating Derivatives, chapter 3.

    Example:
        >>> from solvers.kernels.trace import Tape
        >>> x = Tape().input("x")
        >>> reverse([(3.0 * x, 2.0)], [x])
        [Symbol(6.0)]
    """
    wrt = list(wrt)
    outputs = [(y, bar) for y, bar in seeds if isinstance(y, Symbol)]
    if not outputs or not wrt:
        return [0.0] * len(wrt)
    tape = outputs[0][0].tape
    for x in [*(y for y, _ in outputs), *wrt]:
        if not isinstance(x, Symbol) or x.tape is not tape:
            raise ValueError(f"{x!r} is not on the tape of the first output; use one Tape")
        if x.is_condition:
            raise TypeError(f"cannot differentiate the condition {x!r}; expected a number")
    nodes = tape.live([y.index for y, _ in outputs])
    stops = {x.index for x in wrt}
    active = _active(tape, nodes, stops)
    adjoints: dict[int, Any] = {}
    for y, bar in outputs:
        adjoints[y.index] = add(adjoints.get(y.index, 0.0), bar)
    for i in reversed(nodes):
        if i in adjoints and active[i] and i not in stops:
            # released at once: a long tape has many adjoints and each is needed only here
            _propagate(tape, i, adjoints.pop(i), active, adjoints)
    return [adjoints.get(x.index, 0.0) for x in wrt]


def _active(tape: Tape, nodes: list[int], stops: set[int]) -> bytearray:
    active = bytearray(len(tape))
    for i in nodes:
        if i in stops or any(active[j] for j in tape.operations[i][1]):
            active[i] = 1
    return active


def _propagate(
    tape: Tape, index: int, bar: Any, active: bytearray, adjoints: dict[int, Any]
) -> None:
    operation, arguments = tape.operations[index]
    if operation in LEAF_OPERATIONS:
        return
    operands = [tape.symbol(j) for j in arguments]
    for j, contribution in zip(
        arguments, _RULES[operation](bar, tape.symbol(index), *operands), strict=True
    ):
        if contribution is not None and active[j]:
            adjoints[j] = add(adjoints.get(j, 0.0), contribution)


def _divide(bar: Any, y: Symbol, a: Symbol, b: Symbol) -> tuple[Any, Any]:
    quotient = bar / b
    return quotient, negative(multiply(quotient, y))


def _tanh(bar: Any, y: Symbol, a: Symbol) -> tuple[Any]:
    return (multiply(bar, subtract(1.0, y * y)),)


def _absolute(bar: Any, y: Symbol, a: Symbol) -> tuple[Any]:
    return ((a > 0.0).where(bar, (a < 0.0).where(negative(bar), 0.0)),)


def _maximum(bar: Any, y: Symbol, a: Symbol, b: Symbol) -> tuple[Any, Any]:
    first = a >= b
    return first.where(bar, 0.0), first.where(0.0, bar)


def _minimum(bar: Any, y: Symbol, a: Symbol, b: Symbol) -> tuple[Any, Any]:
    first = a <= b
    return first.where(bar, 0.0), first.where(0.0, bar)


def _where(bar: Any, y: Symbol, c: Symbol, a: Symbol, b: Symbol) -> tuple[None, Any, Any]:
    return None, c.where(bar, 0.0), c.where(0.0, bar)


def _one_to_one(bar: Any, y: Symbol, a: Symbol, b: Symbol) -> tuple[Any, Any]:
    return bar, bar


_RULES: dict[str, Any] = {
    "add": _one_to_one,
    "subtract": lambda bar, y, a, b: (bar, negative(bar)),
    "multiply": lambda bar, y, a, b: (multiply(bar, b), multiply(bar, a)),
    "divide": _divide,
    "negative": lambda bar, y, a: (negative(bar),),
    "sqrt": lambda bar, y, a: (multiply(bar, 0.5) / y,),
    "sin": lambda bar, y, a: (multiply(bar, a.unary("cos")),),
    "cos": lambda bar, y, a: (negative(multiply(bar, a.unary("sin"))),),
    "exp": lambda bar, y, a: (multiply(bar, y),),
    "log": lambda bar, y, a: (bar / a,),
    "tanh": _tanh,
    "absolute": _absolute,
    "maximum": _maximum,
    "minimum": _minimum,
    "where": _where,
}
