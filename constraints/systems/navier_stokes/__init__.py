"""Plane vorticity on a torus: reference, initial fields, rows, arms of training."""

from __future__ import annotations

from constraints.systems.navier_stokes._basis import OperatorBasis
from constraints.systems.navier_stokes._equation import NavierStokes
from constraints.systems.navier_stokes._initial import initial_fields
from constraints.systems.navier_stokes._reference import reference
from constraints.systems.navier_stokes._training import Arm, Fit, train

__all__ = [
    "Arm",
    "Fit",
    "NavierStokes",
    "OperatorBasis",
    "initial_fields",
    "reference",
    "train",
]
