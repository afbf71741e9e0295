"""Importing is cheap: heavy packages load when something needs them."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("ray", "mujoco", "warp", "cvxpy", "cvxpylayers", "matplotlib", "h5py", "viser")


def loaded_after(code: str) -> set[str]:
    """Root names of the modules that a fresh interpreter holds after running some code."""
    script = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return {name.split(".")[0] for name in json.loads(result.stdout.splitlines()[-1])}


def test_packages_load_neither_torch_nor_anything_heavy() -> None:
    loaded = loaded_after(
        "import physim, solvers, constraints\n"
        "from solvers.core import ModelError, open_progress, require_extra\n"
        "from physim import PhysimError"
    )
    assert not loaded & {"torch", "numpy", "scipy", "gymnasium", "rich", *HEAVY}


def test_reports_load_torch_and_nothing_heavy() -> None:
    loaded = loaded_after("import physim; physim.Report, physim.Solution, physim.Status")
    assert "torch" in loaded
    assert not loaded & {"scipy", "gymnasium", *HEAVY}


def test_no_room_loads_a_heavy_package_at_import() -> None:
    rooms = sorted(
        f"{package}.{path.parent.name}"
        for package in ("solvers", "constraints", "physim")
        for path in (ROOT / package).glob("*/__init__.py")
    )
    loaded = loaded_after("\n".join(f"import {room}" for room in rooms))
    assert not loaded & set(HEAVY)


@pytest.mark.skipif(find_spec("physim.cli") is None, reason="physim.cli is not built yet")
def test_help_of_the_command_line_does_not_wait_for_torch() -> None:
    loaded = loaded_after(
        "import sys\n"
        "sys.argv = ['physim', '--help']\n"
        "from physim.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code"
    )
    assert not loaded & {"torch", "numpy", *HEAVY}
