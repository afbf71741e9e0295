r"""Point-wise problems whose residual runs on tensors while sums over points are compiled.

For residuals that cannot be traced. Per evaluation torch sees numbers a point, never the ``N``
unknowns: the features :math:`z = \Phi w` come from native text, derivatives of the residual in its
few arguments from autograd, and the products of `PointwiseProblem` with :math:`\Phi` are native
text again. What is left is what the residual costs, with its derivatives.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

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

    def normal_equations(
        self, w: Tensor, items: Tensor, *, is_exact: bool = False
    ) -> NormalEquations:
        """Evaluate some items."""
        evaluate = _curvatures if is_exact else _slopes
        table = self._sums.table.copy()
        given = []
        for f, z in enumerate(self._combine(w, items)):
            data = self._some(f, items)
            values = [
                torch.stack(evaluate(self._rows(f, leaves, [one[:, part] for one in data]), leaves))
                for part, leaves in _chunks(z)
            ]
            given.append(_by_item(values))
            table[f, Place.DATA] = given[-1].data_ptr()
        return self._sums.normal_equations(w, items, is_exact=is_exact, table=table)

    def pull_back(self, w: Tensor, v: Tensor, items: Tensor) -> list[Tensor | None]:
        """Gradients in features, and in data that ask for one."""
        table = self._sums.table.copy()
        make = torch.empty_like if len(items) == self.items else torch.zeros_like
        found: list[Tensor | None] = []
        given = []
        for f, (z, y) in enumerate(
            zip(self._combine(w, items), self._combine(v, items), strict=True)
        ):
            features = make(self._sums.features[f])
            data = self._some(f, items)
            bars = [torch.zeros_like(one) for one in data if one.requires_grad]
            values = []
            for part, leaves in _chunks(z):
                some = [one[:, part].detach().requires_grad_(one.requires_grad) for one in data]
                asked = [one for one in some if one.requires_grad]
                with torch.enable_grad():
                    rows = self._rows(f, leaves, some)
                    q = gradients(rows, leaves, rows, create_graph=True)
                    slopes = gradients(q, [*leaves, *asked], list(y[:, :, part].unbind(1)))
                values.append(torch.stack([one.detach() for one in [*q, *slopes[: len(q)]]]))
                for bar, slope in zip(bars, slopes[len(q) :], strict=True):
                    bar[:, part] = self.scales[f] * slope
            given.append(_by_item(values))
            table[f, Place.DATA] = given[-1].data_ptr()
            table[f, Place.FEATURES_OUT] = features.data_ptr()
            rest = iter(bars)
            found += [
                features,
                *(self._whole(next(rest), items) if one.requires_grad else None for one in data),
            ]
        self._sums.run(Operation.PULL, w, items, vector=v, table=table)
        return found

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


def _chunks(z: Tensor) -> Iterator[tuple[slice, list[Tensor]]]:
    """Points of ``z``, shape ``(e, k, m)``: which, and their features as leaves ``(e, points)``."""
    points = max(1, _CHUNK // max(1, len(z)))
    for begin in range(0, max(1, z.shape[2]), points):
        part = slice(begin, begin + points)
        yield part, [one.requires_grad_() for one in z[:, :, part].unbind(1)]


def _by_item(values: list[Tensor]) -> Tensor:
    """Join chunks of values ``(count, e, points)`` to ``(e, count, m)``."""
    whole = values[0] if len(values) == 1 else torch.cat(values, 2)
    return whole.transpose(0, 1).contiguous()


def _slopes(rows: list[Tensor], z: list[Tensor]) -> list[Tensor]:
    """Residuals and their derivatives."""
    slopes = [slope for row in rows for slope in gradients([row], z, retain_graph=True)]
    return [one.detach() for one in [*rows, *slopes]]


def _curvatures(rows: list[Tensor], z: list[Tensor]) -> list[Tensor]:
    """Derivatives of half the square of the residuals, their derivatives, and this half."""
    r = [row.detach() for row in rows]
    slopes = [gradients([row], z, create_graph=True) for row in rows]
    flat = [torch.stack([slope.detach() for slope in own]) for own in slopes]
    first = torch.stack([a * own for a, own in zip(r, flat, strict=True)]).sum(0)
    second = torch.stack([own[:, None] * own for own in flat]).sum(0)
    for i in range(len(z)):
        bends = gradients([own[i] for own in slopes], z[i:], r, retain_graph=True)
        for j, bend in enumerate(bends, i):
            second[i, j] += bend
            if j > i:
                second[j, i] += bend
    half = 0.5 * torch.stack([a * a for a in r]).sum(0)
    return [*first, *second.flatten(0, 1), half]
