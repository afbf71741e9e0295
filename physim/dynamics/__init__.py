"""How a model moves: kinematics, integrator, contact, the step and its derivative."""

from physim.dynamics._forces import ConstraintForces
from physim.dynamics._policy import LinearFeedback, MLPPolicy
from physim.dynamics._queries import BodyPoses
from physim.dynamics._settings import Attempt, SolverSettings
from physim.dynamics._simulator import Simulator
from physim.dynamics._state import State
from physim.dynamics._trajectory import Trajectory

__all__ = [
    "Attempt",
    "BodyPoses",
    "ConstraintForces",
    "LinearFeedback",
    "MLPPolicy",
    "Simulator",
    "SolverSettings",
    "State",
    "Trajectory",
]
