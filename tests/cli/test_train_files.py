"""``physim train`` for real: it reaches its target and leaves the files that it was asked for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from physim.cli._app import app
from solvers.pde import problems
from solvers.pinn import load


@pytest.mark.slow
def test_the_command_of_the_readme_reaches_its_target(tmp_path: Path) -> None:
    files = {name: tmp_path / f"run{ending}" for name, ending in (
        ("report", ".html"), ("export", ".npz"), ("save", ".safetensors"), ("json", ".json"),
    )}  # fmt: skip
    options = [part for name, path in files.items() for part in (f"--{name}", str(path))]
    result = CliRunner().invoke(
        app, ["train", "lpinn", "convection", "--set", "beta=30", "--target", "1e-5", *options]
    )
    assert result.exit_code == 0, result.output
    record = json.loads(files["json"].read_text())
    assert record["relative_l2"] < 1e-5
    assert record["history"][-1]["relative_l2"] < 1e-5
    assert "data:image/png;base64," in files["report"].read_text()
    with np.load(files["export"]) as found:
        exact = np.sin(found["x"] - 30 * found["t"][:, None])
        np.testing.assert_allclose(found["u"], exact, atol=1e-4)
        np.testing.assert_allclose(found["u_reference"], exact, atol=1e-12)
    again = load(files["save"], problems.Convection(beta=30.0))
    assert again(0.5, 0.25).item() == pytest.approx(np.sin(0.5 - 7.5), abs=1e-4)


@pytest.mark.slow
def test_a_checkpoint_of_another_problem_is_refused(tmp_path: Path) -> None:
    options = ["--budget", "0.5", "--checkpoint", str(tmp_path / "run.safetensors")]
    assert CliRunner().invoke(app, ["train", "pinn", "reaction", *options]).exit_code == 0
    result = CliRunner().invoke(app, ["train", "pinn", "heat", *options])
    assert result.exit_code == 2
    assert "was written with other values" in result.stderr
    assert "problem" in result.stderr
