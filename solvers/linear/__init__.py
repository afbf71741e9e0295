"""Linear systems: operators, iterative and direct solvers, preconditioners, one gradient rule."""

from __future__ import annotations

from solvers.linear._adjoint import AdjointStart
from solvers.linear._direct import Cholesky, SparseLU
from solvers.linear._fallback import Fallback
from solvers.linear._fast import FastDiagonalization
from solvers.linear._precision import runs_in_double, widen
from solvers.linear._prepared import LinearSolver, Outcome, Prepared
from solvers.linear._select import as_operator, choose_solver, linear_solve
from solvers.linear._tolerance import check_rtol
from solvers.linear.krylov._cg import ConjugateGradient
from solvers.linear.krylov._gmres import GMRES
from solvers.linear.krylov._items import Items
from solvers.linear.krylov._minres import MINRES
from solvers.linear.operators._callable import CallableOperator
from solvers.linear.operators._composed import ProductOperator, ScaledOperator, SumOperator
from solvers.linear.operators._matrix import DenseOperator, SparseOperator
from solvers.linear.operators._operator import LinearOperator, NullSpace
from solvers.linear.operators._poisson import PoissonOperator
from solvers.linear.preconditioners._aggregation import AggregationMultigrid, AggregationRule
from solvers.linear.preconditioners._algebraic import AlgebraicMultigrid
from solvers.linear.preconditioners._jacobi import Chebyshev, Jacobi
from solvers.linear.preconditioners._multigrid import Multigrid
from solvers.linear.preconditioners._preconditioner import Preconditioner, PreparedPreconditioner
from solvers.linear.preconditioners._trail import Directions, Trail

__all__ = [
    "AdjointStart",
    "AggregationMultigrid",
    "AggregationRule",
    "AlgebraicMultigrid",
    "CallableOperator",
    "Chebyshev",
    "Cholesky",
    "ConjugateGradient",
    "DenseOperator",
    "Directions",
    "Fallback",
    "FastDiagonalization",
    "GMRES",
    "Items",
    "Jacobi",
    "LinearOperator",
    "LinearSolver",
    "MINRES",
    "Multigrid",
    "NullSpace",
    "Outcome",
    "PoissonOperator",
    "Preconditioner",
    "Prepared",
    "PreparedPreconditioner",
    "ProductOperator",
    "ScaledOperator",
    "SparseLU",
    "SparseOperator",
    "SumOperator",
    "Trail",
    "as_operator",
    "check_rtol",
    "choose_solver",
    "linear_solve",
    "runs_in_double",
    "widen",
]
