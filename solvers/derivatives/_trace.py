"""A residual recorded as arithmetic on derivatives of network outputs.

A residual is written once, on fields and their derivatives. Tracing it with symbols tells which
derivatives of which network output it needs, through whatever turns outputs into fields (exact
initial or boundary values) and coordinates into inputs of the network (exact periodicity).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from solvers.core import SettingsError, check_callable, check_count, check_names
from solvers.kernels import Symbol, Tape, reverse, scalar

__all__ = [
    "Embedding",
    "Field",
    "MultiIndex",
    "Residual",
    "Trace",
    "Transform",
    "trace_residual",
]

MultiIndex: TypeAlias = tuple[int, ...]
"""Axes of a derivative in rising order: ``()`` for the value, ``(0, 0, 1)`` for d3/dx0 dx0 dx1."""

Residual: TypeAlias = Callable[[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]], Any]
"""Fields, coordinates and coefficients by name to one residual or several."""

Transform: TypeAlias = Callable[[Sequence[Any], Sequence[Any]], Sequence[Any]]
"""Coordinates and network outputs to fields, all generic scalars."""

Embedding: TypeAlias = Callable[[Sequence[Any]], Sequence[Any]]
"""Coordinates to inputs of the network, all generic scalars."""


class Field(Symbol):
    """A traced field: its value in arithmetic, its derivatives as attributes.

    ``u.xt`` is the derivative by the coordinates ``x`` and ``t``.
    """

    __slots__ = ("_axes", "_derivative")

    def __init__(
        self, value: Symbol, axes: Sequence[str], derivative: Callable[[MultiIndex], Symbol]
    ) -> None:
        """Made by `trace_residual`."""
        super().__init__(value.tape, value.index)
        self._axes = tuple(axes)
        self._derivative = derivative

    def derivative(self, index: MultiIndex) -> Symbol:
        """Look up a derivative by its axes; ``()`` gives the value."""
        return self._derivative(tuple(sorted(index)))

    def __getattr__(self, name: str) -> Symbol:
        """Look up a derivative by the names of its coordinates, one after the other."""
        index = None if name.startswith("_") else _split(name, self._axes)
        if index is None:
            raise AttributeError(
                f"a field has no derivative {name!r}; expected the names of coordinates one after "
                f"the other, among {', '.join(self._axes)}"
            )
        return self._derivative(tuple(sorted(index)))


def _split(name: str, axes: Sequence[str]) -> list[int] | None:
    if not name:
        return []
    for axis in sorted(range(len(axes)), key=lambda i: -len(axes[i])):
        if name.startswith(axes[axis]):
            rest = _split(name[len(axes[axis]) :], axes)
            if rest is not None:
                return [axis, *rest]
    return None


@dataclass(frozen=True)
class Trace:
    """What a residual does, on one tape.

    Attributes:
        coordinates: Symbols of the coordinates.
        coefficients: Symbols of the coefficients, by name.
        outputs: Symbols of derivatives of network outputs, by output and multi-index.
        fields: Values of the fields.
        inputs: Inputs of the network, and what they are differentiated to, see `derivative`.
        residuals: One symbol per equation.
    """

    coordinates: list[Symbol]
    coefficients: dict[str, Symbol]
    outputs: dict[tuple[int, MultiIndex], Symbol]
    fields: list[Symbol]
    inputs: list[Symbol]
    residuals: list[Symbol]

    def derivative(self, expression: Symbol, index: MultiIndex) -> Symbol:
        """Differentiate by coordinates, network outputs being functions of them."""
        for axis in index:
            expression = self._total(expression, axis)
        return expression

    def _total(self, expression: Symbol, axis: int) -> Symbol:
        known = list(self.outputs.items())
        slopes = reverse([(expression, 1.0)], [*self.coordinates, *(n for _, n in known)])
        total = slopes[axis]
        for ((output, index), _), slope in zip(known, slopes[len(self.coordinates) :], strict=True):
            if not scalar.is_zero(slope):
                higher = self.output(output, tuple(sorted((*index, axis))))
                total = scalar.add(total, scalar.multiply(slope, higher))
        return total if isinstance(total, Symbol) else expression.tape.constant(total)

    def output(self, number: int, index: MultiIndex) -> Symbol:
        """Symbol of a derivative of a network output."""
        key = (number, index)
        if key not in self.outputs:
            tape = self.coordinates[0].tape
            self.outputs[key] = tape.input("n", len(self.outputs))
        return self.outputs[key]


def trace_residual(
    residual: Residual,
    *,
    fields: Sequence[str],
    coordinates: Sequence[str],
    coefficients: Sequence[str] = (),
    outputs: int | None = None,
    transform: Transform | None = None,
    embedding: Embedding | None = None,
) -> Trace:
    """Record a residual.

    Args:
        residual: Function of fields, coordinates and coefficients, each a mapping from names to
            generic scalars; fields give derivatives as attributes. Returns one residual or several.
        fields: Names of the fields.
        coordinates: Names of the coordinates.
        coefficients: Names of the coefficients.
        outputs: Outputs of the network; as many as fields by default.
        transform: Turns coordinates and network outputs into fields; the outputs are the fields by
            default.
        embedding: Turns coordinates into inputs of the network; the coordinates themselves by
            default.

    Returns:
        The record; inputs of its tape are ``x`` (coordinates), ``s`` (coefficients) and ``n``
        (derivatives of network outputs).

    Raises:
        SettingsError: If the residual gives a number or the transform not one value per field.

    Example:
        >>> heat = lambda f, x, c: f["u"].t - c["k"] * f["u"].xx
        >>> trace = trace_residual(heat, fields=["u"], coordinates=["x", "t"], coefficients=["k"])
        >>> sorted(trace.outputs)  # u, u_x on the way, u_xx, u_t
        [(0, ()), (0, (0,)), (0, (0, 0)), (0, (1,))]
    """
    check_callable("residual", residual, "a function of fields, coordinates and coefficients")
    for name, function in (("transform", transform), ("embedding", embedding)):
        if function is not None:
            check_callable(name, function, "a function of coordinates, or None")
    fields, coordinates = check_names("fields", fields), check_names("coordinates", coordinates)
    coefficients = check_names("coefficients", coefficients)
    if outputs is not None:
        check_count("outputs", outputs)
    tape = Tape()
    x = tape.inputs("x", len(coordinates))
    trace = Trace(
        coordinates=x,
        coefficients={name: tape.input("s", i) for i, name in enumerate(coefficients)},
        outputs={},
        fields=[],
        inputs=[],
        residuals=[],
    )
    values = [trace.output(i, ()) for i in range(outputs or len(fields))]
    made = values if transform is None else list(transform(x, values))
    if len(made) != len(fields):
        raise SettingsError(
            f"transform gives {len(made)} values, expected one for each of the fields "
            f"{', '.join(fields)}"
        )
    trace.fields.extend(_symbol(tape, value, "transform") for value in made)
    trace.inputs.extend(
        _symbol(tape, value, "embedding") for value in (x if embedding is None else embedding(x))
    )
    known: dict[tuple[int, MultiIndex], Symbol] = {}

    def derivative_of(number: int) -> Callable[[MultiIndex], Symbol]:
        def derivative(index: MultiIndex) -> Symbol:
            if (number, index) not in known:
                lower = derivative(index[:-1]) if index else trace.fields[number]
                known[number, index] = trace.derivative(lower, index[-1:])
            return known[number, index]

        return derivative

    wrapped = {
        name: Field(trace.fields[i], coordinates, derivative_of(i)) for i, name in enumerate(fields)
    }
    terms = residual(wrapped, dict(zip(coordinates, x, strict=True)), trace.coefficients)
    terms = [terms] if isinstance(terms, Symbol) else list(terms)
    for term in terms:
        if not isinstance(term, Symbol) or term.value is not None:
            raise SettingsError(
                f"residual gives {term!r}, expected an expression in the fields; "
                "a residual that holds everywhere has nothing to train"
            )
    trace.residuals.extend(terms)
    return trace


def _symbol(tape: Tape, value: Any, what: str) -> Symbol:
    if isinstance(value, Symbol):
        return value
    if isinstance(value, int | float):
        return tape.constant(float(value))
    raise SettingsError(
        f"{what} gives {type(value).__name__}, expected generic scalars; use the functions of "
        "solvers.kernels.scalar"
    )
