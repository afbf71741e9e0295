"""What the README shows runs, and what it lists exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import physim

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()


@pytest.mark.slow
def test_code_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    assert len(code.splitlines()) == 10
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert capsys.readouterr().out.startswith("0 torch.Size([100, 8, 3])")
    assert names["controls"].grad.abs().max() > 0  # type: ignore[attr-defined]
    assert names["mass"].grad.abs().max() > 0  # type: ignore[attr-defined]


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
