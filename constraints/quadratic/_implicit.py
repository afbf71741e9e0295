"""Gradients of solved programs: one adjoint solve, then products of vectors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from constraints.quadratic._inputs import Inputs
from solvers.nonlinear.interior_point import (
    Backend,
    ConeProgramData,
    SolvedPrograms,
    solve_cone_programs,
)

__all__ = ["ProgramCall"]


class ProgramCall:
    """One call of a layer.

    Attributes:
        solved: The solved programs, after `solve`.

    Args:
        cones: Sizes of the second-order cones.
        max_iterations: Interior-point steps at most.
        backend: Which form of the solver.
        threads: Threads of the kernel.
    """

    __slots__ = ("_settings", "cones", "solved")
    solved: SolvedPrograms

    def __init__(self, cones: tuple[int, ...], max_iterations: int, backend: Backend, threads: int):
        self.cones = cones
        self._settings = (max_iterations, backend, threads)

    def solve(self, inputs: Inputs, batch: int) -> Tensor:
        """Solve with gradients.

        Args:
            inputs: The six tensors.
            batch: Number of items.

        Returns:
            Unknowns, shape ``(B, n)``.
        """
        Q, q, G, h, A, b = inputs
        if torch.is_grad_enabled():
            # Without gradients for them, matrices need no place among what is recorded.
            wanted = (Q, G, A) if Q.requires_grad or G.requires_grad or A.requires_grad else ()
            if wanted or q.requires_grad or h.requires_grad or b.requires_grad:
                x: Tensor = _Solve.apply(  # type: ignore[no-untyped-call]
                    self, inputs, batch, q, h, b, *wanted
                )
                return x
        return self.run(inputs, batch, differentiable=False)

    def run(self, inputs: Inputs, batch: int, *, differentiable: bool) -> Tensor:
        """Solve without recording."""
        max_iterations, backend, threads = self._settings
        Q, q, G, h, A, b = (t if t.is_contiguous() else t.contiguous() for t in inputs)
        self.solved = solve_cone_programs(
            ConeProgramData(Q, q, G, h, A, b, self.cones, batch),
            max_iterations=max_iterations,
            backend=backend,
            threads=threads,
            differentiable=differentiable,
        )
        return self.solved.x


class _Solve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: ProgramCall, inputs: Inputs, batch: int, *wanted: Tensor) -> Tensor:
        x = call.run(inputs, batch, differentiable=True)
        ctx.solved = call.solved
        Q, _, G, _, A, _ = inputs
        # Saved so that a change in place before the backward pass is found. Vectors do without x,
        # which may then be changed.
        ctx.save_for_backward(x if len(wanted) > 3 else None, Q, G, A)
        return x.detach()

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            gradients: tuple[Tensor | None, ...] = _once_differentiable(ctx, cotangent)
            return gradients
        return _gradients(ctx, cotangent)


def _gradients(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
    x, Q, G, A = ctx.saved_tensors
    solved: SolvedPrograms = ctx.solved
    to_q, to_h, to_b = solved.adjoint(cotangent)
    _, _, _, needs_q, needs_h, needs_b, *needs_matrices = ctx.needs_input_grad
    data = solved.data
    vectors = (
        None,
        None,
        None,
        _total(to_q, data.q) if needs_q else None,
        _total(to_h, data.h) if needs_h else None,
        _total(to_b, data.b) if needs_b else None,
    )
    if not needs_matrices:
        return vectors
    needs_Q, needs_G, needs_A = needs_matrices
    return (
        *vectors,
        _products(0.5 * to_q, x, 0.5 * x, to_q, Q) if needs_Q else None,
        _products(-to_h, x, solved.z, to_q, G) if needs_G else None,
        _products(-to_b, x, solved.y, to_q, A) if needs_A else None,
    )


_once_differentiable = once_differentiable(_gradients)


def _total(per_item: Tensor, like: Tensor) -> Tensor:
    """Per item, or summed over the items that share a vector."""
    return per_item if like.ndim == 2 else per_item.sum(0)


def _products(a: Tensor, b: Tensor, c: Tensor, d: Tensor, like: Tensor) -> Tensor:
    """``a b' + c d'`` per item, or summed over the items that share a matrix."""
    if like.ndim == 2:
        return torch.addmm(a.mT @ b, c.mT, d)
    first = a.unsqueeze(2) * b.unsqueeze(1)
    return first.addcmul_(c.unsqueeze(2), d.unsqueeze(1))
