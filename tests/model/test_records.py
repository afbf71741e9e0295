"""Records and numbers against what MuJoCo itself computes from the same file."""

from __future__ import annotations

import dataclasses
import pickle
import warnings
from pathlib import Path

import mujoco
import numpy as np
import pytest
import torch

from physim.model import Model, load_model
from solvers.core import ModelError

# MuJoCo's own remarks about the files, such as attributes that will go away.
pytestmark = pytest.mark.filterwarnings("ignore:compiler attribute")


def load(source: str | Path) -> Model:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_model(source)


def rotation(quaternion: tuple[float, ...]) -> np.ndarray:
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, np.array(quaternion))
    return matrix.reshape(3, 3)


def reference_frames(model: Model) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pose of every body with all joints at their reference."""
    position = model.parameters()["body_position"].numpy()
    frames: list[tuple[np.ndarray, np.ndarray]] = []
    for body in model.bodies:
        above = frames[body.parent] if body.parent >= 0 else (np.eye(3), np.zeros(3))
        origin = above[1] + above[0] @ position[body.index]
        frames.append((above[0] @ rotation(body.quaternion), origin))
    return frames


def test_sizes_and_names_are_the_files(model_file: Path) -> None:
    model, reference = load(model_file), mujoco.MjSpec.from_file(str(model_file)).compile()
    assert (model.nq, model.nv, model.nu) == (reference.nq, reference.nv, reference.nu)
    assert len(model.bodies) == reference.nbody - 1
    for body in model.bodies:
        name = reference.body(body.index + 1).name
        assert body.name == (name or f"body_{body.index}")
        assert body.parent < body.index
    for joint in model.joints:
        assert joint.name == (reference.joint(joint.index).name or f"joint_{joint.index}")
        assert joint.index in model.bodies[joint.body].joints
        assert model.joint(joint.name).body == joint.body
    assert len(set(model.body_names)) == len(model.bodies)
    np.testing.assert_array_equal(model.initial_q, reference.qpos0)


def test_masses_and_inertias_in_the_reference_configuration(model_file: Path) -> None:
    model, reference = load(model_file), mujoco.MjSpec.from_file(str(model_file)).compile()
    data = mujoco.MjData(reference)
    mujoco.mj_kinematics(reference, data)
    mujoco.mj_comPos(reference, data)
    numbers = {name: tensor.numpy() for name, tensor in model.parameters().items()}
    assert numbers["mass"].sum() == pytest.approx(reference.body_mass[1:].sum(), abs=1e-12)
    for body, (turn, origin) in zip(model.bodies, reference_frames(model), strict=True):
        k = body.index
        center = origin + turn @ numbers["center_of_mass"][k]
        np.testing.assert_allclose(center, data.xipos[k + 1], atol=1e-12)
        xx, yy, zz, xy, xz, yz = numbers["inertia"][k]
        inertia = turn @ np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]) @ turn.T
        principal = data.ximat[k + 1].reshape(3, 3)
        expected = principal @ np.diag(reference.body_inertia[k + 1]) @ principal.T
        np.testing.assert_allclose(inertia, expected, atol=1e-12 * (1 + np.abs(expected).max()))


def test_shapes_and_anchors_in_the_reference_configuration(model_file: Path) -> None:
    model, reference = load(model_file), mujoco.MjSpec.from_file(str(model_file)).compile()
    data = mujoco.MjData(reference)
    mujoco.mj_kinematics(reference, data)
    numbers = {name: tensor.numpy() for name, tensor in model.parameters().items()}
    frames = reference_frames(model)
    geoms = [g for g in range(reference.ngeom) if reference.geom_type[g] not in (1, 7, 8)]
    assert len(geoms) == len(model.shapes)
    for shape, geom in zip(model.shapes, geoms, strict=True):
        turn, origin = frames[shape.body] if shape.body >= 0 else (np.eye(3), np.zeros(3))
        place = origin + turn @ numbers["shape_position"][shape.index]
        # MuJoCo snaps a shape that nearly coincides with a frame of its body to that frame.
        tolerance = 1e-5 if reference.geom_sameframe[geom] else 1e-12
        np.testing.assert_allclose(place, data.geom_xpos[geom], atol=tolerance)
        axes = data.geom_xmat[geom].reshape(3, 3)
        np.testing.assert_allclose(turn @ rotation(shape.quaternion), axes, atol=tolerance)
        np.testing.assert_array_equal(numbers["shape_size"][shape.index], reference.geom_size[geom])
    for joint in model.joints:
        if joint.kind == "free":
            continue
        turn, origin = frames[joint.body]
        anchor = origin + turn @ numbers["joint_anchor"][joint.index]
        np.testing.assert_allclose(anchor, data.xanchor[joint.index], atol=1e-12)
        np.testing.assert_allclose(turn @ np.array(joint.axis), data.xaxis[joint.index], atol=1e-12)


SERVOS = """<mujoco>
  <compiler angle="degree"/>
  <worldbody>
    <body><joint name="a" type="hinge" axis="0 1 0" stiffness="3" springref="20" damping="0.7"
        armature="0.05" frictionloss="0.1" range="-30 90"/><geom size=".1" pos=".3 0 0"/>
      <body pos=".5 0 0"><joint name="b" type="slide" axis="1 0 0" damping="2" ref="0.2"/>
        <geom size=".1"/>
        <body><joint name="c" type="ball"/><geom size=".1" pos="0 0 .2"/></body></body></body>
    <body pos="0 0 2"><freejoint name="d"/>
      <geom type="box" size=".1 .2 .3" contype="0" conaffinity="0"/></body>
  </worldbody>
  <actuator>
    <motor joint="a" gear="3" ctrlrange="-0.5 0.5"/>
    <position joint="a" kp="20" kv="1" gear="2" forcerange="-1 1"/>
    <velocity joint="b" kv="4"/>
    <general joint="b" gainprm="2" biastype="affine" biasprm="1 -3 -0.5" gear="-1.5"/>
    <motor joint="c" gear="1 2 3"/>
    <motor joint="d" gear="1 2 3 4 5 6"/>
    <motor jointinparent="a" armature="0.1" damping="0.2" gear="2"/>
  </actuator>
</mujoco>"""


def test_actuator_forces_follow_the_documented_law() -> None:
    model, reference = load_model(SERVOS), mujoco.MjModel.from_xml_string(SERVOS)
    data, random = mujoco.MjData(reference), np.random.default_rng(0)
    kinds = [actuator.kind for actuator in model.actuators]
    assert kinds == ["motor", "position", "velocity", "general", "motor", "motor", "motor"]
    p = {name: tensor.numpy() for name, tensor in model.parameters().items()}
    for _ in range(5):
        data.qpos[:] = random.normal(size=model.nq)
        data.qvel[:] = random.normal(size=model.nv)
        data.ctrl[:] = random.normal(size=model.nu)
        mujoco.mj_normalizeQuat(reference, data.qpos)
        mujoco.mj_forward(reference, data)
        total = np.zeros(model.nv)
        for a in model.actuators:
            weights = p["gear"][a.index, : len(a.dofs)]
            joint = model.joints[a.joint]
            q = data.qpos[joint.q_index] if joint.kind in ("hinge", "slide") else 0.0
            length, rate = p["gear"][a.index, 0] * q, weights @ data.qvel[list(a.dofs)]
            u = np.clip(
                data.ctrl[a.index], p["control_lower"][a.index], p["control_upper"][a.index]
            )
            force = p["gain"][a.index] * u + p["bias"][a.index] @ [1.0, length, rate]
            force = np.clip(force, p["force_lower"][a.index], p["force_upper"][a.index])
            assert force == pytest.approx(data.actuator_force[a.index], abs=1e-12)
            total[list(a.dofs)] += weights * force
        np.testing.assert_allclose(total, data.qfrc_actuator, atol=1e-12)


def test_springs_dampers_and_armature_of_joints_and_actuators() -> None:
    model, reference = load_model(SERVOS), mujoco.MjModel.from_xml_string(SERVOS)
    data, random = mujoco.MjData(reference), np.random.default_rng(1)
    p = {name: tensor.numpy() for name, tensor in model.parameters().items()}
    data.qpos[:2], data.qvel[:] = random.normal(size=2), random.normal(size=model.nv)
    mujoco.mj_forward(reference, data)
    for joint in model.joints[:2]:
        q, v = joint.q_index, joint.v_index
        spring = -p["stiffness"][v] * (data.qpos[q] - p["spring_reference"][q])
        passive = spring - p["damping"][v] * data.qvel[v]
        assert passive == pytest.approx(data.qfrc_passive[v], abs=1e-12)
    # gear 2, rotor inertia 0.1
    np.testing.assert_allclose(p["armature"], [0.05 + 4 * 0.1, *[0.0] * 10], atol=1e-15)
    np.testing.assert_allclose(p["friction_loss"], [0.1, *[0.0] * 10])
    assert model.joint("a").is_limited
    lower, upper = p["limit_lower"][0], p["limit_upper"][0]
    np.testing.assert_allclose([lower, upper], np.deg2rad([-30, 90]))
    assert model.joint("b").reference == pytest.approx(0.2)


def test_switches_of_the_file_are_honoured() -> None:
    flags = " ".join(
        f'{flag}="disable"'
        for flag in "gravity limit spring damper frictionloss actuation contact clampctrl".split()
    )
    text = SERVOS.replace("<worldbody>", f"<option><flag {flags}/></option><worldbody>", 1)
    model = load_model(text, strict=True)
    p = model.parameters()
    for name in ("gravity", "stiffness", "damping", "friction_loss", "gain", "bias"):
        assert not p[name].any(), name
    assert not any(joint.is_limited for joint in model.joints)
    assert not any(actuator.is_control_limited for actuator in model.actuators)
    assert torch.isinf(p["control_lower"]).all()
    assert model.pairs == ()
    assert load_model(SERVOS).parameters()["gravity"][2] == pytest.approx(-9.81)


def test_disabled_actuator_group_makes_no_force() -> None:
    text = SERVOS.replace("<worldbody>", '<option actuatorgroupdisable="3"/><worldbody>', 1)
    text = text.replace('<velocity joint="b"', '<velocity group="3" joint="b"')
    model = load_model(text, strict=True)
    gain = model.parameters()["gain"]
    assert gain[2] == 0
    assert gain[3] == 2


def test_keyframes() -> None:
    text = SERVOS.replace(
        "</mujoco>",
        '<keyframe><key name="up" time="2" qpos="1 2 1 0 0 0 0 0 3 1 0 0 0" ctrl="1 2 3 4 5 6 7"/>'
        "<key/></keyframe></mujoco>",
    )
    model = load_model(text)
    up = model.keyframe("up")
    assert up.time == 2
    assert up.q[8] == 3
    assert up.control.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert torch.equal(model.keyframe("keyframe_1").q, model.initial_q)


def test_text_and_file_give_the_same_model(tmp_path: Path) -> None:
    path = tmp_path / "servos.xml"
    path.write_text(SERVOS)
    from_text, from_file, from_str = load_model(SERVOS), load_model(path), load_model(str(path))
    assert from_text.source == "<text>"
    assert from_text.name == "model"
    assert from_file.source == str(path)
    assert from_file.name == "servos"
    for other in (from_file, from_str):
        for field in ("bodies", "joints", "shapes", "actuators", "pairs", "warnings"):
            assert getattr(from_text, field) == getattr(other, field)
        for name, tensor in from_text.parameters().items():
            assert torch.equal(tensor, other.parameters()[name]), name


def test_a_model_does_not_change() -> None:
    model = load_model(SERVOS)
    with pytest.raises(dataclasses.FrozenInstanceError):
        model.nq = 3  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        model.joints[0].axis = (1.0, 0.0, 0.0)  # type: ignore[misc]
    model.parameters()["mass"] = torch.zeros(4)
    assert model.parameters()["mass"].sum() > 0


def test_a_model_crosses_process_borders() -> None:
    model = load_model(SERVOS)
    copy = pickle.loads(pickle.dumps(model))
    assert copy.joints == model.joints
    assert torch.equal(copy.parameters()["inertia"], model.parameters()["inertia"])
    assert repr(copy) == repr(model)
    assert "\n" not in repr(model)


def test_unknown_names_suggest_near_ones() -> None:
    model = load_model(SERVOS.replace('name="a"', 'name="shoulder"').replace('"a"', '"shoulder"'))
    with pytest.raises(ModelError, match="Did you mean 'shoulder'"):
        model.joint("sholder")
    with pytest.raises(ModelError, match="body_0"):
        model.body("zzz")
    for look_up in (model.shape, model.actuator, model.keyframe):
        with pytest.raises(ModelError, match="nothing"):
            look_up("nothing")


def test_nameless_elements_never_take_a_used_name() -> None:
    text = """<mujoco><worldbody><body name="body_1"><freejoint/><geom size=".1"/></body>
        <body pos="1 0 0"><freejoint/><geom size=".1"/></body></worldbody></mujoco>"""
    model = load_model(text)
    assert len(set(model.body_names)) == 2
    assert model.body("body_1").index == 0
