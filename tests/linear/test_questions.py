"""The benchmarks of linear solves run at their tiny size and check what they time."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
pytestmark = pytest.mark.slow


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run one question at its tiny size."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return lambda name: importlib.import_module(name).run("tiny", 3)


def test_linear_solve(answer: Any) -> None:
    result = answer("linear_solve")
    assert len(result.rows) == 4
    for row in result.rows:
        assert row["residual"] <= 1.1e-8
        assert row["iterations_4"] < row["iterations"] < 25
    assert len(result.verdict) == 4


def test_linear_gradient(answer: Any) -> None:
    rows = answer("linear_gradient").rows
    assert rows[-1]["difference"] < 1e-6
    assert all(row["first"] > 0 and row["second"] > 0 for row in rows)


def test_scenes_are_open_and_follow_their_seed(answer: Any) -> None:
    scenes = importlib.import_module("linear_scenes")
    for kind in scenes.SCENES:
        A, b = scenes.build_scene(kind, 16, 1)
        again, _ = scenes.build_scene(kind, 16, 1)
        other, _ = scenes.build_scene(kind, 16, 2)
        assert A.null_space() is None
        assert float(b[~A.active].abs().max()) == 0.0
        assert all(map(lambda p, q: p.equal(q), A.couplings, again.couplings))
        assert not all(map(lambda p, q: p.equal(q), A.couplings, other.couplings))


def test_linear_hard(answer: Any) -> None:
    rows = answer("linear_hard").rows
    assert len(rows) == 14
    for row in rows:
        assert row["residual"] <= 1e-8
        assert row["status"] == "CONVERGED" or row["family"] == "binary noise 1e+06"
