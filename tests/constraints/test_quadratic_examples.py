"""The examples of quadratic, convex and closed-form layers run small and show what they claim."""

from __future__ import annotations

import importlib.util
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


def test_safety_layer(tmp_path: Path) -> None:
    result = load("safety_layer").main(iterations=4, batch=4, output=tmp_path)
    assert result.clearance > 0.0
    assert result.unfiltered < 0.0
    assert result.after < result.before
    assert (tmp_path / "safety_layer.png").stat().st_size > 10_000


def test_conservation_layer(tmp_path: Path) -> None:
    result = load("conservation_layer").main(iterations=30, steps=20, output=tmp_path)
    assert result.drift["layer"] < 1e-13
    assert result.drift["free"] > 1e-6
    assert result.error["layer"] < result.error["free"]
    assert (tmp_path / "conservation_layer.png").stat().st_size > 10_000


def test_convex_layer(tmp_path: Path) -> None:
    result = load("convex_layer").main(iterations=40, markets=16, output=tmp_path)
    assert result.failures == 0
    assert result.after < 0.5 * result.before
    assert (tmp_path / "convex_layer.png").stat().st_size > 10_000
