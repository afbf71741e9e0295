"""Every benchmark runs at its tiny size, and what it measures besides time is right."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

Load = Callable[[str], ModuleType]
pytestmark = pytest.mark.slow


@pytest.fixture
def answer(benchmark: Load, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run one question as from the shell; give its record and what it printed."""

    def run(question: str) -> tuple[dict[str, Any], str]:
        arguments = ["-f", f"^{question}$", "--size", "tiny", "--output", str(tmp_path)]
        assert benchmark("run").main(arguments) == 0
        (path,) = tmp_path.glob("*.json")
        assert path.stem == question
        return json.loads(path.read_text()), capsys.readouterr().out

    return run


def test_contact_step(answer: Any) -> None:
    record, printed = answer("contact_step")
    assert [row["regime"] for row in record["rows"]] == ["random", "settled"]
    for row in record["rows"]:
        assert row["failures"] == 0
        assert row["gain_elliptic"] == pytest.approx(row["elliptic"] / row["physim"], rel=2.0)
    assert record["verdict"][0] in printed.replace("\n", " ")


def test_batch_size(answer: Any) -> None:
    record, _ = answer("batch_size")
    one, many = record["rows"]
    assert (one["batch"], many["batch"]) == (1, 64)
    for row in (one, many):
        assert row["call"] == pytest.approx(row["batch"] * row["physim"])
        assert row["physim"] > 0.0
        assert row["elliptic"] > 0.0


def test_threads(answer: Any) -> None:
    record, printed = answer("threads")
    assert [row["what"] for row in record["rows"]] == ["rollout, hopper", "engine, 8x8"]
    for row in record["rows"]:
        assert row["share"] == pytest.approx(row["processes"] / row["two"])
    assert "two processes" in printed


def test_step_gradient(answer: Any) -> None:
    record, _ = answer("step_gradient")
    (row,) = record["rows"]
    assert row["left_out"] == 0
    assert row["tangent_rows"] == 12
    assert row["linearize"] > row["forward"]


def test_rollout_gradient(answer: Any) -> None:
    record, printed = answer("rollout_gradient")
    assert [row["regime"] for row in record["rows"]] == ["random", "settled"]
    for row in record["rows"]:
        assert row["failures"] == 0
        assert row["ratio_chain"] > 1.0
    assert record["verdict"][0] in printed.replace("\n", " ")


def test_contact_states(answer: Any) -> None:
    record, _ = answer("contact_states")
    (row,) = record["rows"]
    assert row["states"] == 16
    assert row["touching"] > 0
    assert row["failed"] == row["silent"] == row["not_finite"] == row["missed"] == 0
    assert 0 < row["compared"] <= 8


def test_large_models(answer: Any) -> None:
    record, _ = answer("large_models")
    (row,) = record["rows"]
    assert (row["model"], row["nv"]) == ("chain 10", 16)
    assert row["first_cpu"] > 1e-6 * row["step"]
    assert row["failures"] == 0


def test_large_models_have_the_joints_they_are_named_for(benchmark: Load) -> None:
    models = benchmark("large_models")
    load = benchmark("scenes").load_quietly
    assert load(models.chain(20)).nv == 26
    hand = load(models.arm_and_hand())
    assert (hand.nv, hand.nu) == (36, 30)


def test_accuracy(answer: Any) -> None:
    record, _ = answer("accuracy")
    rows = {(row["method"], row["timestep"]): row for row in record["rows"]}
    finest = {method: rows[method, 0.01] for method, _ in rows}
    assert finest["physim"]["order"] == pytest.approx(2.0, abs=0.05)
    assert finest["RK4"]["order"] == pytest.approx(4.0, abs=0.2)
    errors = [finest[m]["error_worst"] for m in ("RK4", "physim", "implicitfast, shifted")]
    assert errors == sorted(errors)
    assert record["settings"]["reference_error"] < 1e-2 * finest["RK4"]["error_worst"]


def test_pinn_ritz(answer: Any) -> None:
    record, _ = answer("pinn_ritz")
    rows = {row["name"]: row for row in record["rows"]}
    assert rows["natural gradient, H1"]["end"] < 1e-3 * rows["Adam"]["end"] * 10
    assert rows["10 dimensions"]["bar"] > 0
    sines = rows["descent on sines"]
    assert sines["rate"] == pytest.approx(sines["theory"], rel=0.02)
    widths = [row["end"] for name, row in rows.items() if "neurons" in name]
    assert widths == sorted(widths, reverse=True)


def test_pinn_defaults(answer: Any, benchmark: Load) -> None:
    module = benchmark("pinn_defaults")
    assert all(0 < module.statement(maker)[1] <= 1e-2 for maker in module.makers().values())
    record, _ = answer("pinn_defaults")
    assert [row["name"] for row in record["rows"] if row["holds"]] == ["Heat", "Poisson"]


def test_penetration(answer: Any) -> None:
    record, _ = answer("penetration")
    rows = {row["engine"]: row for row in record["rows"]}
    assert rows["physim"]["impact"] < 1e-6
    assert rows["MuJoCo elliptic"]["impact"] > 1.0
    # Creep is what the smoothing allows, and nothing without.
    assert rows["physim"]["creep"] < 1e-3 * rows["physim, smoothing 1e-9"]["creep"]


def test_work_precision(answer: Any) -> None:
    record, _ = answer("work_precision")
    by_method: dict[str, list[dict[str, float]]] = {}
    for row in record["rows"]:
        by_method.setdefault(row["method"], []).append(row)
    for rows in by_method.values():
        coarse, fine = rows
        assert coarse["timestep"] > fine["timestep"]
        assert coarse["time"] < fine["time"]
        assert 0.0 < fine["error_median"] < 10.0


def test_pinn_peer(answer: Any) -> None:
    record, printed = answer("pinn_peer")
    rows = record["rows"]
    if len(rows) == 1:
        assert "left out" in printed
        return
    assert [part["part"] for part in rows[0]["parts"]] == ["Adam", "L-BFGS"]
    assert rows[0]["error"] <= rows[0]["parts"][-1]["error"]
    for row in rows[1:]:
        assert row["ratio"] == pytest.approx(row["peer"] / row["ours"], rel=1.0)


def test_pinn_spectrum(answer: Any) -> None:
    record, _ = answer("pinn_spectrum")
    slopes = record["settings"]["slopes"]
    assert slopes["pinn_start"] == pytest.approx(2.0, abs=0.15)
    assert slopes["lpinn_start"] == pytest.approx(0.0, abs=0.15)
    assert slopes["lpinn_end"] == pytest.approx(0.0, abs=0.15)


def test_pinn_arms(answer: Any) -> None:
    record, _ = answer("pinn_arms")
    names = [row["name"] for row in record["rows"]]
    assert names[0] == "plain"
    assert len(names) == len(set(names)) == 10
    for row in record["rows"]:
        for optimizer in ("adam", "broyden"):
            assert 0 < row[optimizer] < 100
            assert len(row[f"{optimizer}_runs"]) == 1
