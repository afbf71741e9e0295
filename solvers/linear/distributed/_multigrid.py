"""The multigrid cycle on slabs: the serial cycle, with an exchange of planes where it is needed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor

from solvers.linear.distributed._slabs import HALO, Halo, Slab, cut_planes, neighbours, slab_window
from solvers.linear.distributed._tensors import MultigridSlab, TensorHierarchy
from solvers.linear.operators._poisson import PoissonOperator
from solvers.linear.preconditioners._multigrid import prepare_compiled

if TYPE_CHECKING:
    from solvers.linear.distributed._compiled import CompiledHierarchy, CompiledSlab

__all__ = ["SlabCycle"]

_Everywhere = Callable[..., list[Any]]


class SlabCycle:
    """The cycle as the caller of the slabs runs it; levels that are small it visits itself.

    Args:
        operator: Of the whole grid, without gradients.
        parts: Number of slabs that are wanted.
        cycle: Visits of a coarser level, 1 (V) or 2 (W).
        gather_below: Levels of at most so many cells are gathered.
        backend: ``"kernel"``, ``"reference"`` or ``"auto"``.
    """

    halo = HALO

    def __init__(
        self,
        operator: PoissonOperator,
        parts: int,
        *,
        cycle: int,
        gather_below: int,
        backend: str,
    ) -> None:
        def build(grid: PoissonOperator) -> CompiledHierarchy:
            from solvers.linear.distributed._compiled import CompiledHierarchy

            return CompiledHierarchy(grid, cycle=cycle)

        what = "DistributedConjugateGradient"
        compiled = prepare_compiled(operator, build, backend=backend, what=what)
        self._hierarchy = compiled or TensorHierarchy(operator, cycle=cycle)
        self.worker: type[CompiledSlab] | type[MultigridSlab]
        if compiled is None:
            self.worker, self.label = MultigridSlab, "multigrid on slabs"
        else:
            from solvers.linear.distributed._compiled import CompiledSlab

            self.worker, self.label = CompiledSlab, "compiled multigrid on slabs"
        self.renew_below = self._hierarchy.renew_below
        self.is_singular = self._hierarchy.is_singular
        self._cut(parts, gather_below)

    def _cut(self, parts: int, gather_below: int) -> None:
        shapes = self._hierarchy.shapes
        is_gathered = [
            math.prod(shape) <= gather_below or shape[0] < parts * HALO for shape in shapes
        ]
        self._count = max(1, [*is_gathered[:-1], True].index(True))
        merged = [self._hierarchy.merges(number) for number in range(self._count)]
        self._slabs = [cut_planes(shapes[0][0], parts, unit=2 ** sum(merged))]
        for is_merged in merged:
            finer = self._slabs[-1]
            self._slabs.append(
                [Slab(s.start // 2, -(-s.stop // 2)) if is_merged else s for s in finer]
            )

    @property
    def slabs(self) -> list[Slab]:
        """Slabs of the finest level."""
        return self._slabs[0]

    def recipe(self, part: int) -> tuple[Any, ...]:
        """Arguments of the worker of a slab."""
        return self._hierarchy.recipe([slabs[part] for slabs in self._slabs[: self._count]])

    def deflate(self, x: Tensor, b: Tensor) -> Tensor:
        """What to start from: the iterate as it is."""
        return x

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
        visits = self._hierarchy.visits(number)
        if number + 1 == self._count:
            x = self._hierarchy.visit(number + 1, begun, visits)
            planes = HALO // 2 if self._hierarchy.merges(number) else HALO
            slabs = self._slabs[number + 1]
            return everywhere("ascend", number, [slab_window(x, slab, planes) for slab in slabs])
        halos: list[Halo] | None = None
        for _ in range(visits):
            right = neighbours(begun) if halos is None else None
            deeper = everywhere("descend", number + 1, right, halos)
            halos = neighbours(self._finish_level(everywhere, number + 1, deeper))
        return everywhere("ascend", number, halos)
