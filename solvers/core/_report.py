"""What a solve tells about itself: status, iterations and residual of every batch item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import EllipsisType
from typing import Any

import torch
from jaxtyping import Bool, Int, Real
from torch import Tensor

from solvers.core._errors import SettingsError, ShapeError
from solvers.core._status import Status, count_status

__all__ = ["Report"]

_SHOWN_ITEMS = 6
_Index = int | slice | EllipsisType | Tensor | tuple[int | slice | EllipsisType, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Report:
    """Status, iterations and residual of a batch of solves.

    All tensors share one shape: ``()`` for a single solve, ``(B,)`` for a batch, ``(T, B)`` for a
    batch over time. Nothing here carries a gradient.

    Attributes:
        status: :class:`Status` of each item as int64.
        iterations: Iterations that each item used, any integer type.
        residual: Final residual of each item, in the norm and unit that the solver documents; NaN
            where ``NON_FINITE`` input leaves nothing to say.
        counts: What else the solver counted per item, for example line-search halvings.

    Raises:
        ShapeError: If the tensors do not share one shape.
        SettingsError: If ``status`` is not of type int64.

    Example:
        >>> report = Report(
        ...     status=torch.tensor([0, 1]),
        ...     iterations=torch.tensor([4, 50]),
        ...     residual=torch.tensor([1e-9, 2e-3]),
        ... )
        >>> report.all_converged
        False
    """

    status: Int[Tensor, "*batch"]
    iterations: Int[Tensor, "*batch"]
    residual: Real[Tensor, "*batch"]
    counts: Mapping[str, Real[Tensor, "*batch"]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.status.dtype != torch.int64:
            raise SettingsError(
                f"Report: status has type {self.status.dtype}, expected torch.int64; "
                "convert it with .to(torch.int64)"
            )
        shape = self.status.shape
        for name, tensor in self._numbers().items():
            if tensor.shape != shape:
                raise ShapeError(
                    f"Report: {name} has shape {tuple(tensor.shape)}, expected {tuple(shape)} "
                    "like status; expand it to one number per item"
                )

    @property
    def converged(self) -> Bool[Tensor, "*batch"]:
        """Which items met their tolerance."""
        return self.status == Status.CONVERGED

    @property
    def all_converged(self) -> bool:
        """Whether every item met its tolerance; waits for the device."""
        return bool(self.converged.all())

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape shared by all tensors: ``()``, ``(B,)`` or ``(T, B)``."""
        return tuple(self.status.shape)

    def __getitem__(self, index: _Index) -> Report:
        """Take some items, for example ``report[3]`` or ``report[-1, :]``.

        Args:
            index: Any index that the tensors accept.

        Returns:
            The report of those items.
        """
        return Report(
            status=self.status[index],
            iterations=self.iterations[index],
            residual=self.residual[index],
            counts={name: count[index] for name, count in self.counts.items()},
        )

    @staticmethod
    def stack(reports: Sequence[Report]) -> Report:
        """Join the reports of consecutive steps along a new leading axis, time.

        Args:
            reports: One report per step, all of one shape ``(B,)`` and with the same counts.

        Returns:
            One report of shape ``(T, B)``.

        Raises:
            ShapeError: If there is no report, or shapes or the names of the counts differ.
        """
        if not reports:
            raise ShapeError("Report.stack: got no report, expected at least one step")
        first = reports[0]
        for step, report in enumerate(reports):
            if report.shape != first.shape or report.counts.keys() != first.counts.keys():
                raise ShapeError(
                    f"Report.stack: the report of step {step} has shape {report.shape} and counts "
                    f"{sorted(report.counts)}, expected {first.shape} and "
                    f"{sorted(first.counts)} as in step 0; stack steps of one batch and solver"
                )
        return Report(
            status=torch.stack([report.status for report in reports]),
            iterations=torch.stack([report.iterations for report in reports]),
            residual=torch.stack([report.residual for report in reports]),
            counts={
                name: torch.stack([report.counts[name] for report in reports])
                for name in first.counts
            },
        )

    def summary(self) -> dict[str, Any]:
        """Condense the report into plain numbers that :mod:`json` can write.

        Returns:
            ``items`` and ``converged`` as counts, ``status`` as name to count, and for each of
            ``iterations``, ``residual`` and the solver's counts the ``min``, ``median`` and
            ``max`` over finite items with ``non_finite``, the number of the others.
        """
        counted = count_status(self.status)
        return {
            "items": self.status.numel(),
            "converged": counted.get(Status.CONVERGED, 0),
            "status": {status.name: count for status, count in counted.items()},
            **{name: _spread(tensor) for name, tensor in self._numbers().items()},
        }

    def failed_items(self, status: Status | None = None) -> list[tuple[int, ...]]:
        """List the indices of items that did not converge.

        Args:
            status: Only the items that ended so; all failed items by default.

        Returns:
            One index tuple per item in row-major order, ``()`` for a report without batch.
        """
        failed = self.status != Status.CONVERGED if status is None else self.status == status
        return [tuple(index) for index in failed.nonzero().tolist()]

    def __str__(self) -> str:
        condensed = self.summary()
        lines = [f"Report: {condensed['converged']} of {condensed['items']} items converged"]
        for name in self._numbers():
            row = condensed[name]
            cells = "  ".join(f"{key} {_number(row[key])}" for key in ("min", "median", "max"))
            bad = f"  ({row['non_finite']} not finite)" if row["non_finite"] else ""
            lines.append(f"  {name:<12} {cells}{bad}")
        for status, count in count_status(self.status).items():
            if status is not Status.CONVERGED:
                where = _item_list(self.failed_items(status), len(self.shape))
                lines.append(f"  {status.name} {count}{where}: {status.advice}")
        return "\n".join(lines)

    def _numbers(self) -> dict[str, Tensor]:
        return {"iterations": self.iterations, "residual": self.residual, **self.counts}


def _spread(tensor: Tensor) -> dict[str, float | int | None]:
    values = tensor.detach().to("cpu", torch.float64).flatten()
    finite = values[values.isfinite()]
    row: dict[str, float | int | None] = {"min": None, "median": None, "max": None}
    if finite.numel():
        # JSON has no NaN, hence statistics over the finite items only.
        exact = float if tensor.is_floating_point() else int
        row["min"] = exact(finite.min())
        row["median"] = exact(finite.median())
        row["max"] = exact(finite.max())
    row["non_finite"] = values.numel() - finite.numel()
    return row


def _number(value: float | int | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.3g}"


def _item_list(items: Sequence[tuple[int, ...]], axes: int) -> str:
    if axes == 0:
        return ""
    label = "(step, item)" if axes == 2 else "item" if axes == 1 else "index"
    shown = ", ".join(
        str(index[0]) if axes == 1 else str(index).replace(" ", "")
        for index in items[:_SHOWN_ITEMS]
    )
    more = ", ..." if len(items) > _SHOWN_ITEMS else ""
    return f" at {label} {shown}{more}"
