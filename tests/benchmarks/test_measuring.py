"""What the benchmarks measure with: alternation, ratios, records, geometry."""

from __future__ import annotations

import io
import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

Load = Callable[[str], ModuleType]
FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
SHARED = {
    "record",
    "run",
    "scenes",
    "timing",
    "linear_scenes",
    "peers",
    "dcdm_families",
    "train_aggregation",
}


def test_alternatives_take_turns_after_a_warm_up(benchmark: Load) -> None:
    calls: list[str] = []
    work = {name: lambda name=name: calls.append(name) for name in "ab"}
    timings = benchmark("timing").alternate(work, repetitions=3)
    assert "".join(calls) == "ab" * 4
    assert [len(timings.seconds[name]) for name in "ab"] == [3, 3]


def test_a_ratio_compares_within_a_round(benchmark: Load) -> None:
    # The second round met a slow machine: medians of each alone would say 3, rounds say 2.
    seconds = {"a": (2.0, 20.0, 6.0), "b": (1.0, 10.0, 2.0)}
    timings = benchmark("timing").Timings(seconds=seconds)
    assert timings.ratio("a", "b") == 2.0
    assert timings.median("a") == 6.0
    assert timings.spread("b") == 10.0


def test_time_is_that_of_this_process(benchmark: Load) -> None:
    import time

    timings = benchmark("timing").alternate({"sleep": lambda: time.sleep(0.05)}, repetitions=1)
    assert timings.median("sleep") < 0.02


def test_every_question_is_listed(benchmark: Load) -> None:
    files = {path.stem for path in FOLDER.glob("*.py")}
    assert set(benchmark("run").QUESTIONS) == files - SHARED


def test_a_record_names_machine_versions_and_seed(benchmark: Load, tmp_path: Path) -> None:
    record = benchmark("record")
    result = record.Result(title="t", columns=[], rows=[{"x": 1.5}], settings={"batch": 2})
    path = record.write_result(
        result, tmp_path / "new", question="q", size="tiny", seed=7, note="quiet"
    )
    read = json.loads(path.read_text())
    assert read["rows"] == [{"x": 1.5}]
    assert (read["question"], read["size"], read["seed"], read["note"]) == ("q", "tiny", 7, "quiet")
    assert read["machine"]["cores"] >= 1
    assert read["machine"]["lanes"] in (1, 2, 4, 8)
    assert {"physim", "mujoco", "torch", "python"} <= set(read["machine"]["versions"])
    assert read["date"].endswith("+00:00")
    assert [p.name for p in path.parent.iterdir()] == ["q.json"]


def test_units_in_brackets_are_printed(benchmark: Load) -> None:
    from rich.console import Console

    record = benchmark("record")
    console = Console(record=True, width=100, file=io.StringIO())
    columns = [record.Column("x", "depth [mm]", ".1f"), record.Column("y", "none")]
    record.print_result(record.Result(title="t", columns=columns, rows=[{"x": 1.25}]), console)
    text = console.export_text()
    assert "depth [mm]" in text
    assert "1.2" in text
    page = record.markdown(record.Result(title="t", columns=columns, rows=[{"x": 1.25}]))
    assert "| depth [mm] | none |" in page
    assert "| 1.2 | - |" in page


def test_lowest_corner_is_that_of_all_eight(benchmark: Load) -> None:
    scene = benchmark("penetration")
    rng = np.random.default_rng(0)
    quaternion = rng.normal(size=4)
    quaternion /= np.linalg.norm(quaternion)
    normal = np.array([0.36, 0.48, 0.8])
    position = rng.normal(size=3)
    w, axis = quaternion[0], quaternion[1:]
    corners = np.array(list(itertools.product((-1, 1), repeat=3))) * scene.HALF
    cross = np.cross(axis, corners)
    turned = corners + 2 * w * cross + 2 * np.cross(axis, cross)
    expected = ((position + turned) @ normal).min()
    q = np.concatenate([position, quaternion])[None]
    assert scene._lowest_corner(q, normal)[0] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["-f", "nothing"], "matches none of contact_step"), (["-f", "("], "no regular expression")],
)
def test_errors_are_one_line(arguments: list[str], message: str) -> None:
    done = subprocess.run(
        [sys.executable, str(FOLDER / "run.py"), *arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_peer_is_told_with_what_to_do(
    benchmark: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHYSIM_PEERS", str(tmp_path / "none"))
    peer = benchmark("peers").find_peer("deepxde")
    assert f"run: python benchmarks/peers.py {tmp_path / 'none'}" in peer.reason
    (row,) = benchmark("pinn_peer").run("tiny", 0).rows
    assert peer.reason in row["name"]
    # An environment without the peer is another reason.
    (tmp_path / "none" / "bin").mkdir(parents=True)
    (tmp_path / "none" / "bin" / "python").symlink_to(sys.executable)
    monkeypatch.setitem(benchmark("peers").PEERS, "no-such-peer", "")
    assert "no-such-peer is not installed" in benchmark("peers").find_peer("no-such-peer").reason


def test_a_peer_that_fails_is_left_out_with_its_complaint(
    benchmark: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peers = benchmark("peers")
    (tmp_path / "broken.py").write_text("print('{\"x\": 1}', flush=True)\nraise ValueError('no')\n")
    monkeypatch.setattr(peers, "SCRIPTS", tmp_path)
    with peers.Peer("p", "1", Path(sys.executable)).start("broken", {}) as script:
        script.ask()
        assert script.answer() == {"x": 1}
        with pytest.raises(peers.PeerError, match="ValueError: no"):
            script.answer()
