"""Partial differential equations, declared as they read: domain, residual, conditions, points."""

from __future__ import annotations

from solvers.pde import functions
from solvers.pde._boundaries import Dirichlet, Neumann, Periodic, Robin
from solvers.pde._conditions import Condition, ConditionPoints, Initial
from solvers.pde._data import Data
from solvers.pde._domain import Box, Domain, SurfacePoints
from solvers.pde._euler_lagrange import variational_problem
from solvers.pde._jet import FieldValues, MultiIndex, derivative_name, multi_index
from solvers.pde._mesh import Mesh
from solvers.pde._problem import Problem, evaluation_grid
from solvers.pde._samplers import adaptive_weights, refine, resample, sample, unit_points
from solvers.pde._shapes import Ball, Polygon

__all__ = [
    "Ball",
    "Box",
    "Condition",
    "ConditionPoints",
    "Data",
    "Dirichlet",
    "Domain",
    "FieldValues",
    "Initial",
    "Mesh",
    "MultiIndex",
    "Neumann",
    "Periodic",
    "Polygon",
    "Problem",
    "Robin",
    "SurfacePoints",
    "adaptive_weights",
    "derivative_name",
    "evaluation_grid",
    "functions",
    "multi_index",
    "refine",
    "resample",
    "sample",
    "unit_points",
    "variational_problem",
]
