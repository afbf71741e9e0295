"""One expert: its points, the features of the basis there, and what a worker computes with them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from solvers.core import Report, SettingsError
from solvers.nonlinear import (
    LevenbergMarquardt,
    NormalEquations,
    PointwiseProblem,
    cost_gradient,
    implicit_least_squares,
)

__all__ = ["Expert", "ExpertHost", "Rows"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """A family of rows: an equation, a boundary condition, an initial condition.

    Attributes:
        residual: Takes the features of a point, then its data, as in `ImplicitLeastSquares`.
        features: What the residual takes: ``"u"``, ``"u_t"``, ``"u_xx"``.
        weight: Factor of the mean square of these rows.
        is_local: Whether an expert sees its own points only; otherwise every expert sees all.

    Raises:
        SettingsError: If the residual is no function, or features are no names.
    """

    residual: Callable[..., Any]
    features: tuple[str, ...]
    weight: float = 1.0
    is_local: bool = True

    def __post_init__(self) -> None:
        if not callable(self.residual):
            raise SettingsError(f"residual: got {self.residual!r}, expected a function")
        is_list = isinstance(self.features, list | tuple)
        if not is_list or not self.features or not all(isinstance(f, str) for f in self.features):
            raise SettingsError(
                f"features: got {self.features!r}, expected a tuple of names, as ('u', 'u_x')"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Expert:
    """What every expert's worker has to know; it travels to workers.

    Attributes:
        basis: The basis; its parameters come with each call.
        rows: Families of rows by name.
        ridge: Factor of the squares of coefficients.
        solver: Settings of the iteration.
        kind: Form of the problems.
    """

    basis: nn.Module
    rows: Mapping[str, Rows]
    ridge: float
    solver: LevenbergMarquardt
    kind: type[PointwiseProblem]

    def problem(self, item: Mapping[str, Any], parameters: Mapping[str, Any]) -> PointwiseProblem:
        """The problem of one expert for all samples, with gradients in the basis's parameters."""
        theta, condition = parameters["theta"], parameters["condition"]
        # A functional call puts its parameters into the module for a while, and other threads may
        # have the same one: each call takes modules of its own around the same tensors.
        tensors = [*self.basis.parameters(), *self.basis.buffers()]
        basis = copy.deepcopy(self.basis, {id(one): one for one in tensors})
        features = {
            name: functional_call(basis, theta, (points, condition, self.rows[name].features))
            .double()
            .contiguous()
            for name, points in item["points"].items()
        }
        residuals = {name: self.rows[name].residual for name in features}
        problem = self.kind(residuals, features, item["data"], ridge=self.ridge)
        return problem.set_scales(item["scales"])

    def solve(
        self, item: Mapping[str, Any], parameters: Mapping[str, Any]
    ) -> tuple[Tensor, Report]:
        """Coefficients of shape ``(S, N)`` without regard to other experts, and the report."""
        solution = implicit_least_squares(
            self.problem(item, parameters), item["start"], solver=self.solver, on_failure="mask"
        )
        return solution.value, solution.report

    def stationarity(
        self, item: Mapping[str, Any], parameters: Mapping[str, Any]
    ) -> tuple[Tensor, Tensor]:
        """Gradient ``(S, N)`` of the own rows at ``item["start"]``, and their exact Hessian."""
        return cost_gradient(self.problem(item, parameters), item["start"])


class ExpertHost:
    """Keeps the problems of some experts on a worker, from one call to the next.

    Every call brings what the problem is made from, so that the successor of a worker that died
    makes it again.
    """

    def __init__(self) -> None:
        self._problems: dict[int, tuple[str, PointwiseProblem]] = {}

    @torch.no_grad()
    def normal_equations(
        self,
        step: str,
        number: int,
        recipe: tuple[Expert, list[Mapping[str, Any]], Mapping[str, Any]],
        w: Tensor,
        items: Tensor,
        is_exact: bool,
    ) -> NormalEquations:
        """Evaluate some samples of expert ``number`` in a certain step of training."""
        known = self._problems.get(number)
        if known is None or known[0] != step:
            expert, experts, parameters = recipe
            known = (step, expert.problem(experts[number], parameters))
            known[1].check_residuals()
            self._problems[number] = known
        return known[1].normal_equations(w, items, is_exact=is_exact)
