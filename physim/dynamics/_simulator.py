"""The simulator: a model's equations, compiled once, as pure functions of tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from physim.dynamics._advance import Smoothing
from physim.dynamics._assembly import StepData
from physim.dynamics._backends import make_solver
from physim.dynamics._forces import ConstraintForces, read_forces
from physim.dynamics._initial import make_initial_state
from physim.dynamics._inputs import (
    Parameters,
    as_state,
    batch_rows,
    check_positive_number,
    check_smoothing,
    failing_with_bad_numbers,
    finite_items,
    normalise_quaternions,
    past_intervals,
)
from physim.dynamics._linearize import linearize_step
from physim.dynamics._mechanism import build_mechanism
from physim.dynamics._numbers import reduce_numbers
from physim.dynamics._parameters import merge_parameters
from physim.dynamics._queries import Queries
from physim.dynamics._reports import done_report, ended, step_smoothing
from physim.dynamics._rollout import roll_out
from physim.dynamics._sensors import read_sensors
from physim.dynamics._settings import DEFAULT_GRADIENT_SMOOTHING, DEFAULT_SMOOTHING, SolverSettings
from physim.dynamics._state import State
from physim.dynamics._state_quantities import AbstractStateQuantities
from physim.dynamics._step import differentiable_step
from physim.dynamics._surroundings import Surroundings
from physim.dynamics._trajectory import Trajectory
from physim.dynamics._transforms import is_differentiated, is_transformed
from physim.model import Model
from solvers.core import OnFailure, Report, SettingsError, check_choice, check_count, is_mapped

Backend = Literal["auto", "kernel", "reference"]
Policy = Callable[[State, int], Tensor]
_POLICIES = get_args(OnFailure)
_KEPT = "timestep smoothing gradient_smoothing backend threads contact_shapes settings".split()


class Simulator(AbstractStateQuantities):
    """Steps a model with hard contact, differentiably.

    A step is a pure function of state, control and parameters. Contact, friction, joint limits
    and dry joint friction are cone complementarity conditions, solved exactly by default or on
    the central path of `smoothing`; gradients belong to the path point of `gradient_smoothing`.
    Both are dimensionless: 1 is weight times time step times sqrt(g L) for the model's size L.

    Args:
        model: What is simulated; its structure is fixed here.
        timestep: Length of a step [s]; the model file's by default.
        smoothing: Central-path parameter of states; 0 is exact contact. Above, resting contacts
            creep under load by about ten times this, in units of sqrt(g L).
        gradient_smoothing: Central-path parameter of gradients. Larger sees contacts from
            farther away. Equal to `smoothing` gives the derivative of the step itself.
        backend: ``"kernel"`` runs compiled code, ``"reference"`` torch operations; ``"auto"``
            takes the kernel.
        threads: Threads over which the kernel splits a batch.
        contact_shapes: Names of shapes that may touch something; all by default. What cannot
            touch costs nothing.
        settings: Solver settings.

    Raises:
        SettingsError: If a setting is out of range or the model cannot move.

    Gradients: implicit, one adjoint solve a step, with respect to state, control, external force
    and every tensor of `parameters`.
    Reference: Howell et al. 2022, "Dojo: a differentiable physics engine for robotics" (contact
    and interior point); Manchester & Peck 2016 (integrator).

    Example:
        >>> import physim
        >>> model = physim.load_model('''<mujoco><worldbody>
        ...   <geom type="plane" size="1 1 1"/>
        ...   <body pos="0 0 1"><freejoint/><geom type="sphere" size="0.1" mass="1"/></body>
        ... </worldbody></mujoco>''')
        >>> sim = physim.Simulator(model, timestep=0.01)
        >>> state, report = sim.step(sim.initial_state(batch=2))
        >>> report.all_converged
        True
    """

    def __init__(
        self,
        model: Model,
        *,
        timestep: float | None = None,
        smoothing: float = DEFAULT_SMOOTHING,
        gradient_smoothing: float = DEFAULT_GRADIENT_SMOOTHING,
        backend: Backend = "auto",
        threads: int = 1,
        contact_shapes: Sequence[str] | None = None,
        settings: SolverSettings | None = None,
    ) -> None:
        if not isinstance(model, Model):
            raise SettingsError(
                f"model is a {type(model).__name__}, expected a physim.Model; load one with "
                "physim.load_model"
            )
        check_choice("backend", backend, ("auto", "kernel", "reference"))
        if model.nv == 0:
            raise SettingsError(
                f"model {model.name!r} has no joints, so nothing can move; add a joint, for "
                "example <freejoint/>, to a body"
            )
        own = float(model.parameters()["timestep"]) if timestep is None else timestep
        check_smoothing("smoothing", smoothing)
        check_smoothing("gradient_smoothing", gradient_smoothing)
        check_count("threads", threads)
        self.model = model
        self.timestep = check_positive_number("timestep", own)
        self.smoothing = float(smoothing)
        self.gradient_smoothing = float(gradient_smoothing)
        self.settings = SolverSettings() if settings is None else settings
        self.threads, self.contact_shapes = threads, contact_shapes
        self.mechanism = build_mechanism(model, shapes=contact_shapes)
        self.backend = "reference" if backend == "reference" else "kernel"
        self._own_parameters: Mapping[str, Tensor] = self.parameters()
        self._own_numbers = self._reduce(self._own_parameters)
        self._solver = make_solver(self, threads)
        self._queries = Queries(self.mechanism, model)
        self._last_surroundings: Surroundings | None = None
        self._smoothings: dict[tuple[float, float], Smoothing] = {}

    def __repr__(self) -> str:
        """Model, time step and backend."""
        return (
            f"Simulator({self.model.name!r}, timestep={self.timestep:g}, "
            f"smoothing={self.smoothing:g}, backend={self.backend!r}, "
            f"{self.mechanism.contact_count} contact candidates)"
        )

    def __reduce__(self) -> tuple[Callable[..., Simulator], tuple[Model]]:
        """Model and settings; kernels are built again, from the cache."""
        return partial(Simulator, **{name: getattr(self, name) for name in _KEPT}), (self.model,)

    def parameters(self) -> dict[str, Tensor]:
        """The model's parameters with this simulator's time step: all that is differentiable."""
        parameters = self.model.parameters()
        parameters["timestep"] = torch.tensor(self.timestep, dtype=torch.float64)
        return parameters

    def _reduce(self, parameters: Parameters) -> Tensor:
        m = self.mechanism
        return reduce_numbers(m.tree, self.model, m.layout, m.groups, parameters)

    def _resolve(
        self, parameters: Parameters | None, batch: int
    ) -> tuple[Mapping[str, Tensor], Tensor]:
        """All parameters with the given ones in place, and the flat numbers (B, n)."""
        if not parameters:
            return self._own_parameters, self._own_numbers.expand(batch, -1)
        merged = merge_parameters(self._own_parameters, parameters, batch, self.model)
        return merged, self._reduce(merged).expand(batch, -1)

    def _surroundings(self, batch: int) -> Surroundings:
        """What a step of ``batch`` items takes if nothing is given; kept for the next one."""
        last = self._last_surroundings
        if last is None or last.batch != batch:
            last = Surroundings.of(batch, self.model, self._own_numbers, self.timestep)
            # Made inside a torch.func transform they are dead after it.
            if not is_transformed(last.timestep):
                self._last_surroundings = last
        return last

    def initial_state(
        self,
        batch: int = 1,
        *,
        q: Tensor | Sequence[float] | None = None,
        v: Tensor | Sequence[float] | None = None,
        keyframe: str | None = None,
        at: Literal["interval", "node"] = "interval",
        control: Tensor | Sequence[float] | None = None,
        parameters: Parameters | None = None,
        on_penetration: Literal["warn", "raise", "ignore"] = "warn",
    ) -> State:
        """A state to start from.

        Args:
            batch: Number of items; taken from ``q`` or ``v`` if they have more than one row.
            q: Configuration, shape ``(nq,)`` or ``(B, nq)``; the model's initial one by default.
                Quaternions are normalised.
            v: Velocity, shape ``(nv,)`` or ``(B, nv)``; zero by default.
            keyframe: Name of a key frame of the model to take instead of the initial state.
            at: ``"interval"`` if ``v`` is the velocity of the past interval, ``"node"`` if it is
                the velocity at ``q`` itself (second order; energy and momentum are exact).
            control: Controls of the first step, zero by default; with ``at="node"`` their first
                half acts before the node.
            parameters: As in `step`; with ``at="node"`` and for the overlap they count.
            on_penetration: What to do about shapes that overlap: ``"warn"``, ``"raise"`` or
                ``"ignore"``. The overlap is closed at a bounded speed.

        Returns:
            The state.

        Raises:
            ShapeError: If a shape is wrong.
            NonFiniteError: If a number is not finite.
            SettingsError: If a quaternion is zero, a rotation per step is beyond the integrator,
                or shapes overlap and ``on_penetration="raise"``.
        """
        return make_initial_state(
            self, batch, q=q, v=v, keyframe=keyframe, at=at, control=control,
            parameters=parameters, on_penetration=on_penetration,
        )  # fmt: skip

    def _data(
        self,
        state: State,
        control: Tensor | Sequence[float] | None,
        parameters: Parameters | None,
    ) -> tuple[StepData, Mapping[str, Tensor]]:
        state = as_state(state, self.model.nq, self.model.nv)
        batch = state.batch
        rest = self._surroundings(batch)
        merged, timestep, numbers = self._own_parameters, rest.timestep, rest.numbers
        force = rest.force
        if parameters:
            merged, numbers = self._resolve(parameters, batch)
            timestep = merged["timestep"].expand(batch)
            force = failing_with_bad_numbers(force, numbers)
        past = timestep if state.interval is None else past_intervals(state.interval, batch)
        u = rest.control if control is None else self._control(control, batch)
        return StepData(state.q, state.v, u, force, past, timestep, numbers), merged

    def _control(self, control: Tensor | Sequence[float] | None, batch: int) -> Tensor:
        if control is None:
            return torch.zeros(batch, self.model.nu, dtype=torch.float64)
        return batch_rows("control", control, self.model.nu, batch)

    def step(
        self,
        state: State,
        control: Tensor | Sequence[float] | None = None,
        *,
        parameters: Parameters | None = None,
        external_force: Tensor | None = None,
        smoothing: float | None = None,
        on_failure: OnFailure = "raise",
    ) -> tuple[State, Report]:
        """Advance a batch by one time step.

        Args:
            state: Where it is; float32 is taken and given back as float64.
            control: Controls, shape ``(nu,)`` or ``(B, nu)``; zero by default.
            parameters: Numbers to use instead of the model's, by name as in `parameters`; each
                of its own shape or with a leading batch dimension.
            external_force: Force [N] and torque [N m] on every body at its centre of mass, world
                axes, shape ``(B, nbody, 6)``.
            smoothing: Central-path parameter of this step instead of the simulator's.
            on_failure: What to do if an item does not converge even in parts: ``"raise"``,
                ``"warn"`` or ``"mask"``. The item then keeps its best iterate and passes no
                gradient; the others are right in any case.

        Returns:
            Next state, and a report with ``counts``: ``parts`` (into how many the step was cut),
            ``rescues`` (solves by the interior point), ``min_gap`` [m], ``kappa_error``,
            ``unverified`` (1 where exact contact was only reached up to ``rescue_smoothing``) and
            ``no_gradient`` (1 where only the solution that gradients belong to was not found).

        Raises:
            ShapeError: If a shape is wrong.
            NonFiniteError: If an input is not finite and ``on_failure="raise"``.
            NotConvergedError: If an item failed and ``on_failure="raise"``.

        Cost: about four linearisations of the mechanism; a gradient about one more.
        """
        if on_failure not in _POLICIES:
            check_choice("on_failure", on_failure, _POLICIES)
        state = as_state(state, self.model.nq, self.model.nv)
        data, merged = self._data(state, control, parameters)
        value = self.smoothing if smoothing is None else check_smoothing("smoothing", smoothing)
        watched: tuple[Tensor, ...] = (data.q, data.v, data.control, data.past_timestep)
        if parameters:
            watched += (data.timestep, data.numbers)
        with_gradient = is_differentiated(*watched)
        if external_force is not None or self.backend == "reference":
            data = replace(data, q=normalise_quaternions(self.mechanism.tree, data.q))
        if external_force is not None:
            placed = self._queries.body_poses(data.q, data.numbers, merged)
            force = self._queries.body_force(data.q, data.numbers, placed.center, external_force)
            data = replace(data, force=force + data.force)
            with_gradient, watched = with_gradient or is_differentiated(force), (*watched, force)
        wanted = step_smoothing(self, value, with_gradient=with_gradient)
        if with_gradient and is_mapped(*watched):
            # Inside vmap no value may steer the program: no checks and no parts.
            done = differentiable_step(self._solver, data, wanted, impulses=None, most_parts=1)
            interval = None if state.interval is None else data.timestep
            following = State(q=done.q, v=done.v, interval=interval, impulses=done.impulses)
            return following, done_report(done)
        if self.backend == "reference":
            # Its rescue of what cannot be solved takes long.
            finite_items(data, on_failure, parameters)
        warm, most = state.impulses, self.settings.max_substeps
        if with_gradient:
            done = differentiable_step(self._solver, data, wanted, impulses=warm, most_parts=most)
        else:
            done = self._solver.advance(data, wanted, impulses=warm, most_parts=most)
        return ended(
            done, data, parameters,
            keeps_interval=state.interval is not None, on_failure=on_failure,
        )  # fmt: skip

    def rollout(
        self,
        state: State,
        controls: Tensor | Sequence[Sequence[float]] | Policy | None = None,
        steps: int | None = None,
        *,
        parameters: Parameters | None = None,
        on_failure: OnFailure = "raise",
        checkpoint_every: int | None = None,
        keep_impulses: bool = False,
        progress: bool = False,
    ) -> Trajectory:
        """Advance a batch by many steps.

        Args:
            state: Where it starts.
            controls: Controls of shape ``(T, nu)`` or ``(T, B, nu)``, or a policy called as
                ``policy(state, step)``; None means zero controls. `LinearFeedback` and `MLPPolicy`
                run inside the native calls, other policies step by step.
            steps: Number of steps; taken from ``controls`` if they are a tensor.
            parameters: As in `step`.
            on_failure: As in `step`.
            checkpoint_every: Keep what backward reads of so many steps at a time only.
            keep_impulses: Keep the constraint impulses of all steps, so that any state of the
                trajectory can be gone on from with the same bits, and tell its contact forces.
            progress: Show a progress bar.

        Returns:
            The trajectory, differentiable; a sweep over all steps gives the gradient.

        Raises:
            SettingsError: If neither ``controls`` nor ``steps`` gives a length.
            ShapeError: If controls, given or of the policy, do not fit model and batch.
        """
        check_choice("on_failure", on_failure, _POLICIES)
        return roll_out(
            self, state, controls, steps, parameters=parameters, on_failure=on_failure,
            checkpoint_every=checkpoint_every, keep_impulses=keep_impulses, progress=progress,
        )  # fmt: skip

    def linearize(
        self,
        state: State,
        control: Tensor | Sequence[float] | None = None,
        *,
        parameters: Parameters | None = None,
        on_failure: OnFailure = "raise",
    ) -> tuple[Float[Tensor, "batch x x"], Float[Tensor, "batch x u"]]:
        """Jacobians of a step in tangent coordinates.

        Args:
            state: Where.
            control: Controls, zero by default.
            parameters: As in `step`.
            on_failure: As in `step`; rows of a masked item are zero.

        Returns:
            ``A`` of shape ``(B, 2 nv, 2 nv)`` and ``B`` of shape ``(B, 2 nv, nu)``: derivative of
            (tangent step of q, v) after the step with respect to (tangent step of q, v) and
            control before it.
        """
        check_choice("on_failure", on_failure, _POLICIES)
        state = as_state(state, self.model.nq, self.model.nv)
        u = self._control(control, state.batch)
        if is_transformed(state.q, state.v, u):
            raise SettingsError(
                "linearize: got a state or control of a torch.func transform, whose derivative it "
                "does not have; inside, transform step itself, as in jacrev"
            )
        return linearize_step(self, state, u, parameters, on_failure)

    def constraint_forces(
        self, state: State, *, parameters: Parameters | None = None
    ) -> ConstraintForces:
        """Forces of contacts, joint limits and dry friction over the step that led to a state.

        Args:
            state: State that a step or a rollout left, with its impulses; also of a trajectory
                made with ``keep_impulses=True``.
            parameters: Those of that step.

        Returns:
            Forces, without gradient; `inverse_dynamics` gives their sum, differentiable.

        Raises:
            SettingsError: If the state has no impulses.
        """
        return read_forces(self, state, parameters)

    def sensors(
        self,
        state: State | Trajectory,
        control: Tensor | Sequence[float] | None = None,
        *,
        names: Sequence[str] | None = None,
        next_state: State | None = None,
        parameters: Parameters | None = None,
    ) -> dict[str, Tensor]:
        """What the sensors of the model's file read, as MuJoCo defines them.

        Args:
            state: Where; of a trajectory all states but the last, each with its control.
            control: Controls of the coming step, zero by default.
            names: Sensors to read; all of the model by default.
            next_state: What the coming step leads to, for accelerations and forces; else taken.
            parameters: As in `step`.

        Returns:
            By name ``(B, dim)`` or ``(T, B, dim)``; no gradient of touch, force and torque.
        """
        return read_sensors(self, state, control, names, next_state, parameters)
