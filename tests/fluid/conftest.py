"""Flows to hold to the laws."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from physim.fluid import StaggeredGrid

Draw = Callable[..., list[Tensor]]


@pytest.fixture
def draw() -> Draw:
    """Random velocities."""

    def make(grid: StaggeredGrid, seed: int = 0, size: float = 1.0) -> list[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return [
            size * torch.randn(grid.face_shape(axis), generator=generator, dtype=torch.float64)
            for axis in range(grid.axes)
        ]

    return make
