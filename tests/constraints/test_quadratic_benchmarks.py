"""The benchmarks of programs run at their tiny size, and what they measure is right."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("question", ["constraints_quadratic", "constraints_cones"])
def test_runs(question: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    threads = torch.get_num_threads()
    arguments = ["-f", f"^{question}$", "--size", "tiny", "--output", str(tmp_path)]
    assert importlib.import_module("run").main(arguments) == 0
    torch.set_num_threads(threads)
    record = json.loads((tmp_path / f"{question}.json").read_text())
    for row in record["rows"]:
        assert row.get("residual", 0.0) < 1e-11
        assert row.get("violation_own", 0.0) < 1e-11
        assert row.get("gradient", 0.0) < 1e-4
        assert row.get("gain", 2.0) > 1.0
