"""Simulators of the papers' scenes, built once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import physim


@pytest.fixture(scope="session")
def simulator() -> Callable[..., physim.Simulator]:
    """Build a simulator of a model text and print it, its smoothing included."""

    def build(text: str, **settings: Any) -> physim.Simulator:
        sim = physim.Simulator(physim.load_model(text), **settings)
        print(sim)
        return sim

    return build
