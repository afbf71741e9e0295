"""Mathematical functions that read the same on numbers, arrays, tensors, symbols and fields.

A residual written with them runs on torch tensors, is traced into a compiled kernel, and serves
NumPy reference solvers, without a change.

Example:
    >>> import torch
    >>> sin(0.0), float(exp(torch.zeros(1)))
    (0.0, 1.0)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from solvers.kernels import scalar
from solvers.pde._jet import plain

__all__ = [
    "absolute",
    "cos",
    "cosh",
    "exp",
    "maximum",
    "minimum",
    "pi",
    "sin",
    "sinh",
    "sqrt",
    "tanh",
    "where",
]

pi = math.pi


def sin(x: Any) -> Any:
    """Compute the sine of ``x`` [rad]."""
    return _unary(x, np.sin, scalar.sin)


def cos(x: Any) -> Any:
    """Compute the cosine of ``x`` [rad]."""
    return _unary(x, np.cos, scalar.cos)


def exp(x: Any) -> Any:
    """Compute the exponential."""
    return _unary(x, np.exp, scalar.exp)


def sinh(x: Any) -> Any:
    """Compute the hyperbolic sine."""
    return _unary(x, np.sinh, lambda y: (scalar.exp(y) - scalar.exp(-y)) / 2)


def cosh(x: Any) -> Any:
    """Compute the hyperbolic cosine."""
    return _unary(x, np.cosh, lambda y: (scalar.exp(y) + scalar.exp(-y)) / 2)


def tanh(x: Any) -> Any:
    """Compute the hyperbolic tangent."""
    return _unary(x, np.tanh, scalar.tanh)


def sqrt(x: Any) -> Any:
    """Compute the square root."""
    return _unary(x, np.sqrt, scalar.sqrt)


def absolute(x: Any) -> Any:
    """Compute the absolute value; its derivative at 0 is 0."""
    return _unary(x, np.abs, scalar.absolute)


def maximum(a: Any, b: Any) -> Any:
    """Take the larger of two, element by element."""
    a, b = plain(a), plain(b)
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return np.maximum(a, b)
    return scalar.maximum(a, b)


def minimum(a: Any, b: Any) -> Any:
    """Take the smaller of two, element by element."""
    a, b = plain(a), plain(b)
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return np.minimum(a, b)
    return scalar.minimum(a, b)


def where(condition: Any, a: Any, b: Any) -> Any:
    """Choose ``a`` where the condition holds and ``b`` elsewhere; both are computed.

    Args:
        condition: A comparison such as ``x < 0.5``.
        a: Taken where it holds.
        b: Taken elsewhere.

    Returns:
        The chosen values.
    """
    condition, a, b = plain(condition), plain(a), plain(b)
    if isinstance(condition, np.ndarray):
        return np.where(condition, a, b)
    return scalar.where(condition, a, b)


def _unary(x: Any, array: Callable[[Any], Any], generic: Callable[[Any], Any]) -> Any:
    value = plain(x)
    if isinstance(value, (np.ndarray, np.generic)) and not isinstance(value, torch.Tensor):
        return array(value)
    return generic(value)
