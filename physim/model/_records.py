"""The immutable records a model consists of: topology and names.

Numbers (masses, lengths, gains) live in tensors, see :meth:`physim.model.Model.parameters`; a
record holds what fixes the structure of the equations: indices, kinds, axes and orientations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "Actuator",
    "ActuatorKind",
    "Body",
    "Joint",
    "JointKind",
    "Keyframe",
    "ModelWarning",
    "Pair",
    "Shape",
    "ShapeKind",
]

JointKind = Literal["free", "ball", "hinge", "slide"]
ShapeKind = Literal["plane", "sphere", "capsule", "box", "ellipsoid", "cylinder"]
ActuatorKind = Literal["motor", "position", "velocity", "general"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """A rigid body.

    Attributes:
        name: Name in the file, or ``body_<index>`` if it has none.
        index: Position in ``model.bodies``; a parent always comes before its children.
        parent: Index of the parent body, -1 for the world, which is not in the list.
        quaternion: Orientation in the parent frame with all joints at their reference, ``(w, x, y,
            z)``, unit.
        joints: Indices into ``model.joints``, in series order; empty if the body is welded to its
            parent.
    """

    name: str
    index: int
    parent: int
    quaternion: tuple[float, float, float, float]
    joints: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Joint:
    """A joint between a body and its parent; several joints of one body act in series.

    Attributes:
        name: Name in the file, or ``joint_<index>``.
        index: Position in ``model.joints``.
        kind: ``"free"`` (7 positions, 6 velocities), ``"ball"`` (4, 3), ``"hinge"`` or ``"slide"``
            (1, 1).
        body: Index of the body that it moves.
        axis: Unit axis of a hinge or slide in the body frame.
        q_index: First entry of its positions in ``q``.
        v_index: First entry of its velocities in ``v``.
        reference: Position of a hinge [rad] or slide [m] in the configuration that the file draws;
            else 0.
        is_limited: Whether ``limit_lower`` and ``limit_upper`` bind; never for free and ball
            joints.
    """

    name: str
    index: int
    kind: JointKind
    body: int
    axis: tuple[float, float, float]
    q_index: int
    v_index: int
    reference: float
    is_limited: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A geometric primitive fixed to a body.

    Attributes:
        name: Name in the file, or ``shape_<index>``.
        index: Position in ``model.shapes``.
        kind: The primitive; a plane is the half space below the local z axis, infinite whatever its
            drawn size.
        body: Index of its body, -1 for the world.
        quaternion: Orientation in the body frame, ``(w, x, y, z)``, unit.
        collides: Whether it appears in one of ``model.pairs``.
        rgba: Colour, each channel in [0, 1].
    """

    name: str
    index: int
    kind: ShapeKind
    body: int
    quaternion: tuple[float, float, float, float]
    collides: bool
    rgba: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Actuator:
    """One entry of the control vector and the force it makes.

    ``force = gain * u + bias[0] + bias[1] * length + bias[2] * rate``, clamped to the force range,
    with ``length = gear * q`` and ``rate = gear * v``; the generalized force is ``gear * force`` on
    each driven velocity.

    Attributes:
        name: Name in the file, or ``actuator_<index>``.
        index: Position in ``model.actuators`` and in the control vector.
        kind: ``"motor"`` (no bias), ``"position"`` or ``"velocity"`` servo, ``"general"`` for all
            else.
        joint: Index of the driven joint; -1 if the actuator drives no joint and therefore does
            nothing here.
        v_index: First driven velocity, -1 if none.
        dofs: Driven velocities: one for hinge and slide, three for ball, six for free (translation
            along the world axes, then rotation in the body frame); entry ``k`` has the weight
            ``gear[k]``. Empty if the file drives something that physim does not honour, which
            ``model.warnings`` then says.
        is_control_limited: Whether the control is clamped to ``control_lower``, ``control_upper``.
        is_force_limited: Whether the force is clamped to ``force_lower``, ``force_upper``.
    """

    name: str
    index: int
    kind: ActuatorKind
    joint: int
    v_index: int
    dofs: tuple[int, ...]
    is_control_limited: bool
    is_force_limited: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two shapes that may touch.

    Attributes:
        shape_a: Index of the plane if there is one, else the lower shape index.
        shape_b: Index of the other shape.
        explicit: Whether the file lists the pair itself, past all filters.
        has_own_friction: Whether ``pair_friction`` holds for it rather than the larger ``friction``
            of the two shapes: explicit pairs, frictionless contact (``condim`` 1) and shapes of
                unequal ``priority``.
    """

    shape_a: int
    shape_b: int
    explicit: bool
    has_own_friction: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Keyframe:
    """A named state of the file.

    Attributes:
        name: Name in the file, or ``keyframe_<index>``.
        time: Time [s].
        q: Positions, shape ``(nq,)``, float64.
        v: Velocities, shape ``(nv,)``, float64.
        control: Control, shape ``(nu,)``, float64.
    """

    name: str
    time: float
    q: Tensor
    v: Tensor
    control: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelWarning:
    """Something in the file that is not honoured as written.

    Attributes:
        element: What it concerns, such as ``tendon 'hip'`` or ``pairs box-box``.
        message: What physim does instead and, where there is one, the way around.
        changes_dynamics: Whether the motion differs from what the file describes. Parameters of
            soft contact count as no change, because contact is hard here by design.
    """

    element: str
    message: str
    changes_dynamics: bool

    def __str__(self) -> str:
        return f"{self.element}: {self.message}"
