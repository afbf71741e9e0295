"""Expression tape and its symbols: arithmetic that is recorded instead of computed.

A `Tape` is a list of operations in the order in which they were first written down; each operation
refers to earlier ones by number. Writing the same operation twice gives the same node, constants
are folded, and additions of zero or multiplications by one or zero leave no trace. A program
written for plain numbers therefore turns into straight-line code that holds only the work that its
structure needs.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from typing import ClassVar, Final

__all__ = ["CONDITION_OPERATIONS", "LEAF_OPERATIONS", "Node", "Symbol", "Tape", "constant_value"]

Node = tuple[str, tuple[int, ...]]

LEAF_OPERATIONS: Final = frozenset({"input", "constant"})
CONDITION_OPERATIONS: Final = frozenset({"greater", "greater_equal", "and", "or", "not"})
_COMMUTATIVE: Final = frozenset({"add", "multiply", "and", "or"})
_UNARY: Final[dict[str, Callable[[float], float]]] = {
    "sqrt": math.sqrt,
    "sin": math.sin,
    "cos": math.cos,
    "exp": math.exp,
    "log": math.log,
    "tanh": math.tanh,
    "absolute": abs,
}


class Tape:
    """Growing list of recorded operations.

    Attributes:
        operations: One entry per node, ``(name, operand numbers)``; operands always come earlier.

    Example:
        >>> tape = Tape()
        >>> x, y = tape.inputs("x", 2)
        >>> (x * y + 0.0) is (y * x)
        True
    """

    __slots__ = ("_input_names", "_known", "_symbols", "_values", "operations")

    kind: ClassVar[type[Symbol]]
    """What stands for a node."""

    def __init__(self) -> None:
        """Start with no operations."""
        self.operations: list[Node] = []
        self._symbols: list[Symbol] = []
        self._known: dict[object, Symbol] = {}
        self._values: dict[int, float] = {}
        self._input_names: dict[int, tuple[str, int | None]] = {}

    def __len__(self) -> int:
        """Count all recorded nodes, dead ones included."""
        return len(self.operations)

    def input(self, name: str, index: int | None = 0) -> Symbol:
        """Name one input element.

        Args:
            name: C identifier of the array that holds it.
            index: Place in that array; ``None`` for a plain variable that is no array.

        Raises:
            ValueError: If ``name`` is no identifier or ``index`` is negative.
        """
        if not name.isidentifier():
            raise ValueError(f"input name {name!r} is not a C identifier; use letters, digits, _")
        if index is not None and index < 0:
            raise ValueError(f"input {name!r}: index is {index}, expected 0 or more")
        key = ("input", name, index)
        known = self._known.get(key)
        if known is None:
            known = self._append(key, "input", ())
            self._input_names[known.index] = (name, index)
        return known

    def inputs(self, name: str, count: int, offset: int = 0) -> list[Symbol]:
        """Name ``count`` consecutive elements of the array ``name``, from ``offset`` on."""
        return [self.input(name, offset + i) for i in range(count)]

    def constant(self, value: float) -> Symbol:
        """Record a number; equal numbers share one node."""
        value = float(value)
        # hex keeps -0.0 apart from 0.0 and finds NaN again
        key = ("constant", value.hex())
        known = self._known.get(key)
        if known is None:
            known = self._append(key, "constant", ())
            self._values[known.index] = value
        return known

    def record(self, operation: str, *operands: Symbol) -> Symbol:
        """Record an operation as it is, without folding, or find it if it is already there."""
        arguments = tuple(x.index for x in operands)
        if operation in _COMMUTATIVE and arguments[0] > arguments[1]:
            arguments = arguments[::-1]
        key = (operation, arguments)
        known = self._known.get(key)
        return self._append(key, operation, arguments) if known is None else known

    def find(self, operation: str, *operands: Symbol) -> Symbol | None:
        """Look up a recorded operation without recording it."""
        return self._known.get((operation, tuple(x.index for x in operands)))

    def symbol(self, index: int) -> Symbol:
        """Look up the symbol of a node by its number."""
        return self._symbols[index]

    def value_of(self, index: int) -> float | None:
        """Look up the number of a constant node, ``None`` for any other node."""
        return self._values.get(index)

    def input_of(self, index: int) -> tuple[str, int | None]:
        """Look up the array name and place of an input node."""
        return self._input_names[index]

    def live(self, indices: list[int]) -> list[int]:
        """Find all nodes that the given nodes need, themselves included, in tape order."""
        needed = bytearray(len(self.operations))
        for i in indices:
            needed[i] = 1
        for i in range(max(indices, default=-1), -1, -1):
            if needed[i]:
                for operand in self.operations[i][1]:
                    needed[operand] = 1
        return [i for i, flag in enumerate(needed) if flag]

    def _append(self, key: object, operation: str, arguments: tuple[int, ...]) -> Symbol:
        symbol = self.kind(self, len(self.operations))
        self.operations.append((operation, arguments))
        self._symbols.append(symbol)
        self._known[key] = symbol
        return symbol


class Symbol:
    """One node of a tape, usable like a number in straight-line arithmetic.

    Comparisons with ``<``, ``>``, ``<=`` and ``>=`` give condition symbols, to be joined with ``&``
    and ``|``, inverted with ``~`` and used in `Symbol.where`. ``==`` compares identity: there is
    one symbol per node. A symbol has no truth value, so that a program cannot branch on it.
    """

    __slots__ = ("index", "tape")

    def __init__(self, tape: Tape, index: int) -> None:
        """Made by the tape only."""
        self.tape = tape
        self.index = index

    @property
    def operation(self) -> str:
        """Name of the operation that made this symbol."""
        return self.tape.operations[self.index][0]

    @property
    def value(self) -> float | None:
        """The number, if this symbol is a constant."""
        return self.tape.value_of(self.index)

    @property
    def is_condition(self) -> bool:
        """Whether this is a truth value rather than a number."""
        return self.operation in CONDITION_OPERATIONS

    def __repr__(self) -> str:
        """Short text for messages."""
        operation = self.operation
        if operation == "constant":
            return f"Symbol({self.value!r})"
        if operation == "input":
            name, place = self.tape.input_of(self.index)
            return f"Symbol({name})" if place is None else f"Symbol({name}[{place}])"
        return f"Symbol(#{self.index} {operation})"

    def __bool__(self) -> bool:
        """Refuse: the value is unknown while tracing."""
        raise TypeError(
            f"{self!r} has no truth value while it is traced; "
            "use solvers.kernels.scalar.where, maximum or minimum instead of if"
        )

    def __float__(self) -> float:
        """Give the number of a constant symbol."""
        value = self.value
        if value is None:
            raise TypeError(f"{self!r} is not a constant, so it has no float value while traced")
        return value

    def _lift(self, other: object) -> Symbol:
        if isinstance(other, Symbol):
            if other.tape is not self.tape:
                raise ValueError(
                    f"{self!r} and {other!r} live on two tapes; trace one kernel with one Tape"
                )
            return other
        if isinstance(other, numbers.Real):
            return self.tape.constant(float(other))
        raise TypeError(
            f"cannot combine {self!r} with {type(other).__name__}; "
            "expected a Symbol or a Python number (tensors cannot be traced)"
        )

    def _numeric(self, other: Symbol) -> None:
        for x in (self, other):
            if x.is_condition:
                raise TypeError(f"{x!r} is a condition, expected a number; use where(c, 1.0, 0.0)")

    def __add__(self, other: object) -> Symbol:
        """Record a sum."""
        b = self._lift(other)
        x, y = self.value, b.value
        if x is not None and y is not None:
            return self.tape.constant(x + y)
        if x == 0:
            return b
        if y == 0:
            return self
        if b.operation == "negative":
            return self - (-b)
        if self.operation == "negative":
            return b - (-self)
        self._numeric(b)
        return self.tape.record("add", self, b)

    __radd__ = __add__

    def __sub__(self, other: object) -> Symbol:
        """Record a difference."""
        b = self._lift(other)
        x, y = self.value, b.value
        if x is not None and y is not None:
            return self.tape.constant(x - y)
        if y == 0:
            return self
        if x == 0:
            return -b
        if self is b:
            return self.tape.constant(0.0)
        if b.operation == "negative":
            return self + (-b)
        self._numeric(b)
        return self.tape.record("subtract", self, b)

    def __rsub__(self, other: object) -> Symbol:
        """Record a difference whose first term is a number."""
        return self._lift(other) - self

    def __mul__(self, other: object) -> Symbol:
        """Record a product."""
        b = self._lift(other)
        if b.value is not None:
            return self._scaled(b.value)
        if self.value is not None:
            return b._scaled(self.value)
        if self.operation == "negative" and b.operation == "negative":
            return (-self) * (-b)
        if self.operation == "negative":
            return -((-self) * b)
        if b.operation == "negative":
            return -(self * (-b))
        self._numeric(b)
        return self.tape.record("multiply", self, b)

    __rmul__ = __mul__

    def _scaled(self, factor: float) -> Symbol:
        value = self.value
        if value is not None:
            return self.tape.constant(value * factor)
        if factor == 0:
            return self.tape.constant(0.0)
        if factor == 1:
            return self
        if factor == -1:
            return -self
        operation, arguments = self.tape.operations[self.index]
        if operation == "negative":
            return self.tape.symbol(arguments[0])._scaled(-factor)
        if operation == "multiply":
            for one, two in (arguments, arguments[::-1]):
                inner = self.tape.value_of(one)
                if inner is not None:
                    return self.tape.symbol(two)._scaled(inner * factor)
        self._numeric(self)
        return self.tape.record("multiply", self, self.tape.constant(factor))

    def __truediv__(self, other: object) -> Symbol:
        """Record a quotient; division by a constant becomes a product with its reciprocal."""
        b = self._lift(other)
        x, y = self.value, b.value
        if y is not None:
            if y == 0:
                raise ZeroDivisionError(f"{self!r} is divided by the constant zero")
            return self.tape.constant(x / y) if x is not None else self._scaled(1.0 / y)
        if x == 0:
            return self
        if self is b:
            return self.tape.constant(1.0)
        if self.operation == "negative":
            return -((-self) / b)
        if b.operation == "negative":
            return -(self / (-b))
        self._numeric(b)
        return self.tape.record("divide", self, b)

    def __rtruediv__(self, other: object) -> Symbol:
        """Record a quotient whose numerator is a number."""
        return self._lift(other) / self

    def __neg__(self) -> Symbol:
        """Record a change of sign."""
        value = self.value
        if value is not None:
            return self.tape.constant(-value)
        operation, arguments = self.tape.operations[self.index]
        if operation == "negative":
            return self.tape.symbol(arguments[0])
        if operation == "subtract":
            return self.tape.symbol(arguments[1]) - self.tape.symbol(arguments[0])
        self._numeric(self)
        return self.tape.record("negative", self)

    def __pos__(self) -> Symbol:
        """Give the symbol itself."""
        return self

    def __pow__(self, exponent: float) -> Symbol:
        """Record a whole or half power as products and a root.

        Raises:
            ValueError: If twice the exponent is not a whole number.
        """
        if exponent < 0:
            return 1.0 / self ** (-exponent)
        halves = round(2 * exponent)
        if halves != 2 * exponent:
            raise ValueError(
                f"exponent is {exponent}, expected a multiple of 1/2; use "
                "solvers.kernels.scalar.power"
            )
        result = self.tape.constant(1.0) if halves % 2 == 0 else self.unary("sqrt")
        square, remaining = self, halves // 2
        while remaining:
            if remaining & 1:
                result = result * square
            remaining >>= 1
            if remaining:
                square = square * square
        return result

    def __abs__(self) -> Symbol:
        """Record an absolute value."""
        return self.unary("absolute")

    def unary(self, operation: str) -> Symbol:
        """Record sqrt, sin, cos, exp, log, tanh or absolute of this symbol."""
        value = self.value
        if value is not None:
            return self.tape.constant(_UNARY[operation](value))
        if operation == "absolute" and self.operation in {"absolute", "sqrt", "exp"}:
            return self
        if operation in {"absolute", "cos"} and self.operation == "negative":
            return (-self).unary(operation)
        if operation in {"sin", "tanh"} and self.operation == "negative":
            return -((-self).unary(operation))
        self._numeric(self)
        return self.tape.record(operation, self)

    def maximum(self, other: object) -> Symbol:
        """Record the larger of two; a constant always stands second on the tape."""
        return self._extremum("maximum", other)

    def minimum(self, other: object) -> Symbol:
        """Record the smaller of two; a constant always stands second on the tape."""
        return self._extremum("minimum", other)

    def _extremum(self, operation: str, other: object) -> Symbol:
        b = self._lift(other)
        x, y = self.value, b.value
        if x is not None and y is not None:
            return self.tape.constant(max(x, y) if operation == "maximum" else min(x, y))
        if self is b:
            return self
        self._numeric(b)
        first, second = (
            (b, self) if x is not None or (y is None and b.index < self.index) else (self, b)
        )
        return self.tape.record(operation, first, second)

    def _compare(self, operation: str, other: object, *, swap: bool) -> Symbol:
        b = self._lift(other)
        self._numeric(b)
        return (
            self.tape.record(operation, b, self) if swap else self.tape.record(operation, self, b)
        )

    def __gt__(self, other: object) -> Symbol:
        """Record a comparison."""
        return self._compare("greater", other, swap=False)

    def __lt__(self, other: object) -> Symbol:
        """Record a comparison."""
        return self._compare("greater", other, swap=True)

    def __ge__(self, other: object) -> Symbol:
        """Record a comparison."""
        return self._compare("greater_equal", other, swap=False)

    def __le__(self, other: object) -> Symbol:
        """Record a comparison."""
        return self._compare("greater_equal", other, swap=True)

    def _logical(self, operation: str, other: object) -> Symbol:
        if not isinstance(other, Symbol) or not (self.is_condition and other.is_condition):
            raise TypeError(
                f"cannot join {self!r} and {other!r}: expected two conditions, as a > b"
            )
        if other.tape is not self.tape:
            raise ValueError(f"{self!r} and {other!r} live on two tapes; use one Tape")
        return self if self is other else self.tape.record(operation, self, other)

    def __and__(self, other: object) -> Symbol:
        """Record that both conditions hold."""
        return self._logical("and", other)

    def __or__(self, other: object) -> Symbol:
        """Record that at least one condition holds."""
        return self._logical("or", other)

    def __invert__(self) -> Symbol:
        """Record that the condition does not hold."""
        if not self.is_condition:
            raise TypeError(f"cannot invert {self!r}: expected a condition, as a > b")
        operation, arguments = self.tape.operations[self.index]
        return (
            self.tape.symbol(arguments[0]) if operation == "not" else self.tape.record("not", self)
        )

    def where(self, if_true: object, if_false: object) -> Symbol:
        """Record a choice by this condition, item by item.

        Raises:
            TypeError: If this symbol is a number.
        """
        if not self.is_condition:
            raise TypeError(f"where needs a condition, as a > b, first; got {self!r}")
        a, b = self._lift(if_true), self._lift(if_false)
        if a is b:
            return a
        a._numeric(b)
        return self.tape.record("where", self, a, b)


Tape.kind = Symbol


def constant_value(x: object) -> float | None:
    """Give the number behind a Python number or a constant symbol, ``None`` for anything else."""
    if isinstance(x, Symbol):
        return x.value
    return float(x) if isinstance(x, numbers.Real) else None
