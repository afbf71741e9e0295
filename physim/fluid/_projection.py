r"""The pressure that makes a velocity free of divergence, past obstacles between cells.

With :math:`w` the open fraction of the faces, the flux :math:`w u` must have no divergence:

.. math:: u = u^* - G p, \qquad -D(w\, G p) = -D(w\, u^*) ,

a symmetric system for :math:`p`, the pressure times the timestep over the density. The result is
the nearest such field in the norm :math:`\sum w u^2` of kinetic energy. Where a body moves with
velocity :math:`u_s`, it carries :math:`(1 - w) u_s` through the part of a face that it covers, and
the sum :math:`w u + (1 - w) u_s` has no divergence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from physim.fluid._grid import StaggeredGrid
from solvers.core import OnFailure, Report
from solvers.linear import ConjugateGradient, LinearSolver, Multigrid, PoissonOperator

__all__ = ["PressureProjection"]

_ROUNDING = 1e-10


class PressureProjection:
    """A projection prepared for one set of obstacles.

    Args:
        grid: The grid.
        fractions: Open fraction of the faces of every axis, 0 on walls. Beyond an open side the
            pressure is zero, one cell from the centre of the last cell.
        solver: For the pressure; conjugate gradients with multigrid to 1e-8 by default.
        solid: What moving bodies carry through every face [m/s]; nothing by default.
        previous: A projection on the same grid, whose memory and solver go over to this one.

    Gradients: of the velocity, the fractions and what bodies carry, by one adjoint solve with the
    same hierarchy.
    Reference: Batty, Bertails & Bridson 2007, "A fast variational framework for accurate
    solid-fluid coupling".

    Example:
        >>> from physim.fluid import StaggeredGrid
        >>> from physim.fluid._obstacles import open_fractions
        >>> grid = StaggeredGrid((8, 8))
        >>> fractions = open_fractions(grid, (), [(False, False), (False, True)])
        >>> projection = PressureProjection(grid, fractions)
        >>> wild = [torch.randn(grid.face_shape(a), dtype=torch.float64) for a in (0, 1)]
        >>> flow, pressure, report = projection(wild)
        >>> bool(grid.divergence(flow).abs().max() < 1e-6)
        True
    """

    def __init__(
        self,
        grid: StaggeredGrid,
        fractions: Sequence[Tensor],
        *,
        solver: LinearSolver | None = None,
        solid: Sequence[Tensor] | None = None,
        previous: PressureProjection | None = None,
    ):
        grid.check_velocity(fractions)
        self.grid = grid
        self.fractions = list(fractions)
        self.solid = None if solid is None else list(solid)
        scale = 1.0 / grid.spacing**2
        couplings, boundary = [], torch.zeros(grid.shape, dtype=fractions[0].dtype)
        for axis, fraction in enumerate(fractions):
            couplings.append(scale * _inner(fraction, axis))
            inner = list(grid.shape)
            inner[axis] -= 1
            between = fraction.new_zeros(inner)
            first, last = fraction.narrow(axis, 0, 1), fraction.narrow(axis, grid.shape[axis], 1)
            outer = torch.cat([first, between], axis) + torch.cat([between, last], axis)
            boundary = boundary + scale * outer
        self.operator = PoissonOperator(couplings, boundary)
        if previous is None:
            self.solver = solver or ConjugateGradient(preconditioner=Multigrid(), rtol=1e-8)
            self._prepared = self.solver.prepare(self.operator)
        else:
            self.solver = previous.solver
            self._prepared = previous._prepared.update(self.operator)
        self._closed = self.operator.null_space()

    def __reduce__(self) -> tuple[Callable[..., PressureProjection], tuple[object, ...]]:
        """Grid, fractions and solver; what was prepared is prepared again."""
        again = partial(PressureProjection, solver=self.solver, solid=self.solid)
        return again, (self.grid, self.fractions)

    def __call__(
        self,
        velocity: Sequence[Tensor],
        *,
        guess: Tensor | None = None,
        on_failure: OnFailure = "raise",
    ) -> tuple[tuple[Tensor, ...], Tensor, Report]:
        """Project a velocity.

        Args:
            velocity: One component for each axis on its faces [m/s].
            guess: The last pressure, to start from.
            on_failure: ``"raise"``, ``"warn"`` or ``"mask"``.

        Returns:
            The flux ``w u + (1 - w) u_s`` [m/s], inside of obstacles their velocity and zero on
            walls; the pressure times the timestep over the density [m^2/s]; the report of the
            solve, ``INFEASIBLE`` where bodies squeeze a closed region.

        Raises:
            ShapeError: If a component has the wrong shape.
            NotConvergedError: If the solve fails and ``on_failure="raise"``.
        """
        self.grid.check_velocity(velocity)
        flux = [w * u for w, u in zip(self.fractions, velocity, strict=True)]
        if self.solid is not None:
            flux = [part + carried for part, carried in zip(flux, self.solid, strict=True)]
        b = -self.grid.divergence(flux)
        if self._closed is not None:
            # Between walls the sum is zero but for rounding, which is all there is in calm air,
            # unless bodies squeeze what is closed.
            balanced = self._closed.remove(b)
            excess = float((b - balanced).detach().abs().max()) * self.grid.spacing
            if excess <= _ROUNDING * max(float(part.detach().abs().max()) for part in flux):
                b = balanced
        solution = self._prepared.solve(b, x0=guess, on_failure=on_failure)
        pressure = solution.value
        projected = []
        for axis, (w, part) in enumerate(zip(self.fractions, flux, strict=True)):
            # Beyond an open side the pressure is zero; on a wall w is.
            edge = list(self.grid.shape)
            edge[axis] = 1
            outside = pressure.new_zeros(edge)
            around = torch.cat([outside, pressure, outside], axis)
            projected.append(part - w * self.grid.gradient(around, axis))
        return tuple(projected), pressure, solution.report


def _inner(faces: Tensor, axis: int) -> Tensor:
    return faces.narrow(axis, 1, faces.shape[axis] - 2)
