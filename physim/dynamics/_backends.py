"""Which solver a simulator's steps run on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from physim.dynamics._advance import StepSolver
from physim.dynamics._kernel import KernelSolver
from physim.dynamics._reference import ReferenceSolver

if TYPE_CHECKING:
    from physim.dynamics._simulator import Simulator


def make_solver(simulator: Simulator, threads: int) -> StepSolver:
    """The solver of a simulator's backend, with the simulator's own numbers."""
    mechanism, settings = simulator.mechanism, simulator.settings
    q, numbers, timestep = simulator.model.initial_q, simulator._own_numbers, simulator.timestep
    if simulator.backend == "reference":
        return ReferenceSolver(mechanism, settings, q, numbers, timestep)
    return KernelSolver(mechanism, settings, numbers, q, timestep, threads=threads)
