r"""A transport equation in label coordinates.

For :math:`u_t + c(u,x,t)\,u_x = \nu\,u_{xx} + s` and a map :math:`x = X(\xi, t)` that moves with

.. math:: X_t = c + v, \qquad v = \kappa\, X_{\xi\xi} / J^2, \qquad J = X_\xi,

the state :math:`W(\xi, t) = u(X(\xi, t), t)` obeys

.. math:: W_t = \nu \Bigl( \frac{W_{\xi\xi}}{J^2} - \frac{W_\xi X_{\xi\xi}}{J^3} \Bigr)
          + v \frac{W_\xi}{J} + s.

:math:`\kappa = 0` follows the characteristics exactly, and folds where they cross.
:math:`\kappa = \nu` adds the diffusion velocity of the density of labels, :math:`1/J`, which then
obeys an advection-diffusion equation and stays positive: the map cannot fold.

Source: Mojgani, Balajewicz and Hassanzadeh (2023), Kolmogorov n-width and Lagrangian
physics-informed neural networks, solves :math:`X_t = c`, :math:`W_t = \nu W_{\xi\xi} + s`, which
diffuses in the label and is right for uniform speed only; it is the preset ``"published"``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from solvers.core import SettingsError
from solvers.kernels import scalar
from solvers.pde import Box, Condition, Dirichlet, Initial, Periodic, Problem, sample
from solvers.pinn._ansatz import function_of

__all__ = ["Formulation", "Transport", "label_problem"]

Formulation: TypeAlias = Literal["viscous", "lagrangian", "published"]
"""How labels move and states diffuse, see this module."""

_SMALLEST = 1e-3
"""Least factor of the residuals where labels have come close."""

_PROBES = 64


@dataclass(frozen=True, eq=False)
class Transport:
    """Speed, diffusivity and source of a transport equation, read off its residual.

    Args:
        problem: One field, one axis in space, and a residual of the form above.

    Raises:
        SettingsError: If the residual is of another form.
    """

    problem: Problem

    def __post_init__(self) -> None:
        problem = self.problem
        axes = problem.domain.axes
        if len(problem.fields) != 1 or len(axes) != 2 or axes[1] != "t" or problem.unknown:
            raise SettingsError(
                f"{problem.name}: fields {', '.join(problem.fields)} on axes {', '.join(axes)}, "
                "expected one field on one axis in space and t, with known coefficients"
            )
        if not isinstance(problem.domain, Box):
            raise SettingsError(f"{problem.name}: the domain is no box, expected one")
        generator = torch.Generator().manual_seed(0)
        draws = torch.randn(4, _PROBES, generator=generator, dtype=torch.float64)
        points = sample(problem.domain, _PROBES)
        u, u_x, u_t, u_xx = draws
        speed, diffusivity, source = self(u, points[:, 0], points[:, 1])
        expected = u_t + speed * u_x - diffusivity * u_xx - source
        got = self._residual(u, points[:, 0], points[:, 1], u_x, u_t, u_xx)
        if not torch.allclose(got, torch.as_tensor(expected), rtol=1e-9, atol=1e-9):
            raise SettingsError(
                f"{problem.name} is not of the form u_t + c(u,x,t) u_x = nu u_xx + s; take PINN"
            )

    @property
    def field(self) -> str:
        """Name of the field."""
        return self.problem.fields[0]

    def __call__(self, u: Any, x: Any, t: Any) -> tuple[Any, Any, Any]:
        """Speed, diffusivity and source, on generic scalars."""
        rest = self._residual(u, x, t, 0.0, 0.0, 0.0)
        speed = scalar.subtract(self._residual(u, x, t, 1.0, 0.0, 0.0), rest)
        diffusivity = scalar.subtract(rest, self._residual(u, x, t, 0.0, 0.0, 1.0))
        return speed, diffusivity, scalar.negative(rest)

    def _residual(self, u: Any, x: Any, t: Any, u_x: Any, u_t: Any, u_xx: Any) -> Any:
        derivatives: dict[tuple[int, ...], Any] = {
            (0, 0): u,
            (1, 0): u_x,
            (0, 1): u_t,
            (2, 0): u_xx,
        }
        coordinates = dict(zip(self.problem.domain.axes, (x, t), strict=True))
        (term,) = self.problem.residual_terms({self.field: derivatives}, coordinates)
        return term

    @property
    def drift(self) -> float:
        """Mean speed of the initial state."""
        points = sample(self.problem.domain, _PROBES)
        states = start_of(self.problem)(points[:, 0])
        speed, _, _ = self(states, points[:, 0], points[:, 1])
        return float(torch.as_tensor(speed, dtype=torch.float64).mean())

    @property
    def is_viscous(self) -> bool:
        """Whether anything diffuses."""
        points = sample(self.problem.domain, _PROBES)
        _, diffusivity, _ = self(torch.ones(_PROBES), points[:, 0], points[:, 1])
        return bool((torch.as_tensor(diffusivity) != 0).any())


def start_of(problem: Problem) -> Any:
    """Initial state as a function of space.

    Raises:
        SettingsError: If the problem has none.
    """
    for condition in problem.conditions:
        if isinstance(condition, Initial) and problem.fields[0] in condition.values:
            given = function_of(problem, condition.values[problem.fields[0]])
            return lambda x: scalar.add(scalar.multiply(x, 0.0), given([x, 0.0]))
    raise SettingsError(f"{problem.name} has no initial state, expected Initial(...)")


def label_problem(transport: Transport, formulation: Formulation) -> Problem:
    """Write a transport equation for map ``X`` and state ``W`` over labels ``xi``.

    Args:
        transport: The equation.
        formulation: How labels move.

    Returns:
        The problem; its residuals are weighted with the root of ``J``, which makes the sum over
        labels one over space.
    """
    problem = transport.problem
    axis = problem.domain.axes[0]
    start = start_of(problem)

    def residual(X: Any, W: Any, xi: Any, t: Any) -> tuple[Any, Any]:
        speed, nu, source = transport(W, X, t)
        if formulation == "published":
            spread = scalar.multiply(nu, W.xixi) if not scalar.is_zero(nu) else 0.0
            return X.t - speed, scalar.subtract(scalar.subtract(W.t, spread), source)
        if scalar.is_zero(nu):
            return X.t - speed, scalar.subtract(W.t, source)
        J = X.xi
        drift = scalar.multiply(nu, X.xixi / (J * J)) if formulation == "viscous" else 0.0
        slope = W.xi / J
        curvature = (W.xixi - slope * X.xixi) / (J * J)
        weight = scalar.sqrt(scalar.maximum(J, _SMALLEST))
        motion = scalar.subtract(X.t - speed, drift)
        gained = scalar.add(scalar.multiply(nu, curvature), scalar.multiply(drift, slope))
        change = scalar.subtract(scalar.subtract(W.t, gained), source)
        return weight * motion, weight * change

    def state(xi: Any) -> Any:
        return start(xi)

    conditions: list[Condition] = [Initial(X=lambda xi: xi, W=state)]
    for condition in problem.conditions:
        if isinstance(condition, Periodic):
            conditions.append(Periodic("xi"))
        elif isinstance(condition, Dirichlet):
            conditions += _walls(transport, condition)
        elif not isinstance(condition, Initial):
            raise SettingsError(
                f"{problem.name}: condition {condition.label!r}, expected initial, periodic or "
                "Dirichlet ones; take PINN"
            )
    return Problem(
        name=f"{problem.name} in labels",
        domain=Box(xi=problem.domain.bounds[axis], t=problem.domain.bounds["t"]),
        fields=("X", "W"),
        residual=residual,
        conditions=conditions,
    )


def _walls(transport: Transport, condition: Dirichlet) -> list[Condition]:
    """Faces at which nothing flows: labels stay there."""
    problem = transport.problem
    bounds = problem.domain.bounds[problem.domain.axes[0]]
    sides = {"both": (0, 1), "lower": (0,), "upper": (1,)}[condition.side]
    value = condition.values[transport.field]
    walls: list[Condition] = []
    for side in sides:
        t = sample(problem.domain, _PROBES)[:, 1]
        if callable(value):
            raise SettingsError(
                f"{problem.name}: the value on the boundary is a function, expected a number; "
                "take PINN"
            )
        speed, _, _ = transport(torch.full_like(t, float(value)), t * 0.0 + bounds[side], t)
        if not torch.allclose(torch.as_tensor(speed, dtype=torch.float64), torch.zeros(1).double()):
            raise SettingsError(
                f"{problem.name}: something flows through the boundary at {bounds[side]:g}, "
                "expected walls or a periodic domain; take PINN"
            )
        place: Any = ("lower", "upper")[side]
        walls.append(Dirichlet(axis="xi", side=place, X=bounds[side], W=float(value)))
    return walls


def wrap(transport: Transport, x: Tensor) -> Tensor:
    """Bring positions of a periodic domain back into it."""
    problem = transport.problem
    lower, upper = problem.domain.bounds[problem.domain.axes[0]]
    if any(isinstance(condition, Periodic) for condition in problem.conditions):
        return lower + torch.remainder(x - lower, upper - lower)
    return x
