"""Diffusion with sorption in one dimension: reference, rows, arms of training, baselines."""

from __future__ import annotations

from constraints.systems.diffusion_sorption._equation import DiffusionSorption
from constraints.systems.diffusion_sorption._initial import draw_initial, profiles
from constraints.systems.diffusion_sorption._reference import interpolate_snapshots, reference
from constraints.systems.diffusion_sorption._training import Arm, Fit, train

__all__ = [
    "Arm",
    "DiffusionSorption",
    "Fit",
    "draw_initial",
    "interpolate_snapshots",
    "profiles",
    "reference",
    "train",
]
