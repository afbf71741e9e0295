"""Geometric multigrid for grid operators: settings, and the choice between its two forms."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeVar

import torch

from solvers.core import PerformanceWarning, SettingsError, check_choice, check_positive
from solvers.kernels import KernelBuildError
from solvers.linear.operators._operator import LinearOperator
from solvers.linear.operators._poisson import PoissonOperator
from solvers.linear.preconditioners._cycle import ReferenceMultigrid
from solvers.linear.preconditioners._preconditioner import PreparedPreconditioner

__all__ = ["Multigrid"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Multigrid:
    r"""One multigrid cycle as preconditioner of a `PoissonOperator`.

    Pairs of cells are merged along the axes that couple strongly, so that stretched and anisotropic
    grids need few steps too; the transfer is constant on a coarse cell, and couplings are halved
    where the distance doubles. The smoother is Jacobi with the two steps of a Chebyshev polynomial,
    before and in reverse after the coarse levels, so the cycle is symmetric. Sizes may be odd.

    With `ConjugateGradient`, on the CPU and without periodic axes, the whole iteration runs as
    one compiled call whose cycle works in single precision. All else runs on tensors.

    Args:
        cycle: ``"W"`` visits coarser levels twice where they have less than 0.45 of the cells;
            ``"V"`` once.
        backend: ``"kernel"`` for the compiled form, ``"reference"`` for tensors, ``"auto"`` for the
            compiled one where it exists.
        threads: Threads of the compiled form; no more are taken than there are processors.

    Raises:
        SettingsError: If a setting is none of these.

    Cost: a cycle costs about as much as eight products with ``A``, and in the compiled form 45
    bytes of memory traffic a cell where all couplings are equal.
    Reference: Brandt 1977, "Multi-level adaptive solutions to boundary-value problems"; Braess
    1995, "Towards algebraic multigrid for elliptic problems of second order" (scaled couplings).

    Example:
        >>> from solvers.linear import ConjugateGradient, linear_solve
        >>> A = PoissonOperator.from_cells(torch.zeros(32, 32, 32), outside=2)
        >>> solver = ConjugateGradient(preconditioner=Multigrid(), rtol=1e-8)
        >>> solution = linear_solve(A, torch.ones(32, 32, 32, dtype=torch.float64), solver)
        >>> int(solution.iterations) < 12
        True
    """

    cycle: Literal["W", "V"] = "W"
    backend: Literal["auto", "kernel", "reference"] = "auto"
    threads: int = 1

    def __post_init__(self) -> None:
        check_choice("cycle", self.cycle, ("W", "V"))
        check_choice("backend", self.backend, ("auto", "kernel", "reference"))
        check_positive("threads", self.threads)

    def prepare(self, operator: LinearOperator) -> PreparedPreconditioner:
        """Build the levels.

        Args:
            operator: A `PoissonOperator` without gradients.

        Raises:
            SettingsError: If it is another kind of operator, or the compiled form is asked for
                where there is none.
            KernelBuildError: If the compiled form is asked for and does not compile.
        """
        if not isinstance(operator, PoissonOperator):
            raise SettingsError(
                f"Multigrid: got {operator!r}, expected a PoissonOperator; use "
                "AlgebraicMultigrid for a matrix without a grid"
            )
        visits = 2 if self.cycle == "W" else 1

        def build(grid: PoissonOperator) -> PreparedPreconditioner:
            from solvers.linear.preconditioners._compiled import CompiledMultigrid
            from solvers.linear.preconditioners._levels import GridLevels

            make = partial(GridLevels, cycle=visits, threads=self.threads)
            return CompiledMultigrid(grid, make)

        compiled = prepare_compiled(operator, build, backend=self.backend, what="Multigrid")
        return compiled or ReferenceMultigrid(operator, cycle=visits)


def prepare_compiled(
    operator: LinearOperator,
    build: Callable[[PoissonOperator], T],
    *,
    backend: str,
    what: str,
) -> T | None:
    """Build a compiled form where there is one.

    Args:
        operator: The operator.
        build: Makes the compiled form.
        backend: ``"kernel"``, ``"reference"`` or ``"auto"``.
        what: The preconditioner, for messages.

    Returns:
        The compiled form, or None where the portable one has to do.

    Raises:
        SettingsError: If the compiled form is asked for where there is none.
        KernelBuildError: If it is asked for and does not compile.
    """
    obstacle = _obstacle(operator)
    if backend == "kernel" and obstacle:
        raise SettingsError(f"{what}: backend='kernel' does not work for {obstacle}")
    if backend == "reference" or obstacle or not isinstance(operator, PoissonOperator):
        return None
    try:
        return build(operator)
    except (ImportError, KernelBuildError) as error:
        if backend == "kernel":
            raise
        warnings.warn(
            f"{what} runs without kernels, several times slower: {str(error).splitlines()[0]}",
            PerformanceWarning,
            stacklevel=3,
        )
        return None


def _obstacle(operator: LinearOperator) -> str:
    """Why no compiled form can serve an operator; empty if one can."""
    if not isinstance(operator, PoissonOperator):
        return "matrices without a grid"
    if operator.device.type != "cpu":
        return f"tensors on {operator.device}"
    if operator.dtype != torch.float64:
        return f"{operator.dtype}; use float64"
    if any(operator.periodic):
        return "periodic axes"
    return ""
