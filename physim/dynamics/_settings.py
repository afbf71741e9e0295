"""Settings of the contact solver."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SolverSettings:
    """When the interior point starts, steps and stops.

    Attributes:
        tolerance: Largest balance and velocity residual, in the model's own units.
        path_tolerance: Largest relative deviation of a complementarity product from kappa.
        max_iterations: Iterations per path parameter before an item counts as failed.
        restart_after: Iterations after which an item starts again from farther out.
        start: Central-path parameter of the start, in units of weight times time step and speed.
        restart_scale: Factor on the start of a restarted item.
        step_fraction: Part of the step to the boundary that is taken.
        restart_fraction: The same for a restarted item.
        max_substeps: Most parts into which a failed step is cut (a power of two).
        pruning_distance: Gap, in units of speed times time step, beyond which a candidate between
            two links is left out of a step; it is brought back if the step ends closer.
    """

    tolerance: float = 1e-9
    path_tolerance: float = 1e-3
    max_iterations: int = 60
    restart_after: int = 20
    start: float = 0.1
    restart_scale: float = 3.0
    step_fraction: float = 0.99
    restart_fraction: float = 0.8
    max_substeps: int = 8
    pruning_distance: float = 0.2
