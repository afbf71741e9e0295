"""Running and counting a recorded program: the interpreter that checks the compiled code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from solvers.kernels import scalar
from solvers.kernels._symbol import LEAF_OPERATIONS, Symbol, Tape

__all__ = ["evaluate", "operation_count"]


def operation_count(outputs: Sequence[Any]) -> Counter[str]:
    """Count the operations that the outputs need, by name; inputs and constants are free.

    Args:
        outputs: Symbols of one tape; numbers among them count nothing.

    Returns:
        Counter of operation names; ``.total()`` is the size of the straight-line program.

    Example:
        >>> from solvers.kernels.trace import Tape
        >>> x = Tape().input("x")
        >>> operation_count([x * x + x])["multiply"]
        1
    """
    symbols = [y for y in outputs if isinstance(y, Symbol)]
    if not symbols:
        return Counter()
    tape = common_tape(symbols)
    names = (tape.operations[i][0] for i in tape.live([y.index for y in symbols]))
    return Counter(name for name in names if name not in LEAF_OPERATIONS)


def common_tape(symbols: Sequence[Symbol]) -> Tape:
    """Give the one tape of all symbols.

    Raises:
        ValueError: If they live on several tapes.
    """
    tape = symbols[0].tape
    for y in symbols:
        if y.tape is not tape:
            raise ValueError(f"{y!r} is not on the tape of the first output; use one Tape")
    return tape


def evaluate(outputs: Sequence[Any], environment: Mapping[str, Any]) -> list[Any]:
    """Run a recorded program on batches, operation by operation.

    Slow, and independent of the code generator: the reference for compiled kernels. Torch inputs
    keep their autograd graph.

    Args:
        outputs: Symbols of one tape, or numbers, which come back unchanged.
        environment: For each input name an array or tensor of shape ``(..., n)`` whose last axis is
            the index of the input, or a sequence of ``n`` scalars or batches. The entry of an input
            without index is the batch itself.

    Returns:
        One batch per output, shape ``(...)``: tensors, or arrays if ``environment`` is all numpy.

    Raises:
        KeyError: If an input has no entry in ``environment``.
    """
    symbols = [y for y in outputs if isinstance(y, Symbol)]
    if not symbols:
        return list(outputs)
    tape = common_tape(symbols)
    is_numpy = all(isinstance(x, np.ndarray) for x in environment.values())
    values: dict[int, Any] = {}
    for i in tape.live([y.index for y in symbols]):
        operation, arguments = tape.operations[i]
        if operation == "constant":
            values[i] = tape.value_of(i)
        elif operation == "input":
            values[i] = _input(*tape.input_of(i), environment)
        else:
            values[i] = _FUNCTIONS[operation](*(values[j] for j in arguments))
    results = [values[y.index] if isinstance(y, Symbol) else y for y in outputs]
    if is_numpy:
        return [x.numpy() if isinstance(x, torch.Tensor) else x for x in results]
    return results


def _input(name: str, index: int | None, environment: Mapping[str, Any]) -> Any:
    if name not in environment:
        raise KeyError(f"input {name!r} has no entry; environment has {sorted(environment)}")
    array = environment[name]
    if index is not None:
        array = array[index] if isinstance(array, (list, tuple)) else array[..., index]
    return torch.from_numpy(np.asarray(array)) if isinstance(array, np.ndarray) else array


_FUNCTIONS: dict[str, Any] = {
    "add": scalar.add,
    "subtract": scalar.subtract,
    "multiply": scalar.multiply,
    "divide": scalar.divide,
    "negative": scalar.negative,
    "sqrt": scalar.sqrt,
    "sin": scalar.sin,
    "cos": scalar.cos,
    "exp": scalar.exp,
    "log": scalar.log,
    "tanh": scalar.tanh,
    "absolute": scalar.absolute,
    "maximum": scalar.maximum,
    "minimum": scalar.minimum,
    "greater": scalar.greater,
    "greater_equal": scalar.greater_equal,
    "and": scalar.logical_and,
    "or": scalar.logical_or,
    "not": scalar.logical_not,
    "where": scalar.where,
}
