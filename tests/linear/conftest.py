"""Scenes and operators that the tests of linear solves share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from solvers.linear import PoissonOperator

Scene = Callable[..., tuple[PoissonOperator, Tensor]]


def _build_scene(
    kind: str, shape: tuple[int, ...], seed: int = 0
) -> tuple[PoissonOperator, Tensor]:
    """A grid with solids, and a right-hand side of white noise.

    ``smoke`` is open at the last side, ``water`` has a free surface, ``jumps`` a density of 1 and
    1000, ``mass`` walls all around and a mass term.
    """
    rng = np.random.default_rng(seed)
    blobs = ndimage.gaussian_filter(rng.normal(size=shape), max(1, max(shape) // 10))
    cells = (blobs > np.quantile(blobs, 0.9)).astype(np.int64)
    density = torch.ones(shape, dtype=torch.float64)
    last = [(1, 1)] * (len(shape) - 1) + [(1, 2)]
    mass = None
    if kind == "water":
        cells[..., shape[-1] // 2 :] = 2
        last = [(1, 1)] * len(shape)
    if kind == "jumps":
        density = torch.from_numpy(np.where(blobs < np.quantile(blobs, 0.3), 1000.0, 1.0))
    if kind == "mass":
        last, mass = [(1, 1)] * len(shape), 0.01
    A = PoissonOperator.from_cells(cells, density=density, outside=last, mass=mass)
    b = torch.from_numpy(rng.normal(size=shape))
    # Pockets between solids are closed: keep the noise where the solution is unique.
    free = A.null_space()
    return A, b if free is None else free.remove(A.mask(b))


def _residual_of(A: PoissonOperator, x: Tensor, b: Tensor) -> float:
    """Relative residual at the unknowns, with NumPy and SciPy only."""
    inside = A.active.numpy().ravel()
    r = b.numpy().ravel() - A.to_scipy() @ x.numpy().ravel()
    return float(np.linalg.norm(r[inside]) / np.linalg.norm(b.numpy().ravel()[inside]))


@pytest.fixture(scope="session")
def build_scene() -> Scene:
    """Build a scene by kind, shape and seed."""
    return _build_scene


@pytest.fixture(scope="session")
def residual_of() -> Callable[[PoissonOperator, Tensor, Tensor], float]:
    """Compute a relative residual without our own product."""
    return _residual_of
