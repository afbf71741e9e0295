r"""Subdomains: a network on each box of a grid, trained together, each on a worker (XPINN).

The loss is the sum of the losses of all pieces and of what fields differ by at interfaces,

.. math:: \sum_q L_q(\theta_q) + \frac{\lambda}{2 n} \sum_{q \sim q'} \sum_i \sum_k
    \bigl(\ell^k\, \partial_n^k u_{q}(x_i) - \ell^k\, \partial_n^k u_{q'}(x_i)\bigr)^2 ,

with k below the order of the equation along the axis that is cut: for a second-order equation the
value and the slope. The source takes values and residuals instead, which a kink of a second-order
solution satisfies. A worker gives its loss and gradient, and what its network is at interfaces with
the Jacobian; the caller adds up, so that one message each way makes the exact gradient.

Reference: Jagtap and Karniadakis (2020), Extended physics-informed neural networks (XPINNs).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from solvers.core import (
    Report,
    SettingsError,
    check_count,
)
from solvers.parallel import Executor, SerialExecutor
from solvers.pde import Problem
from solvers.pinn._arguments import check_seed
from solvers.pinn._boxes import check_divisible, conditions_within, cut
from solvers.pinn._fit import Trainer
from solvers.pinn._interfaces import make_interfaces
from solvers.pinn._networks import MLP, ModifiedMLP, OwnNetwork
from solvers.pinn._pieces import PiecewiseField, PiecewiseResult
from solvers.pinn._pinn import PINN
from solvers.pinn._result import ErrorMeter
from solvers.pinn._team import Team
from solvers.training import Objective

__all__ = ["XPINN"]


class XPINN(Trainer[PiecewiseResult]):
    """A network on each of several boxes, with fields that agree where these meet.

    It is fitted as a `PINN`; the workers of an executor take the pieces in turns, all executors
    give the same numbers, and optimizers that need Jacobians are refused. The held-out residual
    includes jumps.

    Args:
        problem: What is solved, on a box.
        network: As in `PINN`; every piece has its own.
        pieces: Number of pieces along the axes that are cut, as in ``{"x": 2, "t": 3}``.
        interface_points: Points of each interface.
        points: Points inside each piece; 4.5 per parameter by default.
        seed: Seed of the first piece; those of the others follow.
        **options: Further options of `PINN`, for every piece; ``condition_weight`` is also the
            weight of interfaces.

    Raises:
        SettingsError: If the domain is no box, a condition cannot be divided, coefficients are
            unknown, or an option is out of range.

    Example:
        >>> from solvers.pinn import MLP, problems
        >>> halves = XPINN(
        ...     problems.Convection(beta=2.0), MLP(width=8, depth=2), pieces={"t": 2}, points=200
        ... )
        >>> halves.fit(20, steps=200).largest_jump < 0.05
        True
    """

    def __init__(
        self,
        problem: Problem,
        network: MLP | ModifiedMLP | OwnNetwork | None = None,
        *,
        pieces: Mapping[str, int],
        interface_points: int = 100,
        points: int | None = None,
        seed: int = 0,
        **options: Any,
    ) -> None:
        check_seed(seed)
        check_count("interface_points", interface_points)
        box = check_divisible(problem)
        if not isinstance(pieces, Mapping):
            raise SettingsError(
                f"pieces: got {pieces!r}, expected axes with their number of pieces, as in "
                f"{{{box.axes[-1]!r}: 3}}"
            )
        for axis, count in pieces.items():
            box.axis(axis)
            check_count(f"pieces[{axis!r}]", count)
        if math.prod(pieces.values()) < 2:
            raise SettingsError(
                f"pieces: got {dict(pieces)}, expected two or more along an axis; use PINN for one"
            )
        self.problem = problem
        self.boxes = cut(box, pieces)
        self._interfaces, traces = make_interfaces(problem, self.boxes, pieces, interface_points)
        self._recipes: list[dict[str, Any]] = [
            {
                "problem": replace(
                    problem, domain=part, conditions=[*conditions_within(problem, part), *own]
                ),
                "network": network,
                "points": points,
                "seed": seed + number,
                **options,
            }
            for number, (part, own) in enumerate(zip(self.boxes, traces, strict=True))
        ]
        self._pinns = [PINN(**recipe) for recipe in self._recipes]
        first = self._pinns[0]
        self.resample_every, self.reweight_every = first.resample_every, first.reweight_every
        self.settings: dict[str, Any] = {
            **first.settings,
            "pieces": dict(pieces),
            "interface_points": interface_points,
        }

    @property
    def parameter_count(self) -> int:
        """Number of parameters of all pieces."""
        return sum(self._sizes)

    @property
    def _sizes(self) -> list[int]:
        return [pinn.parameter_count for pinn in self._pinns]

    def initial(self) -> Float[Tensor, " P"]:
        """First parameters, piece after piece."""
        return torch.cat([pinn.initial() for pinn in self._pinns])

    def field(self, theta: Float[Tensor, " P"]) -> PiecewiseField:
        """Make the fields at given parameters."""
        programs = [pinn.collocation.program for pinn in self._pinns]
        return PiecewiseField(self.boxes, programs, theta)

    @property
    def training_settings(self) -> dict[str, Any]:
        """What a run is, so that a checkpoint of another one is refused."""
        return {**self._pinns[0].training_settings, **self.settings}

    @contextmanager
    def _training(
        self, theta: Tensor, *, measure: bool, executor: Executor | None
    ) -> Iterator[Objective]:
        meter = ErrorMeter(self.problem) if measure else None
        with _opened(executor) as workers:
            team = Team(workers, self._recipes, self._sizes, self._interfaces)
            yield Objective(
                [theta],
                lambda: team.terms(theta.detach()),
                loss_and_gradient=team.loss_and_gradient,
                held_out=lambda: team.held_out(theta.detach()),
                measures={}
                if meter is None
                else {"relative_l2": lambda: meter(self.field(theta.detach()))},
                resample=lambda _: team.each("move", theta.detach()),
                reweight=lambda: team.each("reweight", theta.detach()),
                state=team,
            )

    def result(
        self, theta: Tensor, report: Report, history: list[dict[str, float]]
    ) -> PiecewiseResult:
        """Put parameters and their story together."""
        return self.restore(theta, report=report, history=history, settings=self.settings)

    def restore(
        self,
        theta: Float[Tensor, " P"],
        *,
        report: Report,
        history: Sequence[Mapping[str, float]],
        settings: Mapping[str, Any],
    ) -> PiecewiseResult:
        """Put saved parameters and their story together; `load` calls it."""
        return PiecewiseResult(
            problem=self.problem,
            network=self.field(theta),
            coefficients={},
            report=report,
            history=history,
            settings=settings,
            joints=[interface.joint for interface in self._interfaces],
        )


@contextmanager
def _opened(executor: Executor | None) -> Iterator[Executor]:
    if executor is not None:
        yield executor
        return
    with SerialExecutor() as own:
        yield own
