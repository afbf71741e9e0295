"""What is to be seen: shapes with their colours, and where the bodies are in every frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from solvers.core import SettingsError, ShapeError

if TYPE_CHECKING:
    from physim.dynamics import Trajectory
    from physim.model import Model

__all__ = ["Scene", "SceneShape", "build_scene", "rotation_matrices"]

# One colour per body for models that leave their shapes grey, so that limbs can be told apart.
_PALETTE = (
    (0.91, 0.56, 0.28),
    (0.30, 0.56, 0.78),
    (0.45, 0.68, 0.42),
    (0.80, 0.42, 0.44),
    (0.56, 0.47, 0.72),
    (0.87, 0.73, 0.33),
    (0.36, 0.66, 0.66),
    (0.72, 0.52, 0.60),
)
_DEFAULT_GREY = (0.5, 0.5, 0.5)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SceneShape:
    """One primitive.

    Attributes:
        kind: Its kind.
        body: Index of its body, -1 for the world.
        position: In the body frame [m], shape ``(3,)``.
        quaternion: In the body frame, ``(w, x, y, z)``.
        size: As in the model's parameter ``shape_size`` [m], shape ``(3,)``.
        color: Red, green, blue and opacity in [0, 1].
    """

    kind: str
    body: int
    position: NDArray[np.float64]
    quaternion: NDArray[np.float64]
    size: NDArray[np.float64]
    color: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scene:
    """Shapes and the motion of the bodies they are fixed to.

    Attributes:
        name: Name of the model.
        shapes: All visible shapes, planes among them.
        items: Batch items shown.
        time: Times of the frames [s], shape ``(F,)``.
        position: Body origins [m], shape ``(F, I, nbody, 3)``.
        quaternion: Body orientations ``(w, x, y, z)``, shape ``(F, I, nbody, 4)``.
        center: Centre of mass of all bodies [m], shape ``(F, I, 3)``.
    """

    name: str
    shapes: tuple[SceneShape, ...]
    items: tuple[int, ...]
    time: NDArray[np.float64]
    position: NDArray[np.float64]
    quaternion: NDArray[np.float64]
    center: NDArray[np.float64]

    @property
    def floor(self) -> float | None:
        """Height of the first level plane of the world [m], or None."""
        for shape in self.shapes:
            is_level = abs(rotation_matrices(shape.quaternion)[2, 2]) > 0.999
            if shape.kind == "plane" and shape.body < 0 and is_level:
                return float(shape.position[2])
        return None


def build_scene(
    model: Model,
    trajectory: Trajectory,
    *,
    items: Sequence[int] = (0,),
    frames_per_second: float = 60.0,
) -> Scene:
    """Place all bodies of some items of a trajectory.

    Args:
        model: The model that moved.
        trajectory: Its motion; frames after the first that is not finite are left out.
        items: Batch items to show.
        frames_per_second: Frames per second of simulated time at most.

    Returns:
        The scene.

    Raises:
        ShapeError: If the trajectory belongs to another model.
        SettingsError: If an item does not exist or nothing is finite.
    """
    import torch

    from physim.dynamics import Simulator, State

    batch = int(trajectory.q.shape[1])
    if int(trajectory.q.shape[2]) != model.nq:
        raise ShapeError(
            f"the trajectory has {int(trajectory.q.shape[2])} positions but model "
            f"{model.name!r} has {model.nq}; give the model that made it"
        )
    wrong = [item for item in items if not 0 <= item < batch]
    if wrong or not items:
        raise SettingsError(f"items is {list(items)}, expected some of 0 to {batch - 1}")
    if not frames_per_second > 0:
        raise SettingsError(f"frames_per_second is {frames_per_second}, expected more than 0")
    q = trajectory.q.detach()[:, list(items)]
    finite = torch.isfinite(q).all(-1).all(-1).long().cumprod(0)
    whole = int(finite.sum())
    if not whole:
        raise SettingsError(f"items {list(items)} of the trajectory hold no finite state")
    stride = max(1, round(1.0 / (frames_per_second * trajectory.timestep) - 1e-9))
    # The last state always belongs to the picture, whatever the stride.
    frames = sorted({*range(0, whole, stride), whole - 1})
    q = q[frames]
    flat = q.reshape(-1, model.nq)
    simulator = Simulator(model, timestep=trajectory.timestep, backend="reference")
    poses = simulator.forward_kinematics(State(q=flat, v=torch.zeros(len(flat), model.nv)))
    parts = (len(frames), len(items), len(model.bodies))
    mass = model.parameters()["mass"].detach()
    center = torch.einsum("fbk,b->fk", poses.center, mass / mass.sum().clamp(min=1e-300))
    return Scene(
        name=model.name,
        shapes=_visible_shapes(model),
        items=tuple(items),
        time=trajectory.time.numpy()[frames],
        position=poses.position.detach().numpy().reshape(*parts, 3),
        quaternion=_quaternions(poses.rotation.detach().numpy().reshape(*parts, 3, 3)),
        center=center.numpy().reshape(*parts[:2], 3),
    )


def rotation_matrices(quaternion: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotation matrices of unit quaternions ``(w, x, y, z)``, shape ``(..., 3, 3)``."""
    w, x, y, z = np.moveaxis(np.asarray(quaternion, dtype=np.float64), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def _quaternions(rotation: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.spatial.transform import Rotation

    flat = Rotation.from_matrix(rotation.reshape(-1, 3, 3)).as_quat()
    first = np.roll(flat, 1, axis=-1)
    quaternion: NDArray[np.float64] = first.reshape(*rotation.shape[:-2], 4)
    return quaternion


def _visible_shapes(model: Model) -> tuple[SceneShape, ...]:
    parameters = model.parameters()
    size = parameters["shape_size"].detach().numpy()
    position = parameters["shape_position"].detach().numpy()
    return tuple(
        SceneShape(
            kind=shape.kind,
            body=shape.body,
            position=position[shape.index],
            quaternion=np.array(shape.quaternion, dtype=np.float64),
            size=size[shape.index],
            color=_color(shape.rgba, shape.body),
        )
        for shape in model.shapes
        # Nearly transparent shapes are markers that their authors hid.
        if shape.rgba[3] > 0.05
    )


def _color(rgba: tuple[float, float, float, float], body: int) -> tuple[float, float, float, float]:
    is_default = max(abs(a - b) for a, b in zip(rgba[:3], _DEFAULT_GREY, strict=True)) < 1e-3
    if is_default and body >= 0:
        return (*_PALETTE[body % len(_PALETTE)], rgba[3])
    return rgba
