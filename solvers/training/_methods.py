"""Ways to take a step, brought to one form: first order, residuals, or a vector search."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from solvers.core import NonFiniteError, SettingsError
from solvers.training._evaluation import (
    GuiltyError,
    Slope,
    check_parameters,
    differentiate,
    evaluate,
    gather,
    guilty_terms,
)
from solvers.training._objective import Objective

__all__ = ["Evaluation", "FirstOrder", "LeastSquares", "Method", "Search"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A loss with its terms.

    Attributes:
        loss: Sum of the terms.
        terms: Terms by name.
        is_refused: Whether the step found nothing better and left the parameters as they were. It
            is not counted, and points are drawn anew where that was asked for at all.
    """

    loss: float
    terms: Mapping[str, float]
    is_refused: bool = False


class Method(ABC):
    """A method at work on one objective.

    Attributes:
        is_stalled: Whether it can go no further by itself.
    """

    is_stalled = False

    @property
    def counts(self) -> Mapping[str, int]:
        """What the method has done beside steps, for the report."""
        return {}

    @abstractmethod
    def step(self) -> Evaluation:
        """Take one step.

        Returns:
            The loss before it; of a search, the loss after it.

        Raises:
            GuiltyError: If the loss before the step, its gradient, or a parameter after it is not
                finite.
        """

    @abstractmethod
    def refresh(self) -> None:
        """Take in that the objective has changed.

        Raises:
            GuiltyError: If the loss, or its gradient, is not finite now.
        """

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """What the next step depends on, beside the parameters."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""


class FirstOrder(Method):
    """Any ``torch.optim`` optimizer, L-BFGS included, on the objective's own gradient or autograd.

    Args:
        objective: What is trained.
        make: Takes the parameters, gives the optimizer.
    """

    def __init__(self, objective: Objective, make: Callable[[Sequence[Tensor]], Optimizer]) -> None:
        self._objective = objective
        self._slope = Slope(objective)
        self._optimizer = make(objective.parameters)

    def step(self) -> Evaluation:
        """Take one step of the optimizer."""
        first: list[Evaluation] = []

        def closure() -> float:
            try:
                loss, values = self._slope.fill(is_strict=not first)
            except GuiltyError:
                if not first:
                    raise
                # A trial of a line search may go too far.
                return math.inf
            first.append(Evaluation(loss=loss, terms=values))
            return loss

        self._optimizer.step(closure)
        check_parameters(self._objective)
        return first[0]

    def refresh(self) -> None:
        """Evaluate anew; L-BFGS forgets, as its gradients are those of another loss."""
        self._slope.forget()
        if isinstance(self._optimizer, torch.optim.LBFGS):
            self._optimizer.state.clear()

    def state_dict(self) -> dict[str, Any]:
        """State of the optimizer."""
        return dict(self._optimizer.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self._optimizer.load_state_dict(state)


class LeastSquares(Method):
    """An optimizer whose closure gives residuals, for example :class:`solvers.optim.GNS`.

    Args:
        objective: What is trained; it must have a residual with a graph.
        make: Takes the parameters, gives the optimizer.
    """

    def __init__(self, objective: Objective, make: Callable[[Sequence[Tensor]], Optimizer]) -> None:
        if objective.residual is None:
            raise SettingsError(
                "objective: has no residual, which this method differentiates; expected "
                "Objective(..., residual=...)"
            )
        self._residual = objective.residual
        self._objective = objective
        self._optimizer = make(objective.parameters)

    def step(self) -> Evaluation:
        """Take one step of the optimizer."""
        with torch.enable_grad():
            _, values = evaluate(self._objective)
            self._optimizer.step(self._checked_residual)  # type: ignore[arg-type]
        report = getattr(self._optimizer, "report", None)
        self.is_stalled = bool(getattr(report, "is_stalled", False))
        check_parameters(self._objective)
        return Evaluation(loss=sum(values.values()), terms=values)

    def _checked_residual(self) -> Tensor:
        found = self._residual()
        if not isinstance(found, Tensor):
            raise SettingsError(
                f"residual: gave {type(found).__name__}, expected a tensor of residuals, half "
                "their sum of squares being the loss"
            )
        if torch.is_grad_enabled() and not found.requires_grad:
            raise SettingsError(
                "residual: does not depend on the parameters, expected a tensor with a graph, as "
                "LeastSquares differentiates it; look for detach, item or no_grad"
            )
        return found

    def refresh(self) -> None:
        """Do nothing: every step evaluates anew."""

    def state_dict(self) -> dict[str, Any]:
        """State of the optimizer."""
        return dict(self._optimizer.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self._optimizer.load_state_dict(state)


class Search(Method):
    """A search on one vector, for example :class:`solvers.optim.SelfScaledBroyden`.

    Args:
        objective: What is trained.
        make: Takes a function from a vector to loss and gradient, and the first vector. What it
            gives has ``step()``, ``refresh()``, ``point``, ``loss``, ``failures``,
            ``state_dict()`` and ``load_state_dict()``; a step that returns False found nothing.
            Its ``evaluations`` and ``restarts``, if it counts them, go into the report.
        most_failures: Steps in a row without success after which the search is stalled.
    """

    def __init__(
        self, objective: Objective, make: Callable[..., Any], *, most_failures: int = 3
    ) -> None:
        self._objective, self._most = objective, most_failures
        ends = list(accumulate(p.numel() for p in objective.parameters))
        self._places = [
            (p.detach(), slice(end - p.numel(), end))
            for p, end in zip(objective.parameters, ends, strict=True)
        ]
        self._seen: dict[float, dict[str, float]] = {}
        self._now: dict[str, float] = {}
        try:
            self._evaluate()
            self._search = make(
                objective.loss_and_gradient or self._differentiate, gather(objective)
            )
        except (GuiltyError, NonFiniteError) as error:
            guilty = error.name or guilty_terms(self._objective)
            raise NonFiniteError(
                f"{guilty} is not finite at the first parameters of a search, expected finite "
                "numbers; start from others or look for division by zero",
                name=guilty,
            ) from error

    @property
    def counts(self) -> Mapping[str, int]:
        """Evaluations and restarts, if the search counts them."""
        names = ("evaluations", "restarts")
        return {name: getattr(self._search, name) for name in names if hasattr(self._search, name)}

    def step(self) -> Evaluation:
        """Take one step of the search."""
        is_refused = self._search.step() is False
        self._settle()
        self.is_stalled = self._search.failures >= self._most
        return Evaluation(loss=self._search.loss, terms=self._now, is_refused=is_refused)

    def refresh(self) -> None:
        """Evaluate anew at the present point."""
        try:
            self._search.refresh()
        except NonFiniteError as error:
            self._scatter(self._search.point)
            raise GuiltyError(guilty_terms(self._objective)) from error
        self._settle()

    def state_dict(self) -> dict[str, Any]:
        """State of the search."""
        return dict(self._search.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self._search.load_state_dict(state)
        self._scatter(self._search.point)
        self._evaluate()

    def _evaluate(self) -> None:
        """Take in the terms at the parameters, if steps see them."""
        if self._objective.loss_and_gradient is None:
            _, self._now = evaluate(self._objective)

    def _settle(self) -> None:
        """Bring the parameters to the search's point, with the terms that were seen there."""
        self._scatter(self._search.point)
        self._now = self._seen.get(self._search.loss, self._now)
        self._seen.clear()

    def _scatter(self, vector: Tensor) -> None:
        for place, part in self._places:
            place.copy_(vector[part].view(place.shape))

    def _differentiate(self, vector: Tensor) -> tuple[float, Tensor]:
        self._scatter(vector)
        try:
            with torch.enable_grad():
                loss, values = evaluate(self._objective)
                differentiate(self._objective, loss, is_strict=False)
        except GuiltyError:
            return math.inf, torch.zeros_like(vector)
        self._seen[float(loss.detach())] = values
        gradients = [p.grad.reshape(-1) for p in self._objective.parameters if p.grad is not None]
        return float(loss.detach()), torch.cat(gradients).double()
