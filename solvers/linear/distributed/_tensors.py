"""The cycle on slabs as tensors: periodic sides, and the oracle of the compiled form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from solvers.linear.distributed._slabs import HALO, Halo, Slab, add_halo, slab_window, strips_of
from solvers.linear.distributed._worker import GridWindow, SlabWorker
from solvers.linear.operators._poisson import PoissonOperator
from solvers.linear.operators._stencil import multiply_stencil
from solvers.linear.preconditioners._cycle import ReferenceMultigrid

__all__ = ["MultigridSlab", "TensorHierarchy"]


class TensorHierarchy:
    """Levels of the whole grid as tensors; the caller visits the small ones.

    Args:
        operator: Without gradients.
        cycle: Visits of a coarser level, 1 (V) or 2 (W).
    """

    renew_below = 0.0
    is_singular = False

    def __init__(self, operator: PoissonOperator, *, cycle: int):
        self._operator = operator
        self._reference = ReferenceMultigrid(operator, cycle=cycle)
        self.shapes = [level.shape for level in self._reference.levels]

    def merges(self, number: int) -> bool:
        """Whether planes merge on the way to the level after one."""
        return 0 in self._reference.levels[number].axes

    def visits(self, number: int) -> int:
        """Visits of the level after one."""
        return self._reference._visits(number)

    def visit(self, number: int, parts: Sequence[Tensor], visits: int) -> Tensor:
        """Visit a gathered level.

        Args:
            number: Of the level.
            parts: Its right-hand side, planes of all slabs in order.
            visits: How often.
        """
        b, x = torch.cat(list(parts)), None
        for _ in range(visits):
            x = self._reference._visit(number, b, x)
        assert x is not None
        return x

    def recipe(self, slabs: Sequence[Slab]) -> tuple[Any, ...]:
        """Arguments of the worker of a slab.

        Args:
            slabs: The slab on every level that is distributed.
        """
        grid = GridWindow.cut(self._operator, slabs[0], HALO)
        levels = []
        for slab, level in zip(slabs, self._reference.levels, strict=False):
            couplings = tuple(
                slab_window(coupling, slab, HALO, faces=axis == 0)
                for axis, coupling in enumerate(level.couplings)
            )
            diagonal, inverse = (
                slab_window(field, slab, HALO) for field in (level.diagonal, level.inverse)
            )
            levels.append(LevelWindow(couplings, diagonal, inverse, level.shape, level.axes))
        return grid, levels, self._reference.steps


@dataclass(frozen=True, slots=True)
class LevelWindow:
    """One level of the hierarchy on a slab's window.

    Attributes:
        couplings: One tensor for each axis.
        diagonal: Of the level's operator.
        inverse: Of the diagonal; zero where there is no unknown.
        shape: Cells of the whole level.
        axes: Axes along which pairs merge on the way to the next level.
    """

    couplings: tuple[Tensor, ...]
    diagonal: Tensor
    inverse: Tensor
    shape: tuple[int, ...]
    axes: tuple[int, ...]


class MultigridSlab(SlabWorker):
    """A slab of all levels that are distributed.

    Args:
        grid: The operator on the window.
        levels: Its levels, the finest first.
        steps: Steps of the smoother, the smaller first.
    """

    def __init__(self, grid: GridWindow, levels: Sequence[LevelWindow], steps: Sequence[float]):
        super().__init__(grid)
        self._levels = levels
        self._steps = steps
        self._b: list[Tensor] = [torch.zeros(0)] * (len(levels) + 1)
        self._x: list[Tensor] = [torch.zeros(0)] * len(levels)

    def begin(self) -> Any:
        """Smooth the finest level from zero and restrict."""
        return self.descend(0, None, None)

    def descend(self, number: int, b: Halo | None, x: Halo | None) -> Any:
        """Smooth a level and restrict its residual.

        Args:
            number: Of the level.
            b: Planes of its right-hand side from the neighbours, on the first visit; the finest
                level has its own.
            x: Planes of the iterate, on a second visit.

        Returns:
            The right-hand side of the next level, if that is gathered; else its outer planes.
        """
        level = self._levels[number]
        if number == 0:
            self._b[0] = self.r
        elif b is not None:
            self._b[number] = add_halo(self._b[number], b, HALO)
        right = self._b[number]
        first, second = self._steps
        if x is None:
            now = first * level.inverse * right
        else:
            now = add_halo(self._x[number][self._core_of(number)], x, HALO)
            now = now + first * level.inverse * _residual(level, right, now)
        now = now + second * level.inverse * _residual(level, right, now)
        self._x[number] = now
        coarse = self._merge(number, _residual(level, right, now)[self._core_of(number)])
        if number + 1 == len(self._levels):
            return coarse
        self._b[number + 1] = coarse
        return strips_of(coarse, HALO)

    def ascend(self, number: int, coarse: Tensor | Halo) -> Any:
        """Add the correction of the next level and smooth.

        Args:
            number: Of the level.
            coarse: The correction on a window of the next level, or its planes from the neighbours.

        Returns:
            Outer planes of the level, and on the finest one this slab's part of ``z . r``.
        """
        level = self._levels[number]
        planes = HALO // 2 if 0 in level.axes else HALO
        if not isinstance(coarse, Tensor):
            inner = self._x[number + 1][self._core_of(number + 1)]
            coarse = add_halo(inner, coarse, planes)
        now, right = self._x[number] + self._spread(number, coarse), self._b[number]
        for step in reversed(self._steps):
            now = now + step * level.inverse * _residual(level, right, now)
        self._x[number] = now
        core = now[self._core_of(number)]
        if number > 0:
            return strips_of(core, HALO)
        self.z = core
        return strips_of(core, HALO), self.overlap()

    def _core_of(self, number: int) -> slice:
        return slice(HALO, self._levels[number].diagonal.shape[0] - HALO)

    def _merge(self, number: int, x: Tensor) -> Tensor:
        """Add up pairs along the axes of the transfer."""
        for axis in self._levels[number].axes:
            size = x.shape[axis]
            pairs = x.narrow(axis, 0, size - size % 2).unflatten(axis, (size // 2, 2)).sum(axis + 1)
            x = torch.cat([pairs, x.narrow(axis, size - 1, 1)], axis) if size % 2 else pairs
        return x

    def _spread(self, number: int, x: Tensor) -> Tensor:
        """Give both cells of a pair the value of the coarse cell."""
        level = self._levels[number]
        for axis in level.axes:
            x = x.repeat_interleave(2, axis).narrow(axis, 0, level.diagonal.shape[axis])
        return torch.where(level.inverse > 0, x, 0.0)


def _residual(level: LevelWindow, b: Tensor, x: Tensor) -> Tensor:
    return b - multiply_stencil(x, level.couplings, level.diagonal)
