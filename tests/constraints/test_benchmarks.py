"""The benchmarks and the example of this package run small and measure what they say."""

from __future__ import annotations

import importlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


def answer(
    question: str, folder: Path, monkeypatch: pytest.MonkeyPatch, *more: str
) -> dict[str, Any]:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.delenv("PHYSIM_PEERS", raising=False)
    arguments = ["-f", f"^{question}$", "--size", "tiny", "--output", str(folder), *more]
    assert importlib.import_module("run").main(arguments) == 0
    record: dict[str, Any] = json.loads((folder / f"{question}.json").read_text())
    return record


def test_least_squares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = answer("constraints_least_squares", tmp_path, monkeypatch)
    rows = {row["method"]: row for row in record["rows"]}
    for name in ("functions of torch", "torch residual", "tensors", "SciPy trf"):
        assert rows[name]["cost"] == pytest.approx(rows["kernel"]["cost"], rel=1e-6)
    assert rows["optimistix LM"]["note"].startswith("skipped")
    assert record["settings"]["gradient_error"] < 1e-6 < record["settings"]["gn"]


def test_experts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = answer("constraints_experts", tmp_path, monkeypatch)
    rows = {row["arm"]: row for row in record["rows"]}
    held, apart = rows["4 experts x 32, held"], rows["4 experts x 32, apart"]
    assert held["jump"] < 0.1 * apart["jump"]
    assert held["trained"] < 0.05 < apart["trained"] < rows["soft"]["trained"]
    assert rows["3 solutions, interpolated"]["trained"] < 0.01


def test_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = answer("constraints_systems", tmp_path, monkeypatch)
    systems = {row["system"] for row in record["rows"]}
    assert len(systems) == len(record["verdict"]) == 3
    for system in systems:
        rows = {row["arm"]: row for row in record["rows"] if row["system"] == system}
        hard = next(row for arm, row in rows.items() if arm.startswith("hard"))
        assert hard["trained"] < 0.7 * rows["soft"]["trained"]
        assert any("interpolated" in arm for arm in rows)
        assert rows["classical solver"]["predict"] > 0
    flow = {row["arm"]: row for row in record["rows"] if "navier" in row["system"]}
    assert flow["spectral, 32 x 32"]["trained"] < 0.15 < 0.5 < flow["initial field"]["trained"]


def test_rows_are_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only = ("--only", "constant: 4 .* held")
    record = answer("constraints_systems", tmp_path, monkeypatch, *only)
    assert [row["arm"] for row in record["rows"] if row.get("coefficients")] == [
        "4 experts x 32, held"
    ]
    with pytest.raises(SystemExit):
        answer("constraints_experts", tmp_path, monkeypatch, *only)


def test_example(tmp_path: Path) -> None:
    path = ROOT / "examples" / "diffusion_sorption.py"
    spec = importlib.util.spec_from_file_location("diffusion_sorption_example", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    errors = module.main(steps=1, output=tmp_path)
    assert errors["4 experts held"] < 0.05
    assert errors["hard, 128 functions"] < 0.05
    assert (tmp_path / "diffusion_sorption.png").stat().st_size > 20_000
