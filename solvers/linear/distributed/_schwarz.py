r"""Two-level deflated Schwarz on slabs: few and small messages, about three times the iterations.

With :math:`B` the multigrid cycles of the slabs alone, :math:`P` constants on boxes and
:math:`Q = P (P^\top A P)^{-1} P^\top`,

.. math:: z = w + Q (r - A w), \qquad w = B r .

Started from an iterate whose residual has no part in the coarse space, this is as good as the
symmetric form (Tang, Nabben, Vuik & Erlangga 2009, "Comparison of two-level preconditioners derived
from deflation, domain decomposition and multigrid methods", A-DEF2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
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
from solvers.linear.operators._stencil import apply_stencil
from solvers.linear.preconditioners._coarsening import symmetric_inverse
from solvers.linear.preconditioners._multigrid import Multigrid

__all__ = ["DeflatedSchwarz", "SchwarzSlab"]

_BOXES = 8
_Everywhere = Callable[..., list[Any]]


class SchwarzSlab(SlabWorker):
    """A slab with a multigrid cycle of its own.

    Args:
        grid: The operator on the window.
        local: The operator on the slab alone; a cut face leads to a known value.
        boxes: Number of the box of every cell of the window, 0 where there is no unknown.
        count: Number of boxes.
    """

    def __init__(self, grid: GridWindow, local: PoissonOperator, boxes: Tensor, count: int):
        super().__init__(grid)
        self._cycle = Multigrid().prepare(local)
        self._boxes = boxes
        self._count = count
        self._w = torch.zeros_like(boxes, dtype=torch.float64)

    def begin(self) -> Halo:
        """The cycle on the slab; its outer planes."""
        self._local = self._cycle.apply(self.r[self._core])
        return strips_of(self._local, 1)

    def restrict(self, halo: Halo) -> Tensor:
        """This slab's part of ``P' (r - A w)``.

        Args:
            halo: Planes of ``w`` from the neighbours.
        """
        self._w = add_halo(self._local, halo, 1)
        rest = self.r - apply_stencil(self._w, self._grid.couplings, self._grid.excess)
        cells = self._boxes[self._core].flatten()
        sums = torch.zeros(self._count + 1, dtype=torch.float64)
        return sums.index_add(0, cells, rest[self._core].flatten())

    def correct(self, coarse: Tensor) -> tuple[Halo, float]:
        """Add the coarse correction.

        Args:
            coarse: Its value in every box, 0 first.

        Returns:
            Outer planes of ``z`` and this slab's part of ``z . r``.
        """
        self.z = (self._w + coarse[self._boxes])[self._core]
        return strips_of(self.z, 1), self.overlap()


class DeflatedSchwarz:
    """The coarse space, and the order of the messages.

    Args:
        operator: Of the whole grid, without gradients.
        parts: Number of slabs.
    """

    label = "deflated Schwarz on slabs"
    halo = 1
    worker = SchwarzSlab
    renew_below = 0.0
    is_singular = False

    def __init__(self, operator: PoissonOperator, parts: int):
        self._operator = operator
        self.slabs = cut_planes(operator.domain[0], parts)
        boxes = np.zeros(operator.domain, dtype=np.int64)
        for axis, size in enumerate(operator.domain):
            along = min(max(_BOXES, parts if axis == 0 else 1), size)
            line = np.arange(size) * along // size
            boxes = boxes * along + line.reshape(-1, *(1,) * (len(operator.domain) - 1 - axis))
        active = operator.active.numpy()
        used, packed = np.unique(boxes[active], return_inverse=True)
        self._boxes = torch.zeros(operator.domain, dtype=torch.int64)
        self._boxes[operator.active] = torch.from_numpy(packed + 1)
        self._count = len(used)
        self._inverse = symmetric_inverse(self._coarse_matrix())

    def _coarse_matrix(self) -> Tensor:
        """``P' A P``: conductances between boxes, and to known values."""
        operator, n = self._operator, self._count + 1
        boxes = self._boxes.numpy()
        matrix = np.diag(np.bincount(boxes.ravel(), operator.excess.numpy().ravel(), n))
        for axis, coupling in enumerate(operator.couplings):
            faces = np.arange(coupling.shape[axis])
            low = np.take(boxes, faces, axis).ravel()
            high = np.take(np.roll(boxes, -1, axis), faces, axis).ravel()
            both = np.bincount(low * n + high, coupling.numpy().ravel(), n * n).reshape(n, n)
            both = both + both.T
            matrix += np.diag(both.sum(1)) - both
        return torch.from_numpy(matrix[1:, 1:])

    def recipe(self, part: int) -> tuple[Any, ...]:
        """Arguments of the worker of a slab."""
        slab, operator = self.slabs[part], self._operator
        grid = GridWindow.cut(operator, slab, 1)
        boxes = slab_window(self._boxes, slab, 1)
        return grid, _alone(operator, slab), boxes, self._count

    def deflate(self, x: Tensor, b: Tensor) -> Tensor:
        """Take the part in the coarse space out of the residual.

        Args:
            x: The iterate.
            b: The right-hand side.
        """
        r = b - self._operator.apply(x)
        sums = torch.zeros(self._count + 1, dtype=torch.float64)
        sums = sums.index_add(0, self._boxes.flatten(), r.flatten())
        return x + self._solve(sums)[self._boxes]

    def _solve(self, sums: Tensor) -> Tensor:
        return torch.cat([sums.new_zeros(1), self._inverse @ sums[1:]])

    def finish(self, everywhere: _Everywhere, begun: list[Halo]) -> tuple[list[Halo], float]:
        """Go on from the first stage.

        Args:
            everywhere: Calls a method of all slabs, with a list for each argument that differs.
            begun: Outer planes of ``w`` on every slab.

        Returns:
            Planes of ``z`` from the neighbours of every slab, and ``z . r``.
        """
        sums = sum(everywhere("restrict", neighbours(begun)))
        ended = everywhere("correct", self._solve(torch.as_tensor(sums)))
        strips, overlaps = zip(*ended, strict=True)
        return neighbours(strips), sum(overlaps)


def _alone(operator: PoissonOperator, slab: Slab) -> PoissonOperator:
    """The operator on a slab; what coupled it to the others holds it as a known value does."""
    couplings = [slab_window(operator.couplings[0], slab, 0, faces=True)]
    couplings += [slab_window(coupling, slab, 0) for coupling in operator.couplings[1:]]
    boundary = operator.boundary[slab.start : slab.stop].clone()
    if slab.start > 0:
        boundary[0] += operator.couplings[0][slab.start - 1]
    if slab.stop < operator.domain[0]:
        boundary[-1] += operator.couplings[0][slab.stop - 1]
    mass = None if operator.mass is None else operator.mass[slab.start : slab.stop]
    return PoissonOperator(couplings, boundary, mass)
