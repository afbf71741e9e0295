r"""Point-wise problems whose residual runs on tensors while sums over points are compiled.

For residuals that cannot be traced. Per evaluation torch sees numbers a point, never the ``N``
unknowns: the features :math:`z = \Phi w` come from native text, derivatives of the residual in its
few arguments from autograd, and the products of `PointwiseProblem` with :math:`\Phi` are native
text again. What is left is what the residual costs, with its derivatives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from solvers.nonlinear._least_squares import NormalEquations
from solvers.nonlinear._least_squares_pointwise import PointwiseProblem, gradients, residual_rows
from solvers.nonlinear._pointwise_sums import Family, Operation, Place, PointwiseSums

__all__ = ["HybridProblem"]

_CHUNK = 2**14
"""Points that the residual sees together."""


class HybridProblem(PointwiseProblem):
    """A point-wise problem with residuals on tensors and native sums; on the CPU.

    Arguments as for `PointwiseProblem`. Second derivatives of residuals are taken to be symmetric.

    Raises:
        SettingsError: If tensors are not on the CPU.

    Cost: one evaluation is one of the residual, as many backward passes as it has rows, and one
    reading of the features; near the solution and for gradients, one backward pass more for each
    feature in which it is not linear.

    Example:
        >>> features = torch.tensor([[[[1.0]], [[2.0]]]], dtype=torch.float64)   # two points
        >>> problem = HybridProblem({"rows": lambda u: torch.log(u)}, {"rows": features})
        >>> at = problem.normal_equations(torch.ones(1, 1, dtype=torch.float64), torch.arange(1))
        >>> round(at.cost.item(), 6)      # (log(1)^2 + log(2)^2) / 4
        0.120113
    """

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self._data = [data for _, _, data in self.families()]
        shapes = [
            (self._count_rows(name, phi, data), phi.shape[2]) for name, phi, data in self.families()
        ]
        self._sums = PointwiseSums(self, tuple(Family(*shape) for shape in shapes))
        self._last: _Exact | None = None

    def normal_equations(
        self, w: Tensor, items: Tensor, *, is_exact: bool = False
    ) -> NormalEquations:
        """Evaluate some items."""
        given = self._values(w, items, _curvatures if is_exact else _slopes)
        if is_exact:
            self._last = _Exact(w, items, given)
        return self._sums.normal_equations(w, items, is_exact=is_exact, table=self._tell(given))

    def _values(self, w: Tensor, items: Tensor, evaluate: Callable[..., Any]) -> list[Tensor]:
        """What ``evaluate`` gives at the points of each family."""
        z = self._combine(w, items)
        data = [self._some(f, items) for f in range(len(z))]
        parts: list[list[Tensor]] = [[] for _ in z]
        for chunks in _rounds(z):
            leaves = [one for _, _, one in chunks]
            rows = [self._rows(f, own, _cut(data[f], part)) for f, part, own in chunks]
            for (f, _, _), values in zip(chunks, evaluate(rows, leaves), strict=True):
                parts[f].append(torch.stack(values, 1))
        return [_join(some) for some in parts]

    def pull_back(self, w: Tensor, v: Tensor, items: Tensor) -> list[Tensor | None]:
        """Gradients in features, and in data that ask for one."""
        make = torch.empty_like if len(items) == self.items else torch.zeros_like
        features = [make(phi) for phi in self._sums.features]
        y = self._combine(v, items)
        known = self._last.at(w, items) if self._last is not None else None
        z = None if known else self._combine(w, items)
        found: list[Tensor | None] = []
        given = []
        for f, along in enumerate(y):
            data = self._some(f, items)
            bars: list[Tensor] = []
            if known and not any(one.requires_grad for one in data):
                given.append(_along(known[f], along))
            else:
                z = self._combine(w, items) if z is None else z
                values, bars = self._pull(f, z[f], along, data)
                given.append(values)
            rest = iter(bars)
            found += [
                features[f],
                *(self._whole(next(rest), items) if one.requires_grad else None for one in data),
            ]
        table = self._tell(given)
        table[:, Place.FEATURES_OUT] = [one.data_ptr() for one in features]
        self._sums.run(Operation.PULL, w, items, vector=v, table=table)
        return found

    def _pull(
        self, f: int, z: Tensor, y: Tensor, data: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Slopes of a family, those along ``y``, and gradients of data that ask for one."""
        bars = [torch.zeros_like(one) for one in data if one.requires_grad]
        values = []
        for ((_, part, leaves),) in _rounds([z]):
            some = [one.detach().requires_grad_(one.requires_grad) for one in _cut(data, part)]
            asked = [one for one in some if one.requires_grad]
            with torch.enable_grad():
                rows = self._rows(f, leaves, some)
                q = gradients(rows, leaves, rows, create_graph=True)
                slopes = gradients(q, [*leaves, *asked], list(y[:, :, part].unbind(1)))
            values.append(torch.stack([one.detach() for one in [*q, *slopes[: len(q)]]], 1))
            for bar, slope in zip(bars, slopes[len(q) :], strict=True):
                bar[:, part] = self.scales[f] * slope
        return _join(values), bars

    def _tell(self, given: Sequence[Tensor]) -> Any:
        """The table with values that native sums shall take."""
        table = self._sums.table.copy()
        table[:, Place.DATA] = [one.data_ptr() for one in given]
        return table

    def _combine(self, w: Tensor, items: Tensor) -> list[Tensor]:
        """Features at ``w`` of each family, shape ``(e, k, m)``."""
        table = self._sums.table.copy()
        z = [w.new_empty(len(items), *phi.shape[2:0:-1]) for phi in self._sums.features]
        table[:, Place.DATA_OUT] = [one.data_ptr() for one in z]
        self._sums.run(Operation.COMBINE, w, items, table=table)
        return z

    def _some(self, family: int, items: Tensor) -> list[Tensor]:
        """Data of some items."""
        data = self._data[family]
        return list(data) if len(items) == self.items else [one[items] for one in data]

    def _whole(self, bar: Tensor, items: Tensor) -> Tensor:
        """Zero for the other items."""
        if len(items) == self.items:
            return bar
        return bar.new_zeros(self.items, *bar.shape[1:]).index_copy_(0, items, bar)

    def _rows(self, family: int, z: Sequence[Tensor], data: Sequence[Tensor]) -> list[Tensor]:
        name = self.names[family]
        with torch.enable_grad():
            return residual_rows(self.residuals[name], name, z, data)

    def _count_rows(self, name: str, phi: Tensor, data: Sequence[Tensor]) -> int:
        z = phi.new_zeros(phi.shape[2], self.items, min(1, phi.shape[1]))
        with torch.no_grad():
            some = [one[:, :1] for one in data]
            return len(residual_rows(self.residuals[name], name, z.unbind(0), some))


class _Exact(NamedTuple):
    """Where the exact equations were asked for last, and the values that made them."""

    w: Tensor
    items: Tensor
    given: list[Tensor]

    def at(self, w: Tensor, items: Tensor) -> list[Tensor] | None:
        """The values at ``w`` if they are known."""
        is_same = torch.equal(items, self.items) and torch.equal(w, self.w)
        return self.given if is_same else None


def _rounds(z: Sequence[Tensor]) -> Iterator[list[tuple[int, slice, list[Tensor]]]]:
    """Chunks of points of families ``(e, k, m)``: which family, points, and features as leaves.

    Those of one round are looked at together.
    """
    begin = 0
    while chunks := [
        (f, slice(begin, begin + _points(one)), one)
        for f, one in enumerate(z)
        if begin == 0 or begin < one.shape[2]
    ]:
        yield [
            (f, part, [leaf.detach().requires_grad_() for leaf in one[:, :, part].unbind(1)])
            for f, part, one in chunks
        ]
        begin += _points(z[0])


def _points(z: Tensor) -> int:
    return max(1, _CHUNK // max(1, len(z)))


def _cut(data: Sequence[Tensor], part: slice) -> list[Tensor]:
    return [one[:, part] for one in data]


def _join(parts: Sequence[Tensor]) -> Tensor:
    """Chunks of values ``(e, count, points)`` side by side."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), 2)


def _along(known: Tensor, y: Tensor) -> Tensor:
    """Slopes, and second derivatives times ``y``, of exact values ``(e, k + k k + 1, m)``."""
    items, k, points = y.shape
    second = known[:, k : k + k * k].view(items, k, k, points)
    return torch.cat([known[:, :k], (second * y[:, None]).sum(2)], 1)


def _slopes(rows: list[list[Tensor]], z: list[list[Tensor]]) -> list[list[Tensor]]:
    """Residuals of each family and their derivatives."""
    slopes = _each_slope(rows, z, retain_graph=True)
    return [
        [one.detach() for one in [*own, *(slope for some in slopes[f] for slope in some)]]
        for f, own in enumerate(rows)
    ]


def _curvatures(rows: list[list[Tensor]], z: list[list[Tensor]]) -> list[list[Tensor]]:
    """Derivatives of half the square of residuals, their derivatives, and this half."""
    slopes = _each_slope(rows, z, create_graph=True)
    r = [[row.detach() for row in own] for own in rows]
    seconds = []
    for own, factors in zip(slopes, r, strict=True):
        flat = [torch.stack([slope.detach() for slope in some]) for some in own]
        first = torch.stack([a * b for a, b in zip(factors, flat, strict=True)]).sum(0)
        second = torch.stack([b[:, None] * b for b in flat]).sum(0)
        half = 0.5 * torch.stack([a * a for a in factors]).sum(0)
        seconds.append((first, second, half))
    for i in range(max(len(own) for own in z)):
        chosen = [f for f, own in enumerate(z) if i < len(own)]
        bends = iter(
            gradients(
                [some[i] for f in chosen for some in slopes[f]],
                [leaf for f in chosen for leaf in z[f][i:]],
                [one for f in chosen for one in r[f]],
                retain_graph=True,
            )
        )
        for f in chosen:
            second = seconds[f][1]
            for j in range(i, len(z[f])):
                bend = next(bends)
                second[i, j] += bend
                if j > i:
                    second[j, i] += bend
    return [[*first, *second.flatten(0, 1), half] for first, second, half in seconds]


def _each_slope(
    rows: list[list[Tensor]], z: list[list[Tensor]], **options: bool
) -> list[list[list[Tensor]]]:
    """Derivatives of each row of each family; one backward pass for a row of all families."""
    slopes: list[list[list[Tensor]]] = [[] for _ in rows]
    for number in range(max(len(own) for own in rows)):
        chosen = [f for f, own in enumerate(rows) if number < len(own)]
        found = iter(
            gradients(
                [rows[f][number] for f in chosen],
                [leaf for f in chosen for leaf in z[f]],
                None,
                **options,
            )
        )
        for f in chosen:
            slopes[f].append([next(found) for _ in z[f]])
    return slopes
