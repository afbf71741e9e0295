"""The multigrid cycle on slabs: the serial cycle, with an exchange of planes where it is needed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from solvers.linear.distributed._slabs import (
    Halo,
    Slab,
    add_halo,
    cut_planes,
    neighbours,
    slab_window,
    strips_of,
)
from solvers.linear.distributed._worker import GridWindow, SlabWorker
from solvers.linear.operators._poisson import PoissonOperator
from solvers.linear.operators._stencil import multiply_stencil
from solvers.linear.preconditioners._cycle import ReferenceMultigrid

__all__ = ["HALO", "MultigridSlab", "SlabCycle"]

HALO = 4
"""Two sweeps and a residual on the way down, two sweeps on the way up: four products."""

_Everywhere = Callable[..., list[Any]]


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
            b: Planes of its right-hand side from the neighbours; the finest level has its own.
            x: Planes of the iterate, on a second visit.

        Returns:
            The right-hand side of the next level, if that is gathered; else its outer planes.
        """
        level = self._levels[number]
        if number == 0:
            self._b[0] = self.r
        elif b is not None and x is None:
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


class SlabCycle:
    """The cycle as the caller of the slabs runs it; levels that are small it visits itself.

    Args:
        operator: Of the whole grid, without gradients.
        parts: Number of slabs that are wanted.
        cycle: Visits of a coarser level, 1 (V) or 2 (W).
        gather_below: Levels of at most so many cells are gathered.
    """

    label = "multigrid on slabs"
    halo = HALO
    worker = MultigridSlab

    def __init__(
        self, operator: PoissonOperator, parts: int, *, cycle: int, gather_below: int
    ) -> None:
        self._reference = ReferenceMultigrid(operator, cycle=cycle)
        self._operator = operator
        levels = self._reference.levels
        thin = [level.shape[0] < parts * HALO for level in levels]
        self._count = max(
            1,
            next(
                (
                    number
                    for number, level in enumerate(levels)
                    if math.prod(level.shape) <= gather_below or thin[number]
                ),
                len(levels) - 1,
            ),
        )
        merged = [0 in level.axes for level in levels[: self._count]]
        self._slabs = [cut_planes(levels[0].shape[0], parts, unit=2 ** sum(merged))]
        for is_merged in merged:
            finer = self._slabs[-1]
            coarser = [
                Slab(slab.start // 2, -(-slab.stop // 2)) if is_merged else slab for slab in finer
            ]
            self._slabs.append(coarser)

    @property
    def slabs(self) -> list[Slab]:
        """Slabs of the finest level."""
        return self._slabs[0]

    def recipe(self, part: int) -> tuple[Any, ...]:
        """Arguments of the worker of a slab."""
        grid = GridWindow.cut(self._operator, self.slabs[part], HALO)
        levels = []
        for number in range(self._count):
            level, slab = self._reference.levels[number], self._slabs[number][part]
            couplings = tuple(
                slab_window(coupling, slab, HALO, faces=axis == 0)
                for axis, coupling in enumerate(level.couplings)
            )
            diagonal, inverse = (
                slab_window(field, slab, HALO) for field in (level.diagonal, level.inverse)
            )
            levels.append(LevelWindow(couplings, diagonal, inverse, level.shape, level.axes))
        return grid, levels, self._reference.steps

    def deflate(self, x: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        """What to start from: the iterate as it is."""
        return x, r

    def finish(self, everywhere: _Everywhere, begun: list[Any]) -> tuple[list[Halo], float]:
        """Go on from the first stage.

        Args:
            everywhere: Calls a method of all slabs, with a list for each argument that differs.
            begun: What the first stage gave on every slab.

        Returns:
            Planes of ``z`` from the neighbours of every slab, and ``z . r``.
        """
        ended = self._finish_level(everywhere, 0, begun)
        strips, overlaps = zip(*ended, strict=True)
        return neighbours(strips), sum(overlaps)

    def _finish_level(self, everywhere: _Everywhere, number: int, begun: list[Any]) -> list[Any]:
        visits = self._reference._visits(number)
        if number + 1 == self._count:
            b, x = torch.cat(begun), None
            for _ in range(visits):
                x = self._reference._visit(number + 1, b, x)
            assert x is not None
            planes = HALO // 2 if 0 in self._reference.levels[number].axes else HALO
            slabs = self._slabs[number + 1]
            return everywhere("ascend", number, [slab_window(x, slab, planes) for slab in slabs])
        b_halos = neighbours(begun)
        x_halos: list[Halo] | list[None] = [None] * len(begun)
        for _ in range(visits):
            deeper = everywhere("descend", number + 1, b_halos, x_halos)
            x_halos = neighbours(self._finish_level(everywhere, number + 1, deeper))
        return everywhere("ascend", number, x_halos)
