"""Settings of the contact solver."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_SMOOTHING = 0.0
DEFAULT_GRADIENT_SMOOTHING = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """Where an interior point starts and how close to the boundary it steps.

    Attributes:
        start: Central-path parameter of the start, in units of mass times speed squared.
        slowest: Least gap velocity of the start, in units of the model's speed.
        fraction: Part of the step to the boundary that is taken.
    """

    start: float
    slowest: float
    fraction: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SolverSettings:
    """When Newton's method and the interior point start, step and stop.

    Attributes:
        newton_first: Iterations that a whole block of environments gets; those that need more wait
            for others that do, and go on together.
        newton_iterations: Iterations that an environment gets before a softer problem is tried.
        newton_tolerance: Largest balance and natural residual before Newton's last step, in the
            model's own units.
        gain_cap: Largest gain of a constraint pair, in units of its effective mass. It bounds what
            redundant contacts may exchange, and the error falls by it in every iteration.
        gain_growth: Factor by which the gain grows, to a million effective masses, in every
            iteration of an exact solve that leaves the residuals as they are: contacts that cannot
            all stick creep until one lets go.
        rescue_smoothing: Smoothing from which the interior point hands over to Newton.
        soft_rescue: Smoothing of the softer problem that is tried before the interior point. If
            that jams at ``rescue_smoothing`` it solves the softer problem too, and Newton goes down
            the path by factors of ten. An item that fails even in parts keeps the smallest
            smoothing that it came to.
        tolerance: Largest balance and velocity residual, in the model's own units.
        path_tolerance: Largest relative deviation of a complementarity product from kappa. Ten
            times as much before Newton's last step where only the gradient of an exact step asks
            for the path.
        attempts: Starts that an item gets one after the other if it does not converge. They lie
            in different directions: what jams from one rarely jams from the next.
        attempt_iterations: Iterations that each attempt gets.
        max_substeps: Most parts into which a failed step is cut (a power of two).
        pruning_distance: Gap, in units of speed times time step, beyond which a candidate between
            two links is left out of a step; it is brought back if the step ends closer.
    """

    newton_first: int = 5
    newton_iterations: int = 20
    newton_tolerance: float = 1e-6
    gain_cap: float = 1e3
    gain_growth: float = 4.0
    rescue_smoothing: float = 1e-7
    soft_rescue: float = 1e-2
    tolerance: float = 1e-9
    path_tolerance: float = 1e-3
    attempts: tuple[Attempt, ...] = (
        Attempt(start=1e-1, slowest=3.0, fraction=0.99),
        Attempt(start=1e-2, slowest=1.0, fraction=0.8),
        Attempt(start=3e-3, slowest=10.0, fraction=0.8),
        Attempt(start=1e-4, slowest=1.0, fraction=0.8),
        Attempt(start=3e-2, slowest=30.0, fraction=0.8),
        Attempt(start=10.0, slowest=1.0, fraction=0.8),
    )
    attempt_iterations: int = 30
    max_substeps: int = 16
    pruning_distance: float = 0.2

    @property
    def max_iterations(self) -> int:
        """Iterations per path parameter before an item counts as failed."""
        return self.attempt_iterations * len(self.attempts)
