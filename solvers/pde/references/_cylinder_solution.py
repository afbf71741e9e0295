"""The flow past a cylinder as a function of position."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import make_interp_spline

from solvers.pde.references._grid import GridFunction

__all__ = ["CROWDING", "RADIUS", "CylinderSolution", "angle_of", "ray_of", "wake_length"]

Array = NDArray[np.float64]

CROWDING = 0.5
"""Share by which rays are closer in the wake than on average."""
RADIUS = 0.5
"""Of the cylinder, in diameters."""


@dataclass(frozen=True, slots=True, eq=False)
class CylinderSolution:
    """Velocity and pressure around the cylinder.

    Attributes:
        reynolds: Reynolds number with the diameter.
        drag: Drag coefficient, from vorticity and its slope on the wall.
        wake_length: Length of the recirculation behind the cylinder in diameters; 0 without one.
        iterations: Newton's iterations.
        residual: Largest residual of the discrete equations.
        velocity_x: Velocity along the stream over ``ln r`` and ray.
        velocity_y: Velocity across it.
        pressure: Over density, zero far upstream.
    """

    reynolds: float
    drag: float
    wake_length: float
    iterations: int
    residual: float
    velocity_x: GridFunction
    velocity_y: GridFunction
    pressure: GridFunction

    def __call__(self, x: Any, y: Any) -> tuple[Array, Array, Array]:
        """Evaluate the flow.

        Args:
            x: Position along the stream, from the axis of the cylinder.
            y: Position across it, a shape that broadcasts.

        Returns:
            Velocities and pressure; NaN inside the cylinder and outside the grid.
        """
        x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
        with np.errstate(divide="ignore"):
            depth = np.log(np.hypot(x, y))
        lower, upper = self.pressure.lower[0], self.pressure.upper[0]
        is_fluid = (depth >= lower - 1e-12) & (depth <= upper)
        ray = ray_of(np.arctan2(y, x))
        depth = np.clip(depth, lower, upper)
        u, v, p = (
            np.where(is_fluid, field(depth, ray), np.nan)
            for field in (self.velocity_x, self.velocity_y, self.pressure)
        )
        return u, v, p


def angle_of(ray: Array) -> Array:
    """Angle of a ray; rays are numbered evenly, and closer together in the wake."""
    angle: Array = ray - CROWDING * np.sin(ray)
    return angle


def ray_of(angle: Array) -> Array:
    """Invert the crowding of the rays by Newton's method on a monotone convex half."""
    ray = np.array(angle, dtype=np.float64)
    for _ in range(50):
        step = (angle_of(ray) - angle) / (1 - CROWDING * np.cos(ray))
        ray -= step
        if not np.abs(step).max(initial=0.0) > 1e-15:
            break
    return ray


def wake_length(depth: Array, speed: Array) -> float:
    """Where the fluid on the axis behind the cylinder stops flowing back."""
    roots = make_interp_spline(depth, speed, k=5)
    turned = np.flatnonzero((speed[1:-1] < 0) & (speed[2:] >= 0)) + 1
    if not len(turned):
        return 0.0
    low, high = depth[turned[0]], depth[turned[0] + 1]
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if roots(middle) < 0 else (low, middle)
    return float(math.exp(low) - RADIUS)
