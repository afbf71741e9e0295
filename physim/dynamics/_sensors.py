"""What the file's sensors read, as MuJoCo defines them: one function per kind.

Positions and velocities are those of the state. Accelerations are those of the coming step, over
which the velocity changes from ``v`` to that of the following state; gravity counts as an
acceleration of the whole world upwards, which is what an accelerometer feels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from physim.dynamics._inputs import Parameters
from physim.dynamics._parameters import merge_parameters
from physim.dynamics._reading import Reading
from physim.dynamics._state import State
from physim.dynamics._trajectory import Trajectory
from physim.dynamics._zones import meets
from solvers.core import SettingsError
from solvers.kernels import algebra as la

if TYPE_CHECKING:
    from physim.dynamics._simulator import Simulator
    from physim.model import Mount, Sensor

Reader = Callable[[Reading, "Sensor"], Tensor]
_ROWS = 1 << 14


def read_sensors(
    simulator: Simulator,
    state: State | Trajectory,
    control: Tensor | Sequence[float] | None,
    names: Sequence[str] | None,
    next_state: State | None,
    parameters: Parameters | None,
) -> dict[str, Tensor]:
    """The work behind `Simulator.sensors`."""
    model = simulator.model
    sensors = model.sensors if names is None else [model.sensor(name) for name in names]
    if isinstance(state, Trajectory):
        if control is not None or next_state is not None:
            raise SettingsError(
                "control and next_state come with a trajectory; leave them out, or pass a state"
            )
        return _read_trajectory(simulator, state, sensors, parameters)
    return _read(Reading(simulator, state, control, next_state, parameters), sensors)


def _read(reading: Reading, sensors: Sequence[Sensor]) -> dict[str, Tensor]:
    return {
        sensor.name: READERS[sensor.kind](reading, sensor).clamp(sensor.lower, sensor.upper)
        for sensor in sensors
    }


def _read_trajectory(
    simulator: Simulator,
    trajectory: Trajectory,
    sensors: Sequence[Sensor],
    parameters: Parameters | None,
) -> dict[str, Tensor]:
    """Values at all states but the last, (T, B, dim); many times at once, as memory allows."""
    steps, batch = trajectory.steps, int(trajectory.q.shape[1])
    own = simulator._own_parameters
    merged = merge_parameters(own, parameters or {}, batch, simulator.model)
    impulses, span = trajectory.impulses, max(1, _ROWS // batch)
    pieces: list[dict[str, Tensor]] = []
    for first in range(0, steps, span):
        now, then = slice(first, min(first + span, steps)), slice(first + 1, first + span + 1)
        count = now.stop - first
        times = {
            name: merged[name].expand(count, batch, *own[name].shape).flatten(0, 1)
            for name in parameters or {}
        }
        following = State(
            q=trajectory.q[then].flatten(0, 1),
            v=trajectory.v[then].flatten(0, 1),
            interval=trajectory.interval[then].flatten(0, 1),
            impulses=impulses[now].flatten(0, 1)
            if impulses is not None and len(impulses) == steps
            else None,
        )
        state = State(
            q=trajectory.q[now].flatten(0, 1),
            v=trajectory.v[now].flatten(0, 1),
            interval=trajectory.interval[now].flatten(0, 1),
        )
        control = trajectory.control[now].flatten(0, 1)
        # What failed has been reported by the rollout.
        reading = Reading(simulator, state, control, following, times, on_failure="mask")
        values = _read(reading, sensors)
        pieces.append({name: value.unflatten(0, (count, batch)) for name, value in values.items()})
    return {sensor.name: torch.cat([piece[sensor.name] for piece in pieces]) for sensor in sensors}


def _mount(sensor: Sensor) -> Mount:
    assert sensor.mount is not None
    return sensor.mount


def _local(axes: Tensor, vector: Tensor) -> Tensor:
    """World vectors (B, 3) in the given axes (B, 3, 3)."""
    return (axes.mT @ vector[..., None])[..., 0]


# Joints and actuators


def _joint_position(reading: Reading, sensor: Sensor) -> Tensor:
    joint = reading.model.joints[sensor.joint]
    return reading.q[:, joint.q_index : joint.q_index + sensor.dim]


def _joint_velocity(reading: Reading, sensor: Sensor) -> Tensor:
    joint = reading.model.joints[sensor.joint]
    return reading.v[:, joint.v_index : joint.v_index + sensor.dim]


def _joint_actuation(reading: Reading, sensor: Sensor) -> Tensor:
    dof = reading.model.joints[sensor.joint].v_index
    total = torch.zeros_like(reading.v[:, :1])
    for actuator in reading.model.actuators:
        if dof in actuator.dofs:
            gear = reading.number("gear")[:, actuator.index, actuator.dofs.index(dof)]
            total = total + gear[:, None] * _force(reading, actuator.index)
    return total


def _actuator_length(reading: Reading, sensor: Sensor) -> Tensor:
    return _length(reading, sensor.actuator)


def _length(reading: Reading, index: int) -> Tensor:
    coordinate = reading.model.joints[reading.model.actuators[index].joint].q_index
    return reading.number("gear")[:, index, :1] * reading.q[:, coordinate : coordinate + 1]


def _actuator_rate(reading: Reading, sensor: Sensor) -> Tensor:
    dofs = reading.model.actuators[sensor.actuator].dofs
    gear = reading.number("gear")[:, sensor.actuator, : len(dofs)]
    return (gear * reading.v[:, list(dofs)]).sum(-1, keepdim=True)


def _actuator_force(reading: Reading, sensor: Sensor) -> Tensor:
    return _force(reading, sensor.actuator)


def _force(reading: Reading, index: int) -> Tensor:
    """Force law of an actuator at the state (B, 1)."""
    lower, upper, least, most, gain = (
        reading.number(name)[:, index, None]
        for name in ("control_lower", "control_upper", "force_lower", "force_upper", "gain")
    )
    bias = reading.number("bias")[:, index]
    control = reading.control[:, index, None].clamp(lower, upper)
    force = gain * control + bias[:, :1]
    dofs = reading.model.actuators[index].dofs
    if len(dofs) == 1:
        rate = reading.number("gear")[:, index, :1] * reading.v[:, list(dofs)]
        force = force + bias[:, 1:2] * _length(reading, index) + bias[:, 2:] * rate
    return force.clamp(least, most)


# Frames


def _frame_position(reading: Reading, sensor: Sensor) -> Tensor:
    origin, axes = reading.place(sensor.reference)
    return _local(axes, reading.place(sensor.mount)[0] - origin)


def _frame_axis(index: int) -> Reader:
    def read(reading: Reading, sensor: Sensor) -> Tensor:
        axis = reading.place(sensor.mount)[1][..., index]
        return _local(reading.place(sensor.reference)[1], axis)

    return read


def _frame_quaternion(reading: Reading, sensor: Sensor) -> Tensor:
    turn = reading.quaternion(_mount(sensor))
    if sensor.reference is not None:
        turn = la.quaternion_product(la.conjugate(reading.quaternion(sensor.reference)), turn)
    return torch.stack(turn, dim=-1)


def _frame_velocity(reading: Reading, sensor: Sensor) -> Tensor:
    mount, reference = _mount(sensor), sensor.reference
    point = reading.place(mount)[0]
    velocity = reading.still.velocity_at(mount.body, point)
    if reference is None:
        return velocity
    # The rotating reference frame carries the point along.
    carried = reading.still.velocity_at(reference.body, point)
    return _local(reading.place(reference)[1], velocity - carried)


def _frame_spin(reading: Reading, sensor: Sensor) -> Tensor:
    spin = reading.still.twist[:, _mount(sensor).body, :3]
    if sensor.reference is not None:
        spin = spin - reading.still.twist[:, sensor.reference.body, :3]
    return _local(reading.place(sensor.reference)[1], spin)


def _frame_acceleration(reading: Reading, sensor: Sensor) -> Tensor:
    mount = _mount(sensor)
    own = reading.moving.acceleration_at(mount.body, reading.place(mount)[0])
    return own - reading.number("gravity")


def _frame_spin_up(reading: Reading, sensor: Sensor) -> Tensor:
    acceleration = reading.moving.acceleration
    assert acceleration is not None
    return acceleration[:, _mount(sensor).body, :3]


def _in_own_axes(world: Reader) -> Reader:
    def read(reading: Reading, sensor: Sensor) -> Tensor:
        return _local(reading.place(sensor.mount)[1], world(reading, sensor))

    return read


def _magnetic_field(reading: Reading, sensor: Sensor) -> Tensor:
    return reading.q.new_tensor(sensor.field).expand(reading.state.batch, 3)


# Contact and constraint forces


@torch.no_grad()
def _touch(reading: Reading, sensor: Sensor) -> Tensor:
    """Sum of the normal forces whose outward ray meets the site's zone."""
    mount = _mount(sensor)
    sides = [
        1.0 if mount.body == a else -1.0 if mount.body == b else 0.0
        for a, b in reading.contact_bodies
    ]
    felt = [index for index, side in enumerate(sides) if side]
    total = torch.zeros_like(reading.v[:, :1])
    if not felt:
        return total
    forces, (origin, axes) = reading.forces, reading.place(mount)
    normal, push = forces.normal[:, felt], forces.contact[:, felt]
    outward = normal * normal.new_tensor([sides[index] for index in felt])[:, None]
    point = (forces.point[:, felt] - origin[:, None]) @ axes
    inside = meets(mount.solid, mount.size, point, outward @ axes)
    strength = (push * normal).sum(-1).clamp(min=0.0)
    return (strength * inside).sum(-1, keepdim=True)


@torch.no_grad()
def _wrench(reading: Reading, mount: Mount) -> tuple[Tensor, Tensor]:
    """Force and moment about the mount that its body takes from its parent, world axes."""
    point = reading.place(mount)[0]
    inside = reading.subtree(mount.body)
    force, moment = torch.zeros_like(point), torch.zeros_like(point)
    cross, moving = torch.linalg.cross, reading.moving
    assert moving.acceleration is not None
    for body in inside:
        center, spin = moving.center[:, body], moving.twist[:, body, :3]
        inertia = reading.inertia(body)
        lift = moving.acceleration_at(body, center) - reading.number("gravity")
        own = reading.number("mass")[:, body, None] * lift
        turned = (inertia @ moving.acceleration[:, body, :3, None])[..., 0]
        turned = turned + cross(spin, (inertia @ spin[..., None])[..., 0])
        force, moment = force + own, moment + turned + cross(center - point, own)
    for index, (a, b) in enumerate(reading.contact_bodies):
        side = (b in inside) - (a in inside)
        if side:
            push = side * reading.forces.contact[:, index]
            force = force - push
            moment = moment - cross(reading.forces.point[:, index] - point, push)
    return force, moment


def _joint_load(part: int) -> Reader:
    def read(reading: Reading, sensor: Sensor) -> Tensor:
        mount = _mount(sensor)
        return _local(reading.place(mount)[1], _wrench(reading, mount)[part])

    return read


# Subtrees and energy


def _mean(reading: Reading, bodies: Sequence[int], vectors: Sequence[Tensor]) -> Tensor:
    """Mean of vectors of bodies, weighted by mass."""
    mass = reading.number("mass")[:, list(bodies)]
    weights = mass / mass.sum(-1, keepdim=True).clamp(min=1e-15)
    return torch.einsum("bk,bki->bi", weights, torch.stack(list(vectors), dim=1))


def _subtree_center(reading: Reading, sensor: Sensor) -> Tensor:
    bodies = reading.subtree(sensor.body)
    return _mean(reading, bodies, [reading.still.center[:, body] for body in bodies])


def _subtree_velocity(reading: Reading, sensor: Sensor) -> Tensor:
    bodies, still = reading.subtree(sensor.body), reading.still
    return _mean(
        reading, bodies, [still.velocity_at(body, still.center[:, body]) for body in bodies]
    )


def _subtree_angular_momentum(reading: Reading, sensor: Sensor) -> Tensor:
    """Angular momentum about the subtree's own centre of mass, in its own motion."""
    middle, drift = _subtree_center(reading, sensor), _subtree_velocity(reading, sensor)
    total = torch.zeros_like(middle)
    for body in reading.subtree(sensor.body):
        center = reading.still.center[:, body]
        velocity = reading.still.velocity_at(body, center) - drift
        momentum = reading.number("mass")[:, body, None] * velocity
        spin = reading.inertia(body) @ reading.still.twist[:, body, :3, None]
        total = total + spin[..., 0] + torch.linalg.cross(center - middle, momentum)
    return total


def _kinetic_energy(reading: Reading, sensor: Sensor) -> Tensor:
    matrix = reading.queries.mass_matrix(reading.q, reading.numbers)
    return 0.5 * torch.einsum("bi,bij,bj->b", reading.v, matrix, reading.v)[:, None]


def _potential_energy(reading: Reading, sensor: Sensor) -> Tensor:
    still, gravity = reading.still, reading.number("gravity")
    rest = torch.zeros_like(reading.v)
    energy = reading.queries.energy(reading.q, rest, reading.numbers, reading.parameters)
    for body, placement in enumerate(reading.simulator.mechanism.tree.placements):
        if placement.link < 0:
            height = (still.center[:, body] * gravity).sum(-1)
            energy = energy - reading.number("mass")[:, body] * height
    return energy[:, None]


READERS: dict[str, Reader] = {
    "jointpos": _joint_position,
    "jointvel": _joint_velocity,
    "ballquat": _joint_position,
    "ballangvel": _joint_velocity,
    "jointactfrc": _joint_actuation,
    "actuatorpos": _actuator_length,
    "actuatorvel": _actuator_rate,
    "actuatorfrc": _actuator_force,
    "framepos": _frame_position,
    "framequat": _frame_quaternion,
    "framexaxis": _frame_axis(0),
    "frameyaxis": _frame_axis(1),
    "framezaxis": _frame_axis(2),
    "framelinvel": _frame_velocity,
    "frameangvel": _frame_spin,
    "framelinacc": _frame_acceleration,
    "frameangacc": _frame_spin_up,
    "gyro": _in_own_axes(_frame_spin),
    "velocimeter": _in_own_axes(_frame_velocity),
    "accelerometer": _in_own_axes(_frame_acceleration),
    "magnetometer": _in_own_axes(_magnetic_field),
    "force": _joint_load(0),
    "torque": _joint_load(1),
    "touch": _touch,
    "subtreecom": _subtree_center,
    "subtreelinvel": _subtree_velocity,
    "subtreeangmom": _subtree_angular_momentum,
    "e_potential": _potential_energy,
    "e_kinetic": _kinetic_energy,
}
