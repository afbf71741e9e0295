"""The loss at the parameters, and its gradient: by autograd or the objective's own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from solvers.core import SettingsError, describe
from solvers.training._objective import Objective

__all__ = [
    "GuiltyError",
    "Slope",
    "check_parameters",
    "differentiate",
    "evaluate",
    "gather",
    "guilty_terms",
]


class GuiltyError(ArithmeticError):
    """A term or gradient is not finite; carries its name."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def evaluate(objective: Objective) -> tuple[Tensor, dict[str, float]]:
    """Evaluate the terms and refuse those that are not finite."""
    terms = objective.terms()
    if not isinstance(terms, Mapping):
        raise SettingsError(f"terms: gave {describe(terms)}, expected scalar tensors by name")
    if not terms:
        raise SettingsError("terms: gave no term, expected at least one by name")
    for name, term in terms.items():
        if not isinstance(term, Tensor) or term.numel() != 1:
            got = tuple(term.shape) if isinstance(term, Tensor) else type(term).__name__
            raise SettingsError(f"terms: {name} is {got}, expected a scalar tensor")
    values = {name: float(term.detach()) for name, term in terms.items()}
    for name, value in values.items():
        if not math.isfinite(value):
            raise GuiltyError(name)
    loss = torch.stack([term.reshape(()) for term in terms.values()]).sum()
    if not loss.requires_grad:
        raise SettingsError(
            "terms: do not depend on the parameters, expected tensors with a graph; look for "
            "detach, item or no_grad"
        )
    return loss, values


def differentiate(objective: Objective, loss: Tensor, *, is_strict: bool = True) -> None:
    """Fill the gradients of the parameters."""
    gradients = torch.autograd.grad(loss, objective.parameters, materialize_grads=True)
    _fill_gradients(objective, gradients, is_strict=is_strict)


def _fill_gradients(objective: Objective, gradients: Sequence[Tensor], *, is_strict: bool) -> None:
    for place, (p, gradient) in enumerate(zip(objective.parameters, gradients, strict=True)):
        if is_strict and not bool(torch.isfinite(gradient).all()):
            raise GuiltyError(f"gradient of parameter {place}")
        p.grad = gradient


def gather(objective: Objective) -> Tensor:
    """All parameters in one vector, float64."""
    return torch.cat([p.detach().reshape(-1) for p in objective.parameters]).double()


def guilty_terms(objective: Objective) -> str:
    """Names of the terms that are not finite at the parameters."""
    terms = {name: float(term.detach()) for name, term in objective.terms().items()}
    names = [name for name, size in terms.items() if not math.isfinite(size)]
    return ", ".join(names) or "gradient"


class Slope:
    """Loss, terms and gradients at the parameters: the objective's own, or by autograd."""

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self.forget()

    def forget(self) -> None:
        """Take in that the objective has changed."""
        self._known: tuple[Tensor, float, Tensor] | None = None

    def fill(self, *, is_strict: bool) -> tuple[float, dict[str, float]]:
        """Fill the gradients of the parameters.

        Args:
            is_strict: Whether a gradient that is not finite is refused.

        Raises:
            GuiltyError: If the loss, or a gradient, is not finite.
        """
        objective = self._objective
        if objective.loss_and_gradient is None:
            with torch.enable_grad():
                loss, values = evaluate(objective)
                differentiate(objective, loss, is_strict=is_strict)
            return float(loss.detach()), values
        vector = gather(objective)
        # A line search ends where it evaluated last, which is where the next step begins.
        if self._known is None or not torch.equal(self._known[0], vector):
            self._known = (vector, *objective.loss_and_gradient(vector))
        _, size, gradient = self._known
        if not math.isfinite(size):
            raise GuiltyError(guilty_terms(objective))
        parts = gradient.split([p.numel() for p in objective.parameters])
        shaped = [
            part.to(p.dtype).view_as(p).clone()
            for part, p in zip(parts, objective.parameters, strict=True)
        ]
        _fill_gradients(objective, shaped, is_strict=is_strict)
        return size, {}


def check_parameters(objective: Objective) -> None:
    """Refuse parameters that are not finite."""
    for place, p in enumerate(objective.parameters):
        if not bool(torch.isfinite(p).all()):
            raise GuiltyError(f"parameter {place}")
