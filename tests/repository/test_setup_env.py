"""The set-up script leaves a whole environment or none."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "setup_env.py", tmp_path)
    (tmp_path / "constraints.txt").write_text("")
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'nothing'\nversion = '0'\n")
    return tmp_path


def run(project: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    offline = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": str(project)}
    return subprocess.run(
        [sys.executable, "setup_env.py"],
        cwd=project,
        env={**os.environ, **offline, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_failed_installation_leaves_no_stamp(project: Path) -> None:
    stamp = project / ".venv" / ".complete"
    stamp.parent.mkdir()
    stamp.write_text(sys.version)
    result = run(project)
    assert result.returncode != 0
    assert "failed" in result.stderr
    assert not stamp.exists()


def test_half_an_environment_is_started_anew(project: Path) -> None:
    rubbish = project / ".venv" / "lib" / "half_written.py"
    rubbish.parent.mkdir(parents=True)
    rubbish.touch()
    run(project)
    assert not rubbish.exists()


def test_torch_comes_from_its_own_index_if_one_is_given(project: Path) -> None:
    result = run(project, PHYSIM_TORCH_INDEX="https://wheels.invalid/cpu")
    commands = [line for line in result.stdout.splitlines() if line.startswith("+")]
    assert commands[-1].endswith("--no-deps --index-url https://wheels.invalid/cpu torch")
    assert "3 GB" not in result.stdout
