"""Multigrid on aggregates of strongly coupled cells: settings, and the method in plain Python."""

from __future__ import annotations

import math
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from solvers.core import SettingsError, check_choice
from solvers.linear.operators._matrix import DenseOperator, SparseOperator
from solvers.linear.operators._operator import LinearOperator
from solvers.linear.operators._poisson import PoissonOperator
from solvers.linear.preconditioners._coarsening import (
    CHEBYSHEV_INTERVAL,
    COARSEST_CELLS,
    REVISIT_BELOW,
    symmetric_inverse,
)
from solvers.linear.preconditioners._jacobi import chebyshev_steps
from solvers.linear.preconditioners._preconditioner import PreparedPreconditioner
from solvers.linear.preconditioners._torn import TORN, TORN_PART

__all__ = [
    "AggregationMultigrid",
    "AggregationRule",
    "Graph",
    "ReferenceAggregation",
    "choose_rule",
]

LEAST_FACTOR = 0.4
"""Part of a coupling that one pairing leaves at least."""

STIFF_PART = 0.03
"""A pair of pairs needs a coupling of this part of those inside.

An island of strong couplings that is several rows of a level stands still under its smoother; only
an aggregate of its own moves it.
"""

SLOW_COARSENING = 0.85
"""A level with more of the rows of the finer one than this part demands less of couplings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregationRule:
    r"""How rows are paired and what couples the pairs: nine numbers.

    Two rows :math:`1, 2` with coupling :math:`c_I` become the pair :math:`I`. Its coupling to
    :math:`J` is the Galerkin sum :math:`C = a_1 + a_2` in series with what lies inside the pairs:

    .. math:: C' = \frac{C}{1 + g\, C\, (t_I + t_J)}, \qquad
              t_I = \frac{|a_1 - a_2|}{2\, C\, c_I} \min(1, m / C)^{k},

    where :math:`m` is the largest coupling through the member that has the smaller share: at dead
    ends nothing flows on, and the coupling stays Galerkin. On a uniform grid this is the factor 1/2
    of the doubled distance. The weight
    :math:`g = s\, e^{-k_d |\ln D_I / D_J| - k_i |\ln C t_I / C t_J| - k_z \max(0, \ln C(t_I+t_J))}`
    depends on the diagonals :math:`D`.

    The default numbers were found by an evolution strategy on random problems of 24 to 28 cells a
    side; ``benchmarks/train_aggregation.py`` is such a search. The untrained rule is
    ``AggregationRule(scale=1, far=1, diagonal=0, imbalance=0, size=0, excess=1, floor=0.5,
    strong=0.25, join=0.5)``, and ``scale=0`` is the Galerkin operator.

    Args:
        scale: :math:`s`.
        far: :math:`k`.
        diagonal: :math:`k_d`.
        imbalance: :math:`k_i`.
        size: :math:`k_z`.
        excess: Weight of the same formula for the conductance to known values.
        floor: Part of the Galerkin coupling that a level keeps at least.
        strong: A pair needs a coupling of this part of the strongest one of both rows.
        join: A row left over joins a pair if the coupling to it is this part of its diagonal.

    Raises:
        SettingsError: If a number is negative.
    """

    scale: float = 0.752
    far: float = 0.895
    diagonal: float = 0.051
    imbalance: float = 0.067
    size: float = 0.038
    excess: float = 0.418
    floor: float = 0.536
    strong: float = 0.279
    join: float = 0.770

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise SettingsError(f"{name}: got {getattr(self, name)}, expected zero or more")

    @classmethod
    def galerkin(cls) -> AggregationRule:
        """Sums of couplings as they are, with the pairs of the untrained rule."""
        return cls(scale=0.0, strong=0.25, join=0.5, floor=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregationMultigrid:
    r"""One multigrid cycle over aggregates that follow the strong couplings, as preconditioner.

    Pairs of strongly coupled rows are paired once more, so that a level has about a quarter of the
    rows of the finer one, whatever the geometry of the strong couplings is: channels, sheets,
    grids stretched in all directions, noise. Pairs stay apart whose coupling is less than 0.03 of
    one inside them: neither the smoother nor a common aggregate would move the stiffer one. The
    transfer is constant on an aggregate, couplings are scaled by `AggregationRule`, and the
    smoother is that of `Multigrid`. The cycle is symmetric. The V-cycle is positive definite by
    construction, and so is the W-cycle of Galerkin sums; that of the default rule has been on
    everything it was tried on.

    With `ConjugateGradient`, float64 on the CPU, and a grid without periodic axes the whole
    iteration is one compiled call, and the finest level has no matrix. Other grids, and symmetric
    matrices with nonpositive off-diagonals and nonnegative row sums, run in Python with SciPy.

    Args:
        rule: Pairing and couplings. By default `AggregationRule()`, but
            `AggregationRule.galerkin()` where in more than 15 % of the rows couplings differ
            by more than 1e5: among such noise corrections mislead.
        cycle: ``"V"`` or ``"W"``, which visits a level twice if it has less than 0.45 of the rows.
        backend: ``"kernel"`` for the compiled form, ``"reference"`` for Python, ``"auto"`` for the
            compiled one where it exists.

    Raises:
        SettingsError: If a setting is none of these.

    Cost: the set-up costs as much as some forty iterations of `Multigrid`, an iteration about 1.5
    times as much; memory about 100 bytes an unknown.
    Reference: Notay 2010, "An aggregation-based algebraic multigrid method" (double pairwise
    aggregation); Braess 1995, "Towards algebraic multigrid for elliptic problems of second order".

    Example:
        >>> from solvers.linear import ConjugateGradient, linear_solve
        >>> generator = torch.Generator().manual_seed(0)
        >>> noise = 10 ** (4 * torch.rand(16, 16, 16, generator=generator, dtype=torch.float64))
        >>> A = PoissonOperator.from_cells(torch.zeros(16, 16, 16), coefficient=noise, outside=2)
        >>> solver = ConjugateGradient(preconditioner=AggregationMultigrid())
        >>> b = torch.ones(16, 16, 16, dtype=torch.float64)
        >>> int(linear_solve(A, b, solver).iterations) < 40
        True
    """

    rule: AggregationRule | None = None
    cycle: Literal["V", "W"] = "W"
    backend: Literal["auto", "kernel", "reference"] = "auto"

    def __post_init__(self) -> None:
        check_choice("cycle", self.cycle, ("V", "W"))
        check_choice("backend", self.backend, ("auto", "kernel", "reference"))

    def prepare(self, operator: LinearOperator) -> PreparedPreconditioner:
        """Build the levels.

        Args:
            operator: A `PoissonOperator`, or a symmetric matrix as said above; one system, without
                gradients.

        Raises:
            SettingsError: If it is another kind of operator or a batch, or the compiled form is
                asked for where there is none.
            KernelBuildError: If the compiled form is asked for and does not compile.
        """
        from solvers.linear.preconditioners._multigrid import prepare_compiled

        if operator.batch:
            raise SettingsError(
                f"AggregationMultigrid: got {operator!r}, a batch of {operator.batch}, expected "
                "one system, whose couplings make the levels; prepare them one by one"
            )
        visits = 2 if self.cycle == "W" else 1

        def build(grid: PoissonOperator) -> PreparedPreconditioner:
            from solvers.linear.preconditioners._aggregated import AggregateLevels
            from solvers.linear.preconditioners._compiled import CompiledMultigrid

            make = partial(AggregateLevels, rule=self.rule, cycle=visits)
            return CompiledMultigrid(grid, make)

        compiled = prepare_compiled(
            operator, build, backend=self.backend, what="AggregationMultigrid"
        )
        return compiled or ReferenceAggregation(operator, rule=self.rule, cycle=visits)


@dataclass(slots=True, eq=False)
class Graph:
    """Positive couplings of every row, row by row, and the excess of the diagonal over their sum.

    Attributes:
        start: First entry of every row, and the number of entries.
        to: Columns.
        coupling: Couplings, those of two rows equal.
        whole: What they would be without any scaling since the level above.
        excess: Excess.
        inside: Largest coupling inside every row since the level above; None on a level itself.
    """

    start: np.ndarray[Any, Any]
    to: np.ndarray[Any, Any]
    coupling: np.ndarray[Any, Any]
    whole: np.ndarray[Any, Any]
    excess: np.ndarray[Any, Any]
    inside: np.ndarray[Any, Any] | None = None

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.excess)

    def laplacian(self) -> Any:
        """The matrix, as ``scipy.sparse.csr_array``."""
        import scipy.sparse

        parts = (self.coupling.astype(np.float64), self.to, self.start)
        c = scipy.sparse.csr_array(parts, shape=(self.rows, self.rows))
        return scipy.sparse.diags_array(c.sum(1) + self.excess) - c

    def inverse(self) -> Tensor:
        """Its dense inverse, zero where there is a null space."""
        return symmetric_inverse(torch.from_numpy(self.laplacian().toarray()))


def choose_rule(graph: Graph) -> AggregationRule:
    """Galerkin sums where strong and weak couplings meet in many rows, else the default rule."""
    rows = np.flatnonzero(np.diff(graph.start))
    if not rows.size:
        return AggregationRule()
    first = graph.start[rows]
    weakest = np.minimum.reduceat(graph.coupling, first)
    strongest = np.maximum.reduceat(graph.coupling, first)
    torn = np.count_nonzero(strongest > TORN * weakest)
    return AggregationRule.galerkin() if torn > TORN_PART * rows.size else AggregationRule()


class ReferenceAggregation(PreparedPreconditioner):
    """Levels as SciPy matrices, made row by row in Python; the oracle of the compiled form.

    Args:
        operator: Operator without gradients.
        rule: Pairing and couplings; chosen by the graph if None.
        cycle: Visits of a coarser level, 1 (V) or 2 (W).
    """

    label = "multigrid on aggregates"

    def __init__(self, operator: LinearOperator, *, rule: AggregationRule | None, cycle: int):
        operator.check()
        graph, self._kept = _graph_of(operator)
        rule = choose_rule(graph) if rule is None else rule
        self._size = operator.size
        self._cycle = cycle
        self._steps = sorted(chebyshev_steps(2, *CHEBYSHEV_INTERVAL))
        self._levels: list[tuple[Any, np.ndarray[Any, Any], np.ndarray[Any, Any]]] = []
        self.rows = [graph.rows]
        strong = rule.strong
        while graph.rows > COARSEST_CELLS:
            coarse, parent = _merge_twice(graph, rule, strong)
            matrix = graph.laplacian()
            self._levels.append((matrix, 1.0 / matrix.diagonal(), parent))
            if coarse.rows > SLOW_COARSENING * graph.rows:
                strong *= 0.3
            graph = coarse
            self.rows.append(graph.rows)
        self._inverse = graph.inverse().numpy()

    def update(self, operator: LinearOperator) -> PreparedPreconditioner | None:
        """Keep the levels, which wear out, as long as the unknowns are the same."""
        unknowns = np.flatnonzero(operator.diagonal().cpu().numpy())
        if not np.array_equal(unknowns, self._kept):
            return None
        worn = copy(self)
        worn.is_worn = True
        return worn

    def apply(self, r: Tensor) -> Tensor:
        """One cycle."""
        rows = r.reshape(-1, self._size).cpu().double().numpy()
        result = np.zeros_like(rows)
        for item, row in zip(result, rows, strict=True):
            item[self._kept] = self._visit(0, row[self._kept], None)
        return torch.from_numpy(result).to(r).reshape(r.shape)

    def _visit(self, level: int, b: Any, x: Any) -> Any:
        if level == len(self._levels):
            return self._inverse @ b
        A, inverse, parent = self._levels[level]
        first, second = self._steps
        x = first * inverse * b if x is None else x + first * inverse * (b - A @ x)
        x = x + second * inverse * (b - A @ x)
        count = self.rows[level + 1]
        inside = parent >= 0
        coarse_b = np.bincount(parent[inside], (b - A @ x)[inside], count)
        is_small = count <= REVISIT_BELOW * self.rows[level]
        coarse = self._visit(level + 1, coarse_b, None)
        if self._cycle > 1 and is_small and level + 1 < len(self._levels):
            coarse = self._visit(level + 1, coarse_b, coarse)
        x[inside] += coarse[parent[inside]]
        for step in (second, first):
            x = x + step * inverse * (b - A @ x)
        return x


def _graph_of(operator: LinearOperator) -> tuple[Graph, np.ndarray[Any, Any]]:
    """The graph of an operator and which unknowns are its rows."""
    import scipy.sparse

    if not isinstance(operator, PoissonOperator | SparseOperator | DenseOperator):
        raise SettingsError(
            f"AggregationMultigrid: got {operator!r}, expected a PoissonOperator or a matrix"
        )
    matrix = operator.to_scipy().tocsr().astype(np.float64)
    diagonal = matrix.diagonal()
    kept = np.flatnonzero(diagonal)
    matrix = matrix[kept][:, kept]
    diagonal = diagonal[kept]
    c = scipy.sparse.csr_array(scipy.sparse.diags_array(diagonal) - matrix)
    c.eliminate_zeros()
    c.sum_duplicates()
    excess = diagonal - c.sum(1)
    rounding = 1e-12 * diagonal
    if (
        not operator.is_symmetric
        or (len(c.data) and c.data.min() < 0)
        or (excess < -rounding).any()
    ):
        raise SettingsError(
            f"AggregationMultigrid: {operator!r} is no symmetric matrix with nonpositive "
            "off-diagonals and nonnegative row sums; use AlgebraicMultigrid"
        )
    excess = np.where(excess > rounding, excess, 0.0)
    return Graph(c.indptr, c.indices, c.data, c.data, excess), kept


def _merge_twice(
    graph: Graph, rule: AggregationRule, strong: float
) -> tuple[Graph, np.ndarray[Any, Any]]:
    """Pairs of pairs, and the row of the coarse graph for every row, -1 for none."""
    fine = graph
    parent, count = pair_rows(graph, strong, rule.join)
    while count > 0.98 * graph.rows and strong > 1e-4:
        strong *= 0.3
        parent, count = pair_rows(graph, strong, rule.join)
    graph = _contract(
        Graph(fine.start, fine.to, fine.coupling, fine.coupling, fine.excess), parent, count, rule
    )
    if count > COARSEST_CELLS:
        second, count = pair_rows(graph, strong, rule.join)
        if count <= 0.98 * graph.rows:
            graph = _contract(graph, second, count, rule)
            parent = np.where(parent >= 0, second[parent], -1)
    graph.coupling = np.maximum(graph.coupling, rule.floor * graph.whole)
    return graph, parent


def pair_rows(graph: Graph, strong: float, join: float) -> tuple[np.ndarray[Any, Any], int]:
    """Pair every row with its strongest free neighbour, in order; see `AggregationRule`.

    Returns:
        The aggregate of every row, -1 for rows without couplings, and their number.
    """
    start, to, c = graph.start.tolist(), graph.to.tolist(), graph.coupling.tolist()
    rows = range(graph.rows)
    inside = [0.0] * graph.rows if graph.inside is None else graph.inside.tolist()
    strongest = [max(c[start[i] : start[i + 1]], default=0.0) for i in rows]
    pair = [-1] * graph.rows
    count = 0
    for i in rows:
        if pair[i] >= 0:
            continue
        best, other = 0.0, -1
        for q in range(start[i], start[i + 1]):
            j = to[q]
            is_strong = c[q] >= strong * max(strongest[i], strongest[j])
            is_strong &= c[q] >= STIFF_PART * max(inside[i], inside[j])
            if pair[j] < 0 and c[q] > best * 1.00001 and is_strong:
                best, other = c[q], j
        if other >= 0:
            pair[i] = pair[other] = count
            count += 1
    parent = pair.copy()
    for i in rows:
        if pair[i] >= 0 or start[i] == start[i + 1]:
            continue
        total, best, other = float(graph.excess[i]), 0.0, -1
        for q in range(start[i], start[i + 1]):
            total += c[q]
            if c[q] > best * 1.00001 and pair[to[q]] >= 0:
                best, other = c[q], to[q]
        stiff = max(strongest[other], inside[i], inside[other])
        if other >= 0 and best >= max(join * total, STIFF_PART * stiff):
            parent[i] = pair[other]
        else:
            parent[i] = count
            count += 1
    return np.array(parent), count


def _contract(
    graph: Graph, parent: np.ndarray[Any, Any], count: int, rule: AggregationRule
) -> Graph:
    """The graph of the aggregates, with couplings by the rule."""
    members: list[list[int]] = [[] for _ in range(count)]
    for i, own in enumerate(parent.tolist()):
        if own >= 0:
            members[own].append(i)
    start, to, coupling, whole, ring = [0], [], [], [], []
    excess, held = np.zeros(count), np.zeros(count)
    for own, rows in enumerate(members):
        sums: dict[int, list[float]] = {}
        inside = 0.0
        for place, i in enumerate(rows):
            for q in range(graph.start[i], graph.start[i + 1]):
                other = int(parent[graph.to[q]])
                if other == own:
                    inside = max(inside, float(graph.coupling[q]))
                    continue
                entry = sums.setdefault(other, [0.0, 0.0, 0.0])
                entry[min(place, 1)] += float(graph.coupling[q])
                entry[2] += float(graph.whole[q])
        most = [max((entry[k] for entry in sums.values()), default=0.0) for k in (0, 1)]
        is_pair = len(rows) == 2
        for other, (near, rest, galerkin) in sums.items():
            total = near + rest
            through = min(1.0, most[near > rest] / total) ** rule.far
            to.append(other)
            coupling.append(total)
            whole.append(galerkin)
            ring.append(abs(near - rest) / (2 * total * inside) * through if is_pair else 0.0)
        start.append(len(to))
        held[own] = inside
        values = graph.excess[rows]
        excess[own] = values.sum()
        if is_pair and excess[own] > 0:
            through = min(1.0, most[int(values[0] > values[1])] / excess[own]) ** rule.far
            series = abs(values[0] - values[1]) / (2 * inside) * through
            excess[own] /= 1 + rule.scale * rule.excess * series
    result = Graph(
        np.array(start), np.array(to, dtype=int), np.array(coupling), np.array(whole), excess, held
    )
    if rule.scale > 0 and to:
        result.coupling = _in_series(result, np.array(ring), rule)
    return result


def _in_series(
    graph: Graph, ring: np.ndarray[Any, Any], rule: AggregationRule
) -> np.ndarray[Any, Any]:
    """Couplings in series with the resistances inside both aggregates."""
    rows = np.repeat(np.arange(graph.rows), np.diff(graph.start))
    order = np.lexsort((rows, graph.to))
    back = np.empty_like(order)
    # The entries sorted by row meet their mirror images, sorted by column.
    back[np.lexsort((graph.to, rows))] = order
    diagonal = graph.excess + np.bincount(rows, graph.coupling, graph.rows)
    own, other = graph.coupling * ring, graph.coupling * ring[back]
    z = own + other
    uneven = np.abs(np.log(diagonal[rows] / diagonal[graph.to]))
    apart = np.abs(np.log((own + 0.02) / (other + 0.02)))
    size = np.maximum(0.0, np.log(np.maximum(z, 1e-300)))
    gate = np.exp(-rule.diagonal * uneven - rule.imbalance * apart - rule.size * size)
    weight = rule.scale * np.where(z > 1e-3, gate, 1.0)
    result: np.ndarray[Any, Any] = graph.coupling * np.maximum(
        LEAST_FACTOR, 1.0 / (1.0 + weight * z)
    )
    return result
