"""Point-wise problems compiled: the residual is traced and a whole solve is one native call.

The native text stands in ``least_squares.cpp`` beside this file. It runs the iteration of
`LevenbergMarquardt` for one item a block, lanes over points in the residual and over unknowns in
the sums; converged items are done, so no item waits for another. `PointwiseProblem` is its twin.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from solvers.core import Report, SettingsError, Solution, Status
from solvers.kernels import Kernel, Symbol, Tape, build_kernel, emit_block, lane_count, reverse
from solvers.nonlinear._least_squares import (
    LAMBDA_FIRST,
    LAMBDA_LEAST,
    LAMBDA_MOST,
    NEWTON_FROM,
    NOISE,
    TINY_MOST,
    LevenbergMarquardt,
    NormalEquations,
)
from solvers.nonlinear._least_squares_pointwise import PointwiseProblem

__all__ = ["CompiledProblem", "is_traceable"]

_ARGUMENTS = [
    ("operation", "int"),
    ("items", "int*"),
    ("table", "double*"),
    ("numbers", "double*"),
    ("w", "double*"),
    ("vector", "double*"),
    ("matrix", "double*"),
    ("report", "double*"),
]
_PLACES, _REPORTS = 5, 5


class _Operation(IntEnum):
    SOLVE = 0
    NORMAL = 1
    EXACT = 2
    PULL = 3


class _Number(IntEnum):
    TOLERANCE = 0
    LIMIT = 1
    FIRST = 2
    RIDGE = 3


class CompiledProblem(PointwiseProblem):
    """A point-wise problem whose residuals are traced; arguments as there, on the CPU.

    Residuals must run on traced scalars: arithmetic operators and the functions of
    ``solvers.kernels.scalar``, no branches on values.

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
        for tensor in self.tensors:
            if tensor.device.type != "cpu":
                raise SettingsError(
                    f"features: got a tensor on {tensor.device}, expected the CPU; "
                    "use PointwiseProblem elsewhere"
                )
        traced = tuple(
            _trace(self.residuals[name], phi.shape[2], len(data))
            for name, phi, data in self.families()
        )
        self._kernel = _kernel(traced, self.unknowns, lane_count())
        self._data = [
            torch.stack([one.detach() for one in data], 1) if data else None
            for _, _, data in self.families()
        ]
        self._features = [phi.detach().contiguous() for _, phi, _ in self.families()]

    @cached_property
    def _table(self) -> np.ndarray[Any, Any]:
        table = np.zeros(_PLACES * len(self.names), dtype=np.int64)
        for f, (phi, data) in enumerate(zip(self._features, self._data, strict=True)):
            places = (phi.data_ptr(), 0 if data is None else data.data_ptr(), 0, 0, phi.shape[1])
            table[_PLACES * f : _PLACES * (f + 1)] = places
        return table

    def minimize(self, solver: LevenbergMarquardt, start: Tensor) -> Solution[Tensor]:
        """Run the whole iteration of every item in one call."""
        w = start.contiguous()
        settings = (solver.tolerance, float(solver.max_iterations), LAMBDA_FIRST)
        report = self._call(_Operation.SOLVE, w, torch.arange(self.items), settings=settings)[2]
        return Solution(
            value=w,
            report=Report(
                status=report[:, 0].to(torch.int64),
                iterations=report[:, 1].to(torch.int64),
                residual=report[:, 2].clone(),
                counts={"cost": report[:, 3].clone(), "refused": report[:, 4].to(torch.int64)},
            ),
        )

    def normal_equations(
        self, w: Tensor, items: Tensor, *, is_exact: bool = False
    ) -> NormalEquations:
        """Evaluate some items in one call."""
        operation = _Operation.EXACT if is_exact else _Operation.NORMAL
        vector, matrix, report = self._call(operation, self._spread(w, items), items)
        return NormalEquations(report[:, 3], vector, matrix)

    def pull_back(self, w: Tensor, v: Tensor, items: Tensor) -> list[Tensor | None]:
        """Gradients in features and data in one call."""
        is_whole = len(items) == self.items
        make = torch.empty_like if is_whole else torch.zeros_like
        features = [make(phi) for phi in self._features]
        data = [None if one is None else make(one) for one in self._data]
        table = self._table.copy()
        for f, (one, two) in enumerate(zip(features, data, strict=True)):
            table[_PLACES * f + 2] = one.data_ptr()
            table[_PLACES * f + 3] = 0 if two is None else two.data_ptr()
        self._call(
            _Operation.PULL, self._spread(w, items), items, vector=v.contiguous(), table=table
        )
        found: list[Tensor | None] = []
        for one, two in zip(features, data, strict=True):
            found += [one, *(() if two is None else two.unbind(1))]
        return found

    def _spread(self, w: Tensor, items: Tensor) -> Tensor:
        """Put the points of some items where the kernel looks for them."""
        if len(items) == self.items:
            return w.contiguous()
        whole = w.new_zeros(self.items, self.unknowns)
        whole[items] = w
        return whole

    def _call(
        self,
        operation: _Operation,
        w: Tensor,
        items: Tensor,
        *,
        settings: tuple[float, float, float] = (0.0, 0.0, 0.0),
        vector: Tensor | None = None,
        table: np.ndarray[Any, Any] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        count, n = len(items), self.unknowns
        numbers = torch.tensor([*settings, self.ridge, *self.scales], dtype=torch.float64)
        vector = w.new_empty(count, n) if vector is None else vector
        matrix = w.new_empty(count, n, n) if operation in {1, 2} else vector
        report = w.new_zeros(count, _REPORTS)
        table = self._table if table is None else table
        if count:
            self._kernel.launch_threads(
                count,
                torch.get_num_threads(),
                int(operation),
                items.to(torch.int32),
                table.view(np.float64),
                numbers,
                w,
                vector,
                matrix,
                report,
            )
        return vector, matrix, report


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


class _Traced(NamedTuple):
    """A traced residual: sizes, and the statements of its three cases."""

    rows: int
    features: int
    data: int
    cases: tuple[str, ...]


_traced: dict[tuple[str, int, int], _Traced] = {}


def _trace(residual: Callable[..., Any], features: int, data: int) -> _Traced:
    """Record a residual.

    It is called every time, because what it holds may have changed; only its derivatives are kept,
    by the text of what it computes.
    """
    tape = Tape()
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
        slopes = [slope for row in rows for slope in reverse([(row, 1.0)], z)]
        q = reverse([(half, 1.0)], z)
        curvature = [s for one in q for s in reverse([(one, 1.0)], z)]
        along = tape.constant(0.0)
        for one, factor in zip(q, y, strict=True):
            along = along + factor * (one if isinstance(one, Symbol) else float(one))
        pulled = reverse([(along, 1.0)], [*z, *d])
        cases = ([*rows, *slopes], [*q, *curvature, half], [*q, *pulled])
        _traced[key] = _Traced(len(rows), features, data, tuple(map(_store, cases)))
    return _traced[key]


def _store(values: Sequence[Any]) -> str:
    return emit_block([("out", place, value) for place, value in enumerate(values)])


@lru_cache(maxsize=64)
def _kernel(traced: tuple[_Traced, ...], unknowns: int, lanes: int) -> Kernel:
    """Compile the problems of one structure."""
    rows = [one.rows for one in traced]
    features, data = [one.features for one in traced], [one.data for one in traced]
    wide = max(8, 2 * lanes)
    most = [
        max(c + c * k, k + k * k + 1, 2 * k + a)
        for c, k, a in zip(rows, features, data, strict=True)
    ]
    constants = {
        "UNKNOWNS": unknowns,
        "PADDED": -(-unknowns // wide) * wide,
        "K_MOST": max(features),
        "A_MOST": max([1, *data]),
        "OUT_MOST": max(most),
        "ROWS_MOST": max(*rows, *features),
        "PLACES": _PLACES,
        "REPORTS": _REPORTS,
        "NUMBERS": len(_Number),
        "TINY_MOST": TINY_MOST,
        **{f"OPERATION_{one.name}": one.value for one in _Operation},
        **{f"NUMBER_{one.name}": one.value for one in _Number},
        **{f"STATUS_{one.name}": one.value for one in Status},
    }
    thresholds = {
        "NOISE": NOISE,
        "NEWTON_FROM": NEWTON_FROM,
        "LAMBDA_LEAST": LAMBDA_LEAST,
        "LAMBDA_MOST": LAMBDA_MOST,
    }
    lists = {"K_OF": features, "A_OF": data, "C_OF": rows}
    cases = "\n".join(
        f"case {3 * f + mode}: {text} break;"
        for f, one in enumerate(traced)
        for mode, text in enumerate(one.cases)
    )
    head = [f"constexpr int {name} = {value};" for name, value in constants.items()]
    head += [f"constexpr double {name} = {value!r};" for name, value in thresholds.items()]
    head += [
        f"constexpr int {name}[] = {{{', '.join(map(str, values))}}};"
        for name, values in lists.items()
    ]
    if lanes == 1:
        head.append("const auto vturn = [](V*) {};")
    families = range(len(traced))
    head += [f"struct Family{f} {{ enum {{ value = {f} }}; }};" for f in families]
    text = (Path(__file__).parent / "least_squares.cpp").read_text().replace("@CASES@", cases)
    for name in ("add_family", "pull_family"):
        calls = " ".join(f"{name}(Family{f}{{}});" for f in families)
        text = text.replace(f"@EACH_FAMILY({name})@", calls)
    body = "\n".join(head) + "\n" + text
    return build_kernel("least_squares", body, _ARGUMENTS, lanes=lanes)
