"""Symbols that take functions of torch, so that a program written for tensors is traced as well."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Final

import torch

from solvers.kernels import scalar
from solvers.kernels._symbol import Symbol, Tape

__all__ = ["TorchSymbol", "TorchTape"]


class TorchSymbol(Symbol):
    """A symbol that also takes the functions of torch that work number by number.

    Functions without a counterpart among traced operations, other tensors, comparisons with ``==``
    and everything that needs a shape raise `TypeError` or `AttributeError`: such a program can only
    run on tensors.
    """

    __slots__ = ()

    @classmethod
    def __torch_function__(
        cls,
        function: Callable[..., Any],
        kinds: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Record what a function of torch computes."""
        name = getattr(function, "__name__", str(function))
        known = _FUNCTIONS.get(name)
        if known is None or any(isinstance(one, torch.Tensor) for one in args):
            raise TypeError(f"torch.{name} of {args!r} cannot be traced")
        return known(*args, **(kwargs or {}))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Look up a method that tensors have."""
        if name not in _FUNCTIONS or name == "where":
            raise AttributeError(f"{self!r} has no {name!r} while it is traced")
        return partial(_FUNCTIONS[name], self)

    def __pow__(self, exponent: Any) -> Any:
        """Record a power."""
        is_plain = isinstance(exponent, float | int) and float(2 * exponent).is_integer()
        return super().__pow__(exponent) if is_plain else scalar.power(self, exponent)

    def __rpow__(self, base: float) -> Any:
        """Record a power of a number."""
        return scalar.power(self.tape.constant(base), self)

    def __eq__(self, other: object) -> bool:
        """Refuse, for tensors compare numbers and symbols are compared by identity."""
        raise TypeError(f"{self!r} cannot be compared by == while it is traced")

    __hash__ = Symbol.__hash__


class TorchTape(Tape):
    """A tape of `TorchSymbol`.

    Example:
        >>> tape = TorchTape()
        >>> x = tape.input("x")
        >>> torch.sqrt(x * x + 1.0).operation, x.sin() is scalar.sin(x)
        ('sqrt', True)
    """

    __slots__ = ()

    kind: ClassVar[type[Symbol]] = TorchSymbol


def _clamp(x: Any, min: Any = None, max: Any = None) -> Any:
    x = x if min is None else scalar.maximum(x, min)
    return x if max is None else scalar.minimum(x, max)


def _where(condition: Any, a: Any, b: Any) -> Any:
    if not isinstance(condition, Symbol):
        raise TypeError(f"where: got the condition {condition!r}, expected a traced one")
    return scalar.where(condition, a, b)


_SAME: Final = (
    "cos", "exp", "log", "sin", "sqrt", "tan", "tanh", "maximum", "minimum", "reciprocal", "square",
    "greater", "greater_equal", "less", "less_equal",
)  # fmt: skip
_OTHER: Final[dict[str, tuple[str, ...]]] = {
    "absolute": ("abs", "absolute"),
    "power": ("pow",),
    "greater": ("gt",),
    "greater_equal": ("ge",),
    "less": ("lt",),
    "less_equal": ("le",),
}
_OPERATORS: Final[dict[Callable[..., Any], tuple[str, ...]]] = {
    operator.add: ("add",),
    operator.sub: ("sub", "subtract"),
    operator.mul: ("mul", "multiply"),
    operator.truediv: ("div", "divide", "true_divide"),
    operator.neg: ("neg", "negative"),
}
_FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    **{name: getattr(scalar, name) for name in _SAME},
    **{name: getattr(scalar, own) for own, names in _OTHER.items() for name in names},
    **{name: function for function, names in _OPERATORS.items() for name in names},
    "clamp": _clamp,
    "rsqrt": lambda x: 1.0 / scalar.sqrt(x),
    "zeros_like": lambda x: x.tape.constant(0.0),
    "ones_like": lambda x: x.tape.constant(1.0),
    "where": _where,
}
