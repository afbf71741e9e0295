"""The loss of a physics-informed network: equations at points inside, conditions at theirs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from solvers.core import ShapeError
from solvers.derivatives import (
    Backend,
    Layers,
    ModuleLayers,
    ResidualEngine,
    ResidualProgram,
    residual_engine,
)
from solvers.pde import Problem, resample, sample
from solvers.pinn._ansatz import Ansatz
from solvers.pinn._terms import (
    ConditionTerms,
    condition_program,
    interior_program,
    natural_scales,
)

__all__ = ["Collocation"]

_CANDIDATES = 8
"""Candidates per point when points are drawn by residual."""


class Collocation:
    """Half the mean square of all residuals, each in its natural size.

    Args:
        problem: The problem.
        ansatz: How network outputs become fields.
        layers: The network.
        points: Points inside the domain.
        condition_points: Points of each condition.
        condition_weight: Weight of a condition's mean square against that of the equations.
        scales: Factor of each equation; its natural one by default.
        is_adaptive: Whether points are drawn by residual.
        backend: Engine.
        threads: Threads of the compiled engine.
        generator: Source of random numbers.

    Attributes:
        program: Residuals of the equations.
        names: Names of the terms of the loss.
    """

    def __init__(
        self,
        problem: Problem,
        ansatz: Ansatz,
        layers: Layers | ModuleLayers,
        *,
        points: int,
        condition_points: int,
        condition_weight: float,
        scales: Sequence[float] | None,
        is_adaptive: bool,
        backend: Backend,
        threads: int,
        generator: torch.Generator,
    ) -> None:
        self._problem, self._count = problem, points
        self._generator, self._is_adaptive = generator, is_adaptive
        self._scales = (
            natural_scales(problem)
            if scales is None
            else torch.tensor(list(scales), dtype=torch.float64)
        )
        if self._scales.shape != (len(problem.term_names),):
            raise ShapeError(
                f"residual_scales has {len(self._scales)} numbers, expected one for each of "
                f"{', '.join(problem.term_names)}"
            )
        self.program = interior_program(problem, ansatz, layers)
        self._points = sample(problem.domain, points, generator=generator)
        self._interior = self._engine(self.program, self._points, backend, threads)
        self._held_out = self._engine(
            self.program, sample(problem.domain, points, generator=generator), backend, threads
        )
        self._candidates = (
            self._held_out
            if not is_adaptive
            else self._engine(self.program, self._points, backend, threads)
        )
        self._conditions: list[ResidualEngine] = []
        names = [f"residual {name}" for name in problem.term_names]
        for condition in ansatz.rest:
            where = problem.place_condition(condition, condition_points, generator=generator)
            terms = ConditionTerms.of(problem, condition, where)
            program = condition_program(problem, ansatz, layers, terms)
            weight = (condition_weight / len(where.points)) ** 0.5
            weights = torch.full((len(where.points),), weight, dtype=torch.float64)
            self._conditions.append(
                residual_engine(program, terms.columns, weights, backend=backend, threads=1)
            )
            names += terms.names
        self.names = tuple(names)

    def _engine(
        self, program: ResidualProgram, points: Tensor, backend: Backend, threads: int
    ) -> ResidualEngine:
        return residual_engine(
            program, points, self._weights(points), backend=backend, threads=threads
        )

    def _weights(self, points: Tensor) -> Tensor:
        weights: Tensor = self._scales.expand(len(points), -1) * len(points) ** -0.5
        return weights

    @property
    def parameter_count(self) -> int:
        """Length of the vector of parameters, unknown coefficients last."""
        return self._interior.parameter_count

    @property
    def engines(self) -> list[ResidualEngine]:
        """Engines whose losses are added."""
        return [self._interior, *self._conditions]

    def loss_and_gradient(self, theta: Float[Tensor, " P"]) -> tuple[float, Float[Tensor, " P"]]:
        """The loss and its gradient."""
        loss, gradient = self._interior.loss_and_gradient(theta)
        for engine in self._conditions:
            more, slope = engine.loss_and_gradient(theta)
            loss, gradient = loss + more, gradient + slope
        return loss, gradient

    def residuals(self, theta: Float[Tensor, " P"]) -> Float[Tensor, " R"]:
        """All weighted residuals in a row; the loss is half their sum of squares."""
        return torch.cat([engine.residuals(theta).flatten() for engine in self.engines])

    def jacobian(self, theta: Float[Tensor, " P"]) -> Float[Tensor, "R P"]:
        """Derivatives of `residuals`."""
        return torch.cat([engine.jacobian(theta) for engine in self.engines])

    def terms(self, theta: Float[Tensor, " P"]) -> dict[str, float]:
        """Mean squares of the weighted residuals by name."""
        rows = [row for engine in self.engines for row in engine.residuals(theta)]
        return {name: float(row.square().sum()) for name, row in zip(self.names, rows, strict=True)}

    def held_out(self, theta: Float[Tensor, " P"]) -> float:
        """Root mean square of the residuals where the network was not trained.

        Conditions count at their own points.
        """
        engines = [self._held_out, *self._conditions]
        return math.sqrt(2.0 * sum(engine.loss(theta) for engine in engines))

    def move(self, theta: Float[Tensor, " P"]) -> None:
        """Draw other points inside the domain."""
        domain, generator = self._problem.domain, self._generator
        if self._is_adaptive:
            found = sample(domain, _CANDIDATES * self._count, generator=generator)
            self._candidates.set_points(found, self._weights(found))
            size = self._candidates.residuals(theta).square().sum(0).sqrt()
            self._points = resample(found, size, self._count, generator=generator)
        else:
            self._points = sample(domain, self._count, generator=generator)
        self._interior.set_points(self._points, self._weights(self._points))

    def state_dict(self) -> dict[str, Tensor]:
        """Points and random numbers: all that changes."""
        return {"points": self._points, "random": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go back to a state."""
        self._points = state["points"]
        self._generator.set_state(state["random"])
        self._interior.set_points(self._points, self._weights(self._points))
