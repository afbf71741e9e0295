"""A residual over channels: what an engine evaluates, and the tables that it reads.

Everything that depends on points alone (exact conditions, sources, weights) is computed once for a
set of points; what is left runs for every evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from solvers.core import (
    SettingsError,
    ShapeError,
    check_finite,
    check_kind,
    check_names,
    check_number,
    check_shape,
)
from solvers.derivatives._channels import (
    Group,
    group_ratios,
    parallel_groups,
    plan_channels,
)
from solvers.derivatives._layers import Branches, Layers, ModuleLayers
from solvers.derivatives._trace import (
    Embedding,
    Residual,
    Transform,
    trace_residual,
)
from solvers.kernels import Symbol, Tape, evaluate, reverse, scalar

__all__ = ["PointTables", "ResidualProgram"]

_PROBES = 12
"""Random states at which the structure of a residual is looked at."""


@dataclass(frozen=True)
class PointTables:
    """What depends on points alone.

    Attributes:
        jets: Channels of the network's inputs, shape ``(N, channels, inputs)``.
        values: What the residuals read, shape ``(N, V)``.
    """

    jets: Tensor
    values: Tensor


class ResidualProgram:
    r"""Weighted residuals :math:`w_e\, r_e` of a network at points, ready for an engine.

    Args:
        residual: Function of fields, coordinates and coefficients by name, on generic scalars.
        layers: The network: its shape, or a module.
        fields: Names of the fields.
        coordinates: Names of the coordinates.
        probe: Points of the domain at which the structure is looked at, shape ``(M, D)``.
        coefficients: Values of the coefficients.
        unknown: Names of the coefficients that are parameters beside those of the network.
        transform: Turns coordinates and network outputs into fields.
        embedding: Turns coordinates into inputs of the network.

    Attributes:
        layers: Shape of the network.
        trace: The residual as it was recorded.
        plan: Channels that travel through the network.
        equations: Number of residuals per point.
        parameter_count: Parameters of the network and unknown coefficients.
        unknown: Names of the unknown coefficients.

    Raises:
        SettingsError: If an unknown coefficient has no value, or layers do not fit the residual.
        ShapeError: If ``probe`` has another number of coordinates.

    Example:
        >>> program = ResidualProgram(
        ...     lambda f, x, c: f["u"].t + f["u"] * f["u"].x - c["nu"] * f["u"].xx,
        ...     Layers((2, 20, 20, 1)), fields=["u"], coordinates=["x", "t"],
        ...     probe=torch.rand(8, 2, dtype=torch.float64), coefficients={"nu": 0.01},
        ... )
        >>> [channel.members for channel in program.plan.channels]  # (u, u_x, u_t - nu u_xx)
        [((),), ((0,),), ((1,), (0, 0))]
    """

    def __init__(
        self,
        residual: Residual,
        layers: Layers | Branches | ModuleLayers,
        *,
        fields: Sequence[str],
        coordinates: Sequence[str],
        probe: Float[Tensor, "M D"],
        coefficients: Mapping[str, float] | None = None,
        unknown: Sequence[str] = (),
        transform: Transform | None = None,
        embedding: Embedding | None = None,
    ) -> None:
        self.layers = layers
        check_kind("layers", layers, (Layers, Branches, ModuleLayers), "Layers((2, 20, 20, 1))")
        check_kind("coefficients", coefficients, (Mapping, NoneType), "numbers by name, or None")
        self._values = {name: check_number(name, v) for name, v in (coefficients or {}).items()}
        self.unknown = check_names("unknown", unknown)
        self.coordinates = check_names("coordinates", coordinates)
        missing = [name for name in self.unknown if name not in self._values]
        if missing:
            raise SettingsError(
                f"unknown names {missing}, expected some of the coefficients "
                f"{sorted(self._values)}; their values are the first guess"
            )
        check_shape("probe", probe, f"M {len(self.coordinates)}")
        self.trace = trace_residual(
            residual,
            fields=fields,
            coordinates=coordinates,
            coefficients=list(self._values),
            outputs=layers.sizes[-1],
            transform=transform,
            embedding=embedding,
        )
        if len(self.trace.inputs) != layers.sizes[0]:
            raise SettingsError(
                f"layers take {layers.sizes[0]} inputs, expected {len(self.trace.inputs)}, "
                "what the embedding gives"
            )
        self.equations = len(self.trace.residuals)
        self.parameter_count = layers.parameter_count + len(self.unknown)
        self._probe = probe[:_PROBES].to(torch.float64)
        groups = parallel_groups(self.trace, [self._environment(k) for k in range(4)])
        self.plan = plan_channels([group.indices for group in groups])
        self._groups = [group for group in groups if not self._is_plain(group)]
        self._build()

    def _is_plain(self, group: Group) -> bool:
        plain = {c.members[0] for c in self.plan.channels if c.slots == (None,)}
        return plain.issuperset(group.indices)

    def _environment(self, number: int) -> dict[str, Any]:
        """Random values for all inputs of the trace; number 0 has the coefficients as they are."""
        count = len(self._probe)
        generator = torch.Generator().manual_seed(number)
        normal = torch.randn(
            count, len(self.trace.outputs), generator=generator, dtype=torch.float64
        )
        factors = 0.5 + torch.rand(
            count, len(self._values), generator=generator, dtype=torch.float64
        )
        columns = []
        for i, (name, value) in enumerate(self._values.items()):
            if name in self.unknown:
                columns.append((value or 1.0) * factors[:, i])
            else:
                factor = float(factors[0, i]) if number else 1.0
                columns.append(torch.full((count,), value * factor, dtype=torch.float64))
        return {"x": self._probe, "n": normal, "s": columns}

    def _build(self) -> None:
        """Write the residuals over channels, derivatives included, split from what is of points."""
        tape = Tape()
        outputs = self.layers.sizes[-1]
        channels = [tape.inputs("o", outputs, c * outputs) for c in range(len(self.plan))]
        x = tape.inputs("x", len(self.coordinates))
        s = tape.inputs("s", len(self._values))
        w = tape.inputs("w", self.equations)
        heads = {
            (output, group.indices[0]): self._collapsed(group)
            for group in self._groups
            for output in group.outputs
        }
        tails = {
            (output, index)
            for group in self._groups
            for output in group.outputs
            for index in group.indices[1:]
        }
        plain = {c.members[0]: k for k, c in enumerate(self.plan.channels) if c.slots == (None,)}
        n: list[Any] = []
        for output, index in self.trace.outputs:
            if (output, index) in heads:
                n.append(channels[heads[output, index]][output])
            elif (output, index) in tails or index not in plain:
                n.append(0.0)
            else:
                n.append(channels[plain[index]][output])
        terms = evaluate(self.trace.residuals, {"x": x, "n": n, "s": s})
        names = list(self._values)
        wrt = [o for row in channels for o in row] + [s[names.index(q)] for q in self.unknown]
        results: list[Any] = [scalar.multiply(w[e], term) for e, term in enumerate(terms)]
        for e, term in enumerate(terms):
            results += reverse([(term, w[e])], wrt)
        fixed = [name not in self.unknown for name in names]
        self.point_symbols, self.expressions = _split_off(results, fixed)

    def _collapsed(self, group: Group) -> int:
        for k, channel in enumerate(self.plan.channels):
            if list(channel.members) == group.indices:
                return k
        raise AssertionError("a group that is not plain has a channel")

    @property
    def values(self) -> dict[str, float]:
        """Values of the coefficients; of unknown ones the first guess."""
        return dict(self._values)

    def set_coefficients(self, **values: float) -> None:
        """Change coefficients; nothing is compiled again, tables of points must be made again.

        Args:
            values: New values by name.

        Raises:
            SettingsError: If a name is no coefficient.
        """
        for name, value in values.items():
            if name not in self._values:
                raise SettingsError(
                    f"coefficient {name!r} is none of {', '.join(self._values) or 'none at all'}"
                )
            self._values[name] = float(value)

    def weights(self) -> Float[Tensor, " W"]:
        """Coefficients of the collapsed channels at the present values of the coefficients."""
        weights = torch.zeros(self.plan.weights, dtype=torch.float64)
        for group in self._groups:
            channel = self.plan.channels[self._collapsed(group)]
            ratios = group_ratios(self.trace, group, self._environment(0))
            for ratio, slot in zip(ratios, channel.slots, strict=True):
                if slot is not None:
                    weights[slot] = ratio
        return weights

    def tables(self, points: Float[Tensor, "N D"], weights: Float[Tensor, "N E"]) -> PointTables:
        """Compute what depends on points and known coefficients alone.

        Args:
            points: Shape ``(N, D)``.
            weights: Factor of each residual at each point, shape ``(N, equations)``.

        Raises:
            ShapeError: If a shape does not fit.
            NonFiniteError: If points hold a NaN or infinity.
        """
        count, dimension = len(points), len(self.coordinates)
        if points.ndim != 2 or points.shape[1] != dimension:
            raise ShapeError(f"points has shape {tuple(points.shape)}, expected (N, {dimension})")
        if weights.shape != (count, self.equations):
            raise ShapeError(
                f"weights has shape {tuple(weights.shape)}, expected {(count, self.equations)}"
            )
        check_finite("points", points)
        environment = {"x": points, "w": weights, "s": list(self._values.values())}

        def columns(symbols: Sequence[Any]) -> Tensor:
            values = evaluate(list(symbols), environment)
            return torch.stack([torch.as_tensor(v).to(points).expand(count) for v in values], dim=1)

        a = self.weights()
        jets = []
        for channel in self.plan.channels:
            jet: Any = 0.0
            for index, slot in zip(channel.members, channel.slots, strict=True):
                moved = [self.trace.derivative(h, index) for h in self.trace.inputs]
                jet = jet + (1.0 if slot is None else float(a[slot])) * columns(moved)
            jets.append(jet)
        values = columns(self.point_symbols) if self.point_symbols else points.new_zeros(count, 0)
        return PointTables(torch.stack(jets, dim=1), values)

    def fields(self, points: Float[Tensor, "N D"], outputs: Float[Tensor, "N O"]) -> Tensor:
        """Turn network outputs at points into fields, shape ``(N, F)``."""
        check_shape("points", points, f"N {len(self.coordinates)}")
        check_shape("outputs", outputs, f"N {self.layers.sizes[-1]}")
        n = [outputs[:, number] if index == () else None for number, index in self.trace.outputs]
        environment = {"x": points, "n": n, "s": list(self._values.values())}
        values = evaluate(list(self.trace.fields), environment)
        return torch.stack(
            [torch.as_tensor(v).to(outputs).expand(len(points)) for v in values], dim=1
        )

    def inputs(self, points: Float[Tensor, "N D"]) -> Float[Tensor, "N I"]:
        """Turn points into inputs of the network."""
        check_shape("points", points, f"N {len(self.coordinates)}")
        environment = {"x": points, "s": list(self._values.values())}
        values = evaluate(list(self.trace.inputs), environment)
        return torch.stack(
            [torch.as_tensor(v).to(points).expand(len(points)) for v in values], dim=1
        )


def _split_off(results: Sequence[Any], fixed: Sequence[bool]) -> tuple[list[Symbol], list[Any]]:
    """Separate what depends on points (and fixed coefficients) alone.

    Returns:
        Symbols to compute once for a set of points, and the results on a new tape that reads them
        as ``p``.
    """
    symbols = [y for y in results if isinstance(y, Symbol)]
    if not symbols:
        return [], list(results)
    tape = symbols[0].tape
    nodes = tape.live([y.index for y in symbols])
    moving, of_points = set[int](), set[int]()
    for i in nodes:
        operation, arguments = tape.operations[i]
        if operation == "input":
            name, place = tape.input_of(i)
            if name == "o" or (name == "s" and not fixed[place or 0]):
                moving.add(i)
            elif name in {"x", "w"}:
                of_points.add(i)
        elif any(j in moving for j in arguments):
            moving.add(i)
        elif any(j in of_points for j in arguments):
            of_points.add(i)
    ends = {y.index for y in symbols}
    used = {j for i in nodes if i not in of_points for j in tape.operations[i][1]} | ends
    table = [i for i in nodes if i in of_points and i in used]
    target = Tape()
    made: dict[int, Symbol] = {}
    for i in nodes:
        operation, arguments = tape.operations[i]
        if i in of_points:
            if i in used:
                made[i] = target.input("p", table.index(i))
        elif operation == "input":
            made[i] = target.input(*tape.input_of(i))
        elif operation == "constant":
            made[i] = target.constant(tape.value_of(i) or 0.0)
        else:
            made[i] = target.record(operation, *(made[j] for j in arguments))
    return (
        [tape.symbol(i) for i in table],
        [made[y.index] if isinstance(y, Symbol) else y for y in results],
    )
