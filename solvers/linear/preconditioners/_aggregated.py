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
    AggregationRule,
    Graph,
)
from solvers.linear.preconditioners._coarsening import COARSEST_CELLS, REVISIT_BELOW
from solvers.linear.preconditioners._compiled import CompiledMultigrid
from solvers.linear.preconditioners._native import HEADER, ROW, Slot

__all__ = ["CompiledAggregation"]

_SPARSE_ROW = 12
_LANES = 16

Array = np.ndarray[Any, Any]


class CompiledAggregation(CompiledMultigrid):
    """Aggregates of a grid operator; see `AggregationMultigrid`.

    Args:
        operator: Operator without gradients, float64 on the CPU, not periodic, one system.
        rule: Pairing and couplings.
        cycle: Visits of a coarser level, 1 (V) or 2 (W).
    """

    label = "multigrid on aggregates (compiled)"

    def __init__(self, operator: PoissonOperator, *, rule: AggregationRule, cycle: int):
        self._rule = rule
        super().__init__(operator, cycle=cycle, threads=1)

    def _coarsen(self, stats: Array | None) -> None:
        """Levels of aggregates below the finest level, which stays a grid."""
        build = _Build(self._table[HEADER : HEADER + ROW])
        graph, row_of_cell = build.from_grid(self._levels[0].cells)
        rule = self._rule
        self.rows = [graph.rows]
        self._sparse: list[_SparseLevel] = []
        strong = rule.strong
        parent = np.zeros(0, dtype=np.int32)
        while not self._sparse or graph.rows > COARSEST_CELLS:
            coarse, parent = build.merge_twice(graph, rule, strong)
            parent[parent < 0] = coarse.rows
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
        self._inverse = graph.inverse().reshape(1, -1).contiguous()
        self._rows = np.stack([level.row for level in self._sparse])
        self._set(Slot.INVERSE, self._inverse.data_ptr(), 0)
        self._table[Slot.LEVELS] = 1
        self._set(
            Slot.AGGREGATES,
            self._rows.ctypes.data,
            len(self._sparse),
            self._parent.ctypes.data,
            self._first_visits(),
        )

    def _first_visits(self) -> int:
        is_small = self.rows[1] <= REVISIT_BELOW * self.rows[0]
        return int(self._table[Slot.VISITS]) if is_small and len(self._sparse) > 1 else 1


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
    PARENT = auto()
    COUNT = auto()
    ENTRIES = auto()
    NEW_START = auto()
    NEW_TO = auto()
    NEW_COUPLING = auto()
    NEW_WHOLE = auto()
    NEW_EXCESS = auto()
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
        self, graph: Graph, rule: AggregationRule, strong: float
    ) -> tuple[Graph, Array]:
        """Pairs of pairs, and the row of the coarse graph for every row, -1 for none."""
        parent, count = self._match(graph, strong, rule.join)
        while count > 0.98 * graph.rows and strong > 1e-4:
            strong *= 0.3
            parent, count = self._match(graph, strong, rule.join)
        graph.whole = graph.coupling
        graph = self._contract(graph, parent, count, rule)
        if count > COARSEST_CELLS:
            second, count = self._match(graph, strong, rule.join)
            if count <= 0.98 * graph.rows:
                graph = self._contract(graph, second, count, rule)
                parent = np.where(parent >= 0, second[parent], np.int32(-1))
        if rule.scale > 0:
            np.maximum(graph.coupling, np.float32(rule.floor) * graph.whole, out=graph.coupling)
        return graph, parent

    def _match(self, graph: Graph, strong: float, join: float) -> tuple[Array, int]:
        parent = _integers(graph.rows)
        numbers = np.array([strong, join])
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
        coupling, whole, excess = _reals(most), _reals(most), _reals(count)
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
            integers=_integers(2 * count + graph.rows),
            reals=_reals(count + 2 * most),
        )
        entries = int(result[0])
        return Graph(start, to[:entries], coupling[:entries], whole[:entries], excess)

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
