"""What closed forms share: double precision inside, and a status for each item."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from constraints._tensors import keep_precision
from constraints.failure import FailurePolicy, act_on_failure, check_policy
from solvers.core import (
    InfeasibleError,
    NonFiniteError,
    PhysimError,
    Report,
    Solution,
    Status,
    check_finite,
    is_mapped,
)

__all__ = ["AbstractClosedForm"]

Inputs = dict[str, Tensor]


class AbstractClosedForm(nn.Module):
    """A nearest point that has a formula, for every item of a batch.

    An item whose answer is not finite, or whose law cannot hold, fails alone: its inputs are
    replaced before the formula, so that neither values nor gradients of others see it.

    Inside `torch.vmap` nothing can be raised: failed items are NaN there unless ``on_failure`` is
    ``"mask"``, or ``"project"`` and the item infeasible.

    Args:
        on_failure: See :mod:`constraints.failure`.
        can_project: Whether infeasible items have a nearest point.
    """

    on_failure: FailurePolicy

    def __init__(self, on_failure: FailurePolicy, *, can_project: bool = False):
        super().__init__()
        check_policy(on_failure, can_project=can_project)
        self.on_failure = on_failure

    @property
    @abstractmethod
    def _item_axes(self) -> int:
        """How many trailing axes of the result make one item."""

    @abstractmethod
    def _nearest(self, *inputs: Tensor) -> Tensor:
        """The formula, without a look at values."""

    @abstractmethod
    def _violation(self, value: Tensor, *inputs: Tensor) -> Tensor:
        """How far each item is from its law."""

    def _is_sound(self, value: Tensor, *inputs: Tensor) -> bool:
        """Whether surely no item failed, as fast as it can be told."""
        # The sum of finite numbers may overflow; then the long way finds nothing wrong.
        return math.isfinite(value.detach().sum().item())

    def _find_lost(self, first: Tensor, *inputs: Tensor) -> Tensor:
        """Which items have no finite answer; NaN reaches the whole answer of its item."""
        return ~self._all_of_item(first.detach().isfinite())

    def _diagnose(self, value: Tensor, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Status of each item with finite inputs, and the best points where it failed."""
        return torch.zeros(self._items(value), dtype=torch.int64, device=value.device), value

    def _explain(self, inputs: Inputs, report: Report) -> str:
        """What to say of items that have no solution."""
        return f"{type(self).__name__}: no point obeys the law of item {report.failed_items()[0]}"

    def _clean(self, inputs: Inputs, is_lost: Tensor) -> Inputs:
        """Inputs with which no item is lost; what good items take stays as it is."""
        return {name: torch.where(one.isfinite(), one, 0.0) for name, one in inputs.items()}

    def _answer(self, inputs: Inputs) -> Tensor:
        """The result of a call of the layer."""
        value = self._nearest(*inputs.values())
        if not is_mapped(value, *inputs.values()) and self._is_sound(value, *inputs.values()):
            return value
        return self._settle(inputs, value, stacklevel=7).value

    def _settle(self, inputs: Inputs, first: Tensor, *, stacklevel: int = 4) -> Solution[Tensor]:
        """Separate the items that failed and act on them."""
        is_lost = self._find_lost(first, *inputs.values())
        cleaned = self._clean(inputs, is_lost)
        value = self._nearest(*cleaned.values())
        status, best = self._diagnose(value, *cleaned.values())
        if self.on_failure != "project":
            best = best.detach()
        value = torch.where(self._to_item(status == Status.CONVERGED), value, best)
        status = torch.where(is_lost, int(Status.NON_FINITE), status)
        value = torch.where(self._to_item(is_lost), 0.0, value)
        residual = self._violation(value.detach(), *(one.detach() for one in cleaned.values()))
        report = Report(
            status=status,
            iterations=torch.zeros_like(status),
            residual=torch.where(is_lost, torch.nan, residual),
        )
        if is_mapped(value, *inputs.values()):
            return Solution(value=self._mark(value, status), report=report)
        solution = Solution(value=value, report=report)
        if not report.all_converged:
            self._act(inputs, cleaned, first, solution, stacklevel)
        return solution

    def _mark(self, value: Tensor, status: Tensor) -> Tensor:
        if self.on_failure == "mask":
            return value
        failed = status != Status.CONVERGED
        if self.on_failure == "project":
            failed = failed & (status != Status.INFEASIBLE)
        return torch.where(self._to_item(failed), torch.nan, value)

    def _act(
        self,
        inputs: Inputs,
        cleaned: Inputs,
        first: Tensor,
        solution: Solution[Tensor],
        stacklevel: int,
    ) -> None:
        is_lost = solution.status == Status.NON_FINITE
        lost = bool(is_lost.any())
        if self.on_failure == "raise" or (self.on_failure == "project" and lost):
            if not lost:
                raise InfeasibleError(self._explain(inputs, solution.report), solution=solution)
            raise self._blame(inputs, cleaned, first, solution)
        act_on_failure(
            solution.report,
            self.on_failure,
            solution=solution,
            what=type(self).__name__,
            stacklevel=stacklevel,
        )

    def _blame(
        self, inputs: Inputs, cleaned: Inputs, first: Tensor, solution: Solution[Tensor]
    ) -> PhysimError:
        """The error that names the argument and the entry that made an item lost."""
        try:
            for name, one in inputs.items():
                guilty = ~one.isfinite() & ~(one == cleaned[name])
                check_finite(name, torch.where(guilty, one, 0.0).detach())
            check_finite("result", first.detach())
        except NonFiniteError as error:
            error.solution = solution
            return error
        raise AssertionError("no entry is to blame")

    def _items(self, value: Tensor) -> torch.Size:
        return value.shape[: value.ndim - self._item_axes]

    def _all_of_item(self, entries: Tensor) -> Tensor:
        return entries.flatten(-self._item_axes).all(-1) if self._item_axes else entries

    def _to_item(self, items: Tensor) -> Tensor:
        return items.reshape(*items.shape, *(1,) * self._item_axes)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        # The law is kept in double precision whatever the type of the model around it.
        return super()._apply(keep_precision(fn), recurse)  # type: ignore[no-untyped-call]
