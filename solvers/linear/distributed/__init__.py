"""One large grid on several workers: slabs, halos, multigrid and deflated Schwarz."""

from __future__ import annotations

from solvers.linear.distributed._solver import DistributedConjugateGradient

__all__ = ["DistributedConjugateGradient"]
