"""``physim train``: what it asks the trainer for, what it writes, how it fails."""

from __future__ import annotations

import base64
import json
import math
import re
import sys
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import solvers
from physim.cli._app import app
from physim.cli._train import parse_settings
from physim.cli._train_report import describe_training
from solvers.core import NotConvergedError, NumericalWarning, Report, SettingsError, Status
from solvers.pde import Problem
from solvers.pde.problems import find_problem
from solvers.pinn import check_export

CALLS: list[dict[str, Any]] = []


@dataclass
class Trained:
    """A result whose field is the reference plus a known error."""

    problem: Problem
    report: Report
    relative_l2: float = 0.5
    coefficients: dict[str, float] = field(default_factory=lambda: {"nu": 0.25})
    history: tuple[dict[str, float], ...] = (
        {"step": 1.0, "seconds": 0.1, "loss": 1.0, "held_out": 1.0, "relative_l2": 1.0},
        {"step": 9.0, "seconds": 0.2, "loss": 0.1, "held_out": 0.2, "relative_l2": 0.5},
    )

    def __call__(self, *coordinates: Tensor) -> Tensor:
        points = torch.stack(coordinates, -1)
        return 1.5 * self.problem.reference_values(points)["u"]

    def save(self, path: Path) -> None:
        path.write_text("saved")

    def plot(self, path: Path) -> Path:
        path.write_bytes(b"drawn")
        return path

    def export(self, path: Path) -> Path:
        path.write_text("exported")
        return path


class Trainer:
    """Takes the place of a network's class and notes how it was called."""

    is_interrupted = False

    def __init__(self, problem: Problem, *, seed: int) -> None:
        self.problem = problem
        CALLS.append({"problem": problem, "seed": seed})

    def fit(self, **options: Any) -> Trained:
        CALLS[-1] |= options
        status = Status.CONVERGED if options["target"] is None else Status.MAX_ITERATIONS
        report = Report(
            status=torch.tensor(int(status)),
            iterations=torch.tensor(9),
            residual=torch.tensor(0.2, dtype=torch.float64),
        )
        return Trained(self.problem, report)


@pytest.fixture(autouse=True)
def networks(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("solvers.pinn")
    module.PINN = module.LagrangianPINN = Trainer  # type: ignore[attr-defined]
    module.check_export = check_export  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "solvers.pinn", module)
    monkeypatch.setattr(solvers, "pinn", module, raising=False)
    CALLS.clear()


def run(*arguments: object, code: int = 0) -> tuple[str, str]:
    result = CliRunner().invoke(app, ["train", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result.stdout, result.stderr


@pytest.mark.parametrize("network", ["pinn", "lpinn"])
def test_settings_reach_problem_and_trainer_and_the_record_tells_all(
    network: str, tmp_path: Path
) -> None:
    out, err = run(
        network, "Convection", "--set", "beta=12.5", "--budget", 3, "--tolerance", 1e-4,
        "--seed", 7, "--checkpoint", tmp_path / "run.safetensors", "--json", "-",
    )  # fmt: skip
    (call,) = CALLS
    assert call["problem"].coefficients == {"beta": 12.5}
    assert (call["seed"], call["budget"], call["tolerance"]) == (7, 3.0, 1e-4)
    assert call["checkpoint"] == tmp_path / "run.safetensors"
    record = json.loads(out)
    assert record["status"] == "CONVERGED"
    assert record["problem"]["coefficients"] == {"beta": 12.5}
    assert record["settings"]["set"] == {"beta": 12.5}
    assert record["relative_l2"] == 0.5
    assert record["reference_seconds"] > 0
    assert len(record["history"]) == 2
    assert "relative L2 error" in err


def test_a_training_that_nothing_was_asked_of_is_complete(tmp_path: Path) -> None:
    run("pinn", "heat", "--budget", 1, "--json", tmp_path / "net.json")
    assert json.loads((tmp_path / "net.json").read_text())["status"] == "COMPLETE"


def test_files_are_written(tmp_path: Path) -> None:
    run(
        "pinn", "heat", "--save", tmp_path / "net.safetensors",
        "--picture", tmp_path / "net.png", "--json", tmp_path / "net.json",
    )  # fmt: skip
    assert (tmp_path / "net.safetensors").read_text() == "saved"
    assert (tmp_path / "net.png").read_bytes() == b"drawn"
    record = json.loads((tmp_path / "net.json").read_text())
    assert record["picture"].endswith("net.png")
    assert record["coefficients"] == {"nu": 0.25}


def test_optimizers_reach_the_trainer_in_order() -> None:
    run("pinn", "heat", "--optimizer", "adam, gns")
    run("lpinn", "convection")
    assert [call["optimizer"] for call in CALLS] == [["adam", "gns"], ["self-scaled-broyden"]]


def test_a_missed_target_is_exit_code_one() -> None:
    out, _ = run("pinn", "heat", "--target", 1e-9, code=1)
    assert "MAX_ITERATIONS" in out


@pytest.mark.parametrize(
    ("status", "asked", "code"),
    [("STALLED", (), 0), ("STALLED", ("--target", 1e-9), 1), ("NON_FINITE", (), 1)],
)
def test_a_training_may_come_as_far_as_it_comes_if_nothing_was_asked(
    monkeypatch: pytest.MonkeyPatch, status: str, asked: tuple[Any, ...], code: int
) -> None:
    fit = Trainer.fit

    def ended(self: Trainer, **options: Any) -> Trained:
        done = fit(self, **options)
        number = torch.tensor(int(Status[status]))
        return replace(done, report=replace(done.report, status=number))

    monkeypatch.setattr(Trainer, "fit", ended)
    out, _ = run("pinn", "heat", *asked, code=code)
    assert status in out


def test_a_warning_is_one_line_without_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    fit = Trainer.fit

    def warned(self: Trainer, **options: Any) -> Trained:
        warnings.warn("the field [x]\nhas folded", NumericalWarning, stacklevel=1)
        warnings.warn("of another package", UserWarning, stacklevel=1)
        return fit(self, **options)

    monkeypatch.setattr(Trainer, "fit", warned)
    with pytest.warns(UserWarning, match="of another package"):
        _, err = run("pinn", "heat")
    assert err == "physim: warning: the field [x] has folded\n"


def test_problems_are_listed() -> None:
    out, _ = run("problems")
    assert "allen-cahn" in out
    assert "beta=30" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["convectio"], "did you mean 'convection'"),
        (["convection", "--set", "betta=3"], "did you mean 'beta'"),
        (["convection", "--set", "beta"], "as in beta=30"),
        (["convection", "--set", "beta=fast"], "expected a finite number"),
        (["convection", "--set", "beta=nan"], "beta is 'nan', expected a finite number"),
        (["convection", "--set", "beta=1,inf"], "beta is '1,inf', expected a finite number"),
        (["convection", "--set", "beta=1", "--set", "beta=2"], "given twice"),
        (["burgers", "--set", "nu=-1"], "nu"),
        (["heat", "--save", "net.pt"], ".safetensors"),
        (["heat", "--json", "/nowhere/net.json"], "does not exist"),
        (["heat", "--picture", "net.gif"], ".png"),
        (["heat", "--report", "net.pdf"], ".html"),
        (["heat", "--export", "net.vtk"], ".vtu"),
        (["heat", "--export", "net.vtu"], "end it in .pvd"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(arguments: list[str], words: str) -> None:
    _, err = run("pinn", *arguments, code=2)
    assert words in err
    assert "Traceback" not in err
    assert not CALLS


def test_settings_are_numbers_or_several() -> None:
    assert parse_settings(["modes=2,3", "wave-number=1e1", "n=-4"]) == {
        "modes": (2, 3), "wave_number": 10.0, "n": -4,
    }  # fmt: skip
    with pytest.raises(SettingsError, match="several with commas"):
        parse_settings(["modes=2,x"])


def test_a_report_is_one_file_that_tells_all(tmp_path: Path) -> None:
    path = tmp_path / "net.html"
    out, _ = run("pinn", "heat", "--set", "diffusivity=0.1", "--seed", 3, "--report", path)
    page = path.read_text()
    assert "net.html" in out
    image = re.search(r'src="data:image/png;base64,([^"]+)"', page)
    assert image is not None
    assert base64.b64decode(image[1]) == b"drawn"
    # Nothing is fetched from elsewhere.
    assert not re.search(r'(?:src|href)="(?!data:)', page)
    command = "physim train pinn heat --set diffusivity=0.1 --optimizer self-scaled-broyden"
    assert f"{command} --budget 60 --seed 3" in page
    cells = re.findall(r"<th>(.*?)</th><td>(.*?)</td>", page)
    assert ("relative L2 error", "0.5") in cells
    assert "reference takes" in dict(cells)
    assert ("found nu", "0.25") in cells
    assert dict(cells)["torch"].split("+")[0] == torch.__version__.split("+")[0]
    rows = re.findall(r"<tr>((?:<td class=\"n\">.*?</td>)+)</tr>", page)
    assert len(rows) == 2
    assert list(tmp_path.iterdir()) == [path]


def test_text_in_a_report_is_no_markup(tmp_path: Path) -> None:
    from physim.cli._train_html import command_line, write_report

    problem = replace(find_problem("heat"), name="<heat & co>")
    trained = Trainer(problem, seed=0).fit(target=None)
    settings = {"network": "PINN", "problem": "my heat", "set": {"modes": (1, 2)}, "target": None}
    assert command_line(settings) == "physim train pinn 'my heat' --set modes=1,2"
    record = describe_training(problem, trained, settings=settings, reference_seconds=None)
    page = write_report(record, trained, tmp_path / "net.html").read_text()
    assert "<heat" not in page
    assert "&lt;heat &amp; co&gt;" in page


def test_a_long_history_is_thinned_and_keeps_its_ends() -> None:
    from physim.cli._train_html import _history

    rows = [{"step": float(k)} for k in range(1000)]
    steps = [float(text) for text in re.findall(r'<td class="n">(.*?)</td>', _history(rows))]
    assert (steps[0], steps[-1]) == (0.0, 999.0)
    assert len(steps) < 30
    assert steps == sorted(set(steps))


def test_an_export_is_checked_before_and_written_after(tmp_path: Path) -> None:
    run("pinn", "heat", "--export", tmp_path / "net.npz")
    assert (tmp_path / "net.npz").read_text() == "exported"


def test_a_field_that_cannot_be_drawn_is_reported_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def folded(self: Trained, path: Path | None = None) -> Any:
        raise NotConvergedError("the map has folded")

    monkeypatch.setattr(Trained, "plot", folded)
    monkeypatch.setattr(Trained, "export", folded)
    error = property(lambda self: math.inf, lambda self, value: None)
    monkeypatch.setattr(Trained, "relative_l2", error)
    run(
        "lpinn", "convection", "--picture", tmp_path / "net.png", "--export", tmp_path / "net.npz",
        "--report", tmp_path / "net.html", "--json", tmp_path / "net.json",
    )  # fmt: skip
    page = (tmp_path / "net.html").read_text()
    assert "the map has folded" in page
    assert "no error to tell" in page
    record = json.loads((tmp_path / "net.json").read_text())
    assert record["relative_l2"] is None
    assert record["picture"] == record["export"] == "none: the map has folded"


@pytest.mark.parametrize("network", ["pinn", "lpinn"])
def test_ctrl_c_is_exit_code_130_and_keeps_what_there_is(
    network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "is_interrupted", True)
    _, words = run(network, "convection", "--json", tmp_path / "net.json", code=130)
    assert words.endswith("physim: interrupted\n")
    assert (tmp_path / "net.json").is_file()


@pytest.mark.parametrize("command", ["pinn", "lpinn", "ritz", "landscape", "constrained"])
def test_help_names_the_unit_of_the_budget(command: str) -> None:
    page, _ = run(command, "--help")
    (line,) = [line for line in page.splitlines() if "--budget" in line]
    assert "econds" in line
