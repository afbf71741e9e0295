"""A value together with the report of the solve that made it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from jaxtyping import Bool, Int, Real
from torch import Tensor

from solvers.core._report import Report

__all__ = ["Solution"]

Value_co = TypeVar("Value_co", covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Solution(Generic[Value_co]):
    """The result of a solve.

    The value of an item that did not converge is its best iterate; look at ``converged`` before
    you trust it.

    Attributes:
        value: What was solved for: a tensor, or a record of tensors, batch first.
        report: How each batch item ended.

    Example:
        >>> import torch
        >>> report = Report(
        ...     status=torch.tensor(0), iterations=torch.tensor(3), residual=torch.tensor(1e-9)
        ... )
        >>> bool(Solution(value=torch.ones(2), report=report).converged)
        True
    """

    value: Value_co
    report: Report

    @property
    def status(self) -> Int[Tensor, "*batch"]:
        """:class:`Status` of each item as int64."""
        return self.report.status

    @property
    def iterations(self) -> Int[Tensor, "*batch"]:
        """Iterations that each item used."""
        return self.report.iterations

    @property
    def residual_norm(self) -> Real[Tensor, "*batch"]:
        """Final residual of each item, in the norm that the solver documents."""
        return self.report.residual

    @property
    def converged(self) -> Bool[Tensor, "*batch"]:
        """Which items met their tolerance."""
        return self.report.converged

    @property
    def all_converged(self) -> bool:
        """Whether every item met its tolerance; waits for the device."""
        return self.report.all_converged

    def __str__(self) -> str:
        shape = f" of shape {tuple(self.value.shape)}" if isinstance(self.value, Tensor) else ""
        return f"Solution: {type(self.value).__name__}{shape}\n{self.report}"
