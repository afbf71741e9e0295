"""Whole systems, with data, networks and training, to compare ways of obeying an equation."""

from __future__ import annotations

from constraints.systems import diffusion_sorption, navier_stokes
from constraints.systems._snapshots import interpolate_scattered
from constraints.systems._training import relative_errors

__all__ = ["diffusion_sorption", "interpolate_scattered", "navier_stokes", "relative_errors"]
