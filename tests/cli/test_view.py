"""``physim view`` of a saved trajectory."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from physim.cli._app import app

PENDULUM = """<mujoco><worldbody><body><joint type="hinge" axis="0 1 0"/>
  <geom type="capsule" fromto="0 0 0 0.5 0 0" size="0.05"/>
  <body pos="0.5 0 0"><joint type="hinge" axis="0 1 0"/>
    <geom type="capsule" fromto="0 0 0 0.5 0 0" size="0.05"/></body></body></worldbody></mujoco>"""


@pytest.mark.parametrize("ending", ["npz", "h5"])
def test_film_and_picture_of_a_saved_run(tmp_path: Path, ending: str) -> None:
    model, saved = tmp_path / "pendulum.xml", tmp_path / f"run.{ending}"
    model.write_text(PENDULUM)

    def run(*arguments: object) -> object:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    made = run("simulate", model, "--duration", 0.2, "--timestep", 0.01, "--output", saved)
    assert made.exit_code == 0, made.output  # type: ignore[attr-defined]
    for name in ("film.html", "picture.png"):
        result = run("view", saved, model, "-o", tmp_path / name)
        assert result.exit_code == 0, result.output  # type: ignore[attr-defined]
        assert (tmp_path / name).stat().st_size > 5000
    for arguments, words in (
        ((tmp_path / "none.npz", model, "-o", tmp_path / "a.png"), "no trajectory file"),
        ((model, model, "-o", tmp_path / "a.png"), "ends in '.xml'"),
        ((saved, model, "-o", tmp_path / "a.gif"), ".html, .png"),
        ((saved, model, "-o", tmp_path / "a.png", "--item", 3), "items is [3]"),
    ):
        result = run("view", *arguments)
        assert result.exit_code == 2  # type: ignore[attr-defined]
        assert words in result.stderr  # type: ignore[attr-defined]
