"""Simulators shared by the tests: small models, compiled once and kept for the session."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import physim

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


@pytest.fixture(scope="session")
def simulator() -> Callable[..., physim.Simulator]:
    """Build a simulator of a model text or file, or take the one built before.

    It is printed, and with it the smoothing that the figures of a test belong to.
    """
    models: dict[str, physim.Model] = {}
    simulators: dict[tuple[Any, ...], physim.Simulator] = {}

    def build(source: str | Path, **settings: Any) -> physim.Simulator:
        key = (str(source), *sorted((k, str(v)) for k, v in settings.items()))
        if key not in simulators:
            if str(source) not in models:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    models[str(source)] = physim.load_model(source)
            simulators[key] = physim.Simulator(models[str(source)], **settings)
        print(simulators[key])
        return simulators[key]

    return build


@pytest.fixture
def nodes() -> Callable[[physim.Trajectory, int], physim.State]:
    """All states of one item of a trajectory as one batch, for queries of the whole motion."""

    def take(trajectory: physim.Trajectory, item: int = 0) -> physim.State:
        return physim.State(q=trajectory.q[:, item], v=trajectory.v[:, item])

    return take


@pytest.fixture
def generator() -> torch.Generator:
    """Random numbers that are the same in every run."""
    return torch.Generator().manual_seed(0)
