"""A solver is settings; prepared for an operator it holds the set-up and solves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from solvers.core import OnFailure, Solution, Status
from solvers.linear._adjoint import AdjointStart
from solvers.linear.operators._operator import LinearOperator
from solvers.linear.operators._written import Written

__all__ = ["LinearSolver", "Outcome", "Prepared", "expand_right_hand_side"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a solve without gradients gives: the solution and how each item ended.

    Attributes:
        value: Solutions, shape ``(..., *domain)``.
        status: :class:`solvers.core.Status` of each item as int64, shape ``(...)``.
        iterations: Iterations of each item.
        residual: Relative residual ``|b - A x| / |b|`` of each item in float64.
        counts: What else was counted.
    """

    value: Tensor
    status: Tensor
    iterations: Tensor
    residual: Tensor
    counts: Mapping[str, Tensor] = field(default_factory=dict)

    def no_worse_than_zero(self) -> Outcome:
        """The same with zero, which leaves all of ``b``, for failed items that leave more."""
        is_worse = (self.status != Status.CONVERGED) & (self.residual > 1.0)
        if not bool(is_worse.any()):
            return self
        axes = (1,) * (self.value.ndim - is_worse.ndim)
        value = torch.where(is_worse.reshape(*is_worse.shape, *axes), 0.0, self.value)
        return replace(self, value=value, residual=torch.where(is_worse, 1.0, self.residual))


@runtime_checkable
class LinearSolver(Protocol):
    """Settings of a method; frozen, shared by any number of solves."""

    def prepare(self, operator: LinearOperator) -> Prepared:
        """Do everything that does not depend on the right-hand side."""
        ...


class Prepared(ABC):
    """A solver prepared for one operator: hierarchy, factors, scratch memory.

    Where the tensors of the operator are written to in place (an optimizer steps), the next solve
    first updates to the new numbers. What is written past PyTorch, through ``tensor.data`` or a
    NumPy array that shares the memory, is not seen: prepare anew after that.

    Attributes:
        operator: The operator as given, with gradients.
        solver: The settings.
        label: What solves, in words.
    """

    def __init__(self, operator: LinearOperator, solver: LinearSolver, label: str):
        self.operator = operator
        self.solver = solver
        self.label = label
        self._written = Written(operator.coefficients.values())
        self._latest: Prepared | None = None

    def solve(
        self,
        b: Float[Tensor, "..."],
        *,
        x0: Float[Tensor, "..."] | None = None,
        adjoint: AdjointStart | None = None,
        on_failure: OnFailure = "raise",
    ) -> Solution[Tensor]:
        """Solve ``A x = b``; see :func:`linear_solve`.

        Args:
            b: Right-hand sides, shape ``(..., *codomain)``.
            x0: First guess, same shape; zero by default. It carries no gradient.
            adjoint: Where the backward pass starts; from zero by default.
            on_failure: ``"raise"``, ``"warn"`` or ``"mask"``.

        Returns:
            Solution with the report of every item.
        """
        from solvers.linear._implicit import implicit_solve

        return implicit_solve(
            self.solver,
            self.operator,
            b,
            x0=x0,
            adjoint=adjoint,
            on_failure=on_failure,
            prepared=self._follow(),
        )

    def _follow(self) -> Prepared:
        """The preparation for the numbers that the operator has now."""
        latest = self._latest or self
        if not latest._written.is_unchanged(self.operator.coefficients.values()):
            latest = self._latest = latest.update(self.operator)
        return latest

    @abstractmethod
    def run(self, b: Tensor, x0: Tensor | None) -> Outcome:
        """Solve without gradients.

        Where there is no unknown (`LinearOperator.mask`) ``b`` is not read and the value is zero.

        Args:
            b: Right-hand sides without gradient.
            x0: First guess or None.
        """

    def transpose(self) -> Prepared:
        """The same solver for the transposed operator; itself if that is the same operator."""
        if self.operator.is_symmetric:
            return self
        return self.solver.prepare(self.operator.transpose())

    def update(self, operator: LinearOperator) -> Prepared:
        """Prepare for an operator of the same structure whose numbers have moved.

        Memory goes over to the new preparation, and so does what is costly to find and changes
        little: the levels of `Multigrid` are filled anew, the pairs of `AggregationMultigrid` and
        the cycle of `AlgebraicMultigrid` are kept until solves take 1.5 times the steps for a
        digit, directions of earlier solves stay. All else is prepared as for the first time, and
        so is everything if the structure is another one.

        Args:
            operator: The new operator.

        Returns:
            A prepared solver. This one keeps serving the old operator; if its memory went over, it
            first prepares once more (a backward pass through earlier steps does that).
        """
        return self.solver.prepare(operator)


def expand_right_hand_side(operator: LinearOperator, b: Tensor) -> Tensor:
    """Give the right-hand side the batch axes of the operator.

    Args:
        operator: The operator, possibly a batch of systems.
        b: Right-hand sides.
    """
    axes = len(operator.codomain)
    batch = torch.broadcast_shapes(b.shape[: b.ndim - axes], operator.batch)
    return b.expand(*batch, *operator.codomain)
