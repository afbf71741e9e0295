r"""Explicit Runge-Kutta steps with an error estimate and a polynomial between the ends.

Sources: order five, J. Dormand and P. Prince (1980), table 2, with the interpolant of L. Shampine
(1986); order three, P. Bogacki and L. Shampine (1989); the estimate of stiffness from the two
stages at the end of the step, E. Hairer and G. Wanner, Solving ODEs II, section IV.2, eq. 2.13.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

__all__ = ["BOGACKI_SHAMPINE", "DORMAND_PRINCE", "ExplicitMethod", "Rate", "Step"]

Rate = Callable[[Tensor, Tensor], Tensor]
"""Takes times ``(B,)`` and states ``(B, n)``, gives rates ``(B, n)``."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Step:
    """What one trial step gives for every item.

    Attributes:
        start: State at its start, ``(B, n)``.
        end: State at its end.
        error: Estimated error of ``end``.
        rate: Rate at ``end``, for the next step.
        stages: What the interpolant needs, ``(B, s, n)``.
        stiffness: Step times the largest eigenvalue seen, ``(B,)``.
        is_solved: Items whose stages could be solved for; all of an explicit method.
    """

    start: Tensor
    end: Tensor
    error: Tensor
    rate: Tensor
    stages: Tensor
    stiffness: Tensor
    is_solved: Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExplicitMethod:
    """An explicit pair whose last stage is the rate at the end.

    Attributes:
        name: Name for settings.
        order: Order of the solution.
        nodes: Time of each stage as a part of the step.
        matrix: Weights of earlier stages, row by row; the last row gives the end.
        error: Weights of the error estimate.
        dense: Weights of the interpolant: row per stage, column per power of the part, from one.
        stability: Step times eigenvalue beyond which steps are bound by stability.
        control_order: Order of the error estimate.
    """

    name: str
    order: int
    nodes: tuple[float, ...]
    matrix: tuple[tuple[float, ...], ...]
    error: tuple[float, ...]
    dense: tuple[tuple[float, ...], ...]
    stability: float
    control_order: int
    is_implicit: bool = field(default=False, init=False)

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
            stages: Not used.
            guess: Not used.

        Returns:
            The step.
        """
        width = h.to(y.dtype)[:, None]
        slopes, inner = [first], y
        for node, row in zip(self.nodes[1:], self.matrix, strict=True):
            previous = inner
            inner = y + width * sum(a * k for a, k in zip(row, slopes, strict=True) if a)
            slopes.append(rate(t + node * h, inner))
        stacked = torch.stack(slopes, 1)
        error = width * torch.einsum("s,bsn->bn", y.new_tensor(self.error), stacked)
        with torch.no_grad():
            gap = torch.linalg.vector_norm(inner - previous, dim=1)
            slope = torch.linalg.vector_norm(slopes[-1] - slopes[-2], dim=1)
            stiffness = h.abs() * slope / gap.clamp(min=torch.finfo(gap.dtype).tiny)
        return Step(
            start=y,
            end=inner,
            error=error,
            rate=slopes[-1],
            stages=stacked,
            stiffness=stiffness,
            is_solved=torch.ones_like(h, dtype=torch.bool),
        )

    def interpolate(self, step: Step, h: Tensor, part: Tensor, rows: Tensor) -> Tensor:
        """Evaluate between the ends.

        Args:
            step: The step.
            h: Steps ``(B,)``.
            part: Where, from 0 at the start to 1 at the end, ``(k,)``.
            rows: Item of each.

        Returns:
            States ``(k, n)``.
        """
        part = part.to(step.start.dtype)
        dense = part.new_tensor(self.dense)
        powers = torch.stack([part ** (j + 1) for j in range(dense.shape[1])], -1)
        weights = powers @ dense.T
        slopes = torch.einsum("ks,ksn->kn", weights, step.stages[rows])
        return step.start[rows] + h[rows].to(part.dtype)[:, None] * slopes


DORMAND_PRINCE = ExplicitMethod(
    name="dopri5",
    order=5,
    nodes=(0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0),
    matrix=(
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    ),
    error=(
        71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40,
    ),
    dense=(
        (1.0, -8048581381 / 2820520608, 8663915743 / 2820520608, -12715105075 / 11282082432),
        (0.0, 0.0, 0.0, 0.0),
        (0.0, 131558114200 / 32700410799, -68118460800 / 10900136933, 87487479700 / 32700410799),
        (0.0, -1754552775 / 470086768, 14199869525 / 1410260304, -10690763975 / 1880347072),
        (0.0, 127303824393 / 49829197408, -318862633887 / 49829197408, 701980252875 / 199316789632),
        (0.0, -282668133 / 205662961, 2019193451 / 616988883, -1453857185 / 822651844),
        (0.0, 40617522 / 29380423, -110615467 / 29380423, 69997945 / 29380423),
    ),
    stability=3.25,
    control_order=5,
)  # fmt: skip

BOGACKI_SHAMPINE = ExplicitMethod(
    name="bosh3",
    order=3,
    nodes=(0.0, 1 / 2, 3 / 4, 1.0),
    matrix=((1 / 2,), (0.0, 3 / 4), (2 / 9, 1 / 3, 4 / 9)),
    error=(5 / 72, -1 / 12, -1 / 9, 1 / 8),
    # Hermite's cubic.
    dense=((1.0, -4 / 3, 5 / 9), (0.0, 1.0, -2 / 3), (0.0, 4 / 3, -8 / 9), (0.0, -1.0, 1.0)),
    stability=2.5,
    control_order=3,
)
