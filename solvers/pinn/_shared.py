"""Residuals at points that workers share: every one has an engine for its part of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from solvers.derivatives import Backend, ResidualEngine, ResidualProgram, residual_engine
from solvers.parallel import Actor, Executor

__all__ = ["SharedEngine"]


class SharedEngine(ResidualEngine):
    """An engine whose points are cut into one part for each worker.

    Sums run over the parts in their order: every executor with as many workers gives the same
    numbers. A worker that dies is replaced and evaluates its part again.

    Args:
        program: Residuals of a network.
        points: First set of points, shape ``(N, D)``, no fewer than workers.
        weights: Factor of each residual at each point, shape ``(N, equations)``.
        executor: The workers.
        backend: Engine of each.

    Cost: the parameters to each worker and as many numbers back, an evaluation.
    """

    def __init__(
        self,
        program: ResidualProgram,
        points: Float[Tensor, "N D"],
        weights: Float[Tensor, "N E"],
        *,
        executor: Executor,
        backend: Backend = "auto",
    ) -> None:
        self.program = program
        self._executor, self._backend = executor, backend
        self.set_points(points, weights)

    def set_points(
        self, points: Float[Tensor, "N D"], weights: Float[Tensor, "N E"] | None = None
    ) -> None:
        """Move to other points: every worker makes an engine anew, from kernels that it has."""
        assert weights is not None
        self._count = len(points)
        parts = min(self._executor.workers, len(points))
        self._actors: list[Actor] = [
            self._executor.spawn(
                residual_engine, self.program, p, w, backend=self._backend,
                worker=worker, is_replayable=True,
            )
            for worker, (p, w) in enumerate(
                zip(points.tensor_split(parts), weights.tensor_split(parts), strict=True)
            )
        ]  # fmt: skip

    def loss(self, theta: Float[Tensor, " P"]) -> float:
        """Half the sum of squares of the weighted residuals."""
        return float(sum(self._ask("loss", theta)))

    def residuals(self, theta: Float[Tensor, " P"]) -> Float[Tensor, "E N"]:
        """Weighted residuals, shape ``(equations, N)``."""
        return torch.cat(list(self._ask("residuals", theta)), dim=1)

    def loss_and_gradient(self, theta: Float[Tensor, " P"]) -> tuple[float, Float[Tensor, " P"]]:
        """Half the sum of squares of the weighted residuals, and its gradient."""
        return self._total("loss_and_gradient", theta)

    def sum_and_gradient(self, theta: Float[Tensor, " P"]) -> tuple[float, Float[Tensor, " P"]]:
        """Sum of the weighted residuals, and its gradient."""
        return self._total("sum_and_gradient", theta)

    def jacobian(self, theta: Float[Tensor, " P"]) -> Float[Tensor, "EN P"]:
        """Derivatives of the weighted residuals, equations outermost."""
        equations = self.program.equations
        parts = [
            rows.reshape(equations, -1, rows.shape[1]) for rows in self._ask("jacobian", theta)
        ]
        return torch.cat(parts, dim=1).flatten(0, 1)

    def linearize(self, theta: Float[Tensor, " P"]) -> Iterator[tuple[Tensor, Tensor]]:
        """Residuals and their Jacobian, part by part, laid out alike wherever they come from."""
        residuals = list(self._ask("residuals", theta))
        for r, rows in zip(residuals, self._ask("jacobian", theta), strict=True):
            yield r.flatten(), rows.contiguous()

    def _total(self, method: str, theta: Tensor) -> tuple[float, Tensor]:
        total, gradient = 0.0, torch.zeros(self.parameter_count, dtype=torch.float64)
        for part, slope in self._ask(method, theta):
            total, gradient = total + part, gradient + slope
        return total, gradient

    def _ask(self, method: str, theta: Tensor) -> Iterator[Any]:
        theta = theta.detach().clone()
        pending = [actor.call(method, theta) for actor in self._actors]
        return (answer.result() for answer in pending)


def linearize(engine: ResidualEngine, theta: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Residuals of an engine with their Jacobian, in as many blocks as it has parts."""
    if isinstance(engine, SharedEngine):
        yield from engine.linearize(theta)
    else:
        yield engine.residuals(theta).flatten(), engine.jacobian(theta)
