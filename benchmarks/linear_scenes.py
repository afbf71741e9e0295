"""Scenes of pressure solves, made anew from a seed: smoke, tank, random solids, density jump."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from solvers.linear import PoissonOperator

__all__ = ["SCENES", "build_scene"]

SCENES = ("smoke", "tank", "solids", "jumps")


def build_scene(kind: str, n: int, seed: int) -> tuple[PoissonOperator, Tensor]:
    """A cube of ``n`` cells a side and the divergence of a random flow in it.

    ``smoke`` flows around obstacles and out of the top, ``tank`` has a waved surface, ``solids``
    fills a third at random, ``jumps`` is smoke with a thousandfold density in blobs.
    """
    rng = np.random.default_rng(seed)
    at = (np.arange(n) + 0.5) / n
    x, y, z = np.meshgrid(at, at, at, indexing="ij")
    cells = np.zeros((n, n, n), dtype=np.int64)
    for _ in range(7):
        center, radius = rng.uniform(0.12, 0.88, 3), rng.uniform(0.06, 0.16)
        near = (x - center[0]) ** 2 + (y - center[1]) ** 2 + (z - center[2]) ** 2
        cells[near < radius**2] = 1
    outside = [(1, 1), (1, 1), (1, 2)]
    density = None
    if kind == "tank":
        cells[z > 0.45 + 0.07 * np.sin(8 * x + rng.uniform(0, 6)) * np.cos(10 * y)] = 2
        outside[2] = (1, 1)
    elif kind == "solids":
        cells[rng.random(cells.shape) < 0.33] = 1
    elif kind == "jumps":
        blobs = ndimage.gaussian_filter(rng.normal(size=cells.shape), 0.06 * n)
        density = torch.from_numpy(np.where(blobs > np.quantile(blobs, 0.8), 1000.0, 1.0))
    cells = _close_pockets(cells, is_open_above=kind != "tank")
    A = PoissonOperator.from_cells(cells, density=density, outside=outside)
    flow = [ndimage.gaussian_filter(rng.normal(size=cells.shape), 0.03 * n) for _ in range(3)]
    divergence = sum(np.gradient(u, axis=axis) for axis, u in enumerate(flow))
    b = torch.from_numpy(np.where(cells == 0, divergence / np.abs(divergence).max(), 0.0))
    return A, b


def _close_pockets(cells: np.ndarray, *, is_open_above: bool) -> np.ndarray:
    """Turn fluid without a way to open air into solid, so that every peer gets a regular matrix."""
    parts, count = ndimage.label(cells == 0)
    reached = np.zeros(count + 1, dtype=bool)
    if is_open_above:
        reached[parts[..., -1]] = True
    by_air = ndimage.binary_dilation(cells == 2)
    reached[parts[by_air]] = True
    return np.where((cells == 0) & ~reached[parts], 1, cells)
