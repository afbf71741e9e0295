"""Multigrid on aggregates in native memory, with the finest level and the iteration of the grid."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, auto
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from solvers.kernels import Kernel, build_kernel
from solvers.linear.operators._poisson import PoissonOperator
from solvers.linear.preconditioners._aggregation import (
    LEAST_FACTOR,
    SLOW_COARSENING,
    STIFF_PART,
    AggregationRule,
    Graph,
    choose_rule,
)
from solvers.linear.preconditioners._coarsening import COARSEST_CELLS, REVISIT_BELOW
from solvers.linear.preconditioners._levels import GridLevels
from solvers.linear.preconditioners._native import HEADER, ROW, Slot

__all__ = ["AggregateLevels"]

_SPARSE_ROW = 12
_LANES = 16
# A pairing that leaves more of the rows is none.
_TOO_MANY = 0.98

Array = np.ndarray[Any, Any]


class AggregateLevels(GridLevels):
    """Aggregates of a grid operator below its finest level; see `AggregationMultigrid`.

    A refill keeps the pairs as long as no coupling vanishes or appears; only couplings are new.

    Args:
        operator: Operator without gradients, float64 on the CPU, not periodic, one system.
        rule: Pairing and couplings; chosen by the graph if None.
        cycle: Visits of a coarser level, 1 (V) or 2 (W).
    """

    label = "multigrid on aggregates (compiled)"

    def __init__(self, operator: PoissonOperator, *, rule: AggregationRule | None, cycle: int):
        self._rule = rule
        self._pairs: list[_Pairs] = []
        super().__init__(operator, cycle=cycle, threads=1)

    def _coarsen(self, stats: Array | None, is_new: bool) -> None:
        """Levels of aggregates below the finest level, which stays a grid."""
        build = _Build(self.table[HEADER : HEADER + ROW])
        graph, row_of_cell = build.from_grid(self.levels[0].cells)
        rule = choose_rule(graph) if self._rule is None else self._rule
        known = iter(() if is_new else self._pairs)
        self.is_worn = not is_new
        self._pairs = []
        self.rows = [graph.rows]
        self._sparse: list[_SparseLevel] = []
        strong = rule.strong
        while not self._sparse or graph.rows > COARSEST_CELLS:
            pairs = next(known, None)
            coarse, pairs = build.merge_twice(graph, rule, strong, pairs)
            self._pairs.append(pairs)
            parent = np.where(pairs.parent < 0, np.int32(coarse.rows), pairs.parent)
            if self._sparse:
                self._sparse[-1].set_parent(parent, coarse.rows)
            else:
                # Cells that are no unknowns come last in the index, at -1.
                self._parent = np.append(parent, np.int32(coarse.rows))[row_of_cell]
            if coarse.rows > SLOW_COARSENING * graph.rows:
                strong *= 0.3
            graph = coarse
            self.rows.append(graph.rows)
            self._sparse.append(build.slice(graph))
        self._inverse = graph.inverse().numpy()[None]
        self._rows = np.stack([level.row for level in self._sparse])
        self.set(Slot.INVERSE, self._inverse.ctypes.data, 0)
        self.table[Slot.LEVELS] = 1
        self.set(
            Slot.AGGREGATES,
            self._rows.ctypes.data,
            len(self._sparse),
            self._parent.ctypes.data,
            self._first_visits(),
        )

    def _first_visits(self) -> int:
        is_small = self.rows[1] <= REVISIT_BELOW * self.rows[0]
        return int(self.table[Slot.VISITS]) if is_small and len(self._sparse) > 1 else 1


@dataclass(slots=True)
class _Pairs:
    """Aggregates of a level: those of single rows, perhaps paired again, and both in one."""

    first: tuple[Array, int]
    second: tuple[Array, int] | None
    parent: Array


class _SparseLevel:
    """Couplings in slices of rows, and the vectors of a level."""

    def __init__(self, rows: int, slices: Array, to: Array, c: Array, e: Array, di: Array):
        padded = len(e)
        self.vectors = np.zeros((3, padded), dtype=np.float32)
        self.parent = np.zeros(padded, dtype=np.int32)
        self._arrays = (slices, to, c, e, di)
        x, y, b = self.vectors
        places = [slices, to, self.parent, c, e, di, x, y, b]
        self.row = np.zeros(_SPARSE_ROW, dtype=np.int64)
        self.row[:11] = [rows, padded, *(place.ctypes.data for place in places)]

    def set_parent(self, parent: Array, none: int) -> None:
        self.parent[:] = none
        self.parent[: len(parent)] = parent


class _Step(IntEnum):
    """What a call of the set-up does."""

    GRID = 0
    MATCH = auto()
    CONTRACT = auto()
    SLICE = auto()


class _At(IntEnum):
    """Places of the table of the set-up."""

    OP = 0
    NUMBERS = auto()
    LEVEL = auto()
    RESULT = auto()
    ROWS = auto()
    START = auto()
    TO = auto()
    COUPLING = auto()
    WHOLE = auto()
    EXCESS = auto()
    INSIDE = auto()
    PARENT = auto()
    COUNT = auto()
    ENTRIES = auto()
    NEW_START = auto()
    NEW_TO = auto()
    NEW_COUPLING = auto()
    NEW_WHOLE = auto()
    NEW_EXCESS = auto()
    NEW_INSIDE = auto()
    INTEGERS = auto()
    REALS = auto()


@cache
def _aggregation_kernel() -> Kernel:
    names = [f"{prefix}_{m.name} = {m.value}" for prefix, kind in _NAMED for m in kind]
    text = (Path(__file__).parent / "aggregation.cpp").read_text()
    body = f"enum {{ {', '.join(names)} }};\n{text}"
    return build_kernel("aggregation", body, [("table", "double*")], lanes=1)


_NAMED: tuple[tuple[str, type[IntEnum]], ...] = (("STEP", _Step), ("AT", _At))


@dataclass(slots=True)
class _Build:
    """Calls of the native set-up; ``level`` is the row of the finest level."""

    level: Array

    def _run(self, step: _Step, graph: Graph | None = None, **places: Any) -> Array:
        result = np.zeros(2, dtype=np.int64)
        table = np.zeros(len(_At), dtype=np.int64)
        table[_At.OP], table[_At.RESULT] = step, result.ctypes.data
        table[_At.LEVEL] = self.level.ctypes.data
        if graph is not None:
            places |= {
                "rows": graph.rows,
                "start": graph.start,
                "to": graph.to,
                "coupling": graph.coupling,
                "whole": graph.whole,
                "excess": graph.excess,
                "inside": 0 if graph.inside is None else graph.inside,
            }
        for name, value in places.items():
            address = value.ctypes.data if isinstance(value, np.ndarray) else value
            table[_At[name.upper()]] = address
        _aggregation_kernel()(1, torch.from_numpy(table.view(np.float64)))
        return result

    def from_grid(self, cells: int) -> tuple[Graph, Array]:
        """The graph of the finest level, and the row of every cell."""
        row_of_cell = _integers(cells)
        start, to, excess = _integers(cells + 1), _integers(6 * cells), _reals(cells)
        coupling = _reals(6 * cells)
        rows, entries = self._run(
            _Step.GRID,
            parent=row_of_cell,
            new_start=start,
            new_to=to,
            new_coupling=coupling,
            new_excess=excess,
        )
        c = coupling[:entries]
        return Graph(start[: rows + 1], to[:entries], c, c, excess[:rows]), row_of_cell

    def merge_twice(
        self, graph: Graph, rule: AggregationRule, strong: float, known: _Pairs | None
    ) -> tuple[Graph, _Pairs]:
        """The graph of pairs of pairs; pairs that are known are not sought again."""
        graph.whole, graph.inside = graph.coupling, None
        first = known.first if known else self._match_enough(graph, strong, rule.join)
        graph = self._contract(graph, *first, rule)
        parent, second = first[0], None
        if known:
            second = known.second
        elif graph.rows > COARSEST_CELLS:
            second = self._match(graph, strong, rule.join)
            if second[1] > _TOO_MANY * graph.rows:
                second = None
        if second is not None:
            graph = self._contract(graph, *second, rule)
            parent = np.where(parent >= 0, second[0][parent], np.int32(-1))
        if rule.scale > 0:
            np.maximum(graph.coupling, np.float32(rule.floor) * graph.whole, out=graph.coupling)
        return graph, _Pairs(first, second, parent)

    def _match_enough(self, graph: Graph, strong: float, join: float) -> tuple[Array, int]:
        """Pairs of strongly coupled rows; weaker ones if there are hardly any."""
        pairs = self._match(graph, strong, join)
        while pairs[1] > _TOO_MANY * graph.rows and strong > 1e-4:
            strong *= 0.3
            pairs = self._match(graph, strong, join)
        return pairs

    def _match(self, graph: Graph, strong: float, join: float) -> tuple[Array, int]:
        parent = _integers(graph.rows)
        numbers = np.array([strong, join, STIFF_PART])
        result = self._run(
            _Step.MATCH,
            graph,
            numbers=numbers,
            parent=parent,
            integers=_integers(graph.rows),
            reals=_reals(graph.rows),
        )
        return parent, int(result[0])

    def _contract(self, graph: Graph, parent: Array, count: int, rule: AggregationRule) -> Graph:
        most = len(graph.to)
        start, to = _integers(count + 1), _integers(most)
        coupling, whole = _reals(most), _reals(most)
        excess, inside = _reals(count), _reals(count)
        numbers = [rule.scale, rule.far, rule.diagonal, rule.imbalance, rule.size, rule.excess]
        result = self._run(
            _Step.CONTRACT,
            graph,
            numbers=np.array([*numbers, LEAST_FACTOR]),
            parent=parent,
            count=count,
            entries=most,
            new_start=start,
            new_to=to,
            new_coupling=coupling,
            new_whole=whole,
            new_excess=excess,
            new_inside=inside,
            integers=_integers(2 * count + graph.rows),
            reals=_reals(count + 2 * most),
        )
        entries = int(result[0])
        parts = to[:entries], coupling[:entries], whole[:entries], excess[:count]
        return Graph(start, *parts, inside[:count])

    def slice(self, graph: Graph) -> _SparseLevel:
        """The couplings in slices; at least one row has no entries."""
        padded = (graph.rows // _LANES + 1) * _LANES
        slices = _integers(padded // _LANES + 1)
        self._run(_Step.SLICE, graph, count=padded, new_start=slices)
        to, c = _integers(int(slices[-1])), _reals(int(slices[-1]))
        e, di = _reals(padded), _reals(padded)
        self._run(
            _Step.SLICE,
            graph,
            count=padded,
            new_start=slices,
            new_to=to,
            new_coupling=c,
            new_excess=e,
            reals=di,
        )
        return _SparseLevel(graph.rows, slices, to, c, e, di)


def _integers(count: int) -> Array:
    return np.empty(max(count, 1), dtype=np.int32)


def _reals(count: int) -> Array:
    return np.empty(max(count, 1), dtype=np.float32)
