"""Pictures and films: what is in the files, and what they show."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from physim.fluid import Sphere, StaggeredGrid, film, picture, render
from solvers.core import SettingsError, ShapeError


def test_a_picture_is_read_as_it_was_written(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (13, 7, 3), dtype=np.uint8)
    path = picture(pixels, tmp_path / "a.png")
    assert (np.asarray(Image.open(path)) == pixels).all()
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_every_frame_of_a_film_is_read_as_it_was_written(tmp_path: Path) -> None:
    frames = list(np.random.default_rng(0).integers(0, 256, (4, 9, 6, 3), dtype=np.uint8))
    path = film(frames, tmp_path / "a.png", frames_per_second=20)
    with Image.open(path) as image:
        assert image.n_frames == 4
        assert image.info["loop"] == 0
        for number, frame in enumerate(frames):
            image.seek(number)
            assert image.info["duration"] == 50
            assert (np.asarray(image.convert("RGB")) == frame).all()


@pytest.mark.parametrize("shape", [(8, 12), (8, 5, 12)])
def test_smoke_is_bright_where_it_is_and_up_is_up(shape: tuple[int, ...]) -> None:
    grid = StaggeredGrid(shape)
    smoke = torch.zeros(shape, dtype=torch.float64)
    smoke[1:3, ..., 9:11] = 50.0
    image = render(grid, smoke, scale=2).astype(float).sum(-1)
    assert image.shape == (24, 16)
    row, column = np.unravel_index(image.argmax(), image.shape)
    assert 2 <= row <= 5
    assert 2 <= column <= 5
    assert image[-4:].max() < 0.3 * image.max()


def test_smoke_in_front_hides_a_body_and_smoke_behind_does_not() -> None:
    grid = StaggeredGrid((10, 10, 10))
    body = [Sphere(torch.tensor([5.0, 5.0, 5.0], dtype=torch.float64), 3.0)]
    front, behind = (torch.zeros(grid.shape, dtype=torch.float64) for _ in range(2))
    front[:, 0], behind[:, -1] = 100.0, 100.0
    alone = render(grid, torch.zeros_like(front), body)
    middle = (slice(18, 22), slice(18, 22))
    assert (render(grid, behind, body)[middle] == alone[middle]).all()
    assert (render(grid, front, body)[middle].astype(int) - alone[middle]).max() > 30


@pytest.mark.parametrize(
    ("frames", "name", "error", "message"),
    [
        ([], "a.png", SettingsError, "at least one frame"),
        ([np.zeros((3, 3, 3), np.uint8)], "a.gif", SettingsError, "expected .png"),
        ([np.zeros((3, 3, 3), np.uint8)], "no/a.png", SettingsError, "does not exist"),
        ([np.zeros((3, 3), np.uint8)], "a.png", ShapeError, r"images\[0\]"),
        ([np.zeros((3, k, 3), np.uint8) for k in (3, 4)], "a.png", ShapeError, r"images\[1\]"),
    ],
)
def test_bad_films_are_refused(
    tmp_path: Path, frames: list[np.ndarray], name: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        film(frames, tmp_path / name)


@pytest.mark.slow
def test_the_example_small(tmp_path: Path) -> None:
    path = Path(__file__).resolve().parents[2] / "examples" / "smoke.py"
    spec = importlib.util.spec_from_file_location("smoke", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["smoke"] = module
    spec.loader.exec_module(module)
    result = module.main(frames=4, size=16, starts=5, output=tmp_path)
    assert result.divergence < 1e-5
    assert result.is_found
    for name in ("smoke_2d", "smoke_3d"):
        with Image.open(tmp_path / f"{name}_film.png") as image:
            assert image.n_frames == 4
        assert (tmp_path / f"{name}.png").stat().st_size > 1000
