"""What the README shows runs, and what it lists exists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import physim

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()
TEN_LINES, *OTHERS = re.findall(r"```python\n(.*?)```", README, flags=re.S)


def run(code: str) -> dict[str, Any]:
    """Execute a block by itself; gives the names that it defines."""
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    return names


@pytest.mark.slow
def test_code_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(TEN_LINES.splitlines()) == 10
    names = run(TEN_LINES)
    assert capsys.readouterr().out.startswith("0 torch.Size([100, 8, 3])")
    assert names["controls"].grad.abs().max() > 0
    assert names["mass"].grad.abs().max() > 0


@pytest.mark.slow
def test_other_floors_run_by_themselves() -> None:
    program, network, system = map(run, OTHERS)
    assert (program["nearest"].sum(1) <= 1 + 1e-9).all()
    assert program["wish"].grad.abs().max() > 0
    assert network["result"].relative_l2 < 1e-5
    assert system["source"].grad.abs().max() > 0


def test_table_of_parameters_is_complete() -> None:
    section = README.split("## What is differentiable")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    listed = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    model = physim.load_model(
        "<mujoco><worldbody><body><joint/><geom size='.1'/></body></worldbody></mujoco>"
    )
    assert listed == set(model.parameters())


def test_links_lead_somewhere() -> None:
    root = Path(__file__).resolve().parents[2]
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (root / target).exists(), target
