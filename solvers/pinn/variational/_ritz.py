"""Deep Ritz: a network whose energy is least.

Source: E and Yu (2018), The deep Ritz method, with three changes that take the error from 1e-2 to
1e-6: boundary values hold by construction where they can, integrals are Gauss-Legendre sums (or
randomised low-discrepancy ones with an error bar), and steps are natural gradients in H1.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass, replace
from functools import partial
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from solvers.core import (
    Report,
    SettingsError,
    Status,
    check_choice,
    check_count,
    check_positive,
)
from solvers.derivatives import Backend
from solvers.optim import DiffGrad, SelfScaledBroyden
from solvers.parallel import Executor
from solvers.pde import Ball, Box, Problem
from solvers.pinn._ansatz import make_ansatz
from solvers.pinn._arguments import check_optimizer, check_problem, check_seed, network_of
from solvers.pinn._fit import Trainer
from solvers.pinn._networks import MLP, ModifiedMLP, OwnNetwork
from solvers.pinn._result import FieldNetwork, read_result
from solvers.pinn.variational._admissible import check_energy
from solvers.pinn.variational._functional import Form, Functional, Metric
from solvers.pinn.variational._natural import EnergyNaturalGradient, GramSolver
from solvers.pinn.variational._quadrature import (
    Quadrature,
    gauss_legendre,
    quasi_monte_carlo,
)
from solvers.pinn.variational._result import (
    RitzResult,
    measuring_rule,
    reference_fields,
    relative_l2,
)
from solvers.training import FirstOrder, Method, Objective, Phase, Search

__all__ = ["DeepRitz", "Optimizer", "Rule"]

Optimizer: TypeAlias = Literal[
    "natural-gradient", "self-scaled-broyden", "lbfgs", "adam", "diffgrad"
]
Rule: TypeAlias = Literal["auto", "gauss", "sobol"]

_GAUSS_POINTS = {1: 60, 2: 30, 3: 16}
"""Fewest points along each axis, by number of axes."""

_POINTS_PER_PARAMETER = 2
"""Fewest points in all: with fewer, fields wind between them."""

_SOBOL_POINTS = 2048
_WATCHED_POINTS = 4096
"""Sampled points at which training is watched; the result is measured at more."""

_CONCENTRATION = 0.8
_BOTTOMLESS = -1e8
"""Energies below so many times their first size are taken for the way to minus infinity."""


_FIRST_ORDER = {"adam": torch.optim.Adam, "diffgrad": DiffGrad}


class DeepRitz(Trainer[RitzResult]):
    r"""A network that makes an energy least.

    Args:
        problem: A problem with an energy, from `solvers.pde.variational_problem` or a named one.
        network: `MLP`, `ModifiedMLP`, or a module of your own; one hidden layer of 32 by default.
        seed: Seed of parameters and points.
        optimizer: ``"natural-gradient"``, ``"self-scaled-broyden"``, ``"lbfgs"``, ``"adam"`` or
            ``"diffgrad"``.
        metric: Of the natural gradient: ``"h1"``, or the second derivative of the ``"energy"``.
        gram: How the natural gradient solves: ``"dense"``, ``"cg"`` or ``"auto"``.
        rule: ``"gauss"``: a tensor grid of Gauss-Legendre points; ``"sobol"``: scrambled Sobol
            points, drawn anew every step by ``"adam"``, ``"diffgrad"`` and, if all boundary values
            hold by construction, ``"natural-gradient"``; ``"auto"``: Gauss in balls, and in boxes
            of up to three axes.
        points: Points along each axis and panel, or in all with Sobol points. By default 60, 30 or
            16 with one, two or three axes, or more for two points per parameter; 2048 in all.
        panels: Equal parts of each axis with Gauss points of their own.
        penalty: Weight of squared boundary values that do not hold by construction, as in regions
            that are no box, nor a ball with one number on its surface.
        condition_points: Points of each such condition.
        learning_rate: Of ``"adam"`` and ``"diffgrad"``.
        backend: Engine of the derivatives.
        threads: Threads of the compiled engine.

    Raises:
        SettingsError: If the problem has no energy, the energy has no least value or only
            up to a constant, or a setting is out of range.

    Warns:
        NumericalWarning: If the energy is not convex.

    Gradients on Sobol points are those of the energy integrated by parts,
    :math:`\int \mathcal{D}E(u)\,\partial_\theta u`, which have no sampling error at the solution;
    that needs all boundary values by construction, and ``"natural-gradient"``.

    Example:
        >>> from solvers.pde import problems
        >>> result = DeepRitz(problems.NonlinearElliptic(2)).fit(10, target=1e-4)
        >>> result.relative_l2.value < 1e-4, round(result.energy.value, 3)
        (True, -2.573)
    """

    _loss = "energy"

    def __init__(
        self,
        problem: Problem,
        network: MLP | ModifiedMLP | OwnNetwork | nn.Module | None = None,
        *,
        seed: int = 0,
        optimizer: Optimizer = "natural-gradient",
        metric: Metric = "h1",
        gram: GramSolver = "auto",
        rule: Rule = "auto",
        points: int | None = None,
        panels: int = 1,
        penalty: float = 500.0,
        condition_points: int = 200,
        learning_rate: float = 3e-3,
        backend: Backend = "auto",
        threads: int = 1,
    ) -> None:
        check_problem(problem)
        _check_optimizer(optimizer)
        check_choice("metric", metric, ("h1", "energy"))
        check_choice("gram", gram, ("auto", "dense", "cg"))
        check_choice("rule", rule, ("auto", "gauss", "sobol"))
        check_seed(seed)
        for name, count in (
            ("points", 1 if points is None else points),
            ("panels", panels),
            ("condition_points", condition_points),
        ):
            check_count(name, count)
        for name, value in (
            ("penalty", penalty),
            ("learning_rate", learning_rate),
        ):
            check_positive(name, value)
        self.problem, self.seed = problem, seed
        self.network = network_of(network, MLP(width=32, depth=1))
        bare = make_ansatz(problem, "all")
        waves = self.network.waves(bare.inputs, seed)
        ansatz = make_ansatz(problem, "all", frequencies=waves)
        self._layers = self.network.layers(ansatz.inputs, len(problem.fields), seed)
        self._generator = torch.Generator().manual_seed(seed)
        is_small = (
            isinstance(problem.domain, Box | Ball) and problem.domain.dimension in _GAUSS_POINTS
        )
        self.rule: Rule = rule if rule != "auto" else ("gauss" if is_small else "sobol")
        self._points, self._panels = points, panels
        options: dict[str, Any] = {
            "penalty": penalty, "condition_points": condition_points, "backend": backend,
            "threads": threads,
        }  # fmt: skip
        watching = measuring_rule(problem.domain, _WATCHED_POINTS)
        self.functional = Functional(problem, ansatz, self._layers, self._draw(), **options)
        check_energy(problem, ansatz, watching)
        self._watched = Functional(problem, ansatz, self._layers, watching, **options)
        is_exact = self.functional.is_exact_on_the_boundary
        is_noisy = self.rule == "sobol"
        self.form: Form = (
            "strong" if is_noisy and is_exact and optimizer == "natural-gradient" else "weak"
        )
        self.optimizer: Optimizer = optimizer
        self.resample_every = 1 if self._is_moving else None
        self._metric, self._gram, self._learning_rate = metric, gram, learning_rate
        self.settings: dict[str, Any] = {
            "network": type(self.network).__name__, "seed": seed, "optimizer": optimizer,
            "metric": metric, "gram": gram, "rule": self.rule, "points": points, "panels": panels,
            "penalty": penalty, "condition_points": condition_points,
            "learning_rate": learning_rate,
        }  # fmt: skip
        if is_dataclass(self.network) and not isinstance(self.network, OwnNetwork):
            self.settings["shape"] = asdict(self.network)

    @property
    def parameter_count(self) -> int:
        """Number of parameters."""
        return self._layers.parameter_count

    @property
    def _is_moving(self) -> bool:
        """Whether points are drawn for every step; a line search needs them to stay."""
        return self.form == "strong" or (self.rule == "sobol" and self.optimizer in _FIRST_ORDER)

    def initial(self) -> Tensor:
        """First parameters."""
        return self._layers.initial(self.seed)

    def field(self, theta: Tensor) -> FieldNetwork:
        """Make the fields at given parameters."""
        return FieldNetwork(self.functional.program, theta)

    def fit(
        self, budget: float = 30.0, tolerance: float | None = None, **options: Any
    ) -> RitzResult:
        """Train, as `PINN.fit` does, with the optimizer of this solver.

        Args:
            budget: Wall time [s].
            tolerance: Stop when the residual, see `RitzResult.report`, is below.
            **options: Further options of `PINN.fit`, except ``optimizer`` and ``executor``.

        Returns:
            Fields, and the story of their training. An energy that falls and falls ends as
            ``UNBOUNDED``.

        Raises:
            SettingsError: If an option belongs elsewhere.
        """
        if "optimizer" in options:
            raise SettingsError(
                "optimizer: got one at fit, expected DeepRitz(optimizer=...), as points follow it"
            )
        if options.pop("executor", None) is not None:
            raise SettingsError(
                "executor: got workers, expected none for an energy; take DeepRitz(threads=...)"
            )
        own = Phase(name=self.optimizer, method=self._method)
        return super().fit(budget, tolerance, optimizer=own, **options)

    @property
    def training_settings(self) -> dict[str, Any]:
        """What a run is, so that a checkpoint of another one is refused."""
        return {
            "problem": self.problem.name,
            "coefficients": dict(self.problem.coefficients),
            **self.settings,
        }

    @contextmanager
    def _training(
        self, theta: Tensor, *, measure: bool, executor: Executor | None
    ) -> Iterator[Objective]:
        self._first = abs(self.functional.energy(theta.detach()))
        yield self.objective(theta, measure=measure)

    def _judge(self, theta: Tensor, report: Report) -> Report:
        """Tell an energy that went to minus infinity, maybe at the trained points alone."""
        energy = min(self._watched.energy(theta), self.functional.energy(theta))
        if energy < _BOTTOMLESS * (1.0 + self._first):
            return replace(report, status=torch.tensor(int(Status.UNBOUNDED)))
        return report

    def objective(self, theta: Tensor, *, measure: bool = False) -> Objective:
        """Make what `solvers.training.train` trains.

        Args:
            theta: Parameters, float64; they change in place.
            measure: Whether the error against the reference is measured, as ``relative_l2``.

        Returns:
            Energy with its gradient, held-out residual, points and their state.
        """
        functional, watched = self.functional, self._watched
        measures: dict[str, Callable[[], float]] = {}
        if measure:
            rule = watched.rule
            exact = reference_fields(self.problem, rule.points)
            measures["relative_l2"] = lambda: (
                relative_l2(rule, watched.fields(theta.detach(), rule.points), exact).value
            )
        return Objective(
            [theta],
            lambda: {"energy": _Energy.apply(theta, functional)},  # type: ignore[no-untyped-call]
            loss_and_gradient=functional.energy_and_gradient,
            held_out=lambda: watched.equation_residual(theta.detach()),
            measures=measures,
            resample=self._resample if self.rule == "sobol" else None,
            generator=self._generator,
            state=_Points(functional),
        )

    def result(self, theta: Tensor, report: Report, history: list[dict[str, float]]) -> RitzResult:
        """Put parameters and their story together."""
        self._watched.move(measuring_rule(self.problem.domain))
        energy = self._watched.energy_estimate(theta)
        self._watched.move(measuring_rule(self.problem.domain, _WATCHED_POINTS))
        return RitzResult(
            problem=self.problem,
            network=self.field(theta),
            energy=energy,
            report=report,
            history=history,
            settings=self.settings,
        )

    def load(self, path: str | os.PathLike[str]) -> RitzResult:
        """Read a result that its ``save`` wrote; made by a `DeepRitz` with the same settings.

        Args:
            path: The file.

        Returns:
            The result.

        Raises:
            CheckpointError: If it is damaged or belongs to another problem.
            SettingsError: If it belongs to another network.
        """
        theta, metadata = read_result(path, self.problem)
        if len(theta) != self.parameter_count:
            raise SettingsError(
                f"{path}: holds {len(theta)} parameters, expected {self.parameter_count}; make "
                f"DeepRitz with the settings {metadata['settings']}"
            )
        report = Report(
            status=torch.tensor(metadata["status"]),
            iterations=torch.tensor(metadata["iterations"]),
            residual=torch.tensor(metadata["residual"], dtype=torch.float64),
            counts={name: torch.tensor(count) for name, count in metadata["counts"].items()},
        )
        return self.result(theta, report, metadata["history"])

    def _method(self, objective: Objective) -> Method:
        if self.optimizer == "natural-gradient":
            return Search(
                objective,
                lambda _, start: EnergyNaturalGradient(
                    self.functional, start, metric=self._metric, form=self.form, solver=self._gram
                ),
            )
        if self.optimizer == "self-scaled-broyden":
            return Search(objective, SelfScaledBroyden)
        if self.optimizer == "lbfgs":
            return FirstOrder(
                objective,
                lambda p: torch.optim.LBFGS(
                    p, history_size=100, tolerance_grad=0.0, tolerance_change=0.0,
                    line_search_fn="strong_wolfe",
                ),
            )  # fmt: skip
        make = _FIRST_ORDER[self.optimizer]
        return FirstOrder(objective, partial(make, lr=self._learning_rate))

    def _draw(self) -> Quadrature:
        domain = self.problem.domain
        if self.rule == "gauss":
            # a domain of other shape or too many axes is refused there
            fewest = _GAUSS_POINTS.get(domain.dimension, _GAUSS_POINTS[3])
            wanted = (_POINTS_PER_PARAMETER * self.parameter_count) ** (1 / domain.dimension)
            count = self._points or max(fewest, math.ceil(wanted / self._panels))
            return gauss_legendre(domain, count, panels=self._panels)  # type: ignore[arg-type]
        return quasi_monte_carlo(
            domain, self._points or _SOBOL_POINTS, concentration=_CONCENTRATION,
            generator=self._generator,
        )  # fmt: skip

    def _resample(self, generator: torch.Generator) -> None:
        self.functional.move(self._draw())


def _check_optimizer(name: object) -> None:
    """Refuse what cannot make an energy least."""
    if name in ("levenberg-marquardt", "gns"):
        raise SettingsError(
            f"optimizer: {name!r} squares residuals, and an energy is no sum of squares; expected "
            f"one of {', '.join(get_args(Optimizer))}"
        )
    if not isinstance(name, str):
        raise SettingsError(
            f"optimizer: got {name!r}, expected one name of {', '.join(get_args(Optimizer))}"
        )
    check_optimizer(name, get_args(Optimizer))


class _Points:
    """Points of now, for checkpoints."""

    def __init__(self, functional: Functional) -> None:
        self._functional = functional

    def state_dict(self) -> dict[str, Tensor]:
        rule = self._functional.rule
        return {"points": rule.points, "weights": rule.weights}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._functional.move(Quadrature(state["points"], state["weights"]))


class _Energy(torch.autograd.Function):
    """The energy as a scalar with a graph, for methods that call ``backward``."""

    @staticmethod
    def forward(ctx: Any, theta: Tensor, functional: Functional) -> Tensor:
        energy, gradient = functional.energy_and_gradient(theta.detach())
        ctx.save_for_backward(gradient)
        return theta.new_tensor(energy)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return outer[0] * gradient, None
