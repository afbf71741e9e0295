"""What the distribution says about itself agrees with what is there."""

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import physim

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WANTED = [
    Requirement(text)
    for text in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
]
LINES = [
    line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")
]
PINS = {name: Version(version) for name, version in (line.split("==") for line in LINES)}
# What PyPI's CUDA build of torch brings beyond the CPU build.
CUDA = re.compile(r"nvidia-|cuda-|triton$")


def test_pins_are_sorted_unique_and_without_local_labels() -> None:
    names = list(PINS)
    assert names == sorted(names)
    assert len(names) == len(LINES)
    assert all(version.local is None for version in PINS.values())
    assert names == [canonicalize_name(name) for name in names]


@pytest.mark.parametrize("requirement", WANTED, ids=str)
def test_pins_meet_the_requirements(requirement: Requirement) -> None:
    assert requirement.specifier.contains(PINS[canonicalize_name(requirement.name)])


def test_everything_that_gets_installed_is_pinned() -> None:
    pending, seen = [(requirement, "") for requirement in WANTED], set()
    while pending:
        requirement, extra = pending.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        if name in seen:
            continue
        seen.add(name)
        wanted = sorted(requirement.extras) or [""]
        needs = importlib.metadata.requires(name) or []
        pending += [(Requirement(need), extra) for need in needs for extra in wanted]
    assert {name for name in seen if not CUDA.match(name)} <= PINS.keys()


def test_every_extra_that_an_error_names_exists() -> None:
    extras = PROJECT["optional-dependencies"].keys()
    for path in (
        p
        for package in ("solvers", "constraints", "physim")
        for p in (ROOT / package).rglob("*.py")
    ):
        for extra in re.findall(r'require_extra\("[\w.]+", "(\w+)"\)', path.read_text()):
            assert extra in extras, f"{path.relative_to(ROOT)} asks for physim[{extra}]"


def test_the_changelog_tells_of_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert f"## [{physim.__version__}]" in text or "## [Unreleased]" in text


@pytest.mark.slow
def test_the_wheel_holds_the_three_packages_and_nothing_else(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("solvers", "constraints", "physim"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, source)
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel"],
        cwd=source,
        check=True,
        capture_output=True,
    )
    (wheel,) = (source / "dist").glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        str(path.relative_to(source))
        for package in ("solvers", "constraints", "physim")
        for path in (source / package).rglob("*")
        if path.is_file()
    }
    info = f"physim-{physim.__version__}.dist-info"
    assert {name for name in names if not name.startswith(info)} == expected
    assert f"{info}/licenses/LICENSE" in names
    scripts = zipfile.ZipFile(wheel).read(f"{info}/entry_points.txt").decode()
    assert "physim = physim.cli:main" in scripts
