"""What optimizers on gradients share: the closure of ``torch.optim``."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import overload

import torch
from torch import Tensor
from torch.optim import Optimizer

from solvers.core import NonFiniteError, SettingsError

__all__ = ["GradientOptimizer", "check_coupled", "check_dense", "check_real"]


def check_real(optimizer: Optimizer) -> None:
    """Check that an optimizer was given real parameters.

    Args:
        optimizer: The optimizer.

    Raises:
        SettingsError: If one is complex.
    """
    for group in optimizer.param_groups:
        for p in group["params"]:
            if p.is_complex():
                raise SettingsError(
                    f"params: one is {p.dtype}, expected real numbers; give the optimizer "
                    "torch.view_as_real of it"
                )


def check_coupled(params: Sequence[Tensor]) -> None:
    """Check that parameters which one step couples all take gradients.

    Args:
        params: The parameters.

    Raises:
        SettingsError: If one does not.
    """
    for number, p in enumerate(params):
        if not p.requires_grad:
            raise SettingsError(
                f"params: number {number} of shape {tuple(p.shape)} takes no gradients, expected "
                "all to, because a step couples them; leave it out or call requires_grad_()"
            )


def check_dense(p: Tensor) -> None:
    """Check that a parameter's gradient, if there is one, is not sparse.

    Args:
        p: The parameter.

    Raises:
        SettingsError: If it is.
    """
    if p.grad is not None and p.grad.is_sparse:
        raise SettingsError(
            "params: a gradient is sparse, expected dense ones; use torch.optim.SparseAdam, or "
            "an embedding with sparse=False"
        )


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
