"""Which form of a point-wise problem is the fast one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor

from solvers.nonlinear._least_squares_compiled import CompiledProblem, is_traceable
from solvers.nonlinear._least_squares_hybrid import HybridProblem
from solvers.nonlinear._least_squares_pointwise import PointwiseProblem

__all__ = ["choose_problem"]


def choose_problem(
    residuals: Mapping[str, Callable[..., Any]],
    shapes: Mapping[str, tuple[int, int]],
    tensors: Iterable[Tensor],
) -> type[PointwiseProblem]:
    """Choose by what the residuals are written in and where the numbers lie.

    Args:
        residuals: Residual of each family.
        shapes: Numbers of features and of data of each family.
        tensors: All that the problem is made from.

    Returns:
        `CompiledProblem` if the residuals can be traced, `HybridProblem` if not, and
        `PointwiseProblem` off the CPU, which the other two need.

    Example:
        >>> choose_problem({"rows": lambda u: u * u}, {"rows": (1, 0)}, []).__name__
        'CompiledProblem'
    """
    if any(tensor.device.type != "cpu" for tensor in tensors):
        return PointwiseProblem
    return CompiledProblem if is_traceable(residuals, shapes) else HybridProblem
