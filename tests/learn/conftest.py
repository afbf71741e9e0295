"""Drawn digits to train on; small problems run on one thread."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def digits() -> Callable[..., tuple[Tensor, Tensor]]:
    path = Path(__file__).with_name("glyphs.py")
    spec = importlib.util.spec_from_file_location("glyphs", path)
    assert spec is not None
    assert spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    sys.modules["glyphs"] = module
    spec.loader.exec_module(module)
    images: Callable[..., tuple[Tensor, Tensor]] = module.glyphs
    return images


@pytest.fixture(scope="session")
def classifier(
    digits: Callable[..., tuple[Tensor, Tensor]],
) -> Callable[[int, int | None], float]:
    """Accuracy of a network of a width after 300 steps, in full or in a subspace."""
    from physim.learn.landscape import SubspaceModule

    x, y = digits()

    def train(width: int, dimension: int | None) -> float:
        torch.manual_seed(0)
        net: nn.Module = nn.Sequential(
            nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
            nn.Linear(width, 10),
        )  # fmt: skip
        for p in net.parameters():
            if p.ndim == 2:
                nn.init.normal_(p, std=math.sqrt(2 / p.shape[1]))
            else:
                nn.init.zeros_(p)
        if dimension is not None:
            net = SubspaceModule(net, dimension)
        optimizer = torch.optim.Adam(net.parameters(), lr=3e-3 if dimension is None else 0.3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 300)
        for _ in range(300):
            chosen = torch.randint(0, 1400, (256,))
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[chosen]), y[chosen]).backward()
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            return float((net(x[1400:]).argmax(1) == y[1400:]).float().mean())

    return train
