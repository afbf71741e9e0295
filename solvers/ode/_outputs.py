"""States at the times that were asked for, taken from the steps that pass them."""

from __future__ import annotations

import torch
from torch import Tensor

from solvers.ode._explicit import ExplicitMethod, Step
from solvers.ode._implicit import RadauMethod

__all__ = ["Outputs"]


class Outputs:
    """Collects interpolated states.

    Args:
        times: Times asked for, ``(T, B)``, in the order of integration.
    """

    def __init__(self, times: Tensor) -> None:
        self._times = times
        self._places: list[tuple[Tensor, Tensor]] = []
        self._values: list[Tensor] = []

    def add(
        self, method: ExplicitMethod | RadauMethod, step: Step, t: Tensor, h: Tensor, end: Tensor
    ) -> None:
        """Take the outputs that a step passes.

        Args:
            method: Method of the step.
            step: The step.
            t: Start times ``(B,)``.
            h: Steps ``(B,)``; zero for items that took none.
            end: End times ``(B,)``, as the search computed them.
        """
        sign = torch.where(h < 0, -1.0, 1.0)
        passed = (self._times - t) * sign > 0
        passed &= ((end - self._times) * sign >= 0) & (h != 0)
        index, rows = passed.nonzero(as_tuple=True)
        if not len(rows):
            return
        part = (self._times[index, rows] - t[rows]) / h[rows]
        self._places.append((index, rows))
        self._values.append(method.interpolate(step, h, part.clamp(0, 1), rows))

    def fill(self, start: Tensor, last: Tensor) -> Tensor:
        """Put the states in place.

        Args:
            start: States at the start, ``(B, n)``.
            last: States for the times that no step passed.

        Returns:
            States ``(T, B, n)``.
        """
        values = last.expand(len(self._times), *last.shape).clone()
        values[0] = start
        if not self._values:
            return values
        index, rows = (torch.cat(column) for column in zip(*self._places, strict=True))
        return values.index_put((index, rows), torch.cat(self._values))
