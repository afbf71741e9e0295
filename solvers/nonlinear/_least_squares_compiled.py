"""Point-wise problems compiled: the residual is traced and a whole solve is one native call.

The native text of `_pointwise_sums` runs the iteration of `LevenbergMarquardt` for one item a
block, lanes over points in the residual and over unknowns in the sums; converged items are done, so
no item waits for another. `PointwiseProblem` is its twin.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from solvers.core import PerformanceWarning, Report, SettingsError, Solution, Status
from solvers.kernels import Symbol, TorchTape, emit_block, reverse
from solvers.nonlinear._least_squares import LAMBDA_FIRST, LevenbergMarquardt, NormalEquations
from solvers.nonlinear._least_squares_pointwise import PointwiseProblem
from solvers.nonlinear._pointwise_sums import Family, Operation, Place, PointwiseSums

__all__ = ["CompiledProblem", "is_traceable"]


class CompiledProblem(PointwiseProblem):
    """A point-wise problem whose residuals are traced; arguments as there, on the CPU.

    Residuals must run on traced scalars: arithmetic operators, the functions of
    ``solvers.kernels.scalar``, and those of torch that have a counterpart there; no branches on
    values, no tensors beside the arguments.

    Raises:
        SettingsError: If a residual cannot be traced, or tensors are not on the CPU.

    Cost: the first problem of a kind compiles for some seconds; the result is kept on disk. Items
    are spread over ``torch.get_num_threads()`` threads.

    Example:
        >>> features = torch.tensor([[[[1.0]], [[2.0]]]], dtype=torch.float64)
        >>> problem = CompiledProblem({"rows": lambda u: u * u - 4.0}, {"rows": features})
        >>> start = torch.ones(1, 1, dtype=torch.float64)
        >>> LevenbergMarquardt().solve(problem, start).value.round(decimals=6).item()
        1.084652
    """

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        traced = tuple(
            _trace(self.residuals[name], phi.shape[2], len(data))
            for name, phi, data in self.families()
        )
        self._sums = PointwiseSums(self, traced)
        self._data = [
            torch.stack([one.detach() for one in data], 1) if data else None
            for _, _, data in self.families()
        ]
        for row, some in zip(self._sums.table, self._data, strict=True):
            row[Place.DATA] = 0 if some is None else some.data_ptr()

    def minimize(
        self, solver: LevenbergMarquardt, start: Tensor
    ) -> tuple[Solution[Tensor], NormalEquations | None]:
        """Run the whole iteration of every item in one call."""
        w = start.contiguous()
        settings = (solver.tolerance, float(solver.max_iterations), LAMBDA_FIRST)
        items = torch.arange(self.items)
        vector, matrix, report = self._sums.run(Operation.SOLVE, w, items, settings=settings)
        status, cost = report[:, 0].to(torch.int64), report[:, 3].clone()
        ended = Report(
            status=status,
            iterations=report[:, 1].to(torch.int64),
            residual=report[:, 2].clone(),
            counts={"cost": cost, "refused": report[:, 4].to(torch.int64)},
        )
        is_exact = (report[:, 5] > 0) | (status != Status.CONVERGED)
        last = NormalEquations(cost, vector, matrix) if bool(is_exact.all()) else None
        return Solution(value=w, report=ended), last

    def check_residuals(self) -> None:
        """Do nothing: what was traced is a function of single points."""

    def normal_equations(
        self, w: Tensor, items: Tensor, *, is_exact: bool = False
    ) -> NormalEquations:
        """Evaluate some items in one call."""
        return self._sums.normal_equations(w, items, is_exact=is_exact)

    def pull_back(self, w: Tensor, v: Tensor, items: Tensor) -> list[Tensor | None]:
        """Gradients in features and data in one call."""
        make = torch.empty_like if len(items) == self.items else torch.zeros_like
        features = [make(phi) for phi in self._sums.features]
        data = [None if one is None else make(one) for one in self._data]
        table = self._sums.table.copy()
        for row, one, two in zip(table, features, data, strict=True):
            row[Place.FEATURES_OUT] = one.data_ptr()
            row[Place.DATA_OUT] = 0 if two is None else two.data_ptr()
        self._sums.run(Operation.PULL, w, items, vector=v, table=table)
        found: list[Tensor | None] = []
        for one, two in zip(features, data, strict=True):
            found += [one, *(() if two is None else two.unbind(1))]
        return found


def is_traceable(
    residuals: Mapping[str, Callable[..., Any]], shapes: Mapping[str, tuple[int, int]]
) -> bool:
    """Tell whether residuals run on traced scalars.

    Args:
        residuals: Residual of each family.
        shapes: Numbers of features and of data of each family.
    """
    try:
        for name, (features, data) in shapes.items():
            _trace(residuals[name], features, data)
    except SettingsError:
        return False
    return True


_traced: dict[tuple[str, int, int], Family] = {}
_versions: dict[object, int] = {}
_MANY_VERSIONS = 6
"""Texts of one residual from which it looks as if a number in it changed from call to call."""


def _trace(residual: Callable[..., Any], features: int, data: int) -> Family:
    """Record a residual.

    It is called every time, because what it holds may have changed; only its derivatives are kept,
    by the text of what it computes.
    """
    tape = TorchTape()
    z, d, y = (
        tape.inputs(name, n) for name, n in zip("zdy", (features, data, features), strict=True)
    )
    try:
        r = residual(*z, *d)
        rows = list(r) if isinstance(r, tuple | list) else [r]
        half = tape.constant(0.0)
        for row in rows:
            half = half + 0.5 * (row * row)
        text = _store(rows)
    except (TypeError, ValueError, AttributeError, ZeroDivisionError, RuntimeError) as error:
        raise SettingsError(
            f"residual {getattr(residual, '__name__', residual)!r}: cannot be traced ({error}); "
            "write it with arithmetic and solvers.kernels.scalar, or take the reference backend"
        ) from error
    key = (text, features, data)
    if key not in _traced:
        _count_version(residual)
        slopes = [slope for row in rows for slope in reverse([(row, 1.0)], z)]
        q = reverse([(half, 1.0)], z)
        curvature = [s for one in q for s in reverse([(one, 1.0)], z)]
        along = tape.constant(0.0)
        for one, factor in zip(q, y, strict=True):
            along = along + factor * (one if isinstance(one, Symbol) else float(one))
        pulled = reverse([(along, 1.0)], [*z, *d])
        cases = ([*rows, *slopes], [*q, *curvature, half], [*q, *pulled])
        _traced[key] = Family(len(rows), features, data, tuple(map(_store, cases)))
    return _traced[key]


def _count_version(residual: Callable[..., Any]) -> None:
    code = getattr(residual, "__code__", type(residual))
    _versions[code] = _versions.get(code, 0) + 1
    if _versions[code] == _MANY_VERSIONS:
        warnings.warn(
            f"residual {getattr(residual, '__name__', residual)!r}: compiled with "
            f"{_MANY_VERSIONS} sets of numbers that it closes over; give what changes as data, "
            "which needs no compiling",
            PerformanceWarning,
            stacklevel=2,
        )


def _store(values: Sequence[Any]) -> str:
    return emit_block([("out", place, value) for place, value in enumerate(values)])
