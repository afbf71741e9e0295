"""Weights that balance the terms of a loss against each other."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from solvers.core import SettingsError
from solvers.pinn._weights import Linearized, LossView, LossWeights

__all__ = ["BalancedWeights"]

_LEAST, _MOST = 1e-8, 1e8
"""Weights beyond are of terms without influence, or without residual."""


@dataclass(eq=False)
class BalancedWeights(LossWeights):
    """One weight a term, a running mean of what the terms ask for.

    Args:
        memory: Share of the old weight in the new one; 0 takes the new one as it is.

    Raises:
        SettingsError: If the memory is not in [0, 1).
    """

    memory: float
    factors: dict[str, float] = field(default_factory=dict, init=False)
    name: ClassVar[str]

    def __post_init__(self) -> None:
        if not isinstance(self.memory, Real) or not 0.0 <= self.memory < 1.0:
            raise SettingsError(f"memory: got {self.memory!r}, expected a number in [0, 1)")

    @abstractmethod
    def wanted(self, terms: Sequence[Linearized]) -> Mapping[str, float]:
        """Weight that each term asks for now."""

    def update(self, view: LossView, theta: Float[Tensor, " P"]) -> None:
        """Move the weights towards what the terms ask for."""
        for name, weight in self.wanted(view.linear_terms(theta)).items():
            new = min(max(weight, _LEAST), _MOST)
            old = self.factors.get(name, new)
            self.factors[name] = self.memory * old + (1.0 - self.memory) * new

    def of_term(self, name: str) -> float:
        """Weight of a term."""
        return self.factors.get(name, 1.0)

    @property
    def settings(self) -> dict[str, Any]:
        """Kind and memory."""
        return {"name": self.name, "memory": self.memory}

    def state_dict(self) -> dict[str, Any]:
        """Weights of now."""
        return {"factors": dict(self.factors)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.factors = dict(state["factors"])
