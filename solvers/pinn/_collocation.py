"""The loss of a physics-informed network: equations at points inside, conditions at theirs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from solvers.core import ShapeError
from solvers.derivatives import (
    Backend,
    Layers,
    ModuleLayers,
    ResidualEngine,
    residual_engine,
)
from solvers.parallel import Executor
from solvers.pde import Problem, refine, resample, sample
from solvers.pinn._ansatz import Ansatz
from solvers.pinn._shared import SharedEngine, linearize
from solvers.pinn._terms import (
    ConditionTerms,
    condition_program,
    interior_program,
    natural_scales,
)
from solvers.pinn._trace import Trace
from solvers.pinn._weights import Linearized, LossWeights

__all__ = ["Collocation", "Sampling"]

Sampling: TypeAlias = Literal["adaptive", "refined", "even"]

_CANDIDATES = 8
"""Candidates per point when points are drawn by residual."""

_OVERFIT, _GROWTH = 3.0, 4
"""Residual between points over that at them from which there are too few, and the factor then."""

_REFINEMENT, _LARGEST = 0.05, 2.0
"""Share of points that a refinement adds, and the number at which it ends, over the first one."""


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    """A condition at its points; ``weight`` is the root of what a square counts."""

    engine: ResidualEngine
    names: tuple[str, ...]
    columns: Tensor
    weight: float

    def weigh(self, factors: Sequence[float]) -> None:
        roots = self.weight * torch.tensor(factors, dtype=torch.float64).sqrt()
        self.engine.set_points(self.columns, roots.expand(len(self.columns), -1))


def _with_distinct_names(places: Sequence[_Place]) -> list[_Place]:
    """Number the terms of conditions that are called alike, as those of two sets of data."""
    seen: Counter[str] = Counter()
    found = []
    for place in places:
        seen.update(place.names)
        names = (f"{name} {seen[name]}" if seen[name] > 1 else name for name in place.names)
        found.append(replace(place, names=tuple(names)))
    return found


class Collocation:
    """Half the mean square of all residuals, each in its natural size.

    Args:
        problem: The problem.
        ansatz: How network outputs become fields.
        layers: The network.
        points: Points inside the domain.
        most_points: How many they may become where they turn out too few.
        condition_points: Points of each condition.
        condition_weight: Weight of a condition's mean square against that of the equations.
        scales: Factor of each equation; its natural one by default.
        sampling: Where new points come from: ``"adaptive"`` draws them by residual (RAD),
            ``"refined"`` adds those of largest residual to the old ones (RAR), up to twice as many
            as in the beginning, ``"even"`` looks at no residual.
        weights: Adaptive weights; they multiply.
        backend: Engine.
        threads: Threads of the compiled engine.
        generator: Source of random numbers.

    Attributes:
        problem: The problem.
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
        most_points: int,
        condition_points: int,
        condition_weight: float,
        scales: Sequence[float] | None,
        sampling: Sampling,
        generator: torch.Generator,
        weights: Sequence[LossWeights] = (),
        backend: Backend = "auto",
        threads: int = 1,
    ) -> None:
        self.problem, self._count, self._most = problem, points, most_points
        self._generator, self._sampling, self._weights = generator, sampling, tuple(weights)
        self._backend, self._threads = backend, threads
        for each in self._weights:
            each.bind(problem)
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
        self._equations = tuple(f"residual {name}" for name in problem.term_names)
        self._points = sample(problem.domain, points, generator=generator)
        self._interior: ResidualEngine = self._engine(self._points)
        self._held_out = self._engine(sample(problem.domain, points, generator=generator))
        looks = sampling != "even" or bool(self._weights)
        self._probe = self._engine(self._points) if looks else self._held_out
        self._places, self._traces = (
            [
                self._place(condition, condition_points, condition_weight, ansatz, layers)
                for condition in ansatz.rest
                if isinstance(condition, Trace) is is_trace
            ]
            for is_trace in (False, True)
        )
        self._places = _with_distinct_names(self._places)
        self.names = (*self._equations, *(name for p in self._places for name in p.names))

    def _engine(self, points: Tensor) -> ResidualEngine:
        return residual_engine(
            self.program, points, self._plain(points), backend=self._backend, threads=self._threads
        )

    def _place(
        self,
        condition: Any,
        count: int,
        weight: float,
        ansatz: Ansatz,
        layers: Layers | ModuleLayers,
    ) -> _Place:
        where = self.problem.place_condition(condition, count, generator=self._generator)
        terms = ConditionTerms.of(self.problem, condition, where)
        root = (weight / len(where.points)) ** 0.5
        engine = residual_engine(
            condition_program(self.problem, ansatz, layers, terms),
            terms.columns,
            torch.full((len(where.points),), root, dtype=torch.float64),
            backend=self._backend,
        )
        return _Place(engine, terms.names, terms.columns, root)

    def _plain(self, points: Tensor) -> Tensor:
        """Factors of residuals without adaptive weights."""
        factors: Tensor = self._scales.expand(len(points), -1) * len(points) ** -0.5
        return factors

    def _weighted(self, points: Tensor) -> Tensor:
        """Factors of residuals."""
        factors = self._plain(points)
        if self._weights:
            of_terms = [self.factor(name) for name in self._equations]
            factors = factors * torch.tensor(of_terms, dtype=torch.float64).sqrt()
        for each in self._weights:
            factors = factors * each.at(points).sqrt()[:, None]
        return factors

    def factor(self, name: str) -> float:
        """What the adaptive weights make of a term."""
        return math.prod(each.of_term(name) for each in self._weights)

    @property
    def parameter_count(self) -> int:
        """Length of the vector of parameters, unknown coefficients last."""
        return self._interior.parameter_count

    @property
    def engines(self) -> list[ResidualEngine]:
        """Engines whose losses are added."""
        return [self._interior, *(place.engine for place in self._places)]

    @contextmanager
    def shared(self, executor: Executor | None) -> Iterator[None]:
        """Let workers share the points inside the domain for a while."""
        if executor is None:
            yield
            return
        own = self._interior
        self._interior = SharedEngine(
            self.program, self._points, self._weighted(self._points),
            executor=executor, backend=self._backend,
        )  # fmt: skip
        try:
            yield
        finally:
            self._interior = own
            own.set_points(self._points, self._weighted(self._points))

    def loss_and_gradient(self, theta: Float[Tensor, " P"]) -> tuple[float, Float[Tensor, " P"]]:
        """The loss and its gradient."""
        loss, gradient = self._interior.loss_and_gradient(theta)
        for place in self._places:
            more, slope = place.engine.loss_and_gradient(theta)
            loss, gradient = loss + more, gradient + slope
        return loss, gradient

    def linearize(self, theta: Float[Tensor, " P"]) -> Iterator[tuple[Tensor, Tensor]]:
        """Blocks of weighted residuals with their Jacobians; the loss is half their squares."""
        for engine in self.engines:
            yield from linearize(engine, theta)

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

        Conditions count at their own points, nothing by its adaptive weight.
        """
        squares = 2.0 * self._held_out.loss(theta)
        return math.sqrt(squares + sum(self._condition_squares(theta).values()))

    def _condition_squares(self, theta: Tensor) -> dict[str, float]:
        return {
            name: float(row.square().sum()) / self.factor(name)
            for place in self._places
            for name, row in zip(place.names, place.engine.residuals(theta), strict=True)
        }

    def traces(self, theta: Float[Tensor, " P"]) -> list[tuple[Tensor, Tensor]]:
        """What the fields are at each interface, in units of the loss, with the derivatives.

        Laid out in rows, as they arrive from a worker: products with them then round alike.
        """
        return [
            (place.engine.residuals(theta).flatten(), place.engine.jacobian(theta).contiguous())
            for place in self._traces
        ]

    def linear_terms(self, theta: Float[Tensor, " P"]) -> list[Linearized]:
        """Every term with its Jacobian, without adaptive weights."""
        self._probe.set_points(self._points, self._plain(self._points))
        found = []
        for names, engine in (
            (self._equations, self._probe),
            *((place.names, place.engine) for place in self._places),
        ):
            residuals = engine.residuals(theta)
            jacobian = engine.jacobian(theta).reshape(*residuals.shape, -1)
            for name, r, rows in zip(names, residuals, jacobian, strict=True):
                is_equation = engine is self._probe
                root = 1.0 if is_equation else self.factor(name) ** 0.5
                found.append(Linearized(name, is_equation, r / root, rows / root))
        return found

    def plain_squares(
        self, theta: Float[Tensor, " P"]
    ) -> tuple[Float[Tensor, "N D"], Float[Tensor, " N"], Mapping[str, float]]:
        """Points, squares of their residuals in natural size, mean squares of the conditions."""
        self._probe.set_points(self._points, self._plain(self._points))
        squares = len(self._points) * self._probe.residuals(theta).square().sum(0)
        return self._points, squares, self._condition_squares(theta)

    def move(self, theta: Float[Tensor, " P"]) -> None:
        """Draw other points inside the domain, or more of them."""
        domain, generator = self.problem.domain, self._generator
        if self._sampling != "refined" and self._is_overfit(theta):
            self._count = min(_GROWTH * self._count, self._most)
        if self._sampling == "even":
            self._points = sample(domain, self._count, generator=generator)
        else:
            found = sample(domain, _CANDIDATES * self._count, generator=generator)
            self._probe.set_points(found, self._plain(found))
            size = self._probe.residuals(theta).square().sum(0).sqrt()
            if self._sampling == "adaptive":
                self._points = resample(found, size, self._count, generator=generator)
            else:
                room = round(_LARGEST * self._count) - len(self._points)
                more = min(math.ceil(_REFINEMENT * self._count), room)
                self._points = refine(self._points, found, size, more)
        self._interior.set_points(self._points, self._weighted(self._points))

    def _is_overfit(self, theta: Tensor) -> bool:
        """Whether residuals are far larger between points than at them, and more may be drawn."""
        if self._count >= self._most:
            return False
        if self._weights:
            seen = float(self.plain_squares(theta)[1].mean())
        else:
            seen = 2.0 * self._interior.loss(theta)
        return 2.0 * self._held_out.loss(theta) > _OVERFIT**2 * seen

    def reweight(self, theta: Float[Tensor, " P"]) -> None:
        """Choose the adaptive weights anew."""
        for each in self._weights:
            each.update(self, theta)
        self._weigh()

    def _weigh(self) -> None:
        self._interior.set_points(self._points, self._weighted(self._points))
        if self._weights:
            for place in self._places:
                place.weigh([self.factor(name) for name in place.names])

    def state_dict(self) -> dict[str, Any]:
        """Points, weights and random numbers: all that changes."""
        return {
            "points": self._points,
            "count": self._count,
            "random": self._generator.get_state(),
            "weights": [each.state_dict() for each in self._weights],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a state."""
        self._points, self._count = state["points"], state["count"]
        self._generator.set_state(state["random"])
        for each, kept in zip(self._weights, state["weights"], strict=True):
            each.load_state_dict(kept)
        self._weigh()
