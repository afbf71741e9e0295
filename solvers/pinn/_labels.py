r"""A transport equation in label coordinates, on a line or in a plane.

For :math:`u_t + c\cdot\nabla u = \nu\,\Delta u + s` with :math:`c, \nu, s` of :math:`(u, x, t)`,
and a map :math:`x = X(\xi, t)` with :math:`F = \partial X/\partial\xi`, :math:`J = \det F` and
:math:`G = F^{-1}`, labels move by

.. math:: X_t = c + v, \qquad v = \kappa\, \nabla \log J = \kappa\, G^\top \nabla_\xi \log J,

and the state :math:`W(\xi, t) = u(X(\xi, t), t)` obeys

.. math:: W_t = \nu\,\Delta u + v\cdot\nabla u + s, \qquad \nabla u = G^\top \nabla_\xi W, \qquad
          \Delta u = \sum_{ab} (G G^\top)_{ab} \bigl( W_{ab} - \nabla u \cdot X_{ab} \bigr).

On a line these are :math:`v = \kappa X_{\xi\xi}/J^2` and
:math:`\Delta u = W_{\xi\xi}/J^2 - W_\xi X_{\xi\xi}/J^3`. :math:`\kappa = 0` follows the
characteristics exactly, and folds where they cross. :math:`\kappa = \nu` adds the diffusion
velocity of the density of labels, :math:`1/J`, which then obeys an advection-diffusion equation and
stays positive: the map cannot fold.

Source: Mojgani, Balajewicz and Hassanzadeh (2023), Kolmogorov n-width and Lagrangian
physics-informed neural networks, solves :math:`X_t = c`, :math:`W_t = \nu W_{\xi\xi} + s`, which
diffuses in the label and is right for uniform speed only; it is the preset ``"published"``.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from solvers.core import SettingsError
from solvers.kernels import scalar
from solvers.pde import Box, Initial, Problem, sample
from solvers.pinn._given import function_of

__all__ = ["LABELS", "POSITIONS", "Formulation", "Transport", "label_equations"]

Formulation: TypeAlias = Literal["viscous", "lagrangian", "published"]
"""How labels move and states diffuse, see this module."""

LABELS = ("xi", "eta")
"""Axes of the labels."""

POSITIONS = ("X", "Y")
"""Fields that tell where labels are."""

_SMALLEST = 1e-3
"""Least factor of the residuals where labels have come close."""

_PROBES = 64


@dataclass(frozen=True, eq=False)
class Transport:
    """Speed, diffusivity and source of a transport equation, read off its residual.

    Args:
        problem: One field, one axis or two in space, and a residual of the form above.

    Raises:
        SettingsError: If the residual is of another form.
    """

    problem: Problem

    def __post_init__(self) -> None:
        problem = self.problem
        axes = problem.domain.axes
        fits = len(axes) in {2, 3} and axes[-1] == "t"
        if len(problem.fields) != 1 or not fits or problem.unknown:
            raise SettingsError(
                f"{problem.name}: fields {', '.join(problem.fields)} on axes {', '.join(axes)}, "
                "expected one field on one axis or two in space and t last, with known coefficients"
            )
        if not isinstance(problem.domain, Box):
            raise SettingsError(f"{problem.name}: the domain is no box, expected one")
        generator = torch.Generator().manual_seed(0)
        d = self.dimension
        draws = torch.randn(2 + 2 * d + 1, _PROBES, generator=generator, dtype=torch.float64)
        u, rate, mixed, *others = draws
        slopes, bends = others[:d], others[d:]
        where = self.probes()
        speeds, diffusivity, source = self(u, *where)
        carried = sum(c * slope for c, slope in zip(speeds, slopes, strict=True))
        expected = rate + carried - diffusivity * sum(bends) - source
        got = self._residual(u, where, slopes, rate, bends, mixed)
        if not torch.allclose(got, torch.as_tensor(expected), rtol=1e-9, atol=1e-9):
            form = "u_t + c(u,x,t) u_x = nu u_xx + s" if d == 1 else (
                "u_t + a(u,x,y,t) u_x + b(u,x,y,t) u_y = nu (u_xx + u_yy) + s"
            )  # fmt: skip
            raise SettingsError(f"{problem.name} is not of the form {form}; take PINN")

    @property
    def dimension(self) -> int:
        """Axes in space."""
        return len(self.problem.domain.axes) - 1

    @property
    def field(self) -> str:
        """Name of the field."""
        return self.problem.fields[0]

    def __call__(self, u: Any, *where: Any) -> tuple[tuple[Any, ...], Any, Any]:
        """Speed along each axis, diffusivity and source, on generic scalars.

        Args:
            u: State.
            *where: Coordinates in space, then the time.
        """
        zeros = [0.0] * self.dimension
        units = [[float(a == b) for b in range(self.dimension)] for a in range(self.dimension)]
        rest = self._residual(u, where, zeros, 0.0, zeros)
        speeds = tuple(
            scalar.subtract(self._residual(u, where, unit, 0.0, zeros), rest) for unit in units
        )
        diffusivity = scalar.subtract(rest, self._residual(u, where, zeros, 0.0, units[0]))
        return speeds, diffusivity, scalar.negative(rest)

    def _residual(
        self,
        u: Any,
        where: Sequence[Any],
        slopes: Sequence[Any],
        rate: Any,
        bends: Sequence[Any],
        mixed: Any = 0.0,
    ) -> Any:
        d = self.dimension
        derivatives: dict[tuple[int, ...], Any] = {
            (0,) * (d + 1): u,
            (*([0] * d), 1): rate,
        }
        for a in range(d):
            for order, values in ((1, slopes), (2, bends)):
                index = tuple(order if a == b else 0 for b in range(d))
                derivatives[(*index, 0)] = values[a]
        if d == 2:
            derivatives[1, 1, 0] = mixed
        coordinates = dict(zip(self.problem.domain.axes, where, strict=True))
        (term,) = self.problem.residual_terms({self.field: derivatives}, coordinates)
        return term

    def probes(self) -> list[Tensor]:
        """Coordinates of a few points of the domain."""
        return list(sample(self.problem.domain, _PROBES).unbind(1))

    def speeds(self, u: Any, where: Sequence[Tensor]) -> Tensor:
        """Speed at points as a tensor, shape ``(N, d)``."""
        return torch.stack([_spread(c, where[0]) for c in self(u, *where)[0]], dim=1)

    def start(self, place: Sequence[Any]) -> Any:
        """Initial state at places, on generic scalars.

        Raises:
            SettingsError: If the problem has none.
        """
        problem = self.problem
        for condition in problem.conditions:
            if isinstance(condition, Initial) and self.field in condition.values:
                given = function_of(problem, condition.values[self.field])
                return given([*place, problem.domain.bounds["t"][0]])
        raise SettingsError(f"{problem.name} has no initial state, expected Initial(...)")

    @property
    def drift(self) -> Tensor:
        """Mean speed of the initial state, shape ``(d,)``."""
        where = self.probes()
        return self.speeds(self.start(where[:-1]), where).mean(0)

    @cached_property
    def is_viscous(self) -> bool:
        """Whether anything diffuses."""
        where = self.probes()
        _, diffusivity, _ = self(torch.ones(_PROBES), *where)
        return bool((torch.as_tensor(diffusivity) != 0).any())

    @property
    def is_linear(self) -> bool:
        """Whether the speed does not depend on the state."""
        where = self.probes()
        one, other = (self.speeds(torch.full_like(where[0], u), where) for u in (-0.7, 1.9))
        return torch.equal(one, other)


def _spread(value: Any, like: Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64).expand_as(like)


def label_equations(
    transport: Transport, formulation: Formulation, positions: Sequence[Any], state: Any, t: Any
) -> tuple[Any, ...]:
    """Residuals of the map and of the state along it.

    Args:
        transport: The equation.
        formulation: How labels move.
        positions: Fields ``X`` and, in a plane, ``Y`` over labels, with derivatives as attributes.
        state: Field ``W`` over labels.
        t: Time.

    Returns:
        One residual per position and one for the state; with diffusion weighted with the root of
        ``J``, which makes the sum of squares over labels one over space.
    """
    speeds, nu, source = transport(state, *positions, t)
    motion = [scalar.subtract(x.t, c) for x, c in zip(positions, speeds, strict=True)]
    change = scalar.subtract(state.t, source)
    if not transport.is_viscous:
        return *motion, change
    labels = LABELS[: len(positions)]
    if formulation == "published":
        spread = _total(getattr(state, label + label) for label in labels)
        return *motion, scalar.subtract(change, scalar.multiply(nu, spread))
    J, G = _inverse([[getattr(x, label) for label in labels] for x in positions])
    axes = range(len(labels))

    def second(f: Any, a: int, b: int) -> Any:
        return getattr(f, labels[min(a, b)] + labels[max(a, b)])

    slope = [_total(G[a][i] * getattr(state, labels[a]) for a in axes) for i in axes]
    laplacian = _total(
        _total(G[a][i] * G[b][i] for i in axes)
        * (second(state, a, b) - _total(slope[i] * second(positions[i], a, b) for i in axes))
        for a, b in itertools.product(axes, axes)
    )
    change = scalar.subtract(change, scalar.multiply(nu, laplacian))
    if formulation == "viscous":
        crowding = [
            _total(G[b][i] * second(positions[i], a, b) for b, i in itertools.product(axes, axes))
            for a in axes
        ]
        for i in axes:
            drift = scalar.multiply(nu, _total(G[a][i] * crowding[a] for a in axes))
            motion[i] = scalar.subtract(motion[i], drift)
            change = scalar.subtract(change, scalar.multiply(drift, slope[i]))
    weight = scalar.sqrt(scalar.maximum(J, _SMALLEST))
    return *(weight * term for term in motion), weight * change


def _total(terms: Any) -> Any:
    """Sum of generic scalars."""
    total: Any = 0.0
    for term in terms:
        total = scalar.add(total, term)
    return total


def _inverse(F: list[list[Any]]) -> tuple[Any, list[list[Any]]]:
    """Determinant and inverse of a matrix of one or two rows."""
    if len(F) == 1:
        return F[0][0], [[1.0 / F[0][0]]]
    (a, b), (c, d) = F
    J = a * d - b * c
    return J, [[d / J, -b / J], [-c / J, a / J]]
