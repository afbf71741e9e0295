"""Clouds of points and figures in columns, as the examples use them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from solvers.core import SettingsError, ShapeError
from solvers.figures import draw_points, open_figure, save_figure

pytest.importorskip("matplotlib")


def test_axes_come_row_by_row(tmp_path: Path) -> None:
    figure, axes = open_figure(width=6.0, heights=[1.0, 2.0], columns=3)
    assert len(axes) == 6
    places = [axis.get_position() for axis in axes]
    assert places[0].y0 > places[3].y0
    assert places[0].x0 < places[1].x0 < places[2].x0
    draw_points(axes[0], {"a": np.zeros((4, 2)), "b": np.ones((3, 2))}, title="two")
    assert [len(cloud.get_offsets()) for cloud in axes[0].collections] == [4, 3]
    assert axes[0].get_aspect() == 1.0
    assert save_figure(figure, tmp_path / "points.png").stat().st_size > 1000


def test_bad_clouds_are_named() -> None:
    _, (axes,) = open_figure()
    with pytest.raises(SettingsError, match="empty"):
        draw_points(axes, {})
    with pytest.raises(ShapeError, match="'c'"):
        draw_points(axes, {"c": np.zeros((3, 3))})
    with pytest.raises(SettingsError, match="column"):
        open_figure(columns=0)
