"""A trained field: callable, differentiable, comparable with a reference, savable."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from solvers.core import (
    CheckpointError,
    Report,
    SettingsError,
    ShapeError,
    check_shape,
    describe,
    load_checkpoint,
    save_checkpoint,
)
from solvers.derivatives import ResidualProgram
from solvers.pde import Problem
from solvers.pinn._error import ErrorMeter
from solvers.pinn._export import export_result
from solvers.pinn._figure import draw_result
from solvers.pinn._outside import is_outside, warn_outside

__all__ = [
    "ErrorMeter",
    "FieldNetwork",
    "PINNResult",
    "TrainedField",
    "fields_at",
    "points_at",
    "read_result",
    "write_result",
]

KIND = "pinn"


class FieldNetwork(nn.Module):
    """Fields as functions of points, a module with one vector of parameters.

    Args:
        program: How parameters and points become fields.
        theta: Parameters, unknown coefficients last.
    """

    def __init__(self, program: ResidualProgram, theta: Float[Tensor, " P"]) -> None:
        super().__init__()
        self._program = program
        self.theta = nn.Parameter(theta.clone())

    def forward(self, points: Float[Tensor, "N D"]) -> Float[Tensor, "N F"]:
        """Evaluate all fields.

        Args:
            points: One point per row, float64.

        Returns:
            One column per field; differentiable by points and parameters.
        """
        program = self._program
        check_shape("points", points, f"N {len(program.coordinates)}")
        outputs = program.layers(self.theta, program.inputs(points))
        return program.fields(points, outputs)


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedField:
    """A trained field of any solver of this room, with the story of its training.

    Attributes:
        problem: The problem.
        network: What was trained, as a module.
        report: Status, iterations and residual.
        history: Rows of numbers by name.
        settings: What the network was made from.
        coefficients: Values of the unknown coefficients.
    """

    problem: Problem
    network: FieldNetwork
    report: Report
    history: Sequence[Mapping[str, float]]
    settings: Mapping[str, Any]
    coefficients: Mapping[str, float] = field(default_factory=dict)

    def __call__(
        self, *coordinates: Tensor | float, **named: Tensor | float
    ) -> Tensor | dict[str, Tensor]:
        """Evaluate the fields.

        Args:
            *coordinates: One per axis of the domain, shapes that broadcast.
            **named: The same by name.

        Returns:
            Values of the broadcast shape, float64; by name if there are several fields.

        Raises:
            SettingsError: If not every axis has one coordinate.

        Warns:
            NumericalWarning: If the field was not trained at a point, as off the domain.
        """
        points, shape = points_at(self.problem, coordinates, named)
        warn_outside(self.problem, points, self._is_untrained(points), stacklevel=2)
        return fields_at(self.problem, self.network, points, shape)

    def _is_untrained(self, points: Float[Tensor, "N D"]) -> Bool[Tensor, " N"]:
        """Points at which a value means nothing."""
        return is_outside(self.problem, points)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write parameters and settings to one safetensors file, for `load`.

        Returns:
            Path of the file.
        """
        return write_result(path, self)

    def plot(self, path: str | os.PathLike[str]) -> Path:
        """Draw every field, its error against the reference, and the history.

        Over two axes of space, at the last time and in the middle of a third axis, or over space
        and time.

        Args:
            path: File that ends in ``.png``, ``.svg`` or ``.pdf``; written whole or not at all.

        Returns:
            Path of the file.

        Raises:
            MissingExtraError: If matplotlib is not installed.
            SettingsError: If the ending is not known or the folder does not exist.
            NotConvergedError: If labels have crossed.
        """
        return draw_result(self, path)

    def export(
        self,
        path: str | os.PathLike[str],
        *,
        points: int | None = None,
        times: int | None = None,
        progress: bool | None = None,
    ) -> Path:
        """Write all fields, and their references, on a grid for other programs.

        Args:
            path: File that ends in ``.vtu`` (ParaView; one grid), ``.pvd`` (ParaView; one ``.vtu``
                beside it for each time) or ``.npz`` (NumPy; NaN outside the domain).
            points: Points along each axis of space; 401, 121 or 41 by their number by default.
            times: Number of times; 41 by default, 401 where a problem lives in time alone, which
                is one line in a ``.vtu`` and has its times in the first coordinate.
            progress: Show how many are done, as a map has to be inverted at each: True, False, or
                None for in a terminal only.

        Returns:
            Path of the file; files are written whole or not at all.

        Raises:
            MissingExtraError: If meshio is not installed, except for ``.npz``.
            SettingsError: If the ending does not fit, or the folder does not exist.
            NotConvergedError: If labels have crossed.
        """
        return export_result(self, path, points=points, times=times, progress=progress)


@dataclass(frozen=True, kw_only=True, eq=False)
class PINNResult(TrainedField):
    """What `PINN.fit` found.

    Attributes:
        network: Fields as a module: points ``(N, D)`` to ``(N, fields)``.
        report: Status, iterations, and as residual the root mean square of the equations' residual
            where the network was not trained, each equation in its natural size; counts hold
            ``evaluations`` and ``restarts``.
        history: Rows of ``step``, ``seconds``, ``cpu_seconds``, ``loss``, ``held_out``, where it
            was asked for ``relative_l2``, and every term of the loss by its name, such as
            ``"residual equation"`` or ``"initial u"``; the loss is their sum (before the last step,
            where a first-order method took it).
    """

    @property
    def relative_l2(self) -> float:
        """Relative L2 error against the problem's reference on a regular grid, all fields together.

        Of a field that is given up to a constant only, such as a pressure, the mean over space is
        taken off.

        Raises:
            SettingsError: If the problem has no reference.
        """
        return ErrorMeter(self.problem)(self.network)


def write_result(path: str | os.PathLike[str], result: TrainedField) -> Path:
    """Write a result to a file."""
    report = result.report
    metadata = {
        "problem": result.problem.name,
        "coefficients": dict(result.problem.coefficients),
        "found": dict(result.coefficients),
        "settings": dict(result.settings),
        "history": [dict(row) for row in result.history],
        "counts": {name: int(count) for name, count in report.counts.items()},
        "status": int(report.status),
        "iterations": int(report.iterations),
        "residual": float(report.residual),
    }
    theta = result.network.theta.detach()
    return save_checkpoint(path, {"theta": theta}, kind=KIND, metadata=metadata)


def read_result(path: str | os.PathLike[str], problem: Problem) -> tuple[Tensor, dict[str, Any]]:
    """Read parameters and description from a file.

    Raises:
        CheckpointError: If it belongs to another problem.
    """
    checkpoint = load_checkpoint(path, kind=KIND)
    metadata = dict(checkpoint.metadata)
    found = (metadata["problem"], metadata["coefficients"])
    expected = (problem.name, dict(problem.coefficients))
    if found != expected:
        raise CheckpointError(
            f"{path}: was trained on {found[0]} with {found[1]}, expected {expected[0]} with "
            f"{expected[1]}; give the problem that it was trained on"
        )
    return checkpoint.tensors["theta"], metadata


def fields_at(
    problem: Problem, network: nn.Module, points: Float[Tensor, "N D"], shape: torch.Size
) -> Tensor | dict[str, Tensor]:
    """Evaluate a network at points, by name if there are several fields."""
    values = network(points).movedim(1, 0).reshape(len(problem.fields), *shape)
    parts: dict[str, Tensor] = dict(zip(problem.fields, values, strict=True))
    return parts[problem.fields[0]] if len(parts) == 1 else parts


def points_at(
    problem: Problem, coordinates: Sequence[Tensor | float], named: Mapping[str, Tensor | float]
) -> tuple[Float[Tensor, "N D"], torch.Size]:
    """Points of coordinates by place or by name, and the shape to which these broadcast.

    Raises:
        SettingsError: If not every axis has one coordinate.
        ShapeError: If their shapes do not broadcast.
    """
    axes = problem.domain.axes
    known = {**dict(zip(axes, coordinates, strict=False)), **named}
    if len(coordinates) + len(named) != len(axes) or set(known) != set(axes):
        raise SettingsError(
            f"coordinates: got {_count(coordinates, named)}, expected one for each of "
            f"{', '.join(axes)}"
        )
    given = [_coordinate(axis, known[axis]) for axis in axes]
    try:
        columns = torch.broadcast_tensors(*given)
    except RuntimeError as error:
        shapes = ", ".join(f"{a} {tuple(c.shape)}" for a, c in zip(axes, given, strict=True))
        raise ShapeError(
            f"coordinates: got shapes {shapes}, expected shapes that broadcast; for a grid take "
            "torch.meshgrid, or x[:, None] beside t[None, :]"
        ) from error
    return torch.stack([column.reshape(-1) for column in columns], dim=1), columns[0].shape


def _count(coordinates: Sequence[object], named: Mapping[str, object]) -> str:
    """Say how many coordinates came without a name, and which came with one."""
    by_name = f"{', '.join(named)} by name"
    if not named:
        return str(len(coordinates))
    return f"{len(coordinates)} and {by_name}" if coordinates else by_name


def _coordinate(axis: str, given: Any) -> Tensor:
    try:
        return torch.as_tensor(given, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise SettingsError(
            f"{axis}: got {describe(given)}, expected a number or a tensor of coordinates"
        ) from error
