"""The compiled engine: residuals of a network, their gradient and Jacobian, on lanes of points."""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from solvers.core import SettingsError, check_count
from solvers.derivatives._base import ResidualEngine, point_weights
from solvers.derivatives._generate import ARGUMENTS, GROUPS, Operation, write_engine
from solvers.derivatives._layers import Branches, Layers
from solvers.derivatives._program import ResidualProgram
from solvers.kernels import Kernel, aligned_empty, block_count, build_kernel, lane_count, pack

__all__ = ["CompiledEngine"]

SMALLEST_CHUNK = 4 * GROUPS
"""Groups of points that a thread takes at least, so that the sums of a chunk cost little."""


class CompiledEngine(ResidualEngine):
    r"""Weighted residuals of a multilayer network at points, compiled for its shape.

    Gives :math:`\tfrac12 \sum_{e,n} (w_{en} r_e(x_n))^2`, its gradient by all parameters, and the
    Jacobian of the weighted residuals, exact to rounding.

    Args:
        program: Residuals over the channels of a network.
        points: First set of points, shape ``(N, D)``.
        weights: Factor of each residual at each point, shape ``(N,)`` or ``(N, equations)``;
            ``1/sqrt(N)`` by default, so that the loss is half a mean.
        threads: Threads that share the points. More than one take sums in another order than one,
            so the last digits differ; they are the same for any number above one, every time.

    Raises:
        SettingsError: If ``threads`` is less than 1.
        KernelBuildError: If the compiler refuses the text; `SweepEngine` gives the same numbers.

    Cost: one forward and one reverse pass of the network with one channel per derivative, at 45 to
    75 % of what the processor can multiply and add. The first engine of a shape compiles in about a
    second; its code is cached on disk.

    Example:
        >>> program = ResidualProgram(
        ...     lambda f, x, c: f["u"].xx + f["u"], Layers((1, 8, 8, 1)), fields=["u"],
        ...     coordinates=["x"], probe=torch.linspace(0, 1, 8, dtype=torch.float64)[:, None],
        ... )
        >>> engine = CompiledEngine(program, torch.linspace(0, 1, 50, dtype=torch.float64)[:, None])
        >>> loss, gradient = engine.loss_and_gradient(program.layers.initial(seed=0))
        >>> gradient.shape
        torch.Size([97])
    """

    def __init__(
        self,
        program: ResidualProgram,
        points: Float[Tensor, "N D"],
        weights: Float[Tensor, "N ..."] | None = None,
        *,
        threads: int = 1,
    ) -> None:
        check_count("threads", threads)
        self.program = program
        self._lanes = lane_count()
        self._threads = threads
        self._kernel, scratch = _engine_kernel(program, self._lanes)
        count = program.parameter_count
        self._theta = aligned_empty(count).zero_()
        self._scratch = aligned_empty(threads, scratch, self._lanes).zero_()
        self._taken = torch.zeros(1, dtype=torch.int32)
        self.set_points(points, weights)

    def set_points(
        self, points: Float[Tensor, "N D"], weights: Float[Tensor, "N ..."] | None = None
    ) -> None:
        """Move to other points, or read changed coefficients of the program."""
        program, lanes = self.program, self._lanes
        factors = point_weights(points, weights, program)
        count = len(points)
        blocks = block_count(count, lanes)
        # the last group is filled up with copies of the last point that weigh nothing
        rest = blocks * lanes - count
        filled = torch.cat([points, points[-1:].expand(rest, -1)]).to(torch.float64)
        factors = torch.cat([factors, factors.new_zeros(rest, program.equations)])
        tables = program.tables(filled, factors)
        self._count, self._groups = count, blocks
        cuts = [0, blocks] if self._threads == 1 else _shrinking(blocks)
        self._cuts = torch.tensor(cuts, dtype=torch.int32)
        chunks = len(cuts) - 1
        self._partial = aligned_empty(chunks, program.parameter_count).zero_()
        self._losses = aligned_empty(chunks).zero_()
        self._jets = pack(tables.jets.flatten(1), lanes)
        width = tables.values.shape[1]
        self._values = pack(tables.values, lanes) if width else aligned_empty(1)
        self._known = torch.tensor([*program.values.values(), 0.0], dtype=torch.float64)
        self._weights = torch.cat([program.weights(), torch.zeros(1, dtype=torch.float64)])
        self._residuals = aligned_empty(program.equations, blocks, lanes).zero_()

    def loss(self, theta: Float[Tensor, " P"]) -> float:
        """Half the sum of squares of the weighted residuals."""
        return self._run(Operation.RESIDUALS, theta, self._partial)

    def residuals(self, theta: Float[Tensor, " P"]) -> Float[Tensor, "E N"]:
        """Weighted residuals, shape ``(equations, N)``."""
        self._run(Operation.RESIDUALS, theta, self._partial)
        return self._residuals.view(self.program.equations, -1)[:, : self._count].clone()

    def loss_and_gradient(self, theta: Float[Tensor, " P"]) -> tuple[float, Float[Tensor, " P"]]:
        """Half the sum of squares of the weighted residuals, and its gradient."""
        return self._total(Operation.GRADIENT, theta)

    def sum_and_gradient(self, theta: Float[Tensor, " P"]) -> tuple[float, Float[Tensor, " P"]]:
        """Sum of the weighted residuals, an integral if they are densities, and its gradient."""
        return self._total(Operation.SUM, theta)

    def jacobian(self, theta: Float[Tensor, " P"]) -> Float[Tensor, "EN P"]:
        """Derivatives of the weighted residuals, a view with points contiguous."""
        equations, count = self.program.equations, self.parameter_count
        rows = aligned_empty(count, equations, self._groups * self._lanes)
        self._run(Operation.JACOBIAN, theta, rows)
        return rows[:, :, : self._count].reshape(count, -1).T

    def _total(self, operation: int, theta: Tensor) -> tuple[float, Tensor]:
        total, partial = self._run(operation, theta, self._partial), self._partial
        return total, partial[0].clone() if len(partial) == 1 else partial.sum(0)

    def _run(self, operation: int, theta: Tensor, out: Tensor) -> float:
        self.check_parameters(theta)
        self._theta.copy_(theta)
        self._taken.zero_()
        chunks = len(self._losses)
        threads = min(self._threads, chunks)
        self._kernel.launch_trusted(
            threads, threads, operation, self._groups, chunks, self._cuts, self._taken,
            self._theta, self._jets, self._values, self._known, self._weights, self._scratch, out,
            self._residuals, self._losses,
        )  # fmt: skip
        return float(self._losses[0]) if chunks == 1 else float(self._losses.sum())


def _shrinking(groups: int) -> list[int]:
    """Cut groups of points into chunks that get smaller, so that threads end together."""
    cuts = [0]
    while cuts[-1] < groups:
        rest = groups - cuts[-1]
        cuts.append(cuts[-1] + min(rest, max(SMALLEST_CHUNK, rest // 8 // GROUPS * GROUPS)))
    return cuts


def multilayer(program: ResidualProgram) -> Layers:
    """The layers of a program.

    Raises:
        SettingsError: If the network is some other module.
    """
    if isinstance(program.layers, Layers):
        return program.layers
    raise SettingsError(
        f"layers is {type(program.layers).__name__}, expected Layers; take NestedEngine for any "
        "other network"
    )


def _engine_kernel(program: ResidualProgram, lanes: int) -> tuple[Kernel, int]:
    layers = program.layers if isinstance(program.layers, Branches) else multilayer(program)
    text = write_engine(program, layers, registers=32 if lanes == 8 else 16)
    return _built(text.body, lanes), text.scratch


@lru_cache(maxsize=64)
def _built(body: str, lanes: int) -> Kernel:
    return build_kernel("residual_engine", body, ARGUMENTS, lanes=lanes)
