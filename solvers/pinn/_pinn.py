"""Physics-informed networks in the Eulerian frame: one network from coordinates to fields.

Source: Raissi, Perdikaris and Karniadakis (2019). Conditions hold by construction where they can;
by default training is self-scaled Broyden on residuals in float64, as in Urbán, Stefanou and Pons
(2025), on points that are drawn again by residual, as in Wu, Zhu, Tan, Kartha and Lu (2023).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from solvers.core import (
    Report,
    SettingsError,
    check_choice,
    check_count,
    check_positive,
)
from solvers.derivatives import Backend
from solvers.parallel import Executor
from solvers.pde import Problem
from solvers.pinn._ansatz import Exact, make_ansatz
from solvers.pinn._arguments import (
    check_determined,
    check_problem,
    check_seed,
    network_of,
    weights_of,
)
from solvers.pinn._collocation import Collocation, Sampling
from solvers.pinn._fit import Trainer
from solvers.pinn._networks import MLP, ModifiedMLP, OwnNetwork, default_network
from solvers.pinn._noise import warn_of_followed_noise
from solvers.pinn._result import ErrorMeter, FieldNetwork, PINNResult
from solvers.pinn._weights import LossWeights
from solvers.training import Objective

__all__ = ["PINN"]

_FEWEST_POINTS, _MOST_POINTS = 1000, 5000
_POINTS_PER_PARAMETER = 4.5


class PINN(Trainer[PINNResult]):
    """A network that satisfies an equation and its conditions.

    Args:
        problem: What is solved.
        network: `MLP`, `ModifiedMLP`, or a module of your own; four hidden layers of 16 by default,
            with sines for equations of second order in time, of 24 for third order and higher.
        seed: Seed of parameters and points.
        exact: Conditions that hold by construction: ``"all"`` that can, all ``"boundary"``
            conditions but not the initial ones, or ``"periodic"`` ones only. The others are terms
            of the loss.
        condition_weight: Weight of a condition in the loss against that of the equations.
        points: Points inside the domain; 4.5 per parameter, 1000 to 5000, by default.
        most_points: Where the residual between points is over three times that at them, the next
            draw has four times as many, up to this number; by default that of ``points`` by
            default. As many as ``points`` keeps them.
        condition_points: Points of each condition in the loss.
        sampling: Where new points come from: ``"adaptive"`` prefers large residuals (RAD),
            ``"refined"`` adds points at the largest ones until there are twice as many (RAR),
            ``"even"`` looks at no residual.
        resample_every: Steps between two draws of points.
        weights: Adaptive weights of the loss: `CausalWeights`, `GradientNormWeights`,
            `TangentKernelWeights`, or with their defaults ``"causal"``, ``"gradient-norm"``,
            ``"tangent-kernel"``; several multiply.
        reweight_every: Steps between two choices of these.
        residual_scales: Factor of each equation; by default one over the size that it has when
            fields of order one vary over half the domain.
        backend: Engine of the derivatives.
        threads: Threads of the compiled engine.

    Raises:
        SettingsError: If a setting is out of range, the network does not fit the problem, or a
            coefficient is to be found and nothing was measured.

    Example:
        >>> from solvers.pde import Box, Dirichlet, Problem
        >>> from solvers.pde.functions import pi, sin
        >>> poisson = Problem(
        ...     name="Poisson", domain=Box(x=(0, 1)),
        ...     residual=lambda u, x: u.xx + pi**2 * sin(pi * x),
        ...     conditions=[Dirichlet(axis="x", side="both", u=0.0)],
        ...     reference=lambda x: sin(pi * x),
        ... )
        >>> result = PINN(poisson, MLP(width=10, depth=2), points=100).fit(tolerance=1e-4)
        >>> result.relative_l2 < 1e-4
        True
    """

    def __init__(
        self,
        problem: Problem,
        network: MLP | ModifiedMLP | OwnNetwork | nn.Module | None = None,
        *,
        seed: int = 0,
        exact: Exact = "all",
        condition_weight: float = 10.0,
        points: int | None = None,
        most_points: int | None = None,
        condition_points: int = 200,
        sampling: Sampling = "adaptive",
        resample_every: int = 500,
        weights: LossWeights | str | Sequence[LossWeights | str] = (),
        reweight_every: int = 50,
        residual_scales: Sequence[float] | None = None,
        backend: Backend = "auto",
        threads: int = 1,
    ) -> None:
        check_problem(problem)
        check_determined(problem)
        check_seed(seed)
        check_choice("sampling", sampling, ("adaptive", "refined", "even"))
        check_positive("condition_weight", condition_weight)
        if math.isinf(condition_weight):
            raise SettingsError(
                f"condition_weight: got {condition_weight}, expected a finite number; what can "
                "hold by construction does so with exact='all'"
            )
        _check_scales(problem, residual_scales)
        for name, value in (
            ("condition_points", condition_points),
            ("resample_every", resample_every),
            ("reweight_every", reweight_every),
            ("points", 1 if points is None else points),
        ):
            check_count(name, value)
        self.problem = problem
        self.network = network_of(network, default_network(problem))
        self.seed, self.resample_every = seed, resample_every
        given = weights_of(weights)
        self.reweight_every = reweight_every if given else None
        self._weights = [each.settings for each in given]
        bare = make_ansatz(problem, exact)
        waves = self.network.waves(bare.inputs, seed)
        ansatz = make_ansatz(problem, exact, frequencies=waves)
        self._layers = self.network.layers(ansatz.inputs, len(problem.fields), seed)
        count = self._layers.parameter_count
        wanted = round(_POINTS_PER_PARAMETER * count)
        enough = min(max(wanted, _FEWEST_POINTS), _MOST_POINTS)
        self.points = points or enough
        if most_points is None:
            most_points = max(self.points, enough)
        check_count("most_points", most_points, least=self.points)
        self.meter: Callable[[], Callable[[nn.Module], float]] = lambda: ErrorMeter(problem)
        self.settings: dict[str, Any] = {
            "network": type(self.network).__name__,
            "seed": seed,
            "exact": exact,
            "condition_weight": condition_weight,
            "points": self.points,
            "most_points": most_points,
            "condition_points": condition_points,
            "sampling": sampling,
            "resample_every": resample_every,
            "residual_scales": None if residual_scales is None else list(residual_scales),
        }
        if is_dataclass(self.network) and not isinstance(self.network, OwnNetwork):
            self.settings["shape"] = asdict(self.network)
        self.collocation = Collocation(
            problem, ansatz, self._layers, points=self.points, most_points=most_points,
            condition_points=condition_points, condition_weight=condition_weight,
            scales=residual_scales,
            sampling=sampling, weights=deepcopy(given), backend=backend, threads=threads,
            generator=torch.Generator().manual_seed(seed),
        )  # fmt: skip

    @property
    def parameter_count(self) -> int:
        """Number of parameters, unknown coefficients included."""
        return self.collocation.parameter_count

    @property
    def training_settings(self) -> dict[str, Any]:
        """What a run is, so that a checkpoint of another one is refused."""
        return {
            "problem": self.problem.name,
            "coefficients": dict(self.problem.coefficients),
            "weights": self._weights,
            "reweight_every": self.reweight_every,
            **self.settings,
        }

    def initial(self) -> Tensor:
        """First parameters, unknown coefficients last."""
        guesses = [self.problem.coefficients[name] for name in self.problem.unknown]
        return torch.cat(
            [self._layers.initial(self.seed), torch.tensor(guesses, dtype=torch.float64)]
        )

    def field(self, theta: Tensor) -> FieldNetwork:
        """Make the fields at given parameters."""
        return FieldNetwork(self.collocation.program, theta)

    @contextmanager
    def _training(
        self, theta: Tensor, *, measure: bool, executor: Executor | None
    ) -> Iterator[Objective]:
        with self.collocation.shared(executor):
            yield self.objective(theta, measure=measure)

    def objective(self, theta: Tensor, *, measure: bool = False) -> Objective:
        """Make what `solvers.training.train` trains.

        Args:
            theta: Parameters, unknown coefficients last, float64; they change in place.
            measure: Whether the error against the reference is measured, as ``relative_l2``.

        Returns:
            Loss and gradient for searches on a vector, held-out residual, points and their state.
        """
        collocation = self.collocation
        measures = {}
        if measure:
            meter = self.meter()
            measures["relative_l2"] = lambda: meter(self.field(theta.detach()))
        return Objective(
            [theta],
            lambda: {
                name: torch.tensor(0.5 * size, dtype=torch.float64)
                for name, size in collocation.terms(theta.detach()).items()
            },
            loss_and_gradient=collocation.loss_and_gradient,
            linearize=collocation.linearize,
            held_out=lambda: collocation.held_out(theta.detach()),
            measures=measures,
            resample=lambda _: collocation.move(theta.detach()),
            reweight=lambda: collocation.reweight(theta.detach()),
            state=collocation,
        )

    def _judge(self, theta: Tensor, report: Report) -> Report:
        """Say where coefficients were found from noise."""
        warn_of_followed_noise(self.problem, self.field(theta))
        return report

    def result(self, theta: Tensor, report: Report, history: list[dict[str, float]]) -> PINNResult:
        """Put parameters and their story together."""
        first = self._layers.parameter_count
        found = dict(zip(self.problem.unknown, theta[first:].tolist(), strict=True))
        return PINNResult(
            problem=self.problem,
            network=self.field(theta),
            coefficients=found,
            report=report,
            history=history,
            settings=self.settings,
        )


def _check_scales(problem: Problem, scales: Any) -> None:
    if scales is None:
        return
    if not isinstance(scales, Iterable):
        raise SettingsError(
            f"residual_scales: got {scales!r}, expected a number for each of "
            f"{', '.join(problem.term_names)}"
        )
    for k, scale in enumerate(scales):
        check_positive(f"residual_scales[{k}]", scale)
