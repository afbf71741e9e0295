"""What a mixture of experts is made of: parts of space-time, families of rows, a basis.

The mixture itself is ``constraints.MixtureOfExperts``.
"""

from __future__ import annotations

from constraints.experts._basis import JetBasis
from constraints.experts._expert import Rows
from constraints.experts._partition import Interface, Partition
from constraints.experts._solution import MixtureSolution

__all__ = ["Interface", "JetBasis", "MixtureSolution", "Partition", "Rows"]
