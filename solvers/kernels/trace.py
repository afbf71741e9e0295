"""Tracing: record a generic-scalar program, differentiate it, count it, run it.

Example:
    >>> from solvers.kernels import scalar
    >>> tape = Tape()
    >>> x, y = tape.inputs("x", 2)
    >>> energy = scalar.add(scalar.square(x), scalar.multiply(2.0, y))
    >>> evaluate(reverse([(energy, 1.0)], [x, y]), {"x": [3.0, 5.0]})
    [6.0, 2.0]
"""

from __future__ import annotations

from solvers.kernels._evaluate import evaluate, operation_count
from solvers.kernels._reverse import reverse
from solvers.kernels._symbol import Symbol, Tape, constant_value
from solvers.kernels._torch_symbol import TorchTape

__all__ = [
    "Symbol",
    "Tape",
    "TorchTape",
    "constant_value",
    "evaluate",
    "operation_count",
    "reverse",
]
