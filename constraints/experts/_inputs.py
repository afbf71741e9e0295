"""What a mixture takes, with errors that name the argument, and samples that are lost at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from constraints._tensors import check_real
from solvers.core import Report, SettingsError, ShapeError, Status, check_shape

__all__ = [
    "check_condition",
    "find_lost",
    "name_culprit",
    "put_back",
    "read_data",
    "read_points",
    "read_start",
]


def read_points(points: Any, families: Sequence[str], dimension: int) -> dict[str, Tensor]:
    """Points of every family as real numbers.

    Args:
        points: What the user gave, by family.
        families: Names that are expected.
        dimension: Number of coordinates.

    Returns:
        Tensors of float64, shape ``(n, d)``.

    Raises:
        SettingsError: If families do not match, or points are no real tensor.
        ShapeError: If they have another shape.
    """
    _check_families("points", points, families)
    if set(points) != set(families):
        raise SettingsError(f"points: got families {sorted(points)}, expected {sorted(families)}")
    read = {}
    for name in points:
        read[name] = _real(f"points[{name!r}]", points[name])
        check_shape(f"points[{name!r}]", points[name], "n d", sizes={"d": dimension})
    return read


def read_data(
    data: Any, families: Sequence[str], points: Mapping[str, Tensor], samples: int
) -> dict[str, list[Tensor]]:
    """Data of every family, for each sample and point.

    Args:
        data: What the user gave: lists of tensors or numbers, by family; None for no data.
        families: Names that are allowed.
        points: Points of each family.
        samples: Number of samples.

    Returns:
        Tensors of float64, shape ``(S, n)``, in their order; an empty list for other families.

    Raises:
        SettingsError: If a family is unknown, or data are no lists of real numbers.
        ShapeError: If a shape does not broadcast.
    """
    given = {} if data is None else data
    _check_families("data", given, families)
    read: dict[str, list[Tensor]] = {name: [] for name in families}
    for name, columns in given.items():
        if not isinstance(columns, list | tuple):
            raise SettingsError(
                f"data[{name!r}]: got {type(columns).__name__}, expected a list of tensors, one "
                "for each argument of the residual behind its features; put it into brackets"
            )
        for number, one in enumerate(columns):
            place = f"data[{name!r}][{number}]"
            is_number = isinstance(one, int | float)
            column = _real(place, torch.tensor(one) if is_number else one)
            try:
                read[name].append(column.expand(samples, len(points[name])))
            except RuntimeError as error:
                raise ShapeError(
                    f"{place}: got shape {tuple(column.shape)}, expected one that broadcasts to "
                    f"({samples}, {len(points[name])}): samples, points"
                ) from error
    return read


def check_condition(condition: Any) -> None:
    """Check that a condition is a tensor of samples, or None; the rest is up to the basis.

    Args:
        condition: What the user gave.

    Raises:
        SettingsError: If it is no tensor.
        ShapeError: If it has no axis of samples.
    """
    if condition is None:
        return
    if not isinstance(condition, Tensor):
        raise SettingsError(
            f"condition: got {type(condition).__name__}, expected a tensor of shape (S, c); "
            "convert it with torch.as_tensor"
        )
    if condition.ndim == 0:
        raise ShapeError(
            "condition: got shape (), expected (S, c), samples first; add axes with reshape(1, 1)"
        )


def read_start(start: Any, shape: tuple[int, int, int]) -> Tensor:
    """First guess of shape ``(S, K, N)``, without gradient; zero by default.

    Raises:
        SettingsError: If it is no real tensor.
        ShapeError: If it has another shape.
    """
    if start is None:
        return torch.zeros(shape, dtype=torch.float64)
    guess = _real("start", start).detach()
    if guess.shape != shape:
        raise ShapeError(
            f"start: got shape {tuple(guess.shape)}, expected {shape}: samples, experts, functions"
        )
    return guess


def find_lost(condition: Tensor | None, start: Tensor) -> Tensor:
    """Which samples cannot be solved by any expert, since their basis or start is not finite.

    Returns:
        Shape ``(S,)``.
    """
    lost = ~_per_sample(start)
    return lost if condition is None else lost | ~_per_sample(condition)


def name_culprit(arguments: Mapping[str, Tensor | None]) -> str:
    """Which argument holds NaN or infinity first, as a clause for a message; empty if none does."""
    for name, value in arguments.items():
        bad = None if value is None else (~value.detach().isfinite()).nonzero()
        if value is not None and bad is not None and len(bad):
            index = tuple(bad[0].tolist())
            return f", whose {name} at index {index} is {value[index].item()},"
    return ""


def put_back(w: Tensor, report: Report, kept: Tensor, samples: int) -> tuple[Tensor, Report]:
    """Results of some samples among all of them.

    Args:
        w: Coefficients, shape ``(s, K, N)``.
        report: Shape ``(s, ...)``.
        kept: Which samples they are, shape ``(s,)``.
        samples: How many there are.

    Returns:
        Coefficients of shape ``(S, K, N)``, zero for lost samples, and a report that says
        ``NON_FINITE`` of them.
    """

    def among(some: Tensor, value: float) -> Tensor:
        return some.new_full((samples, *some.shape[1:]), value).index_put((kept,), some)

    return among(w, 0.0), Report(
        status=among(report.status, int(Status.NON_FINITE)),
        iterations=among(report.iterations, 0),
        residual=among(report.residual, torch.nan),
        counts={
            name: among(count, torch.nan if count.is_floating_point() else 0)
            for name, count in report.counts.items()
        },
    )


def _per_sample(values: Tensor) -> Tensor:
    return values.detach().isfinite().unsqueeze(-1).flatten(1).all(1)


def _real(name: str, value: Any) -> Tensor:
    check_real(name, value, allow_whole=True)
    real: Tensor = value
    return real.to(torch.float64)


def _check_families(what: str, given: Any, families: Sequence[str]) -> None:
    if not isinstance(given, Mapping):
        raise SettingsError(
            f"{what}: got {type(given).__name__}, expected a mapping with families "
            f"{sorted(families)}"
        )
    if not set(given) <= set(families):
        raise SettingsError(
            f"{what}: got families {sorted(map(str, given))}, expected {sorted(families)}"
        )
