"""``physim train constrained``: what it writes, how it goes on, how it fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from constraints.systems import diffusion_sorption as ds
from constraints.systems import navier_stokes as ns
from constraints.systems import relative_errors
from physim.cli._app import app
from solvers.core import NotConvergedError

SMALL = ("--functions", 8, "--width", 8, "--points", 256)
FLOWS = ("--functions", 8, "--width", 4, "--points", 64, "--slabs", 4)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run(*arguments: object, code: int = 0) -> tuple[str, str]:
    result = CliRunner().invoke(app, ["train", "constrained", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result.stdout, result.stderr


def train(*arguments: object, system: str = "diffusion-sorption") -> dict[str, Any]:
    out, _ = run(system, *arguments, "--json", "-")
    record: dict[str, Any] = json.loads(out)
    return record


def losses(record: dict[str, Any]) -> list[float]:
    return [row["loss"] for row in record["history"]]


def test_everything_is_written(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out, _ = run(
        "diffusion-sorption", "--experts", 2, *SMALL, "--steps", 2, "--seed", 5,
        "--checkpoint", tmp_path / "run.safetensors", "--save", tmp_path / "fit.safetensors",
        "--picture", tmp_path / "fit.png", "--json", tmp_path / "fit.json",
    )  # fmt: skip
    assert "2 of 2" in out
    assert (tmp_path / "run.safetensors").is_file()
    assert (tmp_path / "fit.png").stat().st_size > 20_000
    record = json.loads((tmp_path / "fit.json").read_text())
    assert (record["status"], record["steps"]) == ("complete", 2)
    assert (record["settings"]["experts"], record["settings"]["executor"]) == (2, "serial")
    assert len(record["history"]) == 2
    assert set(record["history"][0]["terms"]) == {"equation", "initial", "left", "right"}
    # What was saved has the error that was told.
    fit = ds.Fit.load(tmp_path / "fit.safetensors")
    test = torch.linspace(0.01, 0.19, 8, dtype=torch.float64)
    errors = relative_errors(fit.predict(test), ds.reference(test))
    assert float(errors.mean()) == pytest.approx(record["relative_l2"], rel=1e-9)
    assert float(errors.max()) == pytest.approx(record["relative_l2_worst"], rel=1e-9)


def test_vorticity_is_written_too(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    run(
        "navier-stokes", "--experts", 2, *FLOWS, "--steps", 2, "--seed", 5, "--family", "rough",
        "--optimizer", "diffgrad", "--save", tmp_path / "fit.safetensors",
        "--picture", tmp_path / "fit.png", "--json", tmp_path / "fit.json",
    )  # fmt: skip
    record = json.loads((tmp_path / "fit.json").read_text())
    assert (record["status"], record["steps"]) == ("complete", 2)
    settings = record["settings"]
    assert (settings["functions"], settings["slabs"], settings["width"]) == (8, 4, 4)
    assert (settings["family"], settings["optimizer"]) == ("rough", "diffgrad")
    assert record["jump"] is not None
    assert (tmp_path / "fit.png").stat().st_size > 20_000
    fit = ns.Fit.load(tmp_path / "fit.safetensors")
    assert (fit.arm.experts, fit.arm.is_held, fit.family) == ((2, 1), True, "rough")


@pytest.mark.parametrize(
    ("options", "functions"),
    [(("--arm", "soft"), 1), (("--arm", "hard", "--functions", 8), 8)],
)
def test_arms_without_parts(options: tuple[object, ...], functions: int) -> None:
    record = train(*options, "--width", 8, "--points", 128, "--steps", 2)
    assert (record["settings"]["functions"], record["jump"]) == (functions, None)
    assert (record["iterations"] is None) == (functions == 1)


def test_a_spent_budget_is_told_and_the_rest_follows(tmp_path: Path) -> None:
    options = ("--arm", "soft", "--width", 8, "--points", 64, "--steps", 4)
    path = ("--checkpoint", tmp_path / "run.safetensors")
    torn = train(*options, *path, "--budget", 1e-9)
    assert (torn["status"], torn["steps"]) == ("budget spent", 1)
    assert losses(train(*options, *path)) == losses(train(*options))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["diffusion-sorbtion"], "did you mean 'diffusion-sorption'"),
        (["diffusion-sorption", "--arm", "hart"], "did you mean 'hard'"),
        (["diffusion-sorption", "--executor", "rai"], "did you mean 'ray'"),
        (["diffusion-sorption", "--experts", "0"], "experts"),
        (["diffusion-sorption", "--workers", "0", "--executor", "threads"], "workers"),
        (["diffusion-sorption", "--steps", "0"], "steps"),
        (["diffusion-sorption", "--budget", "-1"], "budget"),
        (["diffusion-sorption", "--functions", "1"], "functions"),
        (["diffusion-sorption", "--width", "0"], "width"),
        (["diffusion-sorption", "--arm", "hard", "--experts", "4"], "--arm experts"),
        (["diffusion-sorption", "--arm", "soft", "--apart"], "--arm experts"),
        (["diffusion-sorption", "--arm", "soft", "--functions", "8"], "functions"),
        (["diffusion-sorption", "--slabs", "4"], "slabs"),
        (["diffusion-sorption", "--family", "wave"], "did you mean 'waves'"),
        (["diffusion-sorption", "--optimizer", "lbfgs"], "optimizer"),
        (["navier-stokes", "--functions", "7"], "multiple of 2"),
        (["navier-stokes", "--functions", "4"], "at least 6"),
        (["navier-stokes", "--family", "waves"], "family"),
        (["navier-stokes", "--slabs", "0"], "slabs"),
        (["diffusion-sorption", "--save", "fit.pt"], ".safetensors"),
        (["diffusion-sorption", "--checkpoint", "/nowhere/run.safetensors"], "does not exist"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(arguments: list[str], words: str) -> None:
    _, err = run(*arguments, code=2)
    assert words in err
    assert "Traceback" not in err


def test_a_failed_solve_is_exit_code_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise NotConvergedError("item 3 is STALLED")

    monkeypatch.setattr(ds, "train", fail)
    _, err = run("diffusion-sorption", code=1)
    assert err == "physim: item 3 is STALLED\n"


def test_another_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    options = ("--arm", "soft", "--width", 8, "--points", 64, "--checkpoint", path)
    train(*options, "--steps", 1)
    _, err = run("diffusion-sorption", *options, "--steps", 2, code=2)
    assert "steps" in err


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="terminals and signals are POSIX's")
@pytest.mark.parametrize(
    ("system", "executor"),
    [("diffusion-sorption", "serial"), ("diffusion-sorption", "ray"), ("navier-stokes", "ray")],
)
def test_ctrl_c_in_a_terminal_and_going_on(system: str, executor: str, tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    steps = 30 if system == "diffusion-sorption" else 10
    sizes = SMALL if system == "diffusion-sorption" else (*FLOWS, "--apart")
    options = ["--experts", "4", *map(str, sizes), "--steps", str(steps)]
    code = "import torch; torch.set_num_threads(1); from physim.cli import main; main()"
    command = [
        sys.executable, "-c", code, "train", "constrained", system, *options,
        "--executor", executor, "--checkpoint", str(path), "--json", str(tmp_path / "fit.json"),
    ]  # fmt: skip
    assert interrupt(command, after="loss") == 130
    torn = json.loads((tmp_path / "fit.json").read_text())
    assert torn["status"] == "interrupted"
    assert 1 <= torn["steps"] < steps
    subprocess.run(command, env=environment(), check=True, capture_output=True, timeout=600)
    resumed = json.loads((tmp_path / "fit.json").read_text())
    assert resumed["status"] == "complete"
    whole = train(*options, system=system)
    assert losses(torn) == losses(whole)[: torn["steps"]]
    assert losses(resumed) == losses(whole)
    assert resumed["relative_l2"] == whole["relative_l2"]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "COLUMNS": "200"}


def interrupt(command: list[str], *, after: str) -> int:
    """Press Ctrl-C for a command and its children once its display shows a word."""
    terminal, inner = os.openpty()
    process = subprocess.Popen(
        command, env=environment(), start_new_session=True, stderr=inner, stdout=inner
    )
    os.close(inner)
    try:
        shown, is_pressed = "", False
        while process.poll() is None:
            try:
                shown += os.read(terminal, 4096).decode(errors="replace")
            except OSError:
                break
            if after in shown and not is_pressed:
                os.killpg(process.pid, signal.SIGINT)
                is_pressed = True
        assert is_pressed, shown
        return process.wait(timeout=600)
    finally:
        process.kill()
        os.close(terminal)
