r"""An energy on a network: its value, its gradient, and the tangent space of the network in H1.

With fields :math:`u_\theta` and a rule :math:`(x_n, w_n)`

.. math:: E(\theta) = \sum_n w_n L(x_n, u_n, \nabla u_n), \qquad
          \nabla_\theta E = \sum_n w_n J_n^T\, \partial L_n, \qquad
          G = \sum_n w_n J_n^T M_n J_n,

where :math:`J_n` differentiates the jet :math:`(u, \nabla u)` at a point by the parameters. The
metric M is the identity for the H1 product, or the second derivative of L, with which G is the
Gauss-Newton part of the Hessian. Where the field holds its boundary values by construction the
gradient is also :math:`\sum_n w_n J_n^T (\mathcal{D}E)_n` with the Euler-Lagrange residual
:math:`\mathcal{D}E`: the same integral by parts, but without sampling error at the solution.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from solvers.core import SettingsError
from solvers.derivatives import (
    Backend,
    Layers,
    ModuleLayers,
    ResidualEngine,
    ResidualProgram,
    residual_engine,
    trace_residual,
)
from solvers.kernels import evaluate, reverse
from solvers.pde import Dirichlet, Neumann, Problem, sample
from solvers.pinn._ansatz import Ansatz
from solvers.pinn._terms import ConditionTerms, condition_program, interior_program
from solvers.pinn.variational._quadrature import Estimate, Quadrature

__all__ = ["Density", "Form", "Functional", "Metric"]

Metric: TypeAlias = Literal["h1", "energy"]
"""What lengths in function space are measured in."""

Form: TypeAlias = Literal["weak", "strong"]
"""The gradient from the density as it is, or integrated by parts."""

_CHUNK = 2**24
"""Numbers of a Jacobian that are held at a time: 128 MB."""

_PROBES = 64


class Density:
    r"""The density and its derivatives by the jet, at points.

    Args:
        problem: A problem with an energy.

    Attributes:
        order: Field and axis of each part of the jet; axis None for the value.

    Raises:
        SettingsError: If the density has derivatives above the first.
    """

    def __init__(self, problem: Problem) -> None:
        fields, axes = problem.fields, problem.domain.axes
        self.order = [(f, a) for f in range(len(fields)) for a in (None, *range(len(axes)))]
        self._numbers = list(problem.coefficients.values())
        trace = trace_residual(
            _density_of(problem), fields=fields, coordinates=axes,
            coefficients=list(problem.coefficients),
        )  # fmt: skip
        high = [index for _, index in trace.outputs if len(index) > 1]
        if high:
            raise SettingsError(
                f"{problem.name}: the energy holds a derivative of order {max(map(len, high))}, "
                "expected first derivatives at most, whose natural space is H1"
            )
        parts = [trace.output(f, () if a is None else (a,)) for f, a in self.order]
        self._inputs = list(trace.outputs)
        self._value = trace.residuals[0]
        self._slopes = reverse([(self._value, 1.0)], parts)
        self._curvature = [reverse([(slope, 1.0)], parts) for slope in self._slopes]

    def __call__(self, jets: Float[Tensor, "E N"], points: Float[Tensor, "N d"]) -> Tensor:
        """The density, shape ``(N,)``."""
        return self._evaluate([self._value], jets, points)[0]

    def slopes(self, jets: Float[Tensor, "E N"], points: Float[Tensor, "N d"]) -> Tensor:
        """Its first derivatives by the jet, shape ``(E, N)``."""
        return self._evaluate(self._slopes, jets, points)

    def curvature(self, jets: Float[Tensor, "E N"], points: Float[Tensor, "N d"]) -> Tensor:
        """Its second derivatives by the jet, shape ``(E, E, N)``."""
        flat = [entry for row in self._curvature for entry in row]
        return self._evaluate(flat, jets, points).view(len(jets), len(jets), -1)

    def _evaluate(self, outputs: Sequence[Any], jets: Tensor, points: Tensor) -> Tensor:
        place: dict[tuple[int, tuple[int, ...]], int] = {
            (f, () if a is None else (a,)): k for k, (f, a) in enumerate(self.order)
        }
        environment = {
            "n": [jets[place[key]] for key in self._inputs],
            "x": points,
            "s": self._numbers,
        }
        values = evaluate(list(outputs), environment)
        return torch.stack([torch.as_tensor(v).to(jets).expand(jets.shape[1]) for v in values])


class Functional:
    """The energy of a problem as a function of the parameters of a network.

    Args:
        problem: A problem with an energy.
        ansatz: How network outputs become fields.
        layers: The network.
        rule: Points and weights.
        penalty: Weight of the mean square of boundary values that do not hold by construction.
        condition_points: Points of each such condition.
        backend: Engine.
        threads: Threads of the compiled engine.

    Attributes:
        rule: Points and weights of now.
        density: The density at points.

    Raises:
        SettingsError: If a condition is neither natural nor given values, or coefficients are
            unknown.
    """

    def __init__(
        self,
        problem: Problem,
        ansatz: Ansatz,
        layers: Layers | ModuleLayers,
        rule: Quadrature,
        *,
        penalty: float = 500.0,
        condition_points: int = 200,
        backend: Backend = "auto",
        threads: int = 1,
    ) -> None:
        if problem.unknown:
            raise SettingsError(
                f"{problem.name}: {', '.join(problem.unknown)} cannot be found by making an energy "
                "least, which would take the smallest; use PINN"
            )
        self.problem, self.rule = problem, rule
        self.density = Density(problem)
        self._ansatz, self._layers = ansatz, layers
        self._options: dict[str, Any] = {"backend": backend, "threads": threads}
        self._penalties = [
            self._penalty_engine(condition, penalty, condition_points)
            for condition in ansatz.rest
            if not _is_natural(problem, condition)
        ]

    @property
    def is_exact_on_the_boundary(self) -> bool:
        """Whether boundary terms of an integration by parts vanish for every parameter."""
        return not self._penalties

    @property
    def parameter_count(self) -> int:
        """Length of the vector of parameters."""
        return self._layers.parameter_count

    @cached_property
    def program(self) -> ResidualProgram:
        """Euler-Lagrange equations on the network."""
        return interior_program(self.problem, self._ansatz, self._layers)

    def move(self, rule: Quadrature) -> None:
        """Go to other points."""
        is_as_long = len(rule.points) == len(self.rule.points)
        self.rule = rule
        known = self.__dict__
        known.pop("_zero_size", None)
        for name in known.keys() & {"_energies", "_equations"}:
            known[name].set_points(rule.points, rule.weights)
        if not is_as_long:
            known.pop("_chunks", None)
        for part, engine in known.get("_chunks", ()):
            points = rule.points[part]
            engine.set_points(points, torch.ones(len(points), dtype=torch.float64))

    def energy(self, theta: Float[Tensor, " P"]) -> float:
        """The energy, penalties included."""
        total = float(self.rule.integrate(self._densities(theta)))
        return total + sum(engine.loss(theta) for engine in self._penalties)

    def energy_and_gradient(self, theta: Float[Tensor, " P"]) -> tuple[float, Float[Tensor, " P"]]:
        """The energy, penalties included, and its gradient, in one sweep forward and back."""
        total, gradient = self._energies.sum_and_gradient(theta)
        for engine in self._penalties:
            more, slope = engine.loss_and_gradient(theta)
            total, gradient = total + more, gradient + slope
        return total, gradient

    def energy_estimate(self, theta: Float[Tensor, " P"]) -> Estimate:
        """The energy without penalties, with its standard error on the rule."""
        return self.rule.estimate(self._densities(theta))

    def gradient(self, theta: Float[Tensor, " P"], form: Form) -> Float[Tensor, " P"]:
        """The gradient in either form, from the tangent space."""
        total = torch.zeros(self.parameter_count, dtype=torch.float64)
        if form == "weak":
            force = self.density.slopes(self.jets(theta), self.rule.points) * self.rule.weights
        else:
            force = torch.zeros(len(self.density.order), len(self.rule.points)).double()
            values = [k for k, (_, axis) in enumerate(self.density.order) if axis is None]
            force[values] = self._equations.residuals(theta)
        for part, rows in self.tangent(theta):
            total += rows.flatten(1) @ force[:, part].flatten()
        for engine in self._penalties:
            total += engine.loss_and_gradient(theta)[1]
        return total

    def equation_size(self, theta: Float[Tensor, " P"]) -> float:
        """Root of the integral of the squared Euler-Lagrange equations."""
        return float((self._equations.residuals(theta) * self.rule.weights.rsqrt()).norm())

    def equation_residual(self, theta: Float[Tensor, " P"]) -> float:
        """The same, relative to that of a network that is zero."""
        return self.equation_size(theta) / (self._zero_size or 1.0)

    def jets(self, theta: Float[Tensor, " P"], part: slice | None = None) -> Float[Tensor, "E N"]:
        """Values and first derivatives of the fields, at all points or at one part of `tangent`."""
        chosen = [engine for place, engine in self._chunks if part is None or place == part]
        return torch.cat([engine.residuals(theta) for engine in chosen], dim=1)

    def tangent(self, theta: Float[Tensor, " P"]) -> Iterator[tuple[slice, Float[Tensor, "P E K"]]]:
        """Derivatives of the jets by the parameters, part by part of the points."""
        for part, engine in self._chunks:
            rows = engine.jacobian(theta).T
            yield part, rows.reshape(self.parameter_count, -1, part.stop - part.start)

    def weighted_rows(
        self, theta: Float[Tensor, " P"], metric: Metric
    ) -> Iterator[tuple[Float[Tensor, "P K"], Float[Tensor, "P K"]]]:
        r"""Pairs A, B of parts of the tangent space, with :math:`G = \sum A B^T`.

        Args:
            theta: Parameters.
            metric: ``"h1"``, where A is B, or ``"energy"``.
        """
        for part, rows in self.tangent(theta):
            weights = self.rule.weights[part]
            if metric == "h1":
                scaled = (rows * weights.sqrt()).flatten(1)
                yield scaled, scaled
            else:
                jets, points = self.jets(theta, part), self.rule.points[part]
                curvature = self.density.curvature(jets, points) * weights
                yield rows.flatten(1), torch.einsum("abn,pbn->pan", curvature, rows).flatten(1)
        for engine in self._penalties:
            rows = engine.jacobian(theta).T
            yield rows, rows

    def gram(self, theta: Float[Tensor, " P"], metric: Metric) -> Float[Tensor, "P P"]:
        """The matrix G of the tangent space."""
        total = torch.zeros(self.parameter_count, self.parameter_count, dtype=torch.float64)
        for left, right in self.weighted_rows(theta, metric):
            total.addmm_(left, right.T)
        return total

    def fields(self, theta: Float[Tensor, " P"], points: Float[Tensor, "N d"]) -> Tensor:
        """Fields at any points, shape ``(N, F)``."""
        return self.program.fields(points, self._layers(theta, self.program.inputs(points)))

    @cached_property
    def _zero_size(self) -> float:
        return self.equation_size(torch.zeros(self.parameter_count, dtype=torch.float64))

    @cached_property
    def _energies(self) -> ResidualEngine:
        program = self._program(_density_of(self.problem))
        return residual_engine(program, self.rule.points, self.rule.weights, **self._options)

    @cached_property
    def _equations(self) -> ResidualEngine:
        return residual_engine(self.program, self.rule.points, self.rule.weights, **self._options)

    def _densities(self, theta: Tensor) -> Tensor:
        return self.density(self.jets(theta), self.rule.points)

    @cached_property
    def _chunks(self) -> list[tuple[slice, ResidualEngine]]:
        size = len(self.density.order) * self.parameter_count
        step, total = max(_CHUNK // size, 32), len(self.rule.points)
        found = []
        for start in range(0, total, step):
            part = slice(start, min(start + step, total))
            ones = torch.ones(part.stop - start, dtype=torch.float64)
            points = self.rule.points[part]
            engine = residual_engine(self._jet_program, points, ones, **self._options)
            found.append((part, engine))
        return found

    @cached_property
    def _jet_program(self) -> ResidualProgram:
        def jet(fields: Mapping[str, Any], x: Any, c: Any) -> list[Any]:
            return [
                fields[self.problem.fields[f]].derivative(() if a is None else (a,))
                for f, a in self.density.order
            ]

        return self._program(jet)

    def _program(self, residual: Any) -> ResidualProgram:
        return ResidualProgram(
            residual,
            self._layers,
            fields=self.problem.fields,
            coordinates=self.problem.domain.axes,
            probe=sample(self.problem.domain, _PROBES),
            coefficients=self.problem.coefficients,
            transform=self._ansatz.transform,
            embedding=self._ansatz.embedding,
        )

    def _penalty_engine(self, condition: Any, penalty: float, count: int) -> ResidualEngine:
        where = self.problem.place_condition(condition, count)
        terms = ConditionTerms.of(self.problem, condition, where)
        program = condition_program(self.problem, self._ansatz, self._layers, terms)
        weight = (penalty * self.problem.domain.surface_area / len(where.points)) ** 0.5
        weights = torch.full((len(where.points),), weight, dtype=torch.float64)
        return residual_engine(program, terms.columns, weights, **self._options)


def _density_of(problem: Problem) -> Any:
    energy = problem.energy
    if energy is None:
        raise SettingsError(
            f"{problem.name} has no energy, expected a problem that gives its density as "
            "energy=lambda u, x: ...; for an equation without one take PINN"
        )
    parameters = inspect.signature(energy).parameters.values()
    names = [parameter.name for parameter in parameters if parameter.default is parameter.empty]

    def density(fields: Mapping[str, Any], x: Mapping[str, Any], c: Mapping[str, Any]) -> Any:
        known = {**fields, **x, **c}
        return energy(**{name: known[name] for name in names})

    return density


def _is_natural(problem: Problem, condition: Any) -> bool:
    """Whether a minimiser satisfies a condition by itself.

    Raises:
        SettingsError: If a condition can be neither natural nor a penalty on values.
    """
    if isinstance(condition, Dirichlet):
        return False
    if isinstance(condition, Neumann) and all(
        not callable(value) and float(value) == 0.0 for value in condition.values.values()
    ):
        return True
    raise SettingsError(
        f"{problem.name}: an energy does not hold the condition {condition.label!r}, expected "
        "given values, periodicity, or no flux, which minimisers of the energy have by themselves; "
        "write another flux as a force near the wall"
    )
