"""Where the public test models are, and a way to wrap a few elements into a whole model."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

LOCOMOTION = ("ant", "half_cheetah", "hopper", "humanoid", "walker2d")


def _folder(package: str, *parts: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent.joinpath(*parts)


def model_files() -> list[Path]:
    """Gymnasium's models and, where dm_control is installed, its suite."""
    folders = (_folder("gymnasium", "envs", "mujoco", "assets"), _folder("dm_control", "suite"))
    return [path for folder in folders if folder for path in sorted(folder.glob("*.xml"))]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    files = model_files()
    if "model_file" in metafunc.fixturenames:
        metafunc.parametrize("model_file", files, ids=[f"{p.parent.name}-{p.stem}" for p in files])
    if "locomotion_file" in metafunc.fixturenames:
        chosen = [p for p in files if p.parent.name == "assets" and p.stem in LOCOMOTION]
        metafunc.parametrize("locomotion_file", chosen, ids=[p.stem for p in chosen])


@pytest.fixture
def wrap() -> Callable[..., str]:
    """Make MJCF text of the content of <worldbody> and what else belongs to <mujoco>."""

    def build(world: str, rest: str = "") -> str:
        return f'<mujoco model="small">{rest}<worldbody>{world}</worldbody></mujoco>'

    return build
