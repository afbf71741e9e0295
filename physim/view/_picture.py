"""A picture of a motion: its poses in a row, and height and speed over time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from physim.view._scene import Scene, SceneShape, build_scene, rotation_matrices
from physim.view._surface import surface_of
from solvers.core import SettingsError, check_choice, check_positive

if TYPE_CHECKING:
    from physim.dynamics import Trajectory
    from physim.model import Model

__all__ = ["picture"]

_Outline = tuple[NDArray[np.float64], tuple[float, float, float, float]]


def picture(
    model: Model,
    trajectory: Trajectory,
    path: str | Path,
    *,
    item: int = 0,
    poses: int = 8,
    side: Literal["auto", "x", "y"] = "auto",
) -> Path:
    """Draw a trajectory: poses at equal times side by side, and two curves.

    Args:
        model: The model that moved.
        trajectory: Its motion.
        path: File that ends in ``.png``, ``.svg`` or ``.pdf``.
        item: Batch item.
        poses: Number of poses.
        side: Horizontal world axis that runs to the right; ``"auto"`` takes the one along which
            the centre of mass travels farther.

    Returns:
        The path.

    Raises:
        MissingExtraError: If matplotlib is not installed.
        SettingsError: If an option is out of range.
        ShapeError: If the trajectory belongs to another model.
    """
    from solvers.figures import draw_curves, draw_polygons, open_figure, save_figure

    check_positive("poses", poses)
    check_choice("side", side, ("auto", "x", "y"))
    scene = build_scene(model, trajectory, items=(item,), frames_per_second=200.0)
    axis = _side_axis(scene, side)
    frames = np.unique(np.linspace(0, len(scene.time) - 1, poses).round().astype(int))
    rows = [pose_outlines(scene, frame, axis=axis) for frame in frames]
    slot = 1.15 * max(_span(row) for row in rows)
    polygons, colors = _side_by_side(rows, slot)
    if not polygons:
        raise SettingsError(f"model {model.name!r} has no visible moving shape to draw")
    tall = float(np.ptp(np.concatenate([corners[:, 1] for corners in polygons])))
    # As high as the poses need in true proportions, the title and labels besides.
    strip_height = min(max(10.0 * tall / (slot * len(frames)), 0.8), 6.0) + 0.8
    figure, (strip, above, below) = open_figure(width=11.0, heights=(strip_height, 1.9, 1.9))
    draw_polygons(strip, polygons, colors=colors)
    if scene.floor is not None:
        strip.axhline(scene.floor, color="0.35", linewidth=1.2, zorder=0)
    strip.set_title(f"{scene.name}: poses at equal times, from the side", fontsize="medium")
    strip.set_ylabel("height [m]")
    labels = [f"{scene.time[frame]:.2f} s" for frame in frames]
    strip.set_xticks(slot * np.arange(len(frames)), labels)
    strip.set_xlim(-0.5 * slot, (len(frames) - 0.5) * slot)
    travel = scene.center[:, 0, axis] - scene.center[0, 0, axis]
    height = scene.center[:, 0, 2]
    draw_curves(
        above,
        scene.time,
        {"height": height, "travel": travel},
        y_label="centre of mass [m]",
    )
    draw_curves(
        below,
        scene.time,
        {"speed": _speed(scene)},
        x_label="time [s]",
        y_label="its speed [m/s]",
    )
    return save_figure(figure, path)


def pose_outlines(scene: Scene, frame: int, *, axis: int) -> list[_Outline]:
    """Outlines of all moving shapes in one frame, seen from the side, far ones first.

    Args:
        scene: The scene; its first item is taken.
        frame: Index of the frame.
        axis: World axis that runs to the right, 0 or 1.

    Returns:
        Corners of every outline [m], shape ``(n, 2)``, with its colour.
    """
    depth_axis = 1 - axis
    # Seen so that the axes on the page are right-handed with the line of sight.
    toward_viewer = -1.0 if axis == 0 else 1.0
    outlines = []
    for shape in scene.shapes:
        if shape.kind == "plane" or shape.body < 0:
            continue
        points = _world_points(scene, shape, frame)
        depth = toward_viewer * points[:, depth_axis].mean()
        outlines.append((depth, _hull(points[:, [axis, 2]]), shape.color))
    outlines.sort(key=lambda entry: entry[0])
    return [(corners, color) for _, corners, color in outlines]


def _world_points(scene: Scene, shape: SceneShape, frame: int) -> NDArray[np.float64]:
    local = surface_of(shape.kind, shape.size, segments=24).vertices
    points = local @ rotation_matrices(shape.quaternion).T + shape.position
    rotation = rotation_matrices(scene.quaternion[frame, 0, shape.body])
    placed: NDArray[np.float64] = points @ rotation.T + scene.position[frame, 0, shape.body]
    return placed


def _hull(points: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.spatial import ConvexHull

    corners: NDArray[np.float64] = points[ConvexHull(points).vertices]
    return corners


def _span(row: list[_Outline]) -> float:
    if not row:
        return 1.0
    corners = np.concatenate([corners for corners, _ in row])
    return float(np.ptp(corners[:, 0]))


def _side_axis(scene: Scene, side: str) -> int:
    if side == "auto":
        travel = np.ptp(scene.center[:, 0, :2], axis=0)
        # A model that stays in place is usually drawn along x.
        return int(travel[1] > travel[0] + 0.05)
    return 0 if side == "x" else 1


def _speed(scene: Scene) -> NDArray[np.float64]:
    if len(scene.time) < 2:
        return np.zeros_like(scene.time)
    velocity = np.gradient(scene.center[:, 0], scene.time, axis=0)
    speed: NDArray[np.float64] = np.linalg.norm(velocity, axis=-1)
    return speed


def _side_by_side(
    rows: list[list[_Outline]], slot: float
) -> tuple[list[NDArray[np.float64]], list[tuple[float, float, float, float]]]:
    """Move every pose into the middle of its slot."""
    polygons, colors = [], []
    for index, row in enumerate(rows):
        if not row:
            continue
        x = np.concatenate([corners[:, 0] for corners, _ in row])
        shift = np.array([index * slot - 0.5 * (x.min() + x.max()), 0.0])
        polygons += [corners + shift for corners, _ in row]
        colors += [color for _, color in row]
    return polygons, colors
