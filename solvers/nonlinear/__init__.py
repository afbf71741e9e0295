"""Nonlinear problems: the algebra that cone problems share, and least squares."""

from solvers.nonlinear import cones, projections
from solvers.nonlinear._least_squares import (
    LeastSquaresProblem,
    LevenbergMarquardt,
    NormalEquations,
)
from solvers.nonlinear._least_squares_choice import choose_problem
from solvers.nonlinear._least_squares_compiled import CompiledProblem, is_traceable
from solvers.nonlinear._least_squares_general import GeneralProblem
from solvers.nonlinear._least_squares_hybrid import HybridProblem
from solvers.nonlinear._least_squares_implicit import (
    cost_gradient,
    implicit_least_squares,
    newton_step,
)
from solvers.nonlinear._least_squares_pointwise import PointwiseProblem

__all__ = [
    "CompiledProblem",
    "GeneralProblem",
    "HybridProblem",
    "LeastSquaresProblem",
    "LevenbergMarquardt",
    "NormalEquations",
    "PointwiseProblem",
    "choose_problem",
    "cones",
    "cost_gradient",
    "implicit_least_squares",
    "is_traceable",
    "newton_step",
    "projections",
]
