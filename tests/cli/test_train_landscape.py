"""``physim train landscape``: what it writes and how it fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from physim.cli._app import app

SMALL = ("--width", 4, "--depth", 1, "--points", 40, "--count", 3, "--resolution", 5)


def run(*arguments: object, code: int = 0) -> tuple[str, str]:
    result = CliRunner().invoke(app, ["train", "landscape", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result.stdout, result.stderr


def test_both_frames_are_compared(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "both.png"
    out, err = run(
        "both", "convection", "--set", "beta=40", *SMALL, "--picture", picture, "--json", "-"
    )
    record = json.loads(out)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert record["picture"] == str(picture)
    assert record["problem"]["coefficients"] == {"beta": 40.0}
    assert set(record["frames"]) == {"pinn", "lpinn"}
    for frame in record["frames"].values():
        assert all(frame["gauss_newton"]["converged"])
        values = frame["gauss_newton"]["eigenvalues"]
        assert values == sorted(values, reverse=True)
        assert len(values) == 3
        assert frame["surface"][2][2] == pytest.approx(frame["loss"])
        assert 1 <= frame["visible"] <= frame["parameters"]
    fixed, moving = (
        record["frames"][k]["gauss_newton"]["eigenvalues"][0] for k in record["frames"]
    )
    assert fixed > 10 * moving
    assert "largest of Gauss-Newton" in err


def test_training_comes_first_if_it_has_a_budget() -> None:
    out, _ = run("lpinn", "convection", *SMALL, "--budget", 0.3, "--directions", "random",
                 "--json", "-")  # fmt: skip
    frame = json.loads(out)["frames"]["lpinn"]
    assert frame["steps"] > 0
    assert frame["loss"] < 1e-6


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("sideways", "convection"), "frame"),
        (("pinn", "convection", "--directions", "up"), "directions"),
        (("pinn", "convectoin"), "convection"),
        (("lpinn", "poisson"), "axes"),
        (("pinn", "convection", "--budget", -1), "budget"),
        (("pinn", "convection", "--count", 1), "count"),
        (("pinn", "convection", "--picture", "nowhere/a.png"), "nowhere"),
    ],
)
def test_bad_input_is_one_line_and_code_two(arguments: tuple[object, ...], words: str) -> None:
    _, err = run(*arguments, code=2)
    assert words in err
    assert "Traceback" not in err
