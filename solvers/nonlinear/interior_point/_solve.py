"""One call for either form of the solver."""

from __future__ import annotations

from typing import Literal

from solvers.nonlinear.interior_point._certificates import diagnose
from solvers.nonlinear.interior_point._compiled import CompiledInteriorPoint
from solvers.nonlinear.interior_point._program import ConeProgramData, SolvedPrograms
from solvers.nonlinear.interior_point._reference import ReferenceInteriorPoint

__all__ = ["Backend", "solve_cone_programs"]

Backend = Literal["auto", "kernel", "reference"]


def solve_cone_programs(
    data: ConeProgramData,
    *,
    max_iterations: int = 50,
    backend: Backend = "auto",
    threads: int = 1,
    differentiable: bool = True,
) -> SolvedPrograms:
    r"""Solve a batch of quadratic programs with second-order cones.

    An item is ``CONVERGED`` only if its exact active set was found: optimality conditions to 1e-11
    of the data. An item whose Q has a negative eigenvalue, below ``-1e-7 n`` times its largest
    entry, is not iterated and ends ``BREAKDOWN``. Other items end ``INFEASIBLE`` or ``UNBOUNDED``
    with a certificate, or as the iteration left them. A program with both certificates is
    ``INFEASIBLE``: no point satisfies its rows, so that its cost has no values that could fall.

    With the gradient g of a loss with respect to x, `SolvedPrograms.adjoint` solves for u, v, w

    .. math:: Qu + A^\top v + G_a^\top w = -g, \qquad Au = 0, \qquad G_a u = 0

    on the active rows a, or on the derivative of the projection for second-order cones, and gives
    the gradients :math:`\bar q = u`, :math:`\bar h = -w`, :math:`\bar b = -v`; from them follow
    :math:`\bar G = z u^\top - \bar h x^\top`, :math:`\bar A = y u^\top - \bar b x^\top` and
    :math:`\bar Q = \tfrac12(u x^\top + x u^\top)`.

    Args:
        data: The programs, float64, detached and contiguous.
        max_iterations: Interior-point steps at most.
        backend: ``"kernel"``, ``"reference"`` (torch, any device), or ``"auto"``: the kernel on
            the CPU.
        threads: Threads among which the kernel splits the batch.
        differentiable: Whether `SolvedPrograms.adjoint` will be asked for.

    Returns:
        The solved programs.

    Reference: Mehrotra 1992; Amos & Kolter 2017, "OptNet" (the adjoint).
    """
    if backend == "auto":
        backend = "kernel" if data.q.device.type == "cpu" else "reference"
    if backend == "reference":
        solved: SolvedPrograms = ReferenceInteriorPoint(data, max_iterations=max_iterations)
    else:
        solved = CompiledInteriorPoint(
            data, max_iterations=max_iterations, threads=threads, differentiable=differentiable
        )
    if solved.has_failures:

        def solve_again(programs: ConeProgramData) -> SolvedPrograms:
            if backend == "reference":
                return ReferenceInteriorPoint(programs, max_iterations=max_iterations)
            return CompiledInteriorPoint(
                programs, max_iterations=max_iterations, threads=threads, differentiable=False
            )

        solved.status = diagnose(solved, solve_again)
    return solved
