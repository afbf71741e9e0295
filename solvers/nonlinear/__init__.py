"""Nonlinear problems. So far the cone algebra that interior points share."""

from solvers.nonlinear import cones

__all__ = ["cones"]
