"""The benchmarks of the workers run at their tiny size, and their answers agree."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_they_run(tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/run.py", "-f", "^parallel_", "--size", "tiny"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command += ["--output", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=120, env=environment)
    overhead = json.loads((tmp_path / "parallel_overhead.json").read_text())
    assert [row["executor"] for row in overhead["rows"]] == ["serial", "threads", "ray"]
    assert all(row["call"] < row["step"] for row in overhead["rows"])
    (row,) = json.loads((tmp_path / "parallel_speedup.json").read_text())["rows"]
    assert row["gain_ray"] == pytest.approx(row["serial"] / row["ray"], rel=1.0)
