"""What every backend offers: steps of a batch, and the adjoint of one step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor

from physim.dynamics._assembly import StepData

if TYPE_CHECKING:
    from physim.dynamics._reference import ReferenceSolver

REPORT = (
    "iterations",
    "residual",
    "status",
    "parts",
    "rescues",
    "min_gap",
    "unverified",
    "kappa_error",
    "gradient_solved",
)
"""Columns of a step's report, in the order in which backends write them."""


_STATUS, _PARTS, _SOLVED = (REPORT.index(x) for x in ("status", "parts", "gradient_solved"))


class Totals(NamedTuple):
    """Sums over a batch.

    Attributes:
        status: Zero if all items converged.
        parts: The number of items if none was cut.
        gradient_solved: The number of items if all have a solution that gradients belong to.
    """

    status: float
    parts: float
    gradient_solved: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Smoothing:
    """Central-path parameters of a whole step [J]; zero is exact contact.

    A part of a step has its share of them.

    Attributes:
        state: That of the states.
        gradient: That of a second solution for gradients; None if none is wanted.
    """

    state: float
    gradient: float | None = None

    @property
    def followed(self) -> float:
        """That of the solution that gradients belong to."""
        return self.state if self.gradient is None else self.gradient

    def share(self, count: int) -> Smoothing:
        """That of one of ``count`` equal parts of the step."""
        soft = None if self.gradient is None else self.gradient / count
        return Smoothing(state=self.state / count, gradient=soft)


@dataclass(slots=True, kw_only=True)
class Advance:
    """Steps of a batch, time first; a single step without controls of its own has no time axis.

    Attributes:
        q: Configurations after each step (T, B, nq).
        v: Velocities after each step (T, B, nv).
        report: `REPORT` of each step (T, B, 9).
        impulses: Impulses of all constraints in the last step (B, w): limits, dry friction, then
            normal and two friction impulses per contact.
        soft: Solutions that gradients belong to (T, B, nq), if asked for.
        path: Impulses of all steps (T, B, w), if asked for.
    """

    q: Tensor
    v: Tensor
    report: Tensor
    impulses: Tensor
    soft: Tensor | None = None
    path: Tensor | None = None

    def only(self) -> Advance:
        """The result of a single step, without its time axis."""
        soft = None if self.soft is None else self.soft[0]
        return Advance(
            q=self.q[0], v=self.v[0], report=self.report[0], impulses=self.impulses, soft=soft
        )

    def column(self, name: str) -> Tensor:
        """One number of the report (T, B)."""
        return self.report[..., REPORT.index(name)]

    def totals(self) -> Totals:
        """What a batch's report adds up to."""
        rows = self.report
        sums = rows.tolist()[0] if rows.shape[0] == 1 else rows.sum(0).tolist()
        return Totals(sums[_STATUS], sums[_PARTS], sums[_SOLVED])

    def status(self) -> Tensor:
        """`Status` of each step (T, B)."""
        return self.column("status").to(torch.int64)


class StepSolver(Protocol):
    """A backend."""

    @property
    def reference(self) -> ReferenceSolver:
        """The oracle, which also answers queries."""
        ...

    def advance(
        self,
        data: StepData,
        smoothing: Smoothing,
        *,
        controls: Tensor | None = None,
        impulses: Tensor | None = None,
        most_parts: int = 1,
        keep_impulses: bool = False,
    ) -> Advance:
        """Take steps.

        Args:
            data: Inputs of the first step; external force, time step and numbers hold for all.
            smoothing: How exact contact is.
            controls: Controls of every step (T, B, nu) instead of those in ``data``; without them
                it is one step, and the result has no time axis.
            impulses: Impulses of the step before (B, w), a start for Newton's method.
            most_parts: Largest number of parts into which a failing step is cut.
            keep_impulses: Whether the impulses of all steps are wanted.
        """
        ...

    def adjoint(
        self,
        data: StepData,
        q_next: Tensor,
        x: Tensor,
        impulses: Tensor,
        kappa: float,
        cotangent_q: Tensor,
        cotangent_v: Tensor,
        *,
        with_numbers: bool = True,
    ) -> StepData:
        """Cotangents of all inputs of a step; those of the numbers may be zero unless wanted.

        Args:
            data: Inputs of the step.
            q_next: The next configuration (B, nq), to whose tangent space its cotangent belongs.
            x: Its solution at the gradient's smoothing (B, nq).
            impulses: Impulses there (B, w); read if ``kappa`` is zero.
            kappa: Central-path parameter of the gradient [J].
            cotangent_q: Cotangent of the next configuration (B, nq).
            cotangent_v: Cotangent of the next velocity (B, nv).
            with_numbers: Whether cotangents of the numbers are wanted.
        """
        ...


def cut(values: StepData, items: Tensor | Sequence[int]) -> StepData:
    """Some items of a step's inputs; what all items share stays shared."""
    columns = [getattr(values, name) for name in StepData.__slots__]
    return StepData(
        *(
            column[:1].expand(len(items), *column.shape[1:])
            if column.stride(0) == 0
            else column[items]
            for column in columns
        )
    )
