"""One training loop: objectives with named terms, methods in phases, budgets, checkpoints."""

from __future__ import annotations

from solvers.training._methods import Evaluation, FirstOrder, LeastSquares, Method, Search
from solvers.training._objective import Objective, parallel_terms
from solvers.training._record import Record, Training
from solvers.training._schedule import Phase
from solvers.training._train import train

__all__ = [
    "Evaluation",
    "FirstOrder",
    "LeastSquares",
    "Method",
    "Objective",
    "Phase",
    "Record",
    "Search",
    "Training",
    "parallel_terms",
    "train",
]
