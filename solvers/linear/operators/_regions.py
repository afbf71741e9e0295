"""Regions of a grid in which the solution is free by a constant."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from solvers.linear.operators._operator import NullSpace

__all__ = ["ConstantRegions"]


class ConstantRegions(NullSpace):
    """Constants on connected regions: the null space of a grid operator between walls.

    Args:
        labels: Number of the region of every cell, 0 where the solution is not free; regions of
            different batch items have different numbers. Shape ``(*batch, *grid)``.
        count: How many regions there are.
        axes: Axes of the grid.
    """

    def __init__(self, labels: Tensor, count: int, axes: int):
        self.labels = labels
        self.count = count
        self._axes = axes
        self._sizes = torch.bincount(labels.flatten(), minlength=count + 1).clamp(min=1)

    @classmethod
    def find(
        cls, couplings: Sequence[Tensor], excess: Tensor, active: Tensor, domain: tuple[int, ...]
    ) -> ConstantRegions | None:
        """Label the closed regions, or say that there is none.

        Args:
            couplings: One tensor for each axis of the grid.
            excess: Conductance to known values and mass.
            active: Which cells are unknowns.
            domain: Shape of the grid.
        """
        axes = len(domain)
        batch = active.shape[: active.ndim - axes]
        numbers = [
            coupling.detach().expand(*batch, *coupling.shape[coupling.ndim - axes :]).cpu().numpy()
            for coupling in couplings
        ]
        held = excess.expand(*batch, *domain).cpu().numpy()
        inside = active.cpu().numpy()
        labels = np.zeros((*batch, *domain), dtype=np.int64)
        count = 0
        for item in np.ndindex(*batch):
            parts, found = _components([n[item] for n in numbers], inside[item])
            grounded = np.zeros(found + 1, dtype=bool)
            grounded[parts[held[item] > 0]] = True
            renumber = np.zeros(found + 1, dtype=np.int64)
            free = np.flatnonzero(~grounded[1:]) + 1
            renumber[free] = count + 1 + np.arange(free.size)
            count += free.size
            labels[item] = renumber[parts]
        if not count:
            return None
        return cls(torch.from_numpy(labels).to(active.device), count, axes)

    def remove(self, x: Tensor) -> Tensor:
        """Subtract the mean of every free region; differentiable."""
        grid = self.labels.shape[self.labels.ndim - self._axes :]
        batch = torch.broadcast_shapes(
            x.shape[: x.ndim - self._axes], self.labels.shape[: -len(grid)]
        )
        labels = self.labels.expand(*batch, *grid).reshape(-1, *grid)
        items = x.expand(*batch, *grid).reshape(-1, *grid)
        # Items that share labels still have their own means.
        offset = torch.arange(len(items), device=x.device).reshape(-1, *(1,) * self._axes)
        index = (labels + offset * (self.count + 1)).flatten()
        sums = torch.zeros(len(items) * (self.count + 1), dtype=x.dtype, device=x.device)
        sums = sums.index_add(0, index, items.flatten())
        sizes = self._sizes.to(x.dtype).repeat(len(items))
        means = (sums / sizes)[index].reshape(items.shape)
        return torch.where(labels > 0, items - means, items).reshape(*batch, *grid)


def _components(couplings: Sequence[np.ndarray], active: np.ndarray) -> tuple[np.ndarray, int]:
    """Number the connected parts of the active cells from 1; 0 elsewhere."""
    import scipy.ndimage
    import scipy.sparse
    from scipy.sparse.csgraph import connected_components

    if _couples_all_neighbours(couplings, active):
        parts, found = scipy.ndimage.label(active)
        return parts, int(found)
    index = np.arange(active.size).reshape(active.shape)
    rows, columns = [], []
    for axis, coupling in enumerate(couplings):
        there = coupling > 0
        rows.append(np.take(index, np.arange(coupling.shape[axis]), axis)[there])
        ahead = np.roll(index, -1, axis)
        columns.append(np.take(ahead, np.arange(coupling.shape[axis]), axis)[there])
    row, column = np.concatenate(rows), np.concatenate(columns)
    graph = scipy.sparse.coo_array(
        (np.ones(row.size, dtype=np.int8), (row, column)), shape=(active.size, active.size)
    )
    _, parts = connected_components(graph, directed=False)
    parts = np.where(active.ravel(), parts + 1, 0)
    used, packed = np.unique(parts, return_inverse=True)
    packed = packed.reshape(active.shape)
    if used[0] != 0:
        packed = packed + 1
    return packed, int(packed.max())


def _couples_all_neighbours(couplings: Sequence[np.ndarray], active: np.ndarray) -> bool:
    for axis, coupling in enumerate(couplings):
        if coupling.shape[axis] == active.shape[axis]:
            return False
        low = np.take(active, np.arange(coupling.shape[axis]), axis)
        high = np.take(active, np.arange(1, active.shape[axis]), axis)
        if not np.array_equal(coupling > 0, low & high):
            return False
    return True
