"""What a simulator tells of a state: kinematics, energy, momentum, inertia, gaps, forces."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from physim.dynamics._inputs import Parameters, item_rows
from physim.dynamics._queries import BodyPoses, Queries, candidate_names

if TYPE_CHECKING:
    from physim.dynamics._advance import StepSolver
    from physim.dynamics._assembly import StepData
    from physim.dynamics._mechanism import Mechanism
    from physim.dynamics._state import State
    from physim.model import Model


class AbstractStateQuantities(ABC):
    """Quantities of a state, each a pure function of tensors and differentiable.

    Every one takes ``parameters``: numbers to use instead of the model's, as in `Simulator.step`.
    """

    model: Model
    mechanism: Mechanism
    _queries: Queries
    _solver: StepSolver

    @abstractmethod
    def _data(
        self,
        state: State,
        control: Tensor | Sequence[float] | None,
        parameters: Parameters | None,
    ) -> tuple[StepData, Mapping[str, Tensor]]:
        """Checked inputs of a step, and all parameters."""

    def _node(
        self,
        state: State,
        control: Tensor | Sequence[float] | None,
        parameters: Parameters | None,
    ) -> tuple[StepData, Mapping[str, Tensor], Tensor]:
        data, merged = self._data(state, control, parameters)
        force = self._solver.reference.assembly.driven_force(data)
        velocity = self._queries.node_velocity(
            data.q, data.v, data.past_timestep, force, data.numbers
        )
        return data, merged, velocity

    def contact_gaps(
        self, state: State, *, parameters: Parameters | None = None
    ) -> Float[Tensor, "batch candidate"]:
        """Signed distances of all contact candidates [m]; negative means overlap."""
        data, _ = self._data(state, None, parameters)
        return self._solver.reference.assembly.node(data).gap

    def contact_pairs(self) -> list[tuple[str, str]]:
        """Names of both shapes of every candidate, in the order of `contact_gaps`."""
        return candidate_names(self.model, self.mechanism.groups)

    def retract(self, q: Tensor, step: Tensor) -> Tensor:
        """Move configurations (B, nq) along tangent steps (B, nv) [m, rad]."""
        return self._queries.retract(q, step)

    def node_velocity(
        self,
        state: State,
        control: Tensor | Sequence[float] | None = None,
        *,
        parameters: Parameters | None = None,
    ) -> Float[Tensor, "batch nv"]:
        """Velocity at the node ``q`` itself, of second order in the time step.

        Args:
            state: Where.
            control: Controls of the coming interval, zero by default.
            parameters: As in `Simulator.step`.
        """
        return self._node(state, control, parameters)[2]

    def energy(
        self,
        state: State,
        control: Tensor | Sequence[float] | None = None,
        *,
        parameters: Parameters | None = None,
    ) -> Float[Tensor, " batch"]:
        """Kinetic energy plus potential energy of gravity and joint springs, not of servos [J]."""
        data, merged, velocity = self._node(state, control, parameters)
        return self._queries.energy(data.q, velocity, data.numbers, merged)

    def momentum(
        self,
        state: State,
        control: Tensor | Sequence[float] | None = None,
        *,
        parameters: Parameters | None = None,
    ) -> tuple[Float[Tensor, "batch 3"], Float[Tensor, "batch 3"]]:
        """Linear momentum [N s] and angular momentum about the world origin [N m s]."""
        data, _, velocity = self._node(state, control, parameters)
        return self._queries.momentum(data.q, velocity, data.numbers)

    def mass_matrix(
        self, state: State, *, parameters: Parameters | None = None
    ) -> Float[Tensor, "batch nv nv"]:
        """Joint-space inertia, armature included."""
        data, _ = self._data(state, None, parameters)
        return self._queries.mass_matrix(data.q, data.numbers)

    def forward_kinematics(
        self, state: State, *, parameters: Parameters | None = None
    ) -> BodyPoses:
        """Positions, rotations and centres of mass of all bodies."""
        data, merged = self._data(state, None, parameters)
        return self._queries.body_poses(data.q, data.numbers, merged)

    def jacobian(
        self, state: State, body: str, *, parameters: Parameters | None = None
    ) -> tuple[Float[Tensor, "batch 3 nv"], Float[Tensor, "batch 3 nv"]]:
        """Linear and angular velocity of a body's centre of mass per unit velocity."""
        data, merged = self._data(state, None, parameters)
        index = self.model.body(body).index
        center = self._queries.body_poses(data.q, data.numbers, merged).center[:, index]
        link = self.mechanism.tree.placements[index].link
        return self._queries.jacobian(data.q, data.numbers, center, link)

    def inverse_dynamics(
        self, state: State, next_state: State, *, parameters: Parameters | None = None
    ) -> Float[Tensor, "batch nv"]:
        """Constant generalized force over a step that leads from one state to the next.

        Contact, limit and dry-friction impulses count as forces to be supplied.

        Args:
            state: Before.
            next_state: After; only its ``q`` is used.
            parameters: As in `Simulator.step`.
        """
        data, _ = self._data(state, None, parameters)
        q = item_rows("next_state.q", next_state.q, self.model.nq, data.q.shape[0])
        assembly = self._solver.reference.assembly
        trial = assembly.trial(assembly.node(data), q, with_matrix=False)
        return trial.residual / data.timestep[:, None]
