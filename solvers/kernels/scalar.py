"""Arithmetic on generic scalars: one program for Python numbers, torch tensors and traced symbols.

A generic scalar is a Python number, a `torch.Tensor` of any batch shape, or a `Symbol` on a `Tape`.
Numbers mix with the other two; exact zeros and ones fold away at once, so that the zeros of a
structure cost nothing in torch and leave no trace on a tape. ``multiply(0, x)`` is 0 even where
``x`` is not finite.

Functions of Python numbers alone give Python numbers. Exactly one function body thus describes a
piece of physics, its compiled kernel and its torch twin.

Example:
    >>> from solvers.kernels import scalar
    >>> scalar.add(scalar.multiply(0, "never touched"), 2.0)
    2.0
"""

from __future__ import annotations

import math
import numbers
from typing import Any, TypeAlias

import torch

from solvers.kernels._symbol import Symbol, constant_value

__all__ = [
    "Condition",
    "Scalar",
    "absolute",
    "add",
    "cos",
    "divide",
    "exp",
    "greater",
    "greater_equal",
    "is_one",
    "is_zero",
    "less",
    "less_equal",
    "log",
    "logical_and",
    "logical_not",
    "logical_or",
    "maximum",
    "minimum",
    "multiply",
    "negative",
    "power",
    "reciprocal",
    "sin",
    "sin_cos",
    "sqrt",
    "square",
    "subtract",
    "tan",
    "tanh",
    "where",
]

Scalar: TypeAlias = float | torch.Tensor | Symbol
"""A Python number, a tensor of any batch shape, or a traced symbol."""

Condition: TypeAlias = bool | torch.Tensor | Symbol
"""A Python truth value, a boolean tensor, or a traced condition."""


def _is_number(x: object) -> bool:
    return isinstance(x, (float, int)) or isinstance(x, numbers.Real)


def is_zero(x: object) -> bool:
    """Tell whether ``x`` is structurally zero: the number 0 or a constant symbol 0."""
    return constant_value(x) == 0.0


def is_one(x: object) -> bool:
    """Tell whether ``x`` is structurally one: the number 1 or a constant symbol 1."""
    return constant_value(x) == 1.0


def add(a: Any, b: Any) -> Any:
    """Add two scalars; a number 0 gives the other one back unchanged."""
    if _is_number(a) and a == 0:
        return b
    if _is_number(b) and b == 0:
        return a
    return a + b


def subtract(a: Any, b: Any) -> Any:
    """Subtract ``b`` from ``a``; ``subtract(0, b)`` is ``negative(b)``."""
    if _is_number(b) and b == 0:
        return a
    if _is_number(a) and a == 0:
        return negative(b)
    return a - b


def multiply(a: Any, b: Any) -> Any:
    """Multiply two scalars; a number 0, 1 or -1 needs no product."""
    for number, other in ((a, b), (b, a)):
        if _is_number(number):
            if number == 0:
                return 0.0
            if number == 1:
                return other
            if number == -1:
                return negative(other)
    return a * b


def divide(a: Any, b: Any) -> Any:
    """Divide ``a`` by ``b``; a numerator 0 gives 0, a denominator 1 gives ``a``.

    Raises:
        ZeroDivisionError: If ``b`` is the number 0.
    """
    if _is_number(b):
        if b == 0:
            raise ZeroDivisionError("the denominator is the number 0; expected a nonzero scalar")
        if b == 1:
            return a
        if b == -1:
            return negative(a)
    if _is_number(a) and a == 0:
        return 0.0
    return a / b


def negative(a: Any) -> Any:
    """Change the sign; the number 0 stays 0."""
    return 0.0 if _is_number(a) and a == 0 else -a


def reciprocal(a: Any) -> Any:
    """Compute ``1 / a``."""
    return divide(1.0, a)


def square(a: Any) -> Any:
    """Compute ``a * a``."""
    return multiply(a, a)


def _unary(name: str, x: Any) -> Any:
    if isinstance(x, torch.Tensor):
        return getattr(torch, name)(x)
    if isinstance(x, Symbol):
        return x.unary(name)
    return abs(x) if name == "absolute" else getattr(math, name)(x)


def sqrt(x: Any) -> Any:
    """Compute the square root."""
    return _unary("sqrt", x)


def sin(x: Any) -> Any:
    """Compute the sine of ``x`` [rad]."""
    return _unary("sin", x)


def cos(x: Any) -> Any:
    """Compute the cosine of ``x`` [rad]."""
    return _unary("cos", x)


def sin_cos(x: Any) -> tuple[Any, Any]:
    """Compute sine and cosine of ``x`` [rad]; a kernel reduces the argument only once."""
    return _unary("sin", x), _unary("cos", x)


def tan(x: Any) -> Any:
    """Compute the tangent of ``x`` [rad]."""
    s, c = sin_cos(x)
    return divide(s, c)


def exp(x: Any) -> Any:
    """Compute the exponential."""
    return _unary("exp", x)


def log(x: Any) -> Any:
    """Compute the natural logarithm."""
    return _unary("log", x)


def power(x: Any, exponent: Any) -> Any:
    """Raise a positive scalar to any power.

    A traced power is ``exp(exponent log(x))``, unless the exponent is a number and a multiple of
    1/2: then it is products and a root, and whole powers take any ``x``.
    """
    if isinstance(exponent, Symbol) and exponent.value is not None:
        exponent = exponent.value
    if isinstance(exponent, Symbol) or (
        isinstance(x, Symbol) and 2 * exponent != int(2 * exponent)
    ):
        return exp(multiply(exponent, log(x)))
    return math.pow(x, exponent) if _is_number(x) and _is_number(exponent) else x**exponent


def tanh(x: Any) -> Any:
    """Compute the hyperbolic tangent."""
    return _unary("tanh", x)


def absolute(x: Any) -> Any:
    """Compute the absolute value; its derivative at 0 is 0."""
    return _unary("absolute", x)


def maximum(a: Any, b: Any) -> Any:
    """Take the larger of two; NaN wins.

    At a tie with a number the derivative goes to the other argument. At a tie of two variables
    torch gives half to each, a traced program all of it to one.
    """
    return _extremum(a, b, is_maximum=True)


def minimum(a: Any, b: Any) -> Any:
    """Take the smaller of two; NaN wins. Ties as in `maximum`."""
    return _extremum(a, b, is_maximum=False)


def _extremum(a: Any, b: Any, *, is_maximum: bool) -> Any:
    if _is_number(a) and _is_number(b):
        if math.isnan(a) or math.isnan(b):
            return math.nan
        return max(a, b) if is_maximum else min(a, b)
    if _is_number(a):
        a, b = b, a
    if isinstance(a, Symbol) or isinstance(b, Symbol):
        symbol, other = (a, b) if isinstance(a, Symbol) else (b, a)
        return symbol.maximum(other) if is_maximum else symbol.minimum(other)
    if _is_number(b):
        return torch.clamp(a, min=b) if is_maximum else torch.clamp(a, max=b)
    return torch.maximum(a, b) if is_maximum else torch.minimum(a, b)


def _constants(a: Any, b: Any) -> tuple[Any, Any]:
    # two constants compare at once, so that the choice between branches folds away
    x, y = constant_value(a), constant_value(b)
    return (a, b) if x is None or y is None else (x, y)


def greater(a: Any, b: Any) -> Any:
    """Compare: ``a > b``."""
    x, y = _constants(a, b)
    return x > y


def less(a: Any, b: Any) -> Any:
    """Compare: ``a < b``."""
    x, y = _constants(a, b)
    return x < y


def greater_equal(a: Any, b: Any) -> Any:
    """Compare: ``a >= b``."""
    x, y = _constants(a, b)
    return x >= y


def less_equal(a: Any, b: Any) -> Any:
    """Compare: ``a <= b``."""
    x, y = _constants(a, b)
    return x <= y


def logical_and(a: Any, b: Any) -> Any:
    """Join two conditions: both hold."""
    for known, other in ((a, b), (b, a)):
        if isinstance(known, bool):
            return other if known else False
    return a & b


def logical_or(a: Any, b: Any) -> Any:
    """Join two conditions: at least one holds."""
    for known, other in ((a, b), (b, a)):
        if isinstance(known, bool):
            return True if known else other
    return a | b


def logical_not(a: Any) -> Any:
    """Invert a condition."""
    return not a if isinstance(a, bool) else ~a


def where(condition: Any, a: Any, b: Any) -> Any:
    """Choose ``a`` where the condition holds and ``b`` elsewhere.

    Both branches are computed. A derivative that is not finite in the branch not taken spoils the
    result in torch, so guard roots and quotients inside the branch too.

    Args:
        condition: Python truth value, boolean tensor or traced condition.
        a: Scalar taken where the condition holds.
        b: Scalar taken elsewhere.

    Returns:
        Chosen scalar; two numbers chosen by a tensor give a float64 tensor.
    """
    if isinstance(condition, bool):
        return a if condition else b
    if _is_number(a) and _is_number(b) and a == b:
        return a
    if isinstance(condition, Symbol):
        return condition.where(a, b)
    if not isinstance(condition, torch.Tensor):
        # numpy's truth value is no subclass of bool
        return a if bool(condition) else b
    if _is_number(a) and _is_number(b):
        a = torch.full((), float(a), dtype=torch.float64, device=condition.device)
    return torch.where(condition, a, b)
