"""The benchmarks of this room run at their tiny size and measure what they say."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
pytestmark = pytest.mark.slow


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], dict[str, Any]]:
    """Run one question as from the shell and give its record."""
    monkeypatch.syspath_prepend(str(FOLDER))

    def run(question: str) -> dict[str, Any]:
        arguments = ["-f", f"^{question}$", "--size", "tiny", "--output", str(tmp_path)]
        assert importlib.import_module("run").main(arguments) == 0
        record: dict[str, Any] = json.loads((tmp_path / f"{question}.json").read_text())
        return record

    return run


def test_optim_poisson(answer: Callable[[str], dict[str, Any]]) -> None:
    record = answer("optim_poisson")
    assert len(record["rows"]) == 7
    assert all(0 < row["error"] < 3 for row in record["rows"])
    module = importlib.import_module("optim_poisson")
    problem = module.Poisson(1, 8, 0)
    x = problem.x
    # The exact solution has no residual; its network stand-in is the sine itself.
    problem.net = lambda s: torch.sin(torch.pi * s)
    assert float(problem.residual().detach().abs().max()) < 1e-12
    assert problem.error() < 1e-12
    assert x.shape == (60, 1)


def test_optim_attacks(answer: Callable[[str], dict[str, Any]]) -> None:
    record = answer("optim_attacks")
    problems = {row["problem"] for row in record["rows"]}
    assert len(problems) == 2
    for row in record["rows"]:
        assert row["at_100"] <= 0.5
        assert row["worst"] <= row["at_100"] + 1e-6
    assert len(record["verdict"]) == 3


def test_optim_paths(answer: Callable[[str], dict[str, Any]]) -> None:
    record = answer("optim_paths")
    rows = {row["path"]: row for row in record["rows"]}
    energies = [rows[name]["energy"] for name in ("kinetic optimal", "trigonometric")]
    assert energies == sorted(energies)
    for row in rows.values():
        assert 0.4 < row["dark_2"] <= row["dark_16"] <= 1.0


def test_optim_zoo(answer: Callable[[str], dict[str, Any]]) -> None:
    record = answer("optim_zoo")
    errors = {(row["problem"], row["method"]): row["error"] for row in record["rows"]}
    assert len(errors) == 16
    assert all(0 < error < 3 for error in errors.values())
    # After a tenth of a second already; the reaction is smooth.
    assert errors["reaction", "self-scaled Broyden"] < errors["reaction", "Adam, rate 0.01"]
    for row in record["rows"]:
        first, second = row["0.01"], row["0.001"]
        assert second is None or first <= second
    assert len(record["verdict"]) == 6


def test_optim_theory(answer: Callable[[str], dict[str, Any]], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    rows = answer("optim_theory")["rows"]
    without_training = ("diffGrad", "regime parameter", "intrinsic dimension")
    for row in rows:
        is_estimate = "estimate" in row["what"]
        if row["paper"] in without_training or (
            row["paper"] == "dynamical stability" and not is_estimate
        ):
            assert row["measured"] == pytest.approx(row["predicted"], rel=2e-3), row
    assert len({row["paper"] for row in rows}) == 9
    assert (tmp_path / "optim_theory.png").stat().st_size > 50_000
