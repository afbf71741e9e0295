"""What there is: bodies, joints, shapes, actuators, sensors, read into immutable records.

Records hold structure and names; the numbers are tensors, see :meth:`Model.parameters`.
"""

from __future__ import annotations

from ._load import load_model
from ._model import Model
from ._records import Actuator, Body, Joint, Keyframe, ModelWarning, Pair, Shape
from ._sensors import Mount, Sensor, SensorKind

__all__ = [
    "Actuator",
    "Body",
    "Joint",
    "Keyframe",
    "Model",
    "ModelWarning",
    "Mount",
    "Pair",
    "Sensor",
    "SensorKind",
    "Shape",
    "load_model",
]
