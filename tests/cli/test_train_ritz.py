"""``physim train ritz``: an energy made least from the shell."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from physim.cli._app import app


def test_an_energy_is_made_least(tmp_path: Path) -> None:
    arguments = "train ritz nonlinear-elliptic --set dimension=1 --width 6 --target 1e-3".split()
    result = CliRunner().invoke(app, [*arguments, "--json", str(tmp_path / "run.json")])
    assert result.exit_code == 0, result.output
    assert "energy -2.74" in result.output
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["status"] == "CONVERGED"
    assert record["relative_l2"] < 1e-3
    assert record["settings"]["optimizer"] == "natural-gradient"
    assert record["energy"]["error"] == 0.0


def test_problems_without_an_energy_are_refused() -> None:
    result = CliRunner().invoke(app, ["train", "ritz", "helmholtz"])
    assert result.exit_code == 2
    assert "has no energy" in result.output
