"""Smoke on a staggered grid, differentiable through time; pictures and films of it."""

from __future__ import annotations

from physim.fluid._advection import advect
from physim.fluid._film import film, picture, render
from physim.fluid._grid import StaggeredGrid
from physim.fluid._obstacles import Box, Moving, MovingObstacle, Obstacle, Sphere
from physim.fluid._projection import PressureProjection
from physim.fluid._smoke import Smoke, SmokeState

__all__ = [
    "Box",
    "Moving",
    "MovingObstacle",
    "Obstacle",
    "PressureProjection",
    "Smoke",
    "SmokeState",
    "Sphere",
    "StaggeredGrid",
    "advect",
    "film",
    "picture",
    "render",
]
