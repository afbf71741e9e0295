"""What adaptive weights of the loss are: factors that are chosen again while a network trains."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from solvers.pde import Problem

__all__ = ["Linearized", "LossView", "LossWeights"]


@dataclass(frozen=True, slots=True, eq=False)
class Linearized:
    """One term of the loss, half its mean square, without adaptive weights.

    Attributes:
        name: Name of the term.
        is_equation: Whether it is an equation, and not a condition.
        residuals: Shape ``(m,)``; half their sum of squares is the term.
        jacobian: Their derivatives, shape ``(m, P)``.
    """

    name: str
    is_equation: bool
    residuals: Float[Tensor, " m"]
    jacobian: Float[Tensor, "m P"]


class LossView(Protocol):
    """What weights may look at."""

    problem: Problem

    def linear_terms(self, theta: Float[Tensor, " P"]) -> Sequence[Linearized]:
        """Every term with its Jacobian."""

    def plain_squares(
        self, theta: Float[Tensor, " P"]
    ) -> tuple[Float[Tensor, "N D"], Float[Tensor, " N"], Mapping[str, float]]:
        """Points, squares of their residuals in natural size, mean squares of the conditions."""


class LossWeights(ABC):
    """Factors of the terms of a loss, and of squares at points, that follow the training.

    Several of them multiply. They are chosen every ``reweight_every`` steps and kept in between, so
    that every optimizer sees one loss at a time.
    """

    def bind(self, problem: Problem) -> None:
        """Take in the problem whose loss they weigh.

        Raises:
            SettingsError: If they do not fit it.
        """
        self.domain = problem.domain

    @abstractmethod
    def update(self, view: LossView, theta: Float[Tensor, " P"]) -> None:
        """Choose the factors at given parameters."""

    def of_term(self, name: str) -> float:
        """Factor of a term."""
        return 1.0

    def at(self, points: Float[Tensor, "N D"]) -> Float[Tensor, " N"]:
        """Factor of the squares of the equations' residuals at points."""
        return torch.ones(len(points), dtype=torch.float64)

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What they were made from, JSON values."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """The factors of now."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
