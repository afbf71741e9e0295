"""The picture holds the poses and the curves."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

import physim
from physim.view import picture
from physim.view._picture import pose_outlines
from physim.view._scene import build_scene


def test_picture_is_drawn(model: physim.Model, motion: physim.Trajectory, tmp_path: Path) -> None:
    pixels = pytest.importorskip("matplotlib.image").imread(
        picture(model, motion, tmp_path / "picture.png", item=2)
    )
    assert pixels.shape[0] > 300
    # The blue arm is there, and most of the page is white.
    blue = (pixels[..., 2] > 0.8) & (pixels[..., 0] < 0.3) & (pixels[..., 1] < 0.35)
    assert blue.sum() > 50
    assert 0.6 < (pixels[..., :3].min(-1) > 0.99).mean() < 0.99
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]


@pytest.mark.parametrize("axis", [0, 1])
def test_outlines_have_the_size_of_the_shapes(
    model: physim.Model, motion: physim.Trajectory, axis: int
) -> None:
    scene = build_scene(model, motion)
    outlines = pose_outlines(scene, 0, axis=axis)
    assert len(outlines) == len(model.shapes) - 1
    box = next(c for c, _ in outlines if len(c) == 4)
    assert np.ptp(box[:, 0]) == pytest.approx((0.4, 0.2)[axis])
    assert np.ptp(box[:, 1]) == pytest.approx(0.1)
    widths = sorted(float(np.ptp(c[:, 0])) for c, _ in outlines)
    assert widths[-1] == pytest.approx((0.4, 0.48)[axis], rel=0.02)


def test_bad_requests(model: physim.Model, motion: physim.Trajectory, tmp_path: Path) -> None:
    with pytest.raises(physim.SettingsError, match=".png"):
        picture(model, motion, tmp_path / "picture.gif")
    with pytest.raises(physim.SettingsError, match="side"):
        picture(model, motion, tmp_path / "a.png", side="z")  # type: ignore[arg-type]
    with pytest.raises(physim.SettingsError, match="poses"):
        picture(model, motion, tmp_path / "a.png", poses=0)


def test_missing_matplotlib_is_said(
    model: physim.Model,
    motion: physim.Trajectory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = importlib.import_module

    def refuse(name: str, package: str | None = None) -> object:
        if name.startswith("matplotlib"):
            raise ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib")
        return original(name, package)

    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(physim.MissingExtraError, match=r"physim\[viz\]"):
        picture(model, motion, tmp_path / "a.png")
