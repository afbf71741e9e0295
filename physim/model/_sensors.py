"""Sensors: records of what a file measures, and their reading from MuJoCo's arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

from ._mujoco_adapter import CompiledModel
from ._records import Actuator, Joint, ModelWarning

__all__ = ["Mount", "Sensor", "SensorKind", "read_sensors"]

SensorKind = Literal[
    "jointpos",
    "jointvel",
    "ballquat",
    "ballangvel",
    "jointactfrc",
    "actuatorpos",
    "actuatorvel",
    "actuatorfrc",
    "framepos",
    "framequat",
    "framexaxis",
    "frameyaxis",
    "framezaxis",
    "framelinvel",
    "frameangvel",
    "framelinacc",
    "frameangacc",
    "gyro",
    "velocimeter",
    "accelerometer",
    "magnetometer",
    "force",
    "torque",
    "touch",
    "subtreecom",
    "subtreelinvel",
    "subtreeangmom",
    "e_potential",
    "e_kinetic",
]
_ON_JOINT = ("jointpos", "jointvel", "ballquat", "ballangvel", "jointactfrc")
_ON_ACTUATOR = ("actuatorpos", "actuatorvel", "actuatorfrc")
_ON_SUBTREE = ("subtreecom", "subtreelinvel", "subtreeangmom")
_ON_NOTHING = ("e_potential", "e_kinetic")
_SOLIDS = ("sphere", "capsule", "ellipsoid", "cylinder", "box")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A frame on a body.

    Attributes:
        name: Its name in the file; empty if it has none.
        kind: What the file calls it; ``"body"`` is the frame of a body's inertia, at its centre of
            mass, ``"xbody"`` the body's own frame.
        body: Index of the body that carries it, -1 for the world.
        position: Origin in the body frame [m].
        quaternion: Orientation in the body frame, ``(w, x, y, z)``, unit.
        solid: Shape of a site: ``"sphere"``, ``"capsule"``, ``"ellipsoid"``, ``"cylinder"`` or
            ``"box"``; empty for other frames.
        size: Radius; radius, half length; half axes of the solid [m].
    """

    name: str
    kind: Literal["site", "body", "xbody", "geom", "camera"]
    body: int
    position: tuple[float, float, float]
    quaternion: tuple[float, float, float, float]
    solid: str = ""
    size: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensor:
    """Something that the file measures.

    Attributes:
        name: Name in the file, or ``<kind>_<index in the file>``.
        index: Position in ``model.sensors``.
        kind: MJCF's word for what is measured, ``"jointactfrc"`` for ``jointactuatorfrc``.
        dim: Number of values.
        joint: Index of the joint that it belongs to, else -1.
        actuator: Index of the actuator that it belongs to, else -1.
        body: Index of the body that roots a subtree, -1 for the world or if not of that kind.
        mount: Frame that is measured, if any.
        reference: Frame in which it is expressed; None for the world.
        lower: Bound below which values are cut off; -inf if there is none.
        upper: Bound above which values are cut off; inf if there is none.
        field: Magnetic field in world axes, of a magnetometer.
    """

    name: str
    index: int
    kind: SensorKind
    dim: int
    joint: int = -1
    actuator: int = -1
    body: int = -1
    mount: Mount | None = None
    reference: Mount | None = None
    lower: float = -float("inf")
    upper: float = float("inf")
    field: tuple[float, float, float] = (0.0, 0.0, 0.0)


def read_sensors(
    compiled: CompiledModel,
    joints: Sequence[Joint],
    actuators: Sequence[Actuator],
    names: dict[str, tuple[str, ...]],
) -> tuple[tuple[Sensor, ...], list[ModelWarning]]:
    """Read all sensors.

    Args:
        compiled: The compiled model.
        joints: The model's joints.
        actuators: The model's actuators.
        names: Names per kind of element, unnamed ones filled in.

    Returns:
        Records of those that physim evaluates, and notes about the others.
    """
    sensors: list[Sensor] = []
    notes: list[ModelWarning] = []
    for k, kind in enumerate(compiled.kinds["sensor"]):
        name = names["sensor"][k]
        reason = _refusal(compiled, k, actuators)
        if reason:
            notes.append(_note(name, f"left out: {reason}."))
            continue
        if compiled["sensor_delay"][k] != 0 or compiled["sensor_interval"][k].any():
            notes.append(_note(name, "read without the delay and interval of the file."))
        target, cutoff = int(compiled["sensor_objid"][k]), float(compiled["sensor_cutoff"][k])
        data = compiled.kinds["sensor data"][k]
        has_cutoff = cutoff > 0 and data in ("real", "positive")
        is_mounted = kind not in (*_ON_JOINT, *_ON_ACTUATOR, *_ON_SUBTREE, *_ON_NOTHING)
        x, y, z = (float(entry) for entry in compiled.option["magnetic"])
        sensors.append(
            Sensor(
                name=name,
                index=len(sensors),
                kind=cast(SensorKind, kind),
                dim=int(compiled["sensor_dim"][k]),
                joint=joints[target].index if kind in _ON_JOINT else -1,
                actuator=_control(compiled, target) if kind in _ON_ACTUATOR else -1,
                body=target - 1 if kind in _ON_SUBTREE else -1,
                mount=_mount(compiled, "object", k, names) if is_mounted else None,
                reference=_mount(compiled, "reference", k, names),
                lower=-cutoff if has_cutoff and data == "real" else -float("inf"),
                upper=cutoff if has_cutoff else float("inf"),
                field=(x, y, z) if kind == "magnetometer" else (0.0, 0.0, 0.0),
            )
        )
    return tuple(sensors), notes


def _note(name: str, message: str) -> ModelWarning:
    return ModelWarning(element=f"sensor '{name}'", message=message, changes_dynamics=False)


def _control(compiled: CompiledModel, actuator: int) -> int:
    """Index in the control vector of an actuator's first control."""
    return int(list(compiled.control_actuator).index(actuator))


def _refusal(compiled: CompiledModel, k: int, actuators: Sequence[Actuator]) -> str:
    """Why a sensor is not evaluated; empty if it is."""
    kind, target = compiled.kinds["sensor"][k], int(compiled["sensor_objid"][k])
    if kind not in get_args(SensorKind):
        return f"sensors of kind {kind} are not evaluated"
    if kind in _ON_ACTUATOR:
        dofs = actuators[_control(compiled, target)].dofs
        if not dofs:
            return "its actuator does nothing here"
        has_length = len(dofs) == 1 or kind != "actuatorpos"
        return "" if has_length else "an actuator of a ball or free joint has no length here"
    if kind == "touch" and compiled.kinds["site"][target] not in _SOLIDS:
        return f"a site of type {compiled.kinds['site'][target]} is no zone of touch"
    for role, index in (("object", target), ("reference", int(compiled["sensor_refid"][k]))):
        if (
            compiled.kinds[f"sensor {role}"][k] == "camera"
            and index >= 0
            and compiled.kinds["camera"][index] != "fixed"
        ):
            return f"its camera moves by itself (mode {compiled.kinds['camera'][index]})"
    return ""


def _mount(
    compiled: CompiledModel, role: str, k: int, names: dict[str, tuple[str, ...]]
) -> Mount | None:
    kind = compiled.kinds[f"sensor {role}"][k]
    index = int(compiled["sensor_objid" if role == "object" else "sensor_refid"][k])
    if index < 0 or kind not in ("site", "body", "xbody", "geom", "camera"):
        return None
    if kind == "xbody":
        body, position, quaternion = index, [0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]
    elif kind == "body":
        body, position = index, list(compiled["body_ipos"][index])
        quaternion = list(compiled["body_iquat"][index])
    else:
        prefix = "cam" if kind == "camera" else kind
        body = int(compiled[f"{prefix}_bodyid"][index])
        position = list(compiled[f"{prefix}_pos"][index])
        quaternion = list(compiled[f"{prefix}_quat"][index])
    word = {"xbody": "body", "geom": "shape"}.get(kind, kind)
    a, b, c = (float(entry) for entry in position)
    w, x, y, z = (float(entry) for entry in quaternion)
    r, s, t = (float(e) for e in compiled["site_size"][index]) if kind == "site" else (0.0,) * 3
    return Mount(
        name=names[word][index],
        kind=cast(Literal["site", "body", "xbody", "geom", "camera"], kind),
        body=body - 1,
        position=(a, b, c),
        quaternion=(w, x, y, z),
        solid=compiled.kinds["site"][index] if kind == "site" else "",
        size=(r, s, t),
    )
