"""The examples run and give what they claim."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_own_pde_finds_the_front() -> None:
    example = load("own_pde")
    error, speed = example.main(budget=30.0, target=1e-3)
    assert error < 1e-3
    assert speed == pytest.approx(example.SPEED, abs=0.01)


@pytest.mark.slow
def test_energies_are_made_least(tmp_path: Path) -> None:
    result = load("ritz").main(seconds=20.0, output=tmp_path)
    assert result.film < 1e-4
    assert result.ten.value + 3 * result.ten.error < 0.05
    assert result.rate[0] == pytest.approx(result.rate[1], rel=0.02)
    assert result.unrolled == pytest.approx(result.rate[1], rel=0.1)
    assert (tmp_path / "ritz_film.png").stat().st_size > 20_000


@pytest.mark.slow
def test_moving_labels_beat_the_fixed_frame() -> None:
    errors = load("lagrangian_burgers").main(budget=6.0)
    assert errors["viscous"] < 1e-3
    assert errors["published"] > 5e-3
    assert errors["fixed frame"] > 10 * errors["viscous"]


@pytest.mark.slow
def test_viscosity_is_found() -> None:
    assert load("inverse_burgers").main() == pytest.approx(0.01 / math.pi, rel=0.05)
