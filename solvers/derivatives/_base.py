"""What every engine is: weighted residuals of a network at points."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

from solvers.core import ShapeError, check_count, check_kind, check_shape
from solvers.derivatives._program import ResidualProgram

__all__ = ["ChunkedEngine", "ResidualEngine", "point_weights"]


class ResidualEngine(ABC):
    """Weighted residuals of a network at points, as functions of its parameters.

    Attributes:
        program: Residuals over the channels of a network.
    """

    program: ResidualProgram
    _count: int

    @property
    def parameter_count(self) -> int:
        """Length of the vector of parameters, unknown coefficients last."""
        return self.program.parameter_count

    @property
    def residual_count(self) -> int:
        """Number of residuals: equations times points."""
        return self.program.equations * self._count

    @abstractmethod
    def set_points(
        self, points: Float[Tensor, "N D"], weights: Float[Tensor, "N ..."] | None = None
    ) -> None:
        """Move to other points, or read changed coefficients of the program.

        Args:
            points: Shape ``(N, D)``.
            weights: As at construction.

        Raises:
            ShapeError: If a shape does not fit.
            NonFiniteError: If a point is not finite.
        """

    def check_parameters(self, theta: Float[Tensor, " P"]) -> None:
        """Refuse what are no parameters of the program.

        Raises:
            ShapeError: If ``theta`` is no vector of all parameters.
        """
        check_shape("theta", theta, str(self.program.parameter_count))

    @abstractmethod
    def loss(self, theta: Float[Tensor, " P"]) -> float:
        """Half the sum of squares of the weighted residuals."""

    @abstractmethod
    def residuals(self, theta: Float[Tensor, " P"]) -> Float[Tensor, "E N"]:
        """Weighted residuals, shape ``(equations, N)``."""

    @abstractmethod
    def loss_and_gradient(self, theta: Float[Tensor, " P"]) -> tuple[float, Float[Tensor, " P"]]:
        """Half the sum of squares of the weighted residuals, and its gradient."""

    @abstractmethod
    def sum_and_gradient(self, theta: Float[Tensor, " P"]) -> tuple[float, Float[Tensor, " P"]]:
        """Sum of the weighted residuals, an integral if they are densities, and its gradient."""

    @abstractmethod
    def jacobian(self, theta: Float[Tensor, " P"]) -> Float[Tensor, "EN P"]:
        """Derivatives of the weighted residuals, shape ``(equations * N, P)``, equations outermost.

        May be a view with points contiguous.
        """


class ChunkedEngine(ResidualEngine):
    """An engine in torch that takes a chunk of its points at a time.

    Args:
        program: Residuals of a network.
        points: First set of points, shape ``(N, D)``; their device is where everything runs.
        weights: Factor of each residual at each point, shape ``(N,)`` or ``(N, equations)``;
            ``1/sqrt(N)`` by default.
        chunk: Points at a time; bounds memory.

    Raises:
        SettingsError: If ``chunk`` is not positive.
    """

    def __init__(
        self,
        program: ResidualProgram,
        points: Float[Tensor, "N D"],
        weights: Float[Tensor, "N ..."] | None = None,
        *,
        chunk: int = 2000,
    ) -> None:
        check_kind("program", program, ResidualProgram, "a ResidualProgram")
        check_count("chunk", chunk)
        self.program, self._chunk = program, chunk
        self._take_in(program)
        self.set_points(points, weights)

    def _take_in(self, program: ResidualProgram) -> None:
        """What an engine reads off its program once, before it gets points."""

    def loss(self, theta: Float[Tensor, " P"]) -> float:
        """Half the sum of squares of the weighted residuals."""
        return 0.5 * float(self.residuals(theta).square().sum())

    def loss_and_gradient(self, theta: Float[Tensor, " P"]) -> tuple[float, Float[Tensor, " P"]]:
        """Half the sum of squares of the weighted residuals, and its gradient."""
        return self._total(theta, is_squared=True)

    def sum_and_gradient(self, theta: Float[Tensor, " P"]) -> tuple[float, Float[Tensor, " P"]]:
        """Sum of the weighted residuals, an integral if they are densities, and its gradient."""
        return self._total(theta, is_squared=False)

    @abstractmethod
    def _total(self, theta: Tensor, *, is_squared: bool) -> tuple[float, Tensor]:
        """Sum of residuals, or half that of their squares, and its gradient."""

    def _chunks(self) -> list[slice]:
        return [
            slice(k, min(k + self._chunk, self._count)) for k in range(0, self._count, self._chunk)
        ]


def point_weights(points: Tensor, weights: Tensor | None, program: ResidualProgram) -> Tensor:
    """Weights of all residuals, shape ``(N, equations)``.

    Raises:
        ShapeError: If there are no points or the shape does not fit.
    """
    equations = program.equations
    check_shape("points", points, f"N {len(program.coordinates)}")
    count = len(points)
    if count == 0:
        raise ShapeError("points has no point, expected one or more")
    if weights is None:
        weights = torch.full((count,), count**-0.5, dtype=torch.float64, device=points.device)
    check_kind("weights", weights, Tensor, "a tensor of one factor per point, or None")
    if weights.shape == (count,):
        weights = weights[:, None].expand(count, equations)
    if weights.shape != (count, equations):
        raise ShapeError(
            f"weights has shape {tuple(weights.shape)}, expected ({count},) or "
            f"({count}, {equations})"
        )
    return weights.to(torch.float64)
