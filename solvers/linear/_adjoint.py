"""Where the backward pass starts: the last adjoint solution, scaled to fit."""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["AdjointStart"]


class AdjointStart:
    r"""Keeps the adjoint solution of a backward pass as the first guess of the next.

    One for each place of a program that solves again and again while its data move slowly: a step
    of a rollout under optimisation, a layer in training. Give it to every solve of that place; it
    outlives operators and preparations.

    The guess is :math:`\alpha \lambda` with the last solution :math:`\lambda` and the
    :math:`\alpha = \langle A^\top\lambda, g\rangle / |A^\top\lambda|^2` that leaves the least
    residual of the cotangent :math:`g`, so it is never worse than zero, even if the scale of the
    loss changes. A solve that starts from it ends by the same true residual: gradients depend on
    their history within the tolerance of the solver only. Another shape, a failed solve or a
    vectorised call starts from zero. Threads may share one.

    Cost: one product with the operator and one vector of memory.
    Reference: Fischer 1998, "Projection techniques for iterative solution of Ax = b with successive
    right-hand sides" (of one direction).

    Example:
        >>> from solvers.linear import ConjugateGradient, PoissonOperator, linear_solve
        >>> A = PoissonOperator.from_cells(torch.zeros(16, 16), outside=2)
        >>> start, solver = AdjointStart(), ConjugateGradient()
        >>> for scale in (1.0, 0.5):
        ...     b = torch.full((16, 16), scale, dtype=torch.float64, requires_grad=True)
        ...     linear_solve(A, b, solver, adjoint=start).value.square().sum().backward()
        >>> start.iterations
        0
    """

    def __init__(self) -> None:
        self.iterations = 0
        """Iterations of the last backward pass, the largest of a batch."""

        self._last: Tensor | None = None
        self._lock = threading.Lock()

    def guess(
        self, apply: Callable[[Tensor], Tensor], cotangent: Tensor, axes: int
    ) -> Tensor | None:
        """The first guess for a cotangent; None to start from zero.

        Args:
            apply: Product with the adjoint operator.
            cotangent: Right-hand sides of the adjoint problem, shape ``(..., *domain)``.
            axes: Axes of one vector.
        """
        with self._lock:
            last = self._last
        if last is None or last.shape != cotangent.shape:
            return None
        last = last.to(cotangent)
        own = tuple(range(-axes, 0))
        product = apply(last)
        size = product.square().sum(own, keepdim=True)
        along = (product * cotangent).sum(own, keepdim=True)
        scale = torch.where(size > 0, along / torch.where(size > 0, size, 1.0), 0.0)
        return torch.where(scale.isfinite(), scale * last, 0.0)

    def keep(self, solution: Tensor, iterations: Tensor, good: Tensor) -> None:
        """Remember a solution if every item is good.

        Args:
            solution: Solution of the adjoint problem.
            iterations: What each item took.
            good: Which items converged.
        """
        last = solution.detach().clone() if bool(good.all()) else None
        with self._lock:
            self._last = last
            self.iterations = int(iterations.max()) if iterations.numel() else 0
