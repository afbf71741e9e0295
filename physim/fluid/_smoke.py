r"""Smoke that rises, past obstacles: advection, buoyancy, projection.

.. math:: \partial_t u + u\cdot\nabla u = -\nabla p / \rho + \beta s\, e_{\rm up}, \quad
          \nabla\cdot u = 0, \qquad \partial_t s + u\cdot\nabla s = q .
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from physim.fluid._advection import Scheme, advect
from physim.fluid._grid import StaggeredGrid
from physim.fluid._obstacles import Obstacle, open_fractions, solid_flux
from physim.fluid._projection import PressureProjection
from solvers.core import (
    OnFailure,
    Report,
    SettingsError,
    ShapeError,
    check_choice,
    check_count,
    check_finite,
    check_kind,
    check_positive,
)
from solvers.linear import LinearSolver

__all__ = ["Smoke", "SmokeState"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SmokeState:
    """A moment of a flow.

    Attributes:
        velocity: One component for each axis on its faces [m/s].
        smoke: Amount of smoke in every cell.
        pressure: The last pressure times the timestep over the density [m^2/s]; where the next
            solve starts.
    """

    velocity: tuple[Tensor, ...]
    smoke: Tensor
    pressure: Tensor


class Smoke:
    r"""A scene of rising smoke, differentiable in its source, obstacles, buoyancy and start.

    The pressure's hierarchy is prepared once for the obstacles and serves all steps and their
    gradients. The system is incompressible and without viscosity; the layer of two cells at the
    surface of an obstacle brakes what passes.

    Args:
        grid: The grid; the last axis points up.
        timestep: Duration of a step [s].
        source: Smoke that appears in every cell in a second [1/s]; none by default.
        obstacles: Solid bodies, where they are now; `Moving` ones push the air.
        buoyancy: Upward acceleration for one unit of smoke [m/s^2], a number, or one for every
            face of the last axis.
        sides: For each axis whether its first and last sides are open; walls by default, open
            above.
        scheme: Of the advection.
        solver: For the pressure.

    Raises:
        SettingsError: If a setting is out of range.
        ShapeError: If the source or the buoyancy does not fit the grid.
        NonFiniteError: If the source or the buoyancy holds NaN or infinity.

    Gradients: exact through all steps; one adjoint pressure solve a step. Memory grows with the
    steps.
    Cost: one pressure solve a step, and the advection of each component and of the smoke.
    Reference: Fedkiw, Stam & Jensen 2001, "Visual simulation of smoke".

    Example:
        >>> grid = StaggeredGrid((16, 24))
        >>> source = torch.zeros(grid.shape, dtype=torch.float64)
        >>> source[6:10, 1:3] = 1.0
        >>> scene = Smoke(grid, timestep=0.5, source=source)
        >>> states = scene.run(scene.initial_state(), steps=4)
        >>> bool(states[-1].velocity[1].max() > 0)
        True
    """

    def __init__(
        self,
        grid: StaggeredGrid,
        *,
        timestep: float,
        source: Tensor | None = None,
        obstacles: Sequence[Obstacle] = (),
        buoyancy: float | Tensor = 1.0,
        sides: Sequence[tuple[bool, bool]] | None = None,
        scheme: Scheme = "maccormack",
        solver: LinearSolver | None = None,
    ):
        check_positive("timestep", timestep)
        check_choice("scheme", scheme, ("maccormack", "semi-lagrangian"))
        if source is not None:
            grid.check_cells("source", source)
            check_finite("source", source.detach())
        _check_buoyancy(grid, buoyancy)
        openings = sides or [*([(False, False)] * (grid.axes - 1)), (False, True)]
        if len(openings) != grid.axes or any(
            not isinstance(pair, Sequence) or len(pair) != 2 for pair in openings
        ):
            raise SettingsError(
                f"sides: got {sides!r}, expected a pair of flags for each of {grid.axes} axes"
            )
        self.grid = grid
        self.timestep = timestep
        self.source = source
        self.buoyancy = buoyancy
        self.scheme: Scheme = scheme
        self.sides = openings
        self.projection = self._project(obstacles, solver=solver)

    def _project(
        self,
        obstacles: Sequence[Obstacle],
        *,
        solver: LinearSolver | None = None,
        previous: PressureProjection | None = None,
    ) -> PressureProjection:
        if not isinstance(obstacles, Sequence) or not all(
            isinstance(obstacle, Obstacle) for obstacle in obstacles
        ):
            raise SettingsError(
                f"obstacles: got {obstacles!r}, expected a list of bodies such as Sphere, with a "
                "distance(points)"
            )
        fractions = open_fractions(self.grid, obstacles, self.sides)
        opening = torch.cat([w.detach().flatten() for w in fractions])
        check_finite("obstacles", opening)
        if not bool((opening > 0).any()):
            raise SettingsError("obstacles: they fill the whole grid, so there is nothing to flow")
        carried = solid_flux(self.grid, obstacles, self.sides)
        for part in carried or ():
            check_finite("obstacles: the velocity", part.detach())
        return PressureProjection(
            self.grid, fractions, solver=solver, solid=carried, previous=previous
        )

    def with_obstacles(self, obstacles: Sequence[Obstacle]) -> Smoke:
        """The same scene with its bodies elsewhere.

        The memory of the pressure's hierarchy goes over to the new scene and is filled anew; this
        one still works, but prepares its own again first.

        Args:
            obstacles: All bodies where they are now, `Moving` ones with their velocity.

        Raises:
            SettingsError: If they fill the whole grid.
            NonFiniteError: If a place or a velocity is NaN or infinite.
        """
        scene = copy(self)
        scene.projection = self._project(obstacles, previous=self.projection)
        return scene

    def initial_state(self) -> SmokeState:
        """Air at rest without smoke."""
        zero = torch.zeros(self.grid.shape, dtype=torch.float64)
        velocity = tuple(zero.new_zeros(self.grid.face_shape(a)) for a in range(self.grid.axes))
        return SmokeState(velocity=velocity, smoke=zero, pressure=zero)

    def step(
        self, state: SmokeState, *, on_failure: OnFailure = "raise"
    ) -> tuple[SmokeState, Report]:
        """Go one timestep on.

        Args:
            state: The moment before.
            on_failure: What to do if the pressure solve fails.

        Returns:
            The moment after, and the report of the pressure solve.

        Raises:
            ShapeError: If the state does not fit the grid.
            NotConvergedError: If the solve fails and ``on_failure="raise"``.
        """
        grid, duration = self.grid, self.timestep
        grid.check_velocity(state.velocity)
        grid.check_cells("smoke", state.smoke)
        components = {f"velocity[{axis}]": u for axis, u in enumerate(state.velocity)}
        for name, field in {"smoke": state.smoke, **components}.items():
            if field.dtype != torch.float64:
                raise SettingsError(
                    f"{name}: got {field.dtype}, expected torch.float64; convert it with .double()"
                )
        smoke = advect(grid, state.smoke, state.velocity, duration, scheme=self.scheme)
        if self.source is not None:
            smoke = smoke + duration * self.source
        carried = [
            advect(grid, u, state.velocity, duration, component=axis, scheme=self.scheme)
            for axis, u in enumerate(state.velocity)
        ]
        carried[-1] = carried[-1] + duration * self.buoyancy * _on_top_faces(smoke)
        velocity, pressure, report = self.projection(
            carried, guess=state.pressure.detach(), on_failure=on_failure
        )
        return SmokeState(velocity=velocity, smoke=smoke, pressure=pressure), report

    def run(
        self,
        state: SmokeState,
        steps: int,
        *,
        motion: Callable[[int], Sequence[Obstacle]] | None = None,
        on_failure: OnFailure = "raise",
    ) -> list[SmokeState]:
        """Go many timesteps on.

        Args:
            state: The first moment.
            steps: Number of steps.
            motion: Gives all bodies of a step, counted from 0, where they are at its end; by
                default they stay.
            on_failure: What to do if a pressure solve fails.

        Returns:
            All moments, ``steps + 1`` of them.

        Raises:
            SettingsError: If the number of steps is not whole or below zero.
            NotConvergedError: If a solve fails and ``on_failure="raise"``.
        """
        check_count("steps", steps, least=0)
        states, scene = [state], self
        for number in range(steps):
            if motion is not None:
                scene = scene.with_obstacles(motion(number))
            states.append(scene.step(states[-1], on_failure=on_failure)[0])
        return states


def _check_buoyancy(grid: StaggeredGrid, buoyancy: float | Tensor) -> None:
    check_kind("buoyancy", buoyancy, (int, float, Tensor), "a number or a tensor")
    strength = torch.as_tensor(buoyancy).detach()
    faces = grid.face_shape(grid.axes - 1)
    if strength.ndim and tuple(strength.shape) != faces:
        raise ShapeError(
            f"buoyancy: got shape {tuple(strength.shape)}, expected a number, or {faces}, one for "
            "every face of the last axis"
        )
    check_finite("buoyancy", strength)


def _on_top_faces(cells: Tensor) -> Tensor:
    """Means of the cells on both sides of every face of the last axis."""
    padded = torch.cat([cells[..., :1], cells, cells[..., -1:]], -1)
    return 0.5 * (padded[..., 1:] + padded[..., :-1])
