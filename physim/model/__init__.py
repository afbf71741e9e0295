"""What there is: bodies, joints, shapes and actuators, read from MJCF into immutable records.

Records hold structure and names; the numbers are tensors, see :meth:`Model.parameters`.
"""

from __future__ import annotations

from ._load import load_model
from ._model import Model
from ._records import Actuator, Body, Joint, Keyframe, ModelWarning, Pair, Shape

__all__ = [
    "Actuator",
    "Body",
    "Joint",
    "Keyframe",
    "Model",
    "ModelWarning",
    "Pair",
    "Shape",
    "load_model",
]
