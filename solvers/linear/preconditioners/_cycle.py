"""The multigrid cycle on tensors: any device and type, periodic axes, batches; the oracle."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from solvers.linear.operators._poisson import PoissonOperator
from solvers.linear.operators._stencil import coupling_sum, multiply_stencil
from solvers.linear.preconditioners._coarsening import (
    CHEBYSHEV_INTERVAL,
    COARSEST_CELLS,
    REVISIT_BELOW,
    choose_axes,
    symmetric_inverse,
    wall_factor,
)
from solvers.linear.preconditioners._jacobi import chebyshev_steps
from solvers.linear.preconditioners._preconditioner import PreparedPreconditioner

__all__ = ["ReferenceMultigrid"]


class _Level:
    """A grid operator of one level and how it leads to the next."""

    def __init__(
        self,
        couplings: Sequence[Tensor],
        boundary: Tensor,
        mass: Tensor | None,
    ):
        self.couplings, self.boundary, self.mass = tuple(couplings), boundary, mass
        excess = boundary if mass is None else boundary + mass
        self.diagonal = diagonal = excess + coupling_sum(couplings, excess)
        # A closed region within one coarse cell is no unknown there: its constant needs no
        # correction, and one would be too large where the cell merges with others.
        self.active = diagonal > 0
        self.inverse = torch.where(self.active, 1.0 / diagonal, 0.0)
        axes = len(self.couplings)
        self.shape = tuple(boundary.shape[boundary.ndim - axes :])
        self.axes: tuple[int, ...] = ()

    def strengths(self) -> list[float]:
        """Mean positive coupling along each axis."""
        means = []
        for coupling in self.couplings:
            there = coupling > 0
            means.append(float(coupling.sum() / there.sum().clamp(min=1)))
        return means

    def coarsen(self, number: int) -> _Level:
        axes = choose_axes(self.shape, self.strengths())
        self.axes = axes
        couplings = []
        for axis, coupling in enumerate(self.couplings):
            place = axis - len(self.shape)
            if axis in axes and self._is_chain():
                coupling = _in_series(coupling, place, self.shape[axis])
            elif axis in axes:
                coupling = 0.5 * _outer_faces(coupling, place, self.shape[axis])
            couplings.append(self.merge(coupling, skip=axis))
        wall = wall_factor(number, self.shape, axes)
        mass = None if self.mass is None else self.merge(self.mass)
        return _Level(couplings, wall * self.merge(self.boundary), mass)

    def _is_chain(self) -> bool:
        """Whether there is more than one cell along one axis only."""
        return sum(size > 1 for size in self.shape) == 1

    def merge(self, x: Tensor, *, skip: int | None = None) -> Tensor:
        """Add up pairs along the axes of the transfer."""
        for axis in self.axes:
            if axis == skip:
                continue
            place = axis - len(self.shape)
            size = x.shape[place]
            pairs = x.narrow(place, 0, size - size % 2).unflatten(place, (size // 2, 2)).sum(place)
            x = torch.cat([pairs, x.narrow(place, size - 1, 1)], place) if size % 2 else pairs
        return x

    def spread(self, x: Tensor) -> Tensor:
        """Give both cells of a pair the value of the coarse cell."""
        for axis in self.axes:
            place = axis - len(self.shape)
            x = x.repeat_interleave(2, place).narrow(place, 0, self.shape[axis])
        return torch.where(self.active, x, 0.0)

    def residual(self, b: Tensor, x: Tensor) -> Tensor:
        return b - multiply_stencil(x, self.couplings, self.diagonal)


class ReferenceMultigrid(PreparedPreconditioner):
    """Levels of a grid operator as tensors.

    Args:
        operator: Operator without gradients.
        cycle: Visits of a coarser level, 1 (V) or 2 (W).
    """

    label = "multigrid"

    def __init__(self, operator: PoissonOperator, *, cycle: int):
        operator.check()
        finest = _Level(operator.couplings, operator.boundary, operator.mass)
        self.levels = [finest]
        self.steps = sorted(chebyshev_steps(2, *CHEBYSHEV_INTERVAL))
        self._cycle = cycle
        while torch.Size(self.levels[-1].shape).numel() > COARSEST_CELLS:
            self.levels.append(self.levels[-1].coarsen(len(self.levels) - 1))
        self._inverse = symmetric_inverse(_matrix(self.levels[-1]))

    def apply(self, r: Tensor) -> Tensor:
        """One cycle."""
        return self._visit(0, r, None)

    def _visit(self, number: int, b: Tensor, x: Tensor | None) -> Tensor:
        level = self.levels[number]
        if number == len(self.levels) - 1:
            flat = b.flatten(-len(level.shape)).unsqueeze(-1)
            return (self._inverse @ flat).reshape(b.shape)
        first, second = self.steps
        if x is None:
            x = first * level.inverse * b
        else:
            x = x + first * level.inverse * level.residual(b, x)
        x = x + second * level.inverse * level.residual(b, x)
        coarse_b = level.merge(torch.where(level.active, level.residual(b, x), 0.0))
        coarse_x = None
        for _ in range(self._visits(number)):
            coarse_x = self._visit(number + 1, coarse_b, coarse_x)
        assert coarse_x is not None
        x = x + level.spread(coarse_x)
        for step in (second, first):
            x = x + step * level.inverse * level.residual(b, x)
        return x

    def _visits(self, number: int) -> int:
        fine, coarse = (torch.Size(self.levels[n].shape).numel() for n in (number, number + 1))
        is_last = number + 1 == len(self.levels) - 1
        return 1 if is_last or coarse > REVISIT_BELOW * fine else self._cycle


def _outer_faces(coupling: Tensor, axis: int, size: int) -> Tensor:
    """Couplings of the faces between pairs of cells."""
    faces = coupling.shape[axis]
    chosen = list(range(1, faces, 2))
    if faces == size and size % 2:
        chosen.append(size - 1)
    return coupling.index_select(
        axis, torch.tensor(chosen, device=coupling.device, dtype=torch.long)
    )


def _in_series(coupling: Tensor, axis: int, size: int) -> Tensor:
    r"""Couplings :math:`c / (1 + c (1/a + 1/b) / 2)` of the merged pairs of a chain.

    The coupling :math:`c` of the face and half of those within the pairs, :math:`a` and :math:`b`,
    conduct one after the other; nothing else does in a chain. Equal ones give half, and so do much
    smaller ones within a pair, which should not have been merged. Next to a single cell there is
    nothing within.
    """
    between = _outer_faces(coupling, axis, size)
    if coupling.shape[axis] == size:
        return 0.5 * between
    within = coupling.movedim(axis, -1)[..., ::2].movedim(-1, axis)
    single = torch.full_like(coupling.narrow(axis, 0, 1), torch.inf)
    within = torch.cat([within, single], axis)
    count = between.shape[axis]
    resistance = 1.0 / within.narrow(axis, 0, count) + 1.0 / within.narrow(axis, 1, count)
    joined = between / (1.0 + 0.5 * between * resistance)
    return torch.where(joined > 0.5 * between, joined, 0.5 * between)


def _matrix(level: _Level) -> Tensor:
    """The dense matrix of a small level, shape ``(*batch, n, n)``."""
    n = torch.Size(level.shape).numel()
    unit = torch.eye(n, dtype=level.diagonal.dtype, device=level.diagonal.device)
    batch = level.diagonal.shape[: level.diagonal.ndim - len(level.shape)]
    unit = unit.reshape(n, *(1,) * len(batch), *level.shape).expand(n, *batch, *level.shape)
    columns = multiply_stencil(unit, level.couplings, level.diagonal)
    return columns.reshape(n, *batch, n).movedim(0, -1)
