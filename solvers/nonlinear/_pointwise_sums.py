"""Sums over points as native text: what a problem that is declared point by point runs.

The text stands in ``pointwise_sums.cpp`` and ``least_squares.cpp`` beside this file. Values of
residuals and their derivatives come from traced statements, which stand in the text, or from
tensors that a caller has filled.
"""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from solvers.core import SettingsError, Status
from solvers.kernels import Kernel, build_kernel, lane_count
from solvers.nonlinear._least_squares import (
    LAMBDA_LEAST,
    LAMBDA_MOST,
    NEWTON_FROM,
    NOISE,
    TINY_MOST,
    NormalEquations,
)
from solvers.nonlinear._least_squares_pointwise import PointwiseProblem

__all__ = ["Family", "Operation", "Place", "PointwiseSums"]

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
_REPORTS = 6


class Operation(IntEnum):
    """What a call does."""

    SOLVE = 0
    NORMAL = 1
    EXACT = 2
    PULL = 3
    COMBINE = 4


class Place(IntEnum):
    """Entries of the table for each family of rows: addresses, and the number of points."""

    FEATURES = 0
    DATA = 1  # or the values that are given
    FEATURES_OUT = 2
    DATA_OUT = 3  # or the combined features
    POINTS = 4


class _Number(IntEnum):
    TOLERANCE = 0
    LIMIT = 1
    FIRST = 2
    RIDGE = 3


class Family(NamedTuple):
    """Structure of a family of rows.

    Attributes:
        rows: Numbers that the residual gives at a point.
        features: Numbers that it takes from the basis.
        data: What else it takes.
        cases: Statements for the values that `Operation` NORMAL, EXACT and PULL need; none if they
            are given.
    """

    rows: int
    features: int
    data: int = 0
    cases: tuple[str, ...] = ()


class PointwiseSums:
    """The native text for one problem.

    Args:
        problem: Whose features, scales and ridge count.
        families: Structure of its families.

    Raises:
        SettingsError: If tensors of the problem are not on the CPU.

    Attributes:
        table: Entries of `Place` for each family, to copy and complete.
        features: Features of each family, contiguous and detached.
    """

    def __init__(self, problem: PointwiseProblem, families: tuple[Family, ...]):
        for tensor in problem.tensors:
            if tensor.device.type != "cpu":
                raise SettingsError(
                    f"features: got a tensor on {tensor.device}, expected the CPU; "
                    "use PointwiseProblem elsewhere"
                )
        self._problem = problem
        self._kernel = _kernel(families, problem.unknowns, lane_count())
        self.features = [phi.detach().contiguous() for _, phi, _ in problem.families()]
        self.table = np.zeros((len(families), len(Place)), dtype=np.int64)
        for row, phi in zip(self.table, self.features, strict=True):
            row[Place.FEATURES], row[Place.POINTS] = phi.data_ptr(), phi.shape[1]

    def run(
        self,
        operation: Operation,
        w: Tensor,
        items: Tensor,
        *,
        settings: tuple[float, float, float] = (0.0, 0.0, 0.0),
        vector: Tensor | None = None,
        table: np.ndarray[Any, Any] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Make one call.

        Args:
            operation: What to do.
            w: Where: a row for each of ``items``, or one for each item of the problem.
            items: Which items.
            settings: Tolerance, limit of iterations and first damping.
            vector: Second factor of ``PULL``, shape ``(e, N)``.
            table: Completed table.

        Returns:
            Vector, matrix and report of each item, as the operation fills them.
        """
        problem = self._problem
        count, n = len(items), problem.unknowns
        w = self._spread(w, items)
        numbers = torch.tensor([*settings, problem.ridge, *problem.scales], dtype=torch.float64)
        vector = w.new_empty(count, n) if vector is None else vector.contiguous()
        has_matrix = operation in {Operation.SOLVE, Operation.NORMAL, Operation.EXACT}
        matrix = w.new_empty(count, n, n) if has_matrix else vector
        report = w.new_zeros(count, _REPORTS)
        table = self.table if table is None else table
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

    def normal_equations(
        self,
        w: Tensor,
        items: Tensor,
        *,
        is_exact: bool,
        table: np.ndarray[Any, Any] | None = None,
    ) -> NormalEquations:
        """Evaluate some items in one call; arguments as in `run`."""
        operation = Operation.EXACT if is_exact else Operation.NORMAL
        vector, matrix, report = self.run(operation, w, items, table=table)
        return NormalEquations(report[:, 3], vector, matrix)

    def _spread(self, w: Tensor, items: Tensor) -> Tensor:
        """Put the points of some items where the kernel looks for them."""
        if len(w) == self._problem.items:
            return w.contiguous()
        whole = w.new_zeros(self._problem.items, self._problem.unknowns)
        whole[items] = w
        return whole


@lru_cache(maxsize=64)
def _kernel(families: tuple[Family, ...], unknowns: int, lanes: int) -> Kernel:
    """Compile the problems of one structure."""
    rows = [one.rows for one in families]
    features, data = [one.features for one in families], [one.data for one in families]
    is_given = not families[0].cases
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
        "PLACES": len(Place),
        "REPORTS": _REPORTS,
        "NUMBERS": len(_Number),
        "TINY_MOST": TINY_MOST,
        "IS_GIVEN": int(is_given),
        **{f"OPERATION_{one.name}": one.value for one in Operation},
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
        for f, one in enumerate(families)
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
    head += [f"struct Family{f} {{ enum {{ value = {f} }}; }};" for f in range(len(families))]
    folder = Path(__file__).parent
    names = ["pointwise_sums", *([] if is_given else ["least_squares"])]
    text = "".join((folder / f"{name}.cpp").read_text() for name in names)
    text = text.replace("@CASES@", cases)
    for name in ("add_family", "pull_family", "combine_family"):
        calls = " ".join(f"{name}(Family{f}{{}});" for f in range(len(families)))
        text = text.replace(f"@EACH_FAMILY({name})@", calls)
    body = "\n".join(head) + "\n" + text + "  __builtin_free(memory);\n"
    return build_kernel(names[-1], body, _ARGUMENTS, lanes=lanes)
