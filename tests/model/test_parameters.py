"""Replacing numbers: what is accepted, what is refused, and that gradients pass."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from physim.model import load_model
from solvers.core import ModelError, ShapeError

TEXT = """<mujoco><worldbody>
  <geom name="floor" type="plane" size="1 1 1"/>
  <body name="top" pos="0 0 1"><joint name="hip" range="-30 30" axis="0 1 0"/>
    <body name="rod" pos="0 0 -.5"><geom name="rod" type="capsule" size=".1 .3"/></body></body>
  </worldbody><actuator><motor name="drive" joint="hip" ctrlrange="-1 1"/></actuator></mujoco>"""


def test_every_parameter_can_be_replaced_by_itself_scaled() -> None:
    model = load_model(TEXT)
    for name, tensor in model.parameters().items():
        changed = model.replace_parameters({name: tensor * 1.5})
        assert torch.equal(changed.parameters()[name], tensor * 1.5)
        for other, value in model.parameters().items():
            assert other == name or changed.parameters()[other] is value
    assert all(tensor.dtype == torch.float64 for tensor in model.parameters().values())


def test_gradients_pass_and_the_callers_tensor_is_copied() -> None:
    model = load_model(TEXT)
    mass = torch.tensor([0.0, 2.0], requires_grad=True)
    heavier = model.replace_parameters({"mass": mass})
    heavier.parameters()["mass"].square().sum().backward()
    assert mass.grad is not None
    assert mass.grad.tolist() == [0.0, 4.0]
    array = np.array([0.0, 0.0, -1.0])
    moon = model.replace_parameters({"gravity": array})
    array[2] = 7.0
    assert moon.parameters()["gravity"][2] == -1.0


BAD = {
    "nan mass": ({"mass": [0.0, math.nan]}, "mass.*'rod'.*not finite"),
    "negative mass": ({"mass": [0.0, -1.0]}, "mass.*'rod'.*negative"),
    "weightless": ({"mass": [0.0, 0.0]}, "moving body 'top'.*mass 0"),
    "indefinite": ({"inertia": [[0] * 6, [1, 1, 1, 2, 0, 0]]}, "body 'rod'.*eigenvalue"),
    "limits": ({"limit_lower": [1.0]}, "limit of joint 'hip'.*lower < upper"),
    "control": ({"control_upper": [-2.0]}, "control range of actuator 'drive'"),
    "nan bound": ({"force_lower": [math.nan]}, "force_lower.*'drive'"),
    "infinite gain": ({"gain": [math.inf]}, "gain.*'drive'.*not finite"),
    "damping": ({"damping": [-1.0]}, "damping.*joint 'hip'.*negative"),
    "friction": ({"friction": [-1.0, 1.0]}, "friction.*shape 'floor'.*negative"),
    "size": ({"shape_size": [[0, 0, 0], [0, 1, 0]]}, "shape 'rod'.*positive"),
    "timestep": ({"timestep": 0.0}, "timestep is 0"),
    "name": ({"masss": [1.0]}, "unknown parameter 'masss'.*'mass'"),
    "words": ({"gain": ["much"]}, "'gain' cannot be read"),
    "complex": ({"gain": torch.ones(1, dtype=torch.complex128)}, "complex"),
    "device": ({"gain": torch.ones(1, device="meta")}, "on meta"),
}


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD.keys())
def test_unphysical_numbers_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_model(TEXT).replace_parameters(change)


@pytest.mark.parametrize("value", [[1.0], 1.0, [[1.0, 1.0]]])
def test_wrong_shapes_are_refused(value: object) -> None:
    with pytest.raises(ShapeError, match=r"'mass' has shape .* expected \(2,\)"):
        load_model(TEXT).replace_parameters({"mass": value})


def test_welded_mass_makes_a_massless_body_movable() -> None:
    assert load_model(TEXT).parameters()["mass"][0] == 0


def test_point_masses_off_the_centre_have_inertia_together() -> None:
    model = load_model(
        """<mujoco><worldbody><body name="frame"><freejoint/><inertial pos="0 0 0" mass="1"
        diaginertia="1 1 1"/><body name="tip" pos="1 0 0"><geom size=".1"/></body>
        </body></worldbody></mujoco>"""
    )
    p = model.parameters()
    inertia = torch.zeros_like(p["inertia"])
    with pytest.raises(ModelError, match="'frame'.*smallest principal inertia"):
        # Two points have none about the line through both.
        model.replace_parameters({"inertia": inertia})
    inertia[1, 0] = 0.1
    model.replace_parameters({"inertia": inertia})
