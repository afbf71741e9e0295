"""Covering directional direct search: maximisation without derivatives.

An iteration evaluates one point of a covering, a uniform draw from a ball of fixed radius around
the incumbent, then polls a positive spanning set at the present radius, each direction as soon as
it is drawn (opportunistically). A success doubles the radius, a failed poll halves it. The covering
keeps its radius for ever, and that is what makes limit points local maxima even of discontinuous
functions.

References: Audet, Bouchet & Bourdin 2024, "Convergence towards a local minimum by direct search
methods with a covering step" (the covering); Kolda, Lewis & Torczon 2003, "Optimization by direct
search: new perspectives on some classical and modern methods" (polling).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["DirectSearch", "Poll", "householder_directions"]

Poll = Literal["2n", "n+1"]
Evaluate = Callable[[Tensor], float]


def householder_directions(
    n: int, *, poll: Poll = "2n", generator: torch.Generator
) -> Float[Tensor, "k n"]:
    """Draw a positive spanning set: an orthonormal basis by reflection, and its negatives.

    Args:
        n: Dimension.
        poll: ``"2n"``: every row and its negative; ``"n+1"``: the rows and minus their sum.
        generator: Source of the reflection.

    Returns:
        Directions with largest entry one, float64, in random order.

    Example:
        >>> rows = householder_directions(3, generator=torch.Generator().manual_seed(0))
        >>> rows.shape, float(rows.abs().max())
        (torch.Size([6, 3]), 1.0)
    """
    h = torch.randn(n, generator=generator, dtype=torch.float64)
    h /= torch.linalg.vector_norm(h)
    basis = torch.eye(n, dtype=torch.float64) - 2.0 * torch.outer(h, h)
    rest = -basis if poll == "2n" else -basis.sum(0, keepdim=True)
    rows = torch.cat([basis, rest])
    rows /= rows.abs().amax(1, keepdim=True)
    return rows[torch.randperm(len(rows), generator=generator)]


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectSearch:
    """State of the search.

    Attributes:
        radius: Of the poll, largest entry of a move.
        covering: Radius of the covering, fixed.
        largest: Cap of the radius.
        smallest: Where the search has converged.
        poll: Size of the poll.
    """

    radius: float
    covering: float
    largest: float
    smallest: float
    poll: Poll = "2n"

    @property
    def is_converged(self) -> bool:
        """Whether the radius is at its least."""
        return self.radius <= self.smallest

    def step(
        self, evaluate: Evaluate, x: Tensor, value: float, generator: torch.Generator
    ) -> tuple[DirectSearch, Tensor, float]:
        """Cover, then poll, until something is better.

        Args:
            evaluate: Score of a point, to be maximised; may raise to end the search.
            x: Incumbent.
            value: Its score.
            generator: Source of directions.

        Returns:
            The state, the incumbent and its score after the step.
        """
        for move, is_poll in self._moves(len(x), generator):
            trial = x + move.to(x)
            score = evaluate(trial)
            if score > value:
                grown = min(2.0 * self.radius, self.largest) if is_poll else self.radius
                return replace(self, radius=grown), trial, score
        return replace(self, radius=max(0.5 * self.radius, self.smallest)), x, value

    def _moves(self, n: int, generator: torch.Generator) -> Iterator[tuple[Tensor, bool]]:
        direction = torch.randn(n, generator=generator, dtype=torch.float64)
        share = float(torch.rand(1, generator=generator, dtype=torch.float64)) ** (1.0 / n)
        yield self.covering * share * direction / torch.linalg.vector_norm(direction), False
        for row in householder_directions(n, poll=self.poll, generator=generator):
            yield self.radius * row, True
