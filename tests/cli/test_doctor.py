"""``physim doctor`` tells the truth about this machine."""

from __future__ import annotations

import json
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import CliRunner

from physim.cli import _doctor
from physim.cli._app import app

ROOT = Path(__file__).resolve().parents[2]


def test_findings() -> None:
    result = CliRunner().invoke(app, ["doctor", "--json", "-"])
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found["versions"]["torch"] == version("torch")
    assert found["kernel"]["works"]
    assert found["kernel"]["lanes"] in (1, 2, 4, 8)
    assert Path(found["kernel"]["cache"]).is_absolute()


def test_table_names_the_command_for_missing_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_doctor, "EXTRAS", {"viz": ("no_such_package_here",)})
    result = CliRunner().invoke(app, ["doctor"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert 'pip install "physim[viz]"' in result.stdout


def test_broken_kernels_exit_with_1(monkeypatch: pytest.MonkeyPatch) -> None:
    import solvers.kernels

    def refuse(*_: object, **__: object) -> None:
        raise solvers.kernels.KernelBuildError("no compiler")

    monkeypatch.setattr(solvers.kernels, "build_kernel", refuse)
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert "no compiler" in result.stdout


def test_extras_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extra, packages in _doctor.EXTRAS.items():
        declared = {line.split(">")[0] for line in project["optional-dependencies"][extra]}
        assert set(packages) == declared


def test_a_record_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "no" / "x.json"):
        result = CliRunner().invoke(app, ["doctor", "--json", str(path)])
        assert result.exit_code == 2
        assert "--json" in result.output
