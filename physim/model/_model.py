"""The model: records for structure, tensors for numbers, neither of which ever changes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from ._names import find_by_name
from ._parameters import check_parameters, check_replacements
from ._records import Actuator, Body, Joint, Keyframe, ModelWarning, Pair, Shape
from ._sensors import Sensor

__all__ = ["Model"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Model:
    """An articulated system, as read from a file.

    Made by :func:`physim.model.load_model`. Records are frozen and the numbers are replaced, never
    written: :meth:`replace_parameters` returns another model.

    Attributes:
        name: Name in the file, else the file's stem, else ``"model"``.
        source: Path of the file, or ``"<text>"``.
        bodies: Bodies, parents first, without the world.
        joints: Joints, ordered by body and then in series.
        shapes: Collision and visual primitives.
        actuators: One per control.
        pairs: Shapes that may touch each other.
        sensors: What the file measures; `Simulator.sensors` reads them.
        keyframes: Named states.
        warnings: What of the file is not honoured.
        nq: Number of positions: 7 per free, 4 per ball, 1 per hinge or slide.
        nv: Number of velocities: 6 per free, 3 per ball, 1 per hinge or slide.
        nu: Number of controls.
        initial_q: Positions of the configuration that the file draws, shape ``(nq,)``.
    """

    name: str
    source: str
    bodies: tuple[Body, ...]
    joints: tuple[Joint, ...]
    shapes: tuple[Shape, ...]
    actuators: tuple[Actuator, ...]
    pairs: tuple[Pair, ...]
    sensors: tuple[Sensor, ...]
    keyframes: tuple[Keyframe, ...]
    warnings: tuple[ModelWarning, ...]
    nq: int
    nv: int
    nu: int
    initial_q: Tensor
    # Pairs, not a mapping: immutable and yet picklable, so that a model crosses process borders.
    _numbers: tuple[tuple[str, Tensor], ...] = field(default=())

    def __repr__(self) -> str:
        return (
            f"Model({self.name!r}: {len(self.bodies)} bodies, {len(self.joints)} joints, "
            f"nq={self.nq}, nv={self.nv}, "
            f"nu={self.nu}, {len(self.shapes)} shapes, {len(self.pairs)} pairs, "
            f"{len(self.warnings)} warnings)"
        )

    def parameters(self) -> dict[str, Tensor]:
        """All numbers one may differentiate with respect to, float64.

        The dictionary is new at each call; the tensors are the model's own and to be read only.

        =================  ============  ======================================================
        name               shape         meaning
        =================  ============  ======================================================
        gravity            (3,)          acceleration [m/s^2]
        timestep           ()            the file's time step [s]
        mass               (nbody,)      [kg]
        center_of_mass     (nbody, 3)    in the body frame [m]
        inertia            (nbody, 6)    central, body axes: xx, yy, zz, xy, xz, yz [kg m^2]
        body_position      (nbody, 3)    origin in the parent frame, joints at reference [m]
        joint_anchor       (njoint, 3)   in the body frame [m]
        stiffness          (nv,)         linear springs [N/m or N m/rad]
        spring_reference   (nq,)         position at which they rest
        damping            (nv,)         linear dampers [N s/m or N m s/rad]
        armature           (nv,)         added inertia of rotors [kg or kg m^2]
        friction_loss      (nv,)         dry friction [N or N m]
        limit_lower        (njoint,)     [m or rad], 0 where not limited
        limit_upper        (njoint,)     [m or rad], 0 where not limited
        shape_size         (nshape, 3)   radius; radius, half length; half axes; unused 0 [m]
        shape_position     (nshape, 3)   in the body frame [m]
        friction           (nshape,)     sliding coefficient; a pair has its shapes' larger one
        pair_friction      (npair,)      used where ``pair.has_own_friction``
        gear               (nu, 6)       lever of an actuator on each velocity it drives
        gain               (nu,)         force per control
        bias               (nu, 3)       constant force, and force per length and rate
        control_lower      (nu,)         infinite where not limited
        control_upper      (nu,)
        force_lower        (nu,)         infinite where not limited [N or N m]
        force_upper        (nu,)
        =================  ============  ======================================================

        Returns:
            Tensors by name.
        """
        return dict(self._numbers)

    def replace_parameters(self, parameters: Mapping[str, object]) -> Model:
        """The same structure with other numbers.

        Args:
            parameters: New values by name; tensors keep their gradients, arrays and numbers are
                copied.

        Returns:
            A new model; this one is unchanged.

        Raises:
            ModelError: If a name is unknown or a value is not physical (not finite, negative mass,
                indefinite inertia, empty limit).
            ShapeError: If a shape differs.

        Example:
            >>> from physim.model import load_model
            >>> ball = "<body><freejoint/><geom size='.1'/></body>"
            >>> model = load_model(f"<mujoco><worldbody>{ball}</worldbody></mujoco>")
            >>> model.replace_parameters({"mass": [2.0]}).parameters()["mass"]
            tensor([2.], dtype=torch.float64)
        """
        numbers = self.parameters()
        numbers.update(check_replacements(parameters, numbers))
        check_parameters(
            numbers,
            bodies=self.bodies,
            joints=self.joints,
            shapes=self.shapes,
            actuators=self.actuators,
        )
        return dataclasses.replace(self, _numbers=tuple(numbers.items()))

    def body(self, name: str) -> Body:
        """The body of that name.

        Args:
            name: Its name.

        Returns:
            The record.

        Raises:
            ModelError: If there is none; the message lists close matches.
        """
        return find_by_name(self.bodies, name, "body")

    def joint(self, name: str) -> Joint:
        """The joint of that name.

        Args:
            name: Its name.

        Returns:
            The record.

        Raises:
            ModelError: If there is none; the message lists close matches.
        """
        return find_by_name(self.joints, name, "joint")

    def shape(self, name: str) -> Shape:
        """The shape of that name.

        Args:
            name: Its name.

        Returns:
            The record.

        Raises:
            ModelError: If there is none; the message lists close matches.
        """
        return find_by_name(self.shapes, name, "shape")

    def actuator(self, name: str) -> Actuator:
        """The actuator of that name.

        Args:
            name: Its name.

        Returns:
            The record.

        Raises:
            ModelError: If there is none; the message lists close matches.
        """
        return find_by_name(self.actuators, name, "actuator")

    def sensor(self, name: str) -> Sensor:
        """The sensor of that name.

        Args:
            name: Its name.

        Returns:
            The record.

        Raises:
            ModelError: If there is none; the message lists close matches.
        """
        return find_by_name(self.sensors, name, "sensor")

    def keyframe(self, name: str) -> Keyframe:
        """The key frame of that name.

        Args:
            name: Its name.

        Returns:
            The record.

        Raises:
            ModelError: If there is none; the message lists close matches.
        """
        return find_by_name(self.keyframes, name, "keyframe")

    @property
    def body_names(self) -> tuple[str, ...]:
        """Names of the bodies in order."""
        return tuple(body.name for body in self.bodies)

    @property
    def joint_names(self) -> tuple[str, ...]:
        """Names of the joints in order."""
        return tuple(joint.name for joint in self.joints)

    @property
    def shape_names(self) -> tuple[str, ...]:
        """Names of the shapes in order."""
        return tuple(shape.name for shape in self.shapes)

    @property
    def actuator_names(self) -> tuple[str, ...]:
        """Names of the actuators in order of the control vector."""
        return tuple(actuator.name for actuator in self.actuators)

    @property
    def sensor_names(self) -> tuple[str, ...]:
        """Names of the sensors in order."""
        return tuple(sensor.name for sensor in self.sensors)

    @property
    def keyframe_names(self) -> tuple[str, ...]:
        """Names of the key frames in order."""
        return tuple(keyframe.name for keyframe in self.keyframes)
