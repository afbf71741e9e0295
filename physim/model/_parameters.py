"""Names, shapes and admissible values of the model's tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from solvers.core import ModelError, ShapeError

from ._names import close_matches
from ._records import Actuator, Body, Joint, Shape

__all__ = [
    "check_parameters",
    "check_replacements",
    "parameter_shapes",
    "rotation_matrix",
]

_NON_NEGATIVE = (
    "mass",
    "damping",
    "armature",
    "friction_loss",
    "friction",
    "pair_friction",
    "shape_size",
)
_BOUNDS = frozenset({"control_lower", "control_upper", "force_lower", "force_upper"})
# Number of leading sizes that a shape must have positive: radius; radius and half length; half
# axes.
_SIZES = {"plane": 0, "sphere": 1, "capsule": 2, "cylinder": 2, "box": 3, "ellipsoid": 3}
# MuJoCo's own threshold for masses [kg] and principal inertias [kg m^2] of moving bodies.
_SMALLEST = 1e-15


def parameter_shapes(
    *, bodies: int, joints: int, shapes: int, pairs: int, nq: int, nv: int, nu: int
) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter.

    Args:
        bodies: Number of bodies without the world.
        joints: Number of joints.
        shapes: Number of shapes.
        pairs: Number of pairs that may touch.
        nq: Number of positions.
        nv: Number of velocities.
        nu: Number of controls.

    Returns:
        Shapes by name, in the order in which they are documented.
    """
    return {
        "gravity": (3,),
        "timestep": (),
        "mass": (bodies,),
        "center_of_mass": (bodies, 3),
        "inertia": (bodies, 6),
        "body_position": (bodies, 3),
        "joint_anchor": (joints, 3),
        "stiffness": (nv,),
        "spring_reference": (nq,),
        "damping": (nv,),
        "armature": (nv,),
        "friction_loss": (nv,),
        "limit_lower": (joints,),
        "limit_upper": (joints,),
        "shape_size": (shapes, 3),
        "shape_position": (shapes, 3),
        "friction": (shapes,),
        "pair_friction": (pairs,),
        "gear": (nu, 6),
        "gain": (nu,),
        "bias": (nu, 3),
        "control_lower": (nu,),
        "control_upper": (nu,),
        "force_lower": (nu,),
        "force_upper": (nu,),
    }


def check_replacements(new: Mapping[str, object], old: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Turn user values into float64 tensors of the right shape.

    Args:
        new: Values by parameter name: tensors (gradients flow through), arrays or numbers.
        old: The parameters they replace.

    Returns:
        Copies of the new values.

    Raises:
        ModelError: If a name is unknown, or a value is no number or lies on another device.
        ShapeError: If a shape differs.
    """
    replacements = {}
    for name, value in new.items():
        if name not in old:
            raise ModelError(
                f"unknown parameter {name!r}.{close_matches(name, old)}", element=str(name)
            )
        expected = old[name]
        try:
            tensor = (
                value
                if isinstance(value, Tensor)
                else torch.tensor(np.asarray(value, dtype=np.float64))
            )
        except (TypeError, ValueError) as error:
            raise ModelError(
                f"parameter {name!r} cannot be read as numbers: {error}.", element=name
            ) from error
        if tensor.is_complex():
            raise ModelError(f"parameter {name!r} is complex; give real numbers.", element=name)
        if tensor.shape != expected.shape:
            raise ShapeError(
                f"parameter {name!r} has shape {tuple(tensor.shape)}, expected "
                f"{tuple(expected.shape)}."
            )
        if tensor.device != expected.device:
            raise ModelError(
                f"parameter {name!r} is on {tensor.device}, the model on {expected.device}; "
                "move it with .to().",
                element=name,
            )
        replacements[name] = tensor.to(torch.float64).clone()
    return replacements


def check_parameters(
    parameters: Mapping[str, Tensor],
    *,
    bodies: Sequence[Body],
    joints: Sequence[Joint],
    shapes: Sequence[Shape],
    actuators: Sequence[Actuator],
) -> None:
    """Check that the numbers of a model are physical.

    Args:
        parameters: All parameters, of the right shapes.
        bodies: The bodies.
        joints: The joints.
        shapes: The shapes.
        actuators: The actuators.

    Raises:
        ModelError: If a value is not finite, negative where it may not be, a limit or range is
            empty, or a moving body has no mass or no positive definite inertia.
    """
    values = {name: tensor.detach().cpu().numpy() for name, tensor in parameters.items()}
    for name, value in values.items():
        bad = np.isnan(value) if name in _BOUNDS else ~np.isfinite(value)
        if bad.any():
            raise ModelError(
                f"{_place(name, bad, bodies, joints, shapes, actuators)} is not finite; give a "
                "number."
            )
    for name in _NON_NEGATIVE:
        if (values[name] < 0).any():
            place = _place(name, values[name] < 0, bodies, joints, shapes, actuators)
            raise ModelError(
                f"{place} is negative ({values[name].min():g}); expected zero or more."
            )
    if values["timestep"] <= 0:
        raise ModelError(
            f"timestep is {values['timestep']:g} s; expected a positive number.", element="timestep"
        )
    _check_ranges(values, joints, actuators)
    for shape in shapes:
        needed = values["shape_size"][shape.index, : _SIZES[shape.kind]]
        if (needed <= 0).any():
            raise ModelError(
                f"shape {shape.name!r} ({shape.kind}) has size {needed.tolist()}; expected "
                "positive numbers.",
                element=shape.name,
            )
    _check_inertia(values, bodies)


def _place(
    name: str,
    bad: NDArray[np.bool_],
    bodies: Sequence[Body],
    joints: Sequence[Joint],
    shapes: Sequence[Shape],
    actuators: Sequence[Actuator],
) -> str:
    """Name the first bad entry of a parameter by the element it belongs to."""
    if bad.ndim == 0:
        return f"parameter {name!r}"
    first = int(np.argwhere(bad)[0][0])
    owners: Sequence[Body | Joint | Shape | Actuator] = ()
    if name in ("mass", "center_of_mass", "inertia", "body_position"):
        owners = bodies
    elif name in ("joint_anchor", "limit_lower", "limit_upper"):
        owners = joints
    elif name in ("shape_size", "shape_position", "friction"):
        owners = shapes
    elif name in ("gear", "gain", "bias") or name in _BOUNDS:
        owners = actuators
    elif name in ("stiffness", "damping", "armature", "friction_loss"):
        before = [joint for joint in joints if joint.v_index <= first]
        return f"parameter {name!r} of joint {before[-1].name!r}"
    owner = (
        f" of {type(owners[first]).__name__.lower()} {owners[first].name!r}"
        if owners
        else f" at index {first}"
    )
    return f"parameter {name!r}{owner}"


def _check_ranges(
    values: Mapping[str, NDArray[np.float64]],
    joints: Sequence[Joint],
    actuators: Sequence[Actuator],
) -> None:
    ranges = [
        (f"the limit of joint {joint.name!r}", "limit", joint.index)
        for joint in joints
        if joint.is_limited
    ]
    ranges += [
        (f"the control range of actuator {a.name!r}", "control", a.index)
        for a in actuators
        if a.is_control_limited
    ]
    for what, prefix, index in ranges:
        lower, upper = values[f"{prefix}_lower"][index], values[f"{prefix}_upper"][index]
        if not lower < upper:
            raise ModelError(
                f"{what} is [{lower:g}, {upper:g}]; expected lower < upper.", element=what
            )
    for actuator in actuators:
        # Equal bounds fix the force, which MuJoCo allows.
        lower, upper = values["force_lower"][actuator.index], values["force_upper"][actuator.index]
        if actuator.is_force_limited and not lower <= upper:
            raise ModelError(
                f"the force range of actuator {actuator.name!r} is [{lower:g}, {upper:g}]; "
                "expected lower <= upper.",
                element=actuator.name,
            )


def _check_inertia(values: Mapping[str, NDArray[np.float64]], bodies: Sequence[Body]) -> None:
    for body in bodies:
        smallest, largest = np.linalg.eigvalsh(_matrix(values["inertia"][body.index]))[[0, 2]]
        if smallest < -1e-12 * max(largest, 1.0):
            raise ModelError(
                f"body {body.name!r} has an inertia with the eigenvalue {smallest:g} kg m^2; "
                "expected a positive definite "
                "matrix (order xx, yy, zz, xy, xz, yz).",
                element=body.name,
            )
    for body, mass, inertia in _welded_groups(values, bodies):
        smallest, largest = np.linalg.eigvalsh(inertia)[[0, 2]]
        if mass < _SMALLEST or smallest < max(_SMALLEST, 1e-13 * largest):
            raise ModelError(
                f"the moving body {body.name!r} with all that is welded to it has mass {mass:g} "
                "kg and smallest principal "
                f"inertia {smallest:g} kg m^2; expected more than {_SMALLEST:g}. Give it a "
                "shape with mass or an <inertial>.",
                element=body.name,
            )


def _welded_groups(
    values: Mapping[str, NDArray[np.float64]], bodies: Sequence[Body]
) -> Iterator[tuple[Body, float, NDArray[np.float64]]]:
    """Each body with joints, and mass and central inertia of it and what is welded to it."""
    members: dict[int, list[int]] = {}
    head: dict[int, int] = {-1: -1}
    frame: dict[int, tuple[NDArray[np.float64], NDArray[np.float64]]] = {
        -1: (np.eye(3), np.zeros(3))
    }
    for body in bodies:
        k = body.index
        if body.joints:
            head[k], frame[k] = k, (np.eye(3), np.zeros(3))
        else:
            rotation, origin = frame[body.parent]
            head[k] = head[body.parent]
            frame[k] = (
                rotation @ rotation_matrix(body.quaternion),
                origin + rotation @ values["body_position"][k],
            )
        members.setdefault(head[k], []).append(k)
    for top, group in members.items():
        if top < 0:
            continue
        mass = float(values["mass"][group].sum())
        centers = np.array([frame[k][1] + frame[k][0] @ values["center_of_mass"][k] for k in group])
        center = values["mass"][group] @ centers / mass if mass > 0 else centers.mean(0)
        inertia = np.zeros((3, 3))
        for k, place in zip(group, centers - center, strict=True):
            rotation = frame[k][0]
            inertia += rotation @ _matrix(values["inertia"][k]) @ rotation.T
            inertia += values["mass"][k] * (place @ place * np.eye(3) - np.outer(place, place))
        yield bodies[top], mass, inertia


def _matrix(six: NDArray[np.float64]) -> NDArray[np.float64]:
    xx, yy, zz, xy, xz, yz = six
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


def rotation_matrix(quaternion: tuple[float, float, float, float]) -> NDArray[np.float64]:
    """Rotation of a unit quaternion.

    Args:
        quaternion: ``(w, x, y, z)``.

    Returns:
        The matrix that maps the turned frame's coordinates to the outer frame's, shape ``(3, 3)``.
    """
    w, x, y, z = quaternion
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
