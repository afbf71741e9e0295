r"""Radau IIA of order five: the implicit method for stiff problems.

The stages :math:`z_i = y(t + c_i h) - y` solve :math:`z = h (A \otimes I) f(y + z)` by Newton's
method with the Jacobian at the start of the step, from the polynomial of the last step carried on.
When a step is differentiated, one more Newton correction with the stages' own Jacobians carries the
derivative of the implicit function.

Source: E. Hairer and G. Wanner, Solving ODEs II, section IV.8: matrix, start and end of Newton's
method (eq. 8.5 and 8.10), eq. 8.19 and 8.20 (error).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import sqrt

import torch
from torch import Tensor

from solvers.ode._explicit import Rate, Step
from solvers.ode._once import differentiate_once

__all__ = ["RadauMethod"]

_S6 = sqrt(6)
_NODES = ((4 - _S6) / 10, (4 + _S6) / 10, 1.0)
_MATRIX = (
    ((88 - 7 * _S6) / 360, (296 - 169 * _S6) / 1800, (-2 + 3 * _S6) / 225),
    ((296 + 169 * _S6) / 1800, (88 + 7 * _S6) / 360, (-2 - 3 * _S6) / 225),
    ((16 - _S6) / 36, (16 + _S6) / 36, 1 / 9),
)
_ERROR = ((-13 - 7 * _S6) / 3, (-13 + 7 * _S6) / 3, -1 / 3)
# The real eigenvalue of the inverse matrix.
_REAL = 3 + 3 ** (2 / 3) - 3 ** (1 / 3)
_ITERATIONS = 12
# How far the stages may be off, as a part of the tolerance.
_CLOSE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RadauMethod:
    """Three implicit stages, the last at the end of the step.

    Attributes:
        tolerance: Relative and absolute tolerance that the stages are solved within a part of.
    """

    name: str = "radau5"
    order: int = 5
    control_order: int = 4
    stability: float = float("inf")
    tolerance: tuple[float, float] = (1e-6, 1e-9)
    is_implicit: bool = field(default=True, init=False)

    def step(
        self,
        rate: Rate,
        t: Tensor,
        h: Tensor,
        y: Tensor,
        first: Tensor,
        stages: Tensor | None,
        *,
        guess: Tensor | None = None,
    ) -> Step:
        """Take a step of every item.

        Args:
            rate: Right-hand side.
            t: Start times ``(B,)``.
            h: Steps ``(B,)``; zero leaves an item where it is.
            y: States ``(B, n)``.
            first: Rates at the start.
            stages: Solution of an earlier call ``(B, 3, n)``: it is corrected once, with a graph.
            guess: Stages to begin from, :meth:`extrapolate`; zero by default.

        Returns:
            The step.
        """
        if stages is None:
            z, is_solved, error = self._solve(rate, t, h, y, first, guess)
        else:
            z = self._correct(rate, t, h, y, stages)
            is_solved, error = torch.ones_like(h, dtype=torch.bool), torch.zeros_like(y)
        end = y + z[:, 2]
        return Step(
            start=y,
            end=end,
            error=error,
            rate=rate(t + h, end),
            stages=z,
            stiffness=torch.zeros_like(h),
            is_solved=is_solved,
        )

    def interpolate(self, step: Step, h: Tensor, part: Tensor, rows: Tensor) -> Tensor:
        """Evaluate the collocation polynomial.

        Args:
            step: The step.
            h: Steps ``(B,)``.
            part: Where, from 0 at the start to 1 at the end, ``(k,)``.
            rows: Item of each.

        Returns:
            States ``(k, n)``.
        """
        weights = _collocation(part.to(step.start.dtype))
        return step.start[rows] + torch.einsum("ks,ksn->kn", weights, step.stages[rows])

    def extrapolate(self, stages: Tensor, last: Tensor, h: Tensor) -> Tensor:
        """Carry the collocation polynomial of a step on into the next one.

        Args:
            stages: Stages of the step ``(B, 3, n)``.
            last: Its length ``(B,)``; zero where there was none, which gives zero.
            h: Length of the next one.

        Returns:
            Stages to begin the next one from.
        """
        ratio = torch.where(last == 0, 0.0, h / last).to(stages.dtype)
        weights = _collocation(1 + ratio[:, None] * ratio.new_tensor(_NODES))
        ahead = torch.einsum("bis,bsn->bin", weights, stages) - stages[:, 2:]
        return torch.where((last == 0)[:, None, None], 0.0, ahead)

    def _solve(
        self, rate: Rate, t: Tensor, h: Tensor, y: Tensor, first: Tensor, guess: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        batch, size = y.shape
        slope = jacobian(rate, t, y)
        width = h.to(y.dtype)
        a = y.new_tensor(_MATRIX)
        eye = torch.eye(size, dtype=y.dtype, device=y.device)
        blocks = torch.einsum("ij,bkl->bikjl", a, slope) * width[:, None, None, None, None]
        system = torch.eye(3 * size, dtype=y.dtype, device=y.device) - blocks.reshape(
            batch, 3 * size, 3 * size
        )
        factor = _factorise(system)
        rtol, atol = self.tolerance
        scale = atol + rtol * y.abs()
        z = y.new_zeros(batch, 3, size) if guess is None else guess
        is_solved = torch.zeros(batch, dtype=torch.bool, device=y.device)
        is_lost, size_before = is_solved, None
        for _ in range(_ITERATIONS):
            residual = self._residual(rate, t, width, y, z)
            update = -_back_substitute(factor, residual.reshape(batch, -1)).reshape(z.shape)
            # Items that are done keep their stages, so that they do not depend on the others.
            runs = ~(is_solved | is_lost)
            z = torch.where(runs[:, None, None], z + update, z)
            size_now = (update / scale[:, None]).square().mean((1, 2)).sqrt()
            # What is left is a geometric series of updates; the first is taken to halve.
            contraction = size_now / (2 * size_now if size_before is None else size_before)
            contraction = torch.where(size_now == 0, 0.0, contraction)
            left = size_now * (contraction / (1 - contraction)).clamp(max=1.0)
            is_lost = is_lost | (runs & ~(contraction < 1))
            is_solved = is_solved | (runs & ~is_lost & (left < _CLOSE))
            if bool((is_solved | is_lost).all()):
                break
            size_before = size_now
        # Filtered by the real eigenvalue, so that stiff components do not shorten the step.
        ahead = torch.einsum("s,bsn->bn", y.new_tensor(_ERROR), z)
        real = _REAL * eye - width[:, None, None] * slope
        error = _back_substitute(_factorise(real), width[:, None] * first + ahead)
        return z, is_solved, error

    def _correct(self, rate: Rate, t: Tensor, h: Tensor, y: Tensor, stages: Tensor) -> Tensor:
        batch, size = y.shape
        width = h.to(y.dtype)
        with torch.no_grad():
            slopes = torch.stack(
                [jacobian(rate, t + c * h, y + stages[:, i]) for i, c in enumerate(_NODES)],
                1,
            )
            blocks = torch.einsum("ij,bjkl->bikjl", y.new_tensor(_MATRIX), slopes)
            blocks = (blocks * width[:, None, None, None, None]).reshape(batch, 3 * size, -1)
            factor = _factorise(torch.eye(3 * size, dtype=y.dtype, device=y.device) - blocks)
        residual = self._residual(rate, t, width, y, stages)
        correction = _back_substitute(factor, residual.reshape(batch, -1)).reshape(stages.shape)
        return differentiate_once(stages - correction, "steps of radau5")

    def _residual(self, rate: Rate, t: Tensor, h: Tensor, y: Tensor, z: Tensor) -> Tensor:
        slopes = torch.stack(
            [rate(t + c * h.to(t.dtype), y + z[:, i]) for i, c in enumerate(_NODES)], 1
        )
        change = torch.einsum("ij,bjn->bin", y.new_tensor(_MATRIX), slopes)
        return z - h[:, None, None] * change


def _collocation(part: Tensor) -> Tensor:
    """Weights of the stages in the polynomial that is zero at the start, ``(..., 3)``."""
    columns = []
    for i, c in enumerate(_NODES):
        weight = part / c
        for j, d in enumerate(_NODES):
            if j != i:
                weight = weight * (part - d) / (c - d)
        columns.append(weight)
    return torch.stack(columns, -1)


def jacobian(rate: Rate, t: Tensor, y: Tensor) -> Tensor:
    """Derivative of each item's rate by its own state, ``(B, n, n)``."""
    with torch.enable_grad():
        point = y.detach().requires_grad_()
        value = rate(t, point)
        if not value.requires_grad:
            return y.new_zeros(*y.shape, y.shape[1])
        rows = [
            torch.autograd.grad(
                value[:, i].sum(), point, retain_graph=True, materialize_grads=True
            )[0]
            for i in range(y.shape[1])
        ]
    return torch.stack(rows, 1)


def _factorise(system: Tensor) -> tuple[Tensor, Tensor]:
    # An item that is not finite or singular must not stop the others.
    bad = ~torch.isfinite(system).all(-1).all(-1)
    eye = torch.eye(system.shape[-1], dtype=system.dtype, device=system.device)
    factor, pivots, info = torch.linalg.lu_factor_ex(torch.where(bad[:, None, None], eye, system))
    nan = torch.full_like(factor, torch.nan)
    return torch.where((bad | (info != 0))[:, None, None], nan, factor), pivots


def _back_substitute(factor: tuple[Tensor, Tensor], right: Tensor) -> Tensor:
    solved: Tensor = torch.linalg.lu_solve(*factor, right[..., None])
    return solved[..., 0]
