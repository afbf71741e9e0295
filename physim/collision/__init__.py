"""Which shapes can touch, how far apart they are and along which normal."""

from physim.collision._groups import Candidate, ContactGroup, build_groups, shape_frame
from physim.collision._witness import tangents

__all__ = ["Candidate", "ContactGroup", "build_groups", "shape_frame", "tangents"]
