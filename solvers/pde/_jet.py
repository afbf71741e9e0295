"""A field together with its derivatives: what ``u`` is inside a residual.

``u`` stands for the value, ``u.x``, ``u.xx``, ``u.xt`` for derivatives. Inside, a derivative is a
multi-index: how often each axis of the domain is differentiated, in the order of the axes, so that
``u.xxt`` on axes ``("x", "t")`` is ``(2, 1)``.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

from solvers.core import SettingsError, check_names
from solvers.kernels import Symbol

__all__ = ["FieldValues", "MultiIndex", "derivative_name", "jet", "multi_index", "plain"]

MultiIndex: TypeAlias = tuple[int, ...]
"""Order of differentiation along each axis of the domain."""

FieldValues: TypeAlias = Mapping[str, Mapping[MultiIndex, Any]]
"""Field name to multi-index to values: numbers, arrays, tensors or symbols of one shape."""

Lookup = Callable[[MultiIndex], Any]


@lru_cache(maxsize=4096)
def multi_index(name: str, axes: tuple[str, ...]) -> MultiIndex | None:
    """Read the axes in a name such as ``"xxt"``; None if it is not made of axes.

    Args:
        name: Names of axes in a row.
        axes: Axes of the domain.

    Returns:
        Order of differentiation along each axis.
    """
    pattern = "|".join(sorted(map(re.escape, axes), key=len, reverse=True))
    if not re.fullmatch(f"(?:{pattern})+", name):
        return None
    found = re.findall(pattern, name)
    return tuple(found.count(axis) for axis in axes)


def derivative_name(index: Sequence[int], axes: Sequence[str]) -> str:
    """Write a multi-index as a residual does.

    Args:
        index: Order along each axis.
        axes: Names of the axes.

    Returns:
        For example ``"xxt"``; empty for the value itself.
    """
    orders, names = tuple(index), check_names("axes", axes)
    if len(orders) != len(names):
        raise SettingsError(f"index: got {index}, expected an order for each of {', '.join(names)}")
    return "".join(axis * order for axis, order in zip(names, orders, strict=True))


def jet(value: Any, axes: tuple[str, ...], name: str, lookup: Lookup) -> Any:
    """Make what stands for a field inside a residual.

    Args:
        value: Value of the field.
        axes: Axes of the domain.
        name: Name of the field, for messages.
        lookup: Gives the derivative of a multi-index.

    Returns:
        An object that computes like ``value`` and whose attributes are derivatives.
    """
    kind = _SymbolJet if isinstance(value, Symbol) else _ValueJet
    return kind(value, axes, name, lookup)


def plain(x: Any) -> Any:
    """Take the value out of a field; anything else passes."""
    return x._value if isinstance(x, _ValueJet) else x


class _Derivatives:
    """Attribute access to derivatives, shared by both kinds of field."""

    __slots__ = ()

    _axes: tuple[str, ...]
    _name: str
    _lookup: Lookup

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        index = multi_index(name, self._axes)
        if index is None:
            raise SettingsError(
                f"residual: {self._name}.{name} is no derivative, expected one or more of the axes "
                f"{', '.join(self._axes)} after the dot, for example {self._name}.{self._axes[0]}"
            )
        return self._lookup(index)


class _SymbolJet(_Derivatives, Symbol):
    """A traced field: a symbol itself, so that it mixes with the other symbols of its tape."""

    __slots__ = ("_axes", "_lookup", "_name")

    def __init__(self, value: Symbol, axes: tuple[str, ...], name: str, lookup: Lookup) -> None:
        super().__init__(value.tape, value.index)
        self._axes, self._name, self._lookup = axes, name, lookup


def _forward(function: Callable[..., Any]) -> Any:
    def method(self: _ValueJet, *others: Any) -> Any:
        return function(self._value, *map(plain, others))

    return method


def _backward(function: Callable[..., Any]) -> Any:
    def method(self: _ValueJet, other: Any) -> Any:
        return function(plain(other), self._value)

    return method


class _ValueJet(_Derivatives):
    """A field of numbers, arrays or tensors; arithmetic gives plain values."""

    __slots__ = ("_axes", "_lookup", "_name", "_value")

    # NumPy then leaves mixed arithmetic to this class.
    __array_ufunc__ = None

    def __init__(self, value: Any, axes: tuple[str, ...], name: str, lookup: Lookup) -> None:
        self._value = value
        self._axes, self._name, self._lookup = axes, name, lookup

    @classmethod
    def __torch_function__(
        cls,
        function: Callable[..., Any],
        kinds: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return function(*map(plain, args), **{k: plain(v) for k, v in (kwargs or {}).items()})

    __add__ = _forward(operator.add)
    __radd__ = _backward(operator.add)
    __sub__ = _forward(operator.sub)
    __rsub__ = _backward(operator.sub)
    __mul__ = _forward(operator.mul)
    __rmul__ = _backward(operator.mul)
    __truediv__ = _forward(operator.truediv)
    __rtruediv__ = _backward(operator.truediv)
    __pow__ = _forward(operator.pow)
    __rpow__ = _backward(operator.pow)
    __neg__ = _forward(operator.neg)
    __pos__ = _forward(operator.pos)
    __abs__ = _forward(operator.abs)
    __lt__ = _forward(operator.lt)
    __le__ = _forward(operator.le)
    __gt__ = _forward(operator.gt)
    __ge__ = _forward(operator.ge)
