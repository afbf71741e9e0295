"""From compiled arrays to records and tensors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from solvers.core import ModelError

from ._actuators import read_actuators, reflected_inertia
from ._model import Model
from ._mujoco_adapter import CompiledModel
from ._names import fill_names
from ._pairs import Candidate, find_candidates, split_supported
from ._parameters import check_parameters, parameter_shapes, rotation_matrix
from ._records import (
    Actuator,
    Body,
    Joint,
    JointKind,
    Keyframe,
    ModelWarning,
    Pair,
    Shape,
    ShapeKind,
)
from ._sensors import read_sensors
from ._unsupported import find_unsupported, merge_warnings

__all__ = ["read_compiled"]

# Stands for a bound of a joint's limit that is infinite: nothing comes so far [m, rad].
_FAR = 1e10
_PRIMITIVES = ("plane", "sphere", "capsule", "box", "ellipsoid", "cylinder")


def read_compiled(
    compiled: CompiledModel, *, label: str, found: Sequence[ModelWarning] = ()
) -> Model:
    """Make the model.

    Args:
        compiled: What MuJoCo compiled.
        label: Path of the file, or ``"<text>"``.
        found: What the source itself does not honour.

    Returns:
        The model with its warnings.

    Raises:
        ModelError: If a limit or range is empty, a number not finite, or a moving body without
            inertia.
    """
    names = {word: fill_names(found, word) for word, found in compiled.names.items()}
    names["body"] = fill_names(compiled.names["body"], "body", offset=1)
    names["sensor"] = fill_names(compiled.names["sensor"], compiled.kinds["sensor"])
    _check_reversed(compiled, names)
    bodies = _bodies(compiled, names["body"])
    joints = _joints(compiled, names["joint"])
    actuators, actuator_numbers, actuator_warnings = read_actuators(
        compiled, joints, names["actuator"]
    )
    candidates, dropped = split_supported(find_candidates(compiled), compiled.kinds["shape"])
    kept = [geom for geom, kind in enumerate(compiled.kinds["shape"]) if kind in _PRIMITIVES]
    shapes = _shapes(compiled, names["shape"], kept, candidates)
    new_index = {geom: index for index, geom in enumerate(kept)}
    pairs = [
        Pair(
            shape_a=new_index[candidate.geom_a],
            shape_b=new_index[candidate.geom_b],
            explicit=candidate.explicit,
            has_own_friction=candidate.has_own_friction,
        )
        for candidate in candidates
    ]
    sensors, sensor_notes = read_sensors(compiled, joints, actuators, names)
    warnings = [
        *found,
        *actuator_warnings,
        *find_unsupported(compiled, joints, candidates, dropped, names),
        *sensor_notes,
    ]

    sizes = compiled.sizes
    arrays = {
        **_body_numbers(compiled),
        **_joint_numbers(compiled, joints),
        **_shape_numbers(compiled, kept, candidates),
        **actuator_numbers,
    }
    expected = parameter_shapes(
        bodies=len(bodies),
        joints=len(joints),
        shapes=len(shapes),
        pairs=len(pairs),
        nq=sizes["nq"],
        nv=sizes["nv"],
        nu=sizes["nu"],
    )
    numbers = {name: _tensor(arrays[name]).reshape(shape) for name, shape in expected.items()}
    check_parameters(numbers, bodies=bodies, joints=joints, shapes=shapes, actuators=actuators)
    return Model(
        name=compiled.name or (Path(label).stem if label != "<text>" else "model"),
        source=label,
        bodies=tuple(bodies),
        joints=tuple(joints),
        shapes=tuple(shapes),
        actuators=tuple(actuators),
        pairs=tuple(pairs),
        sensors=sensors,
        keyframes=_keyframes(compiled, names["keyframe"], actuators),
        warnings=tuple(merge_warnings(warnings)),
        nq=sizes["nq"],
        nv=sizes["nv"],
        nu=sizes["nu"],
        initial_q=_tensor(compiled["qpos0"]),
        _numbers=tuple(numbers.items()),
    )


def _tensor(array: NDArray[Any]) -> torch.Tensor:
    return torch.tensor(np.asarray(array, dtype=np.float64))


def _check_reversed(compiled: CompiledModel, names: dict[str, tuple[str, ...]]) -> None:
    """Refuse ranges that MuJoCo ignores in silence because they are empty.

    A reversed range leaves a joint unlimited if ``limited`` is decided automatically, which no
    author means.
    """
    owners = compiled.control_actuator
    ranges = [
        ("joint", k, f"the limit of joint {names['joint'][k]!r}", row)
        for k, row in enumerate(compiled["jnt_range"])
    ]
    ranges += [
        (
            "control",
            int(owners[u]),
            f"the control range of actuator {names['actuator'][owners[u]]!r}",
            row,
        )
        for u, row in enumerate(compiled["actuator_ctrlrange"])
    ]
    ranges += [
        ("force", k, f"the force range of actuator {names['actuator'][k]!r}", row)
        for k, row in enumerate(compiled["actuator_forcerange"])
    ]
    for word, index, what, (lower, upper) in ranges:
        is_empty = lower > upper if word == "force" else lower >= upper
        if is_empty and (lower, upper) != (0.0, 0.0) and (word, index) not in compiled.ranges_off:
            raise ModelError(
                f"{what} is [{lower:g}, {upper:g}]; expected lower < upper. Swap the bounds or "
                "remove the range.",
                element=what,
            )


def _bodies(compiled: CompiledModel, names: Sequence[str]) -> list[Body]:
    first, count = compiled["body_jntadr"], compiled["body_jntnum"]
    return [
        Body(
            name=names[k],
            index=k - 1,
            parent=int(compiled["body_parentid"][k]) - 1,
            quaternion=_quaternion(compiled["body_quat"][k]),
            joints=tuple(range(int(first[k]), int(first[k]) + int(count[k]))) if count[k] else (),
        )
        for k in range(1, compiled.sizes["nbody"])
    ]


def _joints(compiled: CompiledModel, names: Sequence[str]) -> list[Joint]:
    no_limits = bool(compiled.disabled & {"limit", "constraint"})
    joints = []
    for k, kind in enumerate(compiled.kinds["joint"]):
        is_scalar = kind in ("hinge", "slide")
        q_index = int(compiled["jnt_qposadr"][k])
        x, y, z = (float(entry) for entry in compiled["jnt_axis"][k])
        is_limited = bool(
            compiled["jnt_limited"][k] and np.isfinite(compiled["jnt_range"][k]).any()
        )
        joints.append(
            Joint(
                name=names[k],
                index=k,
                kind=cast(JointKind, kind),
                body=int(compiled["jnt_bodyid"][k]) - 1,
                axis=(x, y, z),
                q_index=q_index,
                v_index=int(compiled["jnt_dofadr"][k]),
                reference=float(compiled["qpos0"][q_index]) if is_scalar else 0.0,
                is_limited=is_limited and is_scalar and not no_limits,
            )
        )
    return joints


def _shapes(
    compiled: CompiledModel,
    names: Sequence[str],
    kept: Sequence[int],
    candidates: Sequence[Candidate],
) -> list[Shape]:
    touching = {geom for candidate in candidates for geom in (candidate.geom_a, candidate.geom_b)}
    shapes = []
    for index, geom in enumerate(kept):
        red, green, blue, alpha = (float(channel) for channel in compiled["geom_rgba"][geom])
        shapes.append(
            Shape(
                name=names[geom],
                index=index,
                kind=cast(ShapeKind, compiled.kinds["shape"][geom]),
                body=int(compiled["geom_bodyid"][geom]) - 1,
                quaternion=_quaternion(compiled["geom_quat"][geom]),
                collides=geom in touching,
                rgba=(red, green, blue, alpha),
            )
        )
    return shapes


def _body_numbers(compiled: CompiledModel) -> dict[str, NDArray[np.float64]]:
    rotation = np.array(
        [rotation_matrix(_quaternion(row)) for row in compiled["body_iquat"][1:]]
    ).reshape(-1, 3, 3)
    inertia = np.einsum("bij,bj,bkj->bik", rotation, compiled["body_inertia"][1:], rotation)
    gravity = compiled.option["gravity"]
    return {
        "gravity": np.zeros(3) if "gravity" in compiled.disabled else gravity,
        "timestep": compiled.option["timestep"],
        "mass": compiled["body_mass"][1:],
        "center_of_mass": compiled["body_ipos"][1:],
        "inertia": inertia[:, [0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]],
        "body_position": compiled["body_pos"][1:],
    }


def _joint_numbers(
    compiled: CompiledModel, joints: Sequence[Joint]
) -> dict[str, NDArray[np.float64]]:
    owner = np.asarray(compiled["dof_jntid"], dtype=np.int64)
    armature, damping = reflected_inertia(compiled, joints)
    limited = np.array([joint.is_limited for joint in joints], dtype=bool)
    lower, upper = np.clip(compiled["jnt_range"], -_FAR, _FAR).T
    has_friction = not compiled.disabled & {"frictionloss", "constraint"}
    return {
        "joint_anchor": compiled["jnt_pos"],
        "stiffness": compiled["jnt_stiffness"][owner] * ("spring" not in compiled.disabled),
        "spring_reference": compiled["qpos_spring"],
        "damping": (compiled["dof_damping"] + damping) * ("damper" not in compiled.disabled),
        "armature": compiled["dof_armature"] + armature,
        "friction_loss": compiled["dof_frictionloss"] * has_friction,
        "limit_lower": np.where(limited, lower, 0.0),
        "limit_upper": np.where(limited, upper, 0.0),
    }


def _shape_numbers(
    compiled: CompiledModel, kept: Sequence[int], candidates: Sequence[Candidate]
) -> dict[str, NDArray[np.float64]]:
    rows = np.array(kept, dtype=np.int64)
    return {
        "shape_size": compiled["geom_size"][rows],
        "shape_position": compiled["geom_pos"][rows],
        "friction": compiled["geom_friction"][rows, 0],
        "pair_friction": np.array(
            [candidate.friction for candidate in candidates], dtype=np.float64
        ),
    }


def _keyframes(
    compiled: CompiledModel, names: Sequence[str], actuators: Sequence[Actuator]
) -> tuple[Keyframe, ...]:
    return tuple(
        Keyframe(
            name=names[k],
            time=float(compiled["key_time"][k]),
            q=_tensor(compiled["key_qpos"][k]),
            v=_tensor(compiled["key_qvel"][k]),
            control=_tensor(compiled["key_ctrl"][k]).reshape(len(actuators)),
        )
        for k in range(compiled.sizes["nkey"])
    )


def _quaternion(row: NDArray[np.float64]) -> tuple[float, float, float, float]:
    w, x, y, z = (float(entry) for entry in row)
    return w, x, y, z
