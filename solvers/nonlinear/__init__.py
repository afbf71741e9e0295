"""Nonlinear problems. So far the algebra that cone problems share."""

from solvers.nonlinear import cones, projections

__all__ = ["cones", "projections"]
