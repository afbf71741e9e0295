r"""Causal weights: what happens early is learned first.

Time is cut into slices with mean square residuals :math:`L_i`; slice i counts by

.. math:: w_i = \exp\Bigl(-\epsilon \bigl(L_0 + \textstyle\sum_{k<i} L_k\bigr)\Bigr),

where :math:`L_0` is the mean square of the initial conditions in the loss. When all weights are
above 0.99 the next, larger :math:`\epsilon` is taken.

Reference: Wang, Sankaran and Perdikaris (2022), Respecting causality is all you need for training
physics-informed neural networks, equations 3.2 and 3.3, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from solvers.core import SettingsError, check_count
from solvers.pde import Problem
from solvers.pinn._weights import LossView, LossWeights

__all__ = ["CausalWeights", "causal_weights"]

_DONE = 0.99


def causal_weights(
    losses: Float[Tensor, " slices"], tolerance: float, *, start: float = 0.0
) -> Float[Tensor, " slices"]:
    r"""Compute :math:`w_i = \exp(-\epsilon (L_0 + \sum_{k<i} L_k))`.

    Args:
        losses: Mean square residuals of the slices in the order of time.
        tolerance: :math:`\epsilon`.
        start: :math:`L_0`.

    Example:
        >>> losses = torch.tensor([1.0, 2.0, 0.0], dtype=torch.float64)
        >>> causal_weights(losses, 1.0).log().tolist()
        [0.0, -1.0, -3.0]
    """
    before = torch.cat([losses.new_zeros(1), losses[:-1]]).cumsum(0) + start
    return torch.exp(-tolerance * before)


class CausalWeights(LossWeights):
    """Weights that keep late times out until the residual at earlier ones is small.

    Args:
        tolerances: Growing factors of the residual in the exponent.
        slices: Slices of time.

    Raises:
        SettingsError: If tolerances do not grow, a number is not positive, or the problem has no
            time.

    Example:
        >>> CausalWeights(tolerances=(1.0, 10.0)).settings["slices"]
        32
    """

    def __init__(
        self,
        tolerances: Sequence[float] = (1e-2, 1e-1, 1.0, 10.0, 100.0),
        slices: int = 32,
    ) -> None:
        check_count("slices", slices)
        try:
            self.tolerances = tuple(float(tolerance) for tolerance in tolerances)
        except (TypeError, ValueError):
            raise SettingsError(
                f"tolerances: got {tolerances!r}, expected numbers in a row, as in (0.1, 1.0)"
            ) from None
        pairs = zip((0.0, *self.tolerances), self.tolerances, strict=False)
        if not self.tolerances or any(not after > before for before, after in pairs):
            raise SettingsError(
                f"tolerances: got {self.tolerances}, expected positive numbers that grow"
            )
        self._level = 0
        self.factors = torch.ones(slices, dtype=torch.float64)

    def bind(self, problem: Problem) -> None:
        """Take in a problem, and refuse one without time."""
        super().bind(problem)
        if not problem.domain.has_time:
            raise SettingsError(
                f"weights: CausalWeights need time, and {problem.name} has axes "
                f"{', '.join(problem.domain.axes)}; leave them out"
            )

    @property
    def tolerance(self) -> float:
        """The tolerance of now."""
        return self.tolerances[self._level]

    def update(self, view: LossView, theta: Float[Tensor, " P"]) -> None:
        """Weigh the slices, and go on to the next tolerance where all count."""
        points, squares, conditions = view.plain_squares(theta)
        slices = len(self.factors)
        places = self._slice_of(points)
        sums = torch.zeros(slices, dtype=torch.float64).index_add_(0, places, squares)
        losses = sums / torch.bincount(places, minlength=slices).clamp(min=1)
        start = sum(size for name, size in conditions.items() if name.startswith("initial"))
        self.factors = causal_weights(losses, self.tolerance, start=start)
        is_done = float(self.factors.min()) > _DONE
        if is_done and self._level + 1 < len(self.tolerances):
            self._level += 1
            self.factors = causal_weights(losses, self.tolerance, start=start)

    def at(self, points: Float[Tensor, "N D"]) -> Float[Tensor, " N"]:
        """Weight of each point's slice."""
        return self.factors[self._slice_of(points)]

    def _slice_of(self, points: Tensor) -> Tensor:
        begin, end = self.domain.bounds["t"]
        slices = len(self.factors)
        share = (points[:, self.domain.axis("t")] - begin) / (end - begin)
        return (share * slices).long().clamp(0, slices - 1)

    @property
    def settings(self) -> dict[str, Any]:
        """Tolerances and number of slices."""
        return {
            "name": "causal",
            "tolerances": list(self.tolerances),
            "slices": len(self.factors),
        }

    def state_dict(self) -> dict[str, Any]:
        """Weights and tolerance of now."""
        return {"factors": self.factors, "level": self._level}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.factors, self._level = state["factors"], state["level"]
