"""Batches of quadratic and second-order cone programs by an interior point.

`solve_cone_programs` picks the compiled text on the CPU and its torch twin elsewhere; both give a
point with status and certificate per item and the adjoint of the optimality conditions.
"""

from __future__ import annotations

from solvers.nonlinear.interior_point._program import ConeProgramData, SolvedPrograms
from solvers.nonlinear.interior_point._solve import Backend, solve_cone_programs

__all__ = ["Backend", "ConeProgramData", "SolvedPrograms", "solve_cone_programs"]
