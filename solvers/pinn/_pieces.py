"""Fields in pieces: one network on each of several boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from solvers.derivatives import ResidualProgram
from solvers.pde import Box
from solvers.pinn._result import FieldNetwork, PINNResult

__all__ = ["Joint", "PiecewiseField", "PiecewiseResult"]


@dataclass(frozen=True, slots=True, eq=False)
class Joint:
    """Where two pieces meet.

    Attributes:
        pieces: Their numbers.
        points: The same places as each of them sees them, ``(n, d)`` each; they differ where a
            period closes.
    """

    pieces: tuple[int, int]
    points: tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]


class PiecewiseField(FieldNetwork):
    """Fields as functions of points, a network on each box; a module with one vector of parameters.

    Args:
        boxes: Where the pieces are; a point on a border belongs to the first, one outside to the
            nearest.
        programs: How parameters and points become fields on each.
        theta: Parameters of all pieces in a row.
    """

    def __init__(
        self, boxes: Sequence[Box], programs: Sequence[ResidualProgram], theta: Float[Tensor, " P"]
    ) -> None:
        nn.Module.__init__(self)
        self._boxes, self._programs = tuple(boxes), tuple(programs)
        self.theta = nn.Parameter(theta.clone())

    def forward(self, points: Float[Tensor, "N D"]) -> Float[Tensor, "N F"]:
        """Evaluate all fields.

        Args:
            points: One point per row, float64.

        Returns:
            One column per field; differentiable by points and parameters.
        """
        owner = self.owners(points.detach())
        rows = [(owner == piece).nonzero()[:, 0] for piece in range(len(self._boxes))]
        values = torch.cat([self.piece(k, points[row]) for k, row in enumerate(rows)])
        return values[torch.cat(rows).argsort()]

    def owners(self, points: Float[Tensor, "N D"]) -> Tensor:
        """Number of the piece of each point."""
        outside = [
            ((box.lower - points).clamp(min=0) + (points - box.upper).clamp(min=0)).sum(1)
            for box in self._boxes
        ]
        return torch.stack(outside).argmin(0)

    @property
    def end(self) -> float:
        """Time up to which there are pieces; infinite without time."""
        return max(box.bounds.get("t", (0.0, math.inf))[1] for box in self._boxes)

    def piece(self, number: int, points: Float[Tensor, "N D"]) -> Float[Tensor, "N F"]:
        """Evaluate the fields of one piece, wherever the points are."""
        sizes = [program.parameter_count for program in self._programs]
        program, theta = self._programs[number], self.theta.split(sizes)[number]
        return program.fields(points, program.layers(theta, program.inputs(points)))


@dataclass(frozen=True, kw_only=True, eq=False)
class PiecewiseResult(PINNResult):
    """What a training in pieces found.

    Attributes:
        joints: Where pieces meet.
    """

    network: PiecewiseField
    joints: Sequence[Joint]

    def _is_untrained(self, points: Float[Tensor, "N D"]) -> Bool[Tensor, " N"]:
        """Points off the domain, or later than the window at which Ctrl-C ended a march."""
        outside = super()._is_untrained(points)
        if not self.problem.domain.has_time:
            return outside
        late = points[:, self.problem.domain.axis("t")] > self.network.end
        # Up to the rounding that the domain's own end has.
        return outside | (late & (self.network.end < self.problem.domain.bounds["t"][1]))

    @property
    def largest_jump(self) -> float:
        """Largest difference of a field between two pieces at the points of their joints.

        Zero where Ctrl-C left one piece.
        """
        with torch.no_grad():
            jumps = (
                float((self.network.piece(a, x) - self.network.piece(b, y)).abs().max())
                for (a, b), (x, y) in ((joint.pieces, joint.points) for joint in self.joints)
            )
            return max(jumps, default=0.0)
