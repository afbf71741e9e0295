"""The examples run, small, and give the physics that they claim."""

from __future__ import annotations

import importlib.util
import math
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by name.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_ten_lines_finds_the_speed_of_the_textbook(capsys: pytest.CaptureFixture[str]) -> None:
    speed = load("ten_lines").main()
    # Friction acts over whole steps, so the speed is that of the textbook up to half a step's loss.
    assert speed == pytest.approx(math.sqrt(2 * 0.5 * 9.81 * 2.0), abs=0.5 * 9.81 * 0.01)
    assert "stops at 2.0000" in capsys.readouterr().out


@pytest.mark.slow
def test_first_robot_small(tmp_path: Path) -> None:
    result = load("first_robot").main(steps=32, output=tmp_path / "out", iterations=8, goal=0.3)
    assert result.overlap < 1e-6
    assert result.creep < 1e-3
    assert result.gradient > result.search
    assert result.reached
    assert (tmp_path / "out" / "first_robot.html").stat().st_size > 20_000
    assert (tmp_path / "out" / "first_robot.png").stat().st_size > 20_000


def test_missed_goal_is_a_failure() -> None:
    result = load("first_robot").Result(overlap=0, creep=0, gradient=3.4, search=1, goal=3.5)
    assert not result.reached


def test_demo_explains_itself() -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "first_robot.py"), "--help"],
        cwd=EXAMPLES.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert "--seed" in done.stdout
