"""What optimizers on gradients share: the closure of ``torch.optim``."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import overload

import torch
from torch.optim import Optimizer

from solvers.core import NonFiniteError

__all__ = ["GradientOptimizer"]


class GradientOptimizer(Optimizer, ABC):
    """An optimizer that moves along the gradients that are there."""

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step.

        Args:
            closure: Evaluates the loss again with gradients, and returns it.

        Returns:
            The loss of the closure, None without one.

        Raises:
            NonFiniteError: If that loss is not finite; parameters and state are as before.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
            if not math.isfinite(loss):
                raise NonFiniteError(
                    f"loss is {float(loss)}, expected a finite number; lower the learning rate or "
                    "look for division by zero in the closure",
                    name="loss",
                )
        self._advance()
        return loss

    @abstractmethod
    def _advance(self) -> None:
        """Move all parameters that have gradients."""
