"""Conjugate directions learned from the problem: by a network, as published, and by recycling."""

from __future__ import annotations

from solvers.dcdm._directions import DeepConjugateDirection
from solvers.dcdm._network import DirectionNetwork
from solvers.dcdm._recycled import RecycledConjugateGradient
from solvers.dcdm._ritz import RitzVectors, lanczos
from solvers.dcdm._training import TrainingSettings, direction_loss, train_directions

__all__ = [
    "DeepConjugateDirection",
    "DirectionNetwork",
    "RecycledConjugateGradient",
    "RitzVectors",
    "TrainingSettings",
    "direction_loss",
    "lanczos",
    "train_directions",
]
