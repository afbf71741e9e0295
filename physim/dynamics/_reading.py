"""What sensors are read from: the motion of a batch and the forces of the coming step."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from torch import Tensor

from physim.dynamics._body_motion import BodyMotion, body_motion
from physim.dynamics._forces import ConstraintForces, read_forces
from physim.dynamics._inputs import Parameters, as_rows, normalise_quaternions
from physim.dynamics._numbers import symmetric_matrix
from physim.dynamics._state import State
from solvers.core import OnFailure
from solvers.kernels import algebra as la

if TYPE_CHECKING:
    from physim.dynamics._simulator import Simulator
    from physim.model import Joint, Mount


class Reading:
    """Everything that sensors of one batch are read from, computed when it is first asked for.

    Args:
        simulator: The simulator.
        state: Where.
        control: Controls of the coming step.
        following: State that this step leads to; None takes the step when it is needed.
        parameters: As in `Simulator.step`.
        on_failure: As in `Simulator.step`.
    """

    def __init__(
        self,
        simulator: Simulator,
        state: State,
        control: Tensor | Sequence[float] | None,
        following: State | None,
        parameters: Parameters | None,
        on_failure: OnFailure = "raise",
    ) -> None:
        self.simulator, self.model = simulator, simulator.model
        self.queries = simulator._queries
        q = as_rows("state.q", state.q, self.model.nq)
        v = as_rows("state.v", state.v, self.model.nv)
        self.q, self.v = normalise_quaternions(simulator.mechanism.tree, q), v
        self.state = State(q=q, v=v, interval=state.interval, impulses=state.impulses)
        self.control = simulator._control(control, self.state.batch)
        self.given, self._given_parameters, self._on_failure = following, parameters, on_failure
        self.parameters, self.numbers = simulator._resolve(parameters, self.state.batch)

    @cached_property
    def still(self) -> BodyMotion:
        """Bodies without their accelerations."""
        return body_motion(self.queries, self.q, self.v, None, self.numbers, self.parameters)

    @cached_property
    def moving(self) -> BodyMotion:
        """Bodies with their accelerations."""
        following = self._stepped if self.given is None else self.given
        acceleration = (following.v - self.v) / self.number("timestep")[:, None]
        return body_motion(
            self.queries, self.q, self.v, acceleration, self.numbers, self.parameters
        )

    @cached_property
    def _stepped(self) -> State:
        following, _ = self.simulator.step(
            self.state,
            self.control,
            parameters=self._given_parameters,
            on_failure=self._on_failure,
        )
        return following

    @cached_property
    def forces(self) -> ConstraintForces:
        """Forces of contacts over the coming step."""
        following = self.given
        if following is None or following.impulses is None:
            following = self._stepped
        return read_forces(self.simulator, following, self._given_parameters)

    @cached_property
    def contact_bodies(self) -> list[tuple[int, int]]:
        """Bodies of both shapes of every contact candidate."""
        shapes, groups = self.model.shapes, self.simulator.mechanism.groups
        pairs = [self.model.pairs[item.pair] for group in groups for item in group.candidates]
        return [(shapes[pair.shape_a].body, shapes[pair.shape_b].body) for pair in pairs]

    def place(self, mount: Mount | None) -> tuple[Tensor, Tensor]:
        """Origin (B, 3) and axes (B, 3, 3) of a frame; those of the world for None."""
        if mount is None:
            return self.still.position[:, -1], self.still.rotation[:, -1]
        body = self.still.rotation[:, mount.body]
        local = la.quaternion_matrix([*mount.quaternion])
        axes = body @ body.new_tensor(local)
        # The inertia's centre is a parameter; other frames stay where the file puts them.
        if mount.kind == "body" and mount.body >= 0:
            return self.still.center[:, mount.body], axes
        offset = body @ body.new_tensor(mount.position)
        return self.still.position[:, mount.body] + offset, axes

    def number(self, name: str) -> Tensor:
        """A parameter with a batch in front."""
        own = self.simulator._own_parameters[name]
        return self.parameters[name].expand(self.state.batch, *own.shape)

    def subtree(self, root: int) -> list[int]:
        """A body and all that hangs on it; all bodies for the world."""
        inside = {root}
        for body in self.model.bodies:
            if body.parent in inside:
                inside.add(body.index)
        return sorted(inside - {-1})

    def inertia(self, body: int) -> Tensor:
        """Central inertia of a body in world axes (B, 3, 3)."""
        axes = self.still.rotation[:, body]
        return axes @ symmetric_matrix(self.number("inertia")[:, body]) @ axes.mT

    def quaternion(self, mount: Mount) -> list[Tensor]:
        """Orientation of a frame, four tensors (B,), signed as the product of the joints' is."""
        turn: list[Any] = [*self.q.new_tensor(mount.quaternion)]
        body = mount.body
        while body >= 0:
            record = self.model.bodies[body]
            joints = [self.model.joints[index] for index in record.joints]
            for joint in reversed(joints):
                turn = la.quaternion_product(self._joint_quaternion(joint), turn)
            # A free joint says where its body is, whatever the file's frame.
            if not any(joint.kind == "free" for joint in joints):
                turn = la.quaternion_product([*self.q.new_tensor(record.quaternion)], turn)
            body = record.parent
        return [entry.expand(self.state.batch) for entry in turn]

    def _joint_quaternion(self, joint: Joint) -> list[Any]:
        if joint.kind in ("free", "ball"):
            first = joint.q_index + (3 if joint.kind == "free" else 0)
            return list(self.q[:, first : first + 4].unbind(-1))
        if joint.kind == "slide":
            return [1.0, 0.0, 0.0, 0.0]
        half = 0.5 * (self.q[:, joint.q_index] - joint.reference)
        return [half.cos(), *(component * half.sin() for component in joint.axis)]
