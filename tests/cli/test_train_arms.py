"""``physim train pinn --arm``: the classes that the names stand for, and what they are given."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import solvers.pinn
from physim.cli._app import app
from physim.cli._train_arms import ARMS, make_solver
from physim.cli._train_html import command_line
from solvers.core import SettingsError
from solvers.pde import problems
from solvers.pinn import PINN, XPINN, Curriculum, LagrangianPINN, TimeMarching

CLASSES = (PINN, LagrangianPINN, Curriculum, TimeMarching, XPINN)


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give what a class is called with, checked against its signature; nothing is compiled."""
    for kind in CLASSES:

        def call(*args: Any, kind: type = kind, **options: Any) -> dict[str, Any]:
            inspect.signature(kind).bind(*args, **options)
            return {"class": kind, **options}

        monkeypatch.setattr(solvers.pinn, kind.__name__, call)


def make(*arms: str, kind: str = "PINN", **settings: Any) -> Any:
    return make_solver(problems.Convection(beta=30.0), arms, settings, kind=kind, seed=3)


@pytest.mark.usefixtures("untrained")
def test_schedules_are_their_classes_with_their_settings() -> None:
    assert make("time-marching", windows=4) == {"class": TimeMarching, "seed": 3, "windows": 4}
    steps = {"class": Curriculum, "seed": 3, "coefficient": "beta"}
    assert make("curriculum", beta=(10, 20)) == {**steps, "values": (10, 20)}
    assert make("curriculum", beta=10) == {**steps, "values": (10,)}
    parts = {"class": XPINN, "seed": 3, "pieces": {"t": 2}, "interface_points": 30}
    assert make("xpinn", t=2, interface_points=30) == parts


@pytest.mark.usefixtures("untrained")
def test_weights_and_points_go_with_each_other_and_with_a_schedule() -> None:
    both = make("causal", "gradient-norm", "refined", tolerances=1, memory=0.5, reweight_every=7)
    causal, norm = (each.settings for each in both.pop("weights"))
    assert (causal["name"], causal["tolerances"]) == ("causal", [1.0])
    assert norm == {"name": "gradient norm", "memory": 0.5}
    assert both == {"class": PINN, "seed": 3, "sampling": "refined", "reweight_every": 7}
    march = make("even", "time-marching", resample_every=9)
    rest = {"sampling": "even", "resample_every": 9}
    assert march == {"class": TimeMarching, "seed": 3, **rest}
    labels = make("adaptive", kind="LagrangianPINN")
    assert labels == {"class": LagrangianPINN, "seed": 3, "sampling": "adaptive"}


@pytest.mark.parametrize(
    ("arms", "settings", "words"),
    [
        (["seq2seq"], {}, "--arm: got 'seq2seq'"),
        (["time_marching"], {}, "did you mean 'time-marching'"),
        (["xpinn", "curriculum"], {"t": 2}, "exclude each other"),
        (["refined", "even"], {}, "exclude each other"),
        (["time-marching"], {"window": 3}, "did you mean 'windows'"),
        (["time-marching"], {"windows": 2.5}, "windows: got 2.5"),
        (["causal"], {"memory": 0.5}, "--arm-set: got 'memory'"),
        (["curriculum"], {}, "--arm-set beta=10,20"),
        (["xpinn"], {}, "--arm-set t=3"),
        ([], {"windows": 3}, "got windows without an arm"),
    ],
)
def test_what_does_not_fit_is_refused(
    arms: list[str], settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(SettingsError, match=words):
        make(*arms, **settings)


@pytest.mark.parametrize("arm", ["curriculum", "time-marching", "xpinn"])
def test_schedules_are_of_the_fixed_frame(arm: str) -> None:
    with pytest.raises(SettingsError, match="expected train pinn"):
        make(arm, kind="LagrangianPINN")


@pytest.mark.slow
def test_a_trained_arm_is_named_and_its_file_goes_on(tmp_path: Path) -> None:
    options = [
        "train", "pinn", "convection", "--set", "beta=1", "--arm", "time-marching,causal",
        "--arm-set", "windows=2", "--arm-set", "slices=8", "--budget", "1",
        "--checkpoint", str(tmp_path / "run.safetensors"), "--json", str(tmp_path / "run.json"),
    ]  # fmt: skip
    steps = []
    for _ in range(2):
        result = CliRunner().invoke(app, options)
        assert result.exit_code == 0, result.output
        assert "time-marching,causal" in result.stdout
        record = json.loads((tmp_path / "run.json").read_text())
        steps.append(record["steps"])
    assert steps[0] == steps[1]
    assert record["settings"]["arm"] == "time-marching,causal"
    assert record["settings"]["arm_set"] == {"windows": 2, "slices": 8}
    line = command_line(record["settings"])
    assert "--set beta=1 " in line
    assert "--arm time-marching,causal --arm-set windows=2 --arm-set slices=8" in line
    refused = CliRunner().invoke(app, [part.replace("windows=2", "windows=3") for part in options])
    assert refused.exit_code == 2
    assert "windows" in refused.stderr


def test_help_lists_every_arm() -> None:
    page = CliRunner().invoke(app, ["train", "pinn", "--help"], env={"COLUMNS": "200"}).stdout
    assert all(arm in page for arm in ARMS)
