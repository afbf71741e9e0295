"""Solves run in double precision, whatever comes in and goes out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from solvers.core import Status
from solvers.linear._prepared import Outcome
from solvers.linear.operators._operator import LinearOperator

__all__ = ["runs_in_double", "widen"]

# Rounding of a narrow right-hand side may leave so many units of its precision outside of the
# range of a singular operator.
_UNITS = 4.0


class _HasPlain(Protocol):
    @property
    def _plain(self) -> LinearOperator: ...


_Solver = TypeVar("_Solver", bound=_HasPlain)
_Run = Callable[[_Solver, Tensor, Tensor | None], Outcome]


def widen(operator: LinearOperator) -> LinearOperator:
    """The same operator in float64, or itself where that does not work.

    A function may hold numbers of its own in float32, and some devices have no float64; such an
    operator is solved in the precision it has.

    Args:
        operator: Without gradients.
    """
    if not operator.dtype.is_floating_point or operator.dtype == torch.float64:
        return operator
    try:
        wide = operator.with_coefficients(
            {
                name: tensor.double() if tensor.is_floating_point() else tensor
                for name, tensor in operator.coefficients.items()
            }
        )
        zero = torch.zeros(operator.domain, dtype=torch.float64, device=operator.device)
        with torch.no_grad():
            product = wide.apply(zero)
    except (RuntimeError, TypeError):
        return operator
    return wide if product.dtype == torch.float64 else operator


def runs_in_double(run: _Run[_Solver]) -> _Run[_Solver]:
    """Let ``run`` of a prepared solver work in the type of its widened operator.

    Status and residual are those of the solution before it is rounded to the type of the
    right-hand side; an item that does not fit that type is ``NON_FINITE``.

    Args:
        run: Method that takes right-hand sides and a first guess.
    """

    @wraps(run)
    def widened(self: _Solver, b: Tensor, x0: Tensor | None) -> Outcome:
        operator = self._plain
        if b.dtype == operator.dtype:
            return run(self, b, x0)
        guess = None if x0 is None else x0.to(operator.dtype)
        outcome = run(self, b.to(operator.dtype), guess)
        value = outcome.value.to(b.dtype)
        axes = tuple(range(-len(operator.domain), 0))
        is_lost = (outcome.value.isfinite() & ~value.isfinite()).any(axes)
        is_rounding = (outcome.status == Status.INFEASIBLE) & (
            outcome.residual <= _UNITS * torch.finfo(b.dtype).eps
        )
        status = torch.where(is_rounding, int(Status.CONVERGED), outcome.status)
        status = torch.where(is_lost, int(Status.NON_FINITE), status)
        return replace(outcome, value=value, status=status)

    return widened
