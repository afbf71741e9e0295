"""Layers that solve quadratic programs and second-order cone programs."""

from __future__ import annotations

from constraints.quadratic._layer import ConeProgram, QuadraticProgram

__all__ = ["ConeProgram", "QuadraticProgram"]
