"""Trained fields on grids, for ParaView and NumPy."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from solvers.core import (
    SettingsError,
    check_count,
    check_kind,
    check_output,
    open_progress,
    require_extra,
    write_whole,
)
from solvers.pde import Box, Problem
from solvers.pinn._arguments import check_problem

__all__ = ["check_export", "export_result"]

_POINTS = {1: 401, 2: 121, 3: 41}
_TIMES = 41
_CELLS = {1: "line", 2: "quad", 3: "hexahedron"}
_ENDINGS = (".vtu", ".pvd", ".npz")
Array = NDArray[np.float64]


def export_result(
    result: Any,
    path: str | os.PathLike[str],
    *,
    points: int | None = None,
    times: int | None = None,
    progress: bool | None = None,
) -> Path:
    """Write the fields of a result of either frame on a grid.

    Args:
        result: The result.
        path: File that ends in ``.vtu``, ``.pvd`` or ``.npz``.
        points: Points along each axis of space.
        times: Number of times; all that there is to count where a problem has no space.
        progress: True for a display, False for silence, None for a display in a terminal.

    Returns:
        The path.
    """
    check_kind("path", path, (str, os.PathLike), "a path to a file")
    target = Path(path)
    problem: Problem = result.problem
    check_export(target, problem)
    axes = _grid_axes(problem)
    if points is not None and not problem.domain.space:
        raise SettingsError(
            f"points: got {points}, but {problem.name} lives in time alone, expected None; give "
            "times"
        )
    wanted = points if problem.domain.space else times
    count = _POINTS[len(axes)] if wanted is None else wanted
    check_count("points" if problem.domain.space else "times", count, least=2)
    box = Box(**{axis: problem.domain.bounds[axis] for axis in axes})
    grid = box.grid(count)
    moments: list[float | None] = [None]
    if _is_series(problem):
        check_count("times", _TIMES if times is None else times, least=2)
        moments = np.linspace(*problem.domain.bounds["t"], times or _TIMES).tolist()
    frames = []
    with open_progress(len(moments), description=f"export {target.name}", show=progress) as display:
        for moment in moments:
            frames.append(_frame(result, grid, moment))
            display.update(len(frames))
    if target.suffix.lower() == ".npz":
        _write_npz(target, problem, count, moments, frames)
        return target
    is_inside = problem.domain.contains(_at(problem, grid, moments[0]))
    grids = _Cells(grid.numpy(), is_inside.numpy(), count)
    if moments == [None]:
        grids.write(target, frames[0])
        return target
    names = [f"{target.stem}_{k:04d}.vtu" for k in range(len(frames))]
    for name, frame in zip(names, frames, strict=True):
        grids.write(target.with_name(name), frame)
    _write_collection(target, names, [float(moment or 0.0) for moment in moments])
    return target


def check_export(path: Path, problem: Problem) -> None:
    """Refuse before a training a file that its result could not be exported to.

    Args:
        path: The file.
        problem: Whose fields.

    Raises:
        MissingExtraError: If meshio is not installed, except for ``.npz``.
        SettingsError: If the ending does not fit, the domain has more than three axes of space, or
            the folder does not exist.

    Example:
        >>> from solvers.pde import problems
        >>> check_export(Path("heat.npz"), problems.Heat())
    """
    check_problem(problem)
    path = check_output("path", path, _ENDINGS)
    ending, space = path.suffix.lower(), problem.domain.space
    if _is_series(problem) and ending == ".vtu":
        raise SettingsError(
            f"path: {path} is one grid and {problem.name} depends on time; end it in .pvd, which "
            "lists one .vtu for each time, or in .npz"
        )
    if not _is_series(problem) and ending == ".pvd":
        kind = "is steady" if space else "is one line along time"
        raise SettingsError(
            f"path: {path} is a series in time and {problem.name} {kind}; end it in .vtu"
        )
    if len(space) > 3:
        raise SettingsError(
            f"path: {problem.name} has {len(space)} axes in space, expected three or fewer; "
            "evaluate the result where you need it"
        )
    if ending != ".npz":
        require_extra("meshio", "fields")


def _grid_axes(problem: Problem) -> tuple[str, ...]:
    """Axes of a grid: those of space, or time where there is nothing else."""
    return problem.domain.space or problem.domain.axes


def _is_series(problem: Problem) -> bool:
    """Whether there is a grid of space for each of several times."""
    return problem.domain.has_time and bool(problem.domain.space)


def _at(problem: Problem, grid: Tensor, moment: float | None) -> Tensor:
    """Points of the domain: a grid of space at one time, or of time."""
    columns = dict(zip(_grid_axes(problem), grid.unbind(1), strict=True))
    if moment is not None:
        columns["t"] = torch.full((len(grid),), moment, dtype=torch.float64)
    return torch.stack([columns[axis] for axis in problem.domain.axes], 1)


def _frame(result: Any, grid: Tensor, moment: float | None) -> dict[str, Array]:
    """Fields and references on the grid of space at one time, NaN outside the domain."""
    problem = result.problem
    points = _at(problem, grid, moment)
    is_inside = problem.domain.contains(points)
    with torch.no_grad():
        values = result(*points[is_inside].unbind(1))
    fields = values if isinstance(values, Mapping) else {problem.fields[0]: values}
    if problem.reference is not None:
        exact = problem.reference_values(points[is_inside])
        fields = {**fields, **{f"{name}_reference": exact[name] for name in problem.fields}}
    whole = {name: np.full(len(points), np.nan) for name in fields}
    for name, value in fields.items():
        whole[name][is_inside.numpy()] = value.numpy()
    return whole


class _Cells:
    """Cells of a regular grid whose corners are all in the domain."""

    def __init__(self, grid: Array, is_inside: NDArray[np.bool_], count: int) -> None:
        dimension = grid.shape[1]
        self._kind = _CELLS[dimension]
        number = np.arange(count**dimension).reshape((count,) * dimension)
        lower, upper = slice(0, -1), slice(1, None)
        # In the order of VTK: around a face, then around the opposite one.
        around: list[tuple[slice, ...]] = [(lower,), (upper,)]
        if dimension > 1:
            around = [(lower, lower), (upper, lower), (upper, upper), (lower, upper)]
        if dimension > 2:
            around = [(*corner, end) for end in (lower, upper) for corner in around]
        cells = np.stack([number[corner].reshape(-1) for corner in around], 1)
        cells = cells[is_inside[cells].all(1)]
        self._used, places = np.unique(cells, return_inverse=True)
        self._cells = places.reshape(cells.shape)
        # A mesh of VTK lies in space of three dimensions.
        self._points = np.pad(grid[self._used], ((0, 0), (0, 3 - dimension)))

    def write(self, path: Path, fields: Mapping[str, Array]) -> None:
        meshio = require_extra("meshio", "fields")
        data = {name: values[self._used] for name, values in fields.items()}
        mesh = meshio.Mesh(self._points, [(self._kind, self._cells)], point_data=data)
        with write_whole(path) as partial:
            mesh.write(partial, file_format="vtu")


def _write_collection(path: Path, names: list[str], times: list[float]) -> None:
    """List the files of a series for ParaView."""
    rows = "\n".join(
        f'    <DataSet timestep="{time!r}" part="0" file={quoteattr(name)}/>'
        for name, time in zip(names, times, strict=True)
    )
    text = (
        '<?xml version="1.0"?>\n<VTKFile type="Collection" version="0.1">\n'
        f"  <Collection>\n{rows}\n  </Collection>\n</VTKFile>\n"
    )
    with write_whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _write_npz(
    path: Path,
    problem: Problem,
    count: int,
    moments: list[float | None],
    frames: list[dict[str, Array]],
) -> None:
    """Write axes and fields, time first."""
    axes = _grid_axes(problem)
    arrays = {axis: np.linspace(*problem.domain.bounds[axis], count) for axis in axes}
    shape: tuple[int, ...] = (count,) * len(axes)
    if moments != [None]:
        arrays["t"] = np.array(moments, dtype=np.float64)
        shape = (len(moments), *shape)
    for name in frames[0]:
        arrays[name] = np.stack([frame[name] for frame in frames]).reshape(shape)
    with write_whole(path) as partial:
        np.savez_compressed(partial, **arrays)  # type: ignore[arg-type]
