"""The two examples run, small, and show what they claim."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
pytestmark = pytest.mark.slow


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_kinetic_path(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    result = load("kinetic_path").main(points=400, output=tmp_path)
    assert result.energy["kinetic optimal"] == min(result.energy.values())
    for name, distances in result.distance.items():
        assert distances[-1] < 0.5 * distances[0] or distances[0] < 3 * result.floor, name
    assert (tmp_path / "kinetic_path.png").stat().st_size > 50_000


def test_landscape_report(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    found = load("landscape_report").main(steps=6, output=tmp_path)
    eulerian, lagrangian = zip(*found["conditioning"].values(), strict=True)
    assert max(lagrangian) == pytest.approx(min(lagrangian), rel=1e-9)
    assert eulerian[-1] > 1.2 * eulerian[0]
    for name in ("field", "characteristics", "policy"):
        numbers = json.loads((tmp_path / f"landscape_{name}.json").read_text())
        assert numbers["loss"] == pytest.approx(found[name].loss)
        assert (tmp_path / f"landscape_{name}.png").stat().st_size > 20_000
