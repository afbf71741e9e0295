"""Whole systems, with data, networks and training, to compare ways of obeying an equation."""

from __future__ import annotations

from constraints.systems import diffusion_sorption

__all__ = ["diffusion_sorption"]
