"""A film of a motion: one page that any browser shows, without a network or a graphics card."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from physim.view._scene import Scene, build_scene
from physim.view._surface import surface_of
from solvers.core import check_output, write_whole

if TYPE_CHECKING:
    from physim.dynamics import Trajectory
    from physim.model import Model

__all__ = ["film"]


def film(
    model: Model,
    trajectory: Trajectory,
    path: str | Path,
    *,
    items: Sequence[int] | None = None,
    frames_per_second: float = 60.0,
) -> Path:
    """Write a film as one self-contained HTML file.

    Drag to orbit, wheel to zoom, space to play; the slider goes to any time.

    Args:
        model: The model that moved.
        trajectory: Its motion.
        path: File that ends in ``.html``.
        items: Batch items to choose from in the film; the first four at most by default.
        frames_per_second: Frames per second of simulated time at most. The viewer interpolates.

    Returns:
        The path.

    Raises:
        SettingsError: If the ending is wrong, the folder does not exist or an item does not exist.
        ShapeError: If the trajectory belongs to another model.

    Cost: about 28 bytes for each frame, item and body, times 4/3.
    """
    target = check_output("path", path, (".html", ".htm"))
    if items is None:
        items = range(min(int(trajectory.q.shape[1]), 4))
    scene = build_scene(model, trajectory, items=items, frames_per_second=frames_per_second)
    room = files("physim.view")
    page = (room / "viewer.html").read_text(encoding="utf-8")
    for mark, text in (
        ("@TITLE@", html.escape(f"{scene.name} - {scene.time[-1]:.3g} s")),
        ("@VIEWER@", (room / "viewer.js").read_text(encoding="utf-8")),
        ("@SCENE@", _embedded(_describe(scene))),
    ):
        page = page.replace(mark, text)
    with write_whole(target) as partial:
        partial.write_text(page, encoding="utf-8")
    return target


def _describe(scene: Scene) -> dict[str, Any]:
    return {
        "name": scene.name,
        "items": list(scene.items),
        "bodies": int(scene.position.shape[2]),
        "time": _packed(scene.time),
        "position": _packed(scene.position),
        "quaternion": _packed(_continuous(scene.quaternion)),
        "center": _packed(scene.center),
        "shapes": [
            {
                "kind": shape.kind,
                "body": shape.body,
                "position": shape.position.tolist(),
                "quaternion": shape.quaternion.tolist(),
                "color": [round(channel, 3) for channel in shape.color],
                **({} if shape.kind == "plane" else _mesh(shape.kind, shape.size)),
            }
            for shape in scene.shapes
        ],
    }


def _mesh(kind: str, size: NDArray[np.float64]) -> dict[str, Any]:
    surface = surface_of(kind, size)
    return {"vertices": _packed(surface.vertices), "faces": surface.faces.ravel().tolist()}


def _continuous(quaternion: NDArray[np.float64]) -> NDArray[np.float64]:
    """Choose signs so that neighbouring frames interpolate along the shorter arc."""
    dots = (quaternion[1:] * quaternion[:-1]).sum(-1, keepdims=True)
    signs = np.cumprod(np.where(dots < 0.0, -1.0, 1.0), axis=0)
    return np.concatenate([quaternion[:1], quaternion[1:] * signs])


def _packed(array: NDArray[np.floating[Any]]) -> str:
    return base64.b64encode(np.ascontiguousarray(array, dtype="<f4").tobytes()).decode("ascii")


def _embedded(description: dict[str, Any]) -> str:
    # Names come from model files: no "<" may end the script element.
    return json.dumps(description, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
