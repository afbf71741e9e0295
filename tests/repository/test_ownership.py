"""A stranger's `solvers` or `constraints` is named instead of imported."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from physim._ownership import check_ownership

ROOT = Path(__file__).resolve().parents[2]


def import_physim_in(folder: Path) -> subprocess.CompletedProcess[str]:
    # The working folder comes first on sys.path, as for a user's script.
    return subprocess.run(
        [sys.executable, "-c", "import physim; print(physim.__version__)"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_ours_are_ours() -> None:
    check_ownership()


@pytest.mark.parametrize("shadow", ["solvers.py", "constraints/__init__.py"])
def test_a_shadowing_file_is_named_and_not_run(tmp_path: Path, shadow: str) -> None:
    path = tmp_path / shadow
    path.parent.mkdir(exist_ok=True)
    path.write_text("print('ran the wrong file')")
    result = import_physim_in(tmp_path)
    assert result.returncode != 0
    assert str(path) in result.stderr.splitlines()[-1]
    assert "rename" in result.stderr
    assert "wrong file" not in result.stdout


def test_a_plain_folder_of_that_name_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "solvers").mkdir()
    assert import_physim_in(tmp_path).returncode == 0


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("physim._ownership.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="needs its package 'solvers'.*install physim again"):
        check_ownership()


def test_a_folder_without_init_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spec = importlib.util.spec_from_loader("solvers", loader=None, is_package=True)
    spec.submodule_search_locations.append(str(tmp_path))
    monkeypatch.setattr("physim._ownership.find_spec", lambda name: spec)
    with pytest.raises(ImportError, match=tmp_path.name):
        check_ownership()
