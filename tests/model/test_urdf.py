"""URDF robots: an arm and a quadruped against MuJoCo and against the same written in MJCF."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
import torch

from physim import Simulator
from physim.model import Model, load_model
from solvers.core import ModelError, PhysimWarning

ARM = """<?xml version="1.0"?>
<robot name="arm">
  <material name="grey"><color rgba="0.5 0.5 0.5 1"/><texture filename="grey.png"/></material>
  <link name="base"/>
  <link name="upper">
    <inertial><origin xyz="0 0.01 0.2" rpy="0.1 0.2 0.3"/><mass value="1.5"/>
      <inertia ixx="0.02" iyy="0.025" izz="0.01" ixy="0.001" ixz="0" iyz="0.002"/></inertial>
    <visual><geometry><mesh filename="package://arm/upper.dae"/></geometry></visual>
    <collision><origin xyz="0 0 0.2"/><geometry><cylinder radius="0.05" length="0.3"/></geometry>
    </collision>
  </link>
  <joint name="shoulder" type="revolute"><parent link="base"/><child link="upper"/>
    <origin xyz="0 0 0.1" rpy="0 0 0.5"/><axis xyz="0 1 0"/>
    <limit lower="-1.5" upper="1.2" effort="40" velocity="0"/>
    <dynamics damping="0.7" friction="0.3"/></joint>
  <link name="hand"><inertial><origin xyz="0.02 0 0.05"/><mass value="0.5"/>
    <inertia ixx="0.001" iyy="0.0012" izz="0.0013" ixy="0" ixz="0" iyz="0"/></inertial></link>
  <joint name="lift" type="prismatic"><parent link="upper"/><child link="hand"/>
    <origin xyz="0 0.1 0.4" rpy="0.2 0 0"/><axis xyz="0 0 1"/>
    <limit lower="0" upper="0.2" effort="0" velocity="0"/></joint>
  <link name="tool"><inertial><mass value="0.2"/>
    <inertia ixx="0.0001" iyy="0.0001" izz="0.0001" ixy="0" ixz="0" iyz="0"/></inertial></link>
  <joint name="flange" type="fixed"><parent link="hand"/><child link="tool"/>
    <origin xyz="0 0 0.1" rpy="0 0.4 0"/></joint>
  <transmission name="t"><joint name="shoulder"/></transmission>
  <gazebo><plugin name="driver" filename="libdriver.so"/></gazebo>
</robot>"""
# The same with quaternions of MJCF's own Euler sequence: roll, pitch, yaw about fixed axes.
SAME_ARM = """<mujoco model="arm"><compiler angle="radian" eulerseq="XYZ"/><worldbody>
  <body name="base"><body name="upper" pos="0 0 0.1" euler="0 0 0.5">
    <inertial pos="0 0.01 0.2" euler="0.1 0.2 0.3" mass="1.5" fullinertia="{inertia}"/>
    <joint name="shoulder" axis="0 1 0" range="-1.5 1.2" damping="0.7" frictionloss="0.3"/>
    <geom type="cylinder" size="0.05 0.15" pos="0 0 0.2"/>
    <body name="hand" pos="0 0.1 0.4" euler="0.2 0 0">
      <inertial pos="0.02 0 0.05" mass="0.5" diaginertia="0.001 0.0012 0.0013"/>
      <joint name="lift" type="slide" axis="0 0 1" range="0 0.2"/>
      <body name="tool" pos="0 0 0.1" euler="0 0.4 0">
        <inertial pos="0 0 0" mass="0.2" diaginertia="0.0001 0.0001 0.0001"/>
  </body></body></body></body></worldbody>
  <actuator><motor name="shoulder" joint="shoulder" ctrlrange="-40 40"/></actuator></mujoco>"""


def _leg(name: str, x: float, y: float) -> str:
    bar = '<origin xyz="0 0 -0.1"/>'
    return f"""
  <link name="{name}_thigh"><inertial>{bar}<mass value="0.6"/>
    <inertia ixx="0.003" iyy="0.003" izz="0.0005" ixy="0" ixz="0" iyz="0"/></inertial></link>
  <joint name="{name}_hip" type="revolute"><parent link="trunk"/><child link="{name}_thigh"/>
    <origin xyz="{x} {y} 0"/><axis xyz="0 1 0"/>
    <limit lower="-1" upper="1" effort="30" velocity="0"/><dynamics damping="0.5"/></joint>
  <link name="{name}_foot"><inertial><mass value="0.1"/>
    <inertia ixx="0.0001" iyy="0.0001" izz="0.0001" ixy="0" ixz="0" iyz="0"/></inertial>
    <collision><geometry><sphere radius="0.03"/></geometry></collision></link>
  <joint name="{name}_ankle" type="fixed"><parent link="{name}_thigh"/>
    <child link="{name}_foot"/><origin xyz="0 0 -0.25"/></joint>"""


LEGS = {"fl": (0.2, 0.1), "fr": (0.2, -0.1), "hl": (-0.2, 0.1), "hr": (-0.2, -0.1)}
QUADRUPED = f"""<robot name="quadruped">
  <link name="trunk"><inertial><mass value="6"/>
    <inertia ixx="0.03" iyy="0.1" izz="0.11" ixy="0" ixz="0" iyz="0"/></inertial>
    <collision><geometry><box size="0.5 0.2 0.1"/></geometry></collision></link>
  {"".join(_leg(name, *place) for name, place in LEGS.items())}
</robot>"""


def _turned_inertia() -> str:
    """Inertia of the upper link in the axes of its body, as MJCF wants it beside ``euler``."""
    return "0.02 0.025 0.01 0.001 0 0.002"


def _load(source: str | Path, **settings: Any) -> Model:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PhysimWarning)
        return load_model(source, **settings)


def _same_motion(one: Simulator, other: Simulator) -> None:
    generator = torch.Generator().manual_seed(0)
    step = torch.randn(2, one.model.nv, generator=generator, dtype=torch.float64)
    q = one.retract(one.initial_state(batch=2).q, 0.5 * step)
    states = [sim.initial_state(q=q, on_penetration="ignore") for sim in (one, other)]
    masses = [sim.mass_matrix(state) for sim, state in zip((one, other), states, strict=True)]
    torch.testing.assert_close(masses[0], masses[1], atol=1e-10, rtol=1e-10)
    poses = [sim.forward_kinematics(state) for sim, state in zip((one, other), states, strict=True)]
    for name in ("position", "rotation", "center"):
        first, second = (getattr(pose, name) for pose in poses)
        torch.testing.assert_close(first, second, atol=1e-10, rtol=1e-10)


def test_an_arm_is_the_same_written_in_mjcf() -> None:
    robot = _load(ARM)
    text = SAME_ARM.format(inertia=_turned_inertia()).replace(' euler="0.1 0.2 0.3" mass', " mass")
    rotation = _roll_pitch_yaw(0.1, 0.2, 0.3)
    full = np.array([[0.02, 0.001, 0.0], [0.001, 0.025, 0.002], [0.0, 0.002, 0.01]])
    turned = rotation @ full @ rotation.T
    entries = [turned[i, j] for i, j in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))]
    text = text.replace(_turned_inertia(), " ".join(f"{entry:.17g}" for entry in entries))
    same = _load(text)
    assert robot.body_names == same.body_names == ("base", "upper", "hand", "tool")
    assert robot.joint_names == same.joint_names
    assert robot.actuator_names == same.actuator_names == ("shoulder",)
    expected = same.parameters()
    for name, value in robot.parameters().items():
        torch.testing.assert_close(value, expected[name], atol=1e-10, rtol=1e-10, msg=name)
    settings = {"timestep": 0.01, "backend": "reference"}
    _same_motion(Simulator(robot, **settings), Simulator(same, **settings))


def _roll_pitch_yaw(roll: float, pitch: float, yaw: float) -> np.ndarray:
    def about(axis: int, angle: float) -> np.ndarray:
        i, j = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[j, i], turn[i, j] = np.sin(angle), -np.sin(angle)
        return turn

    return about(2, yaw) @ about(1, pitch) @ about(0, roll)


@pytest.mark.parametrize("text", [ARM, QUADRUPED], ids=["arm", "quadruped"])
def test_a_fixed_robot_has_mujocos_mass_matrix(text: str) -> None:
    # MuJoCo welds fixed links and the base together; what moves is the same.
    reference = mujoco.MjModel.from_xml_string(text.replace("upper.dae", "upper.stl"))
    data = mujoco.MjData(reference)
    data.qpos[:] = np.linspace(-0.4, 0.5, reference.nq)
    mujoco.mj_forward(reference, data)
    dense = np.zeros((reference.nv, reference.nv))
    try:
        mujoco.mj_fullM(reference, data, dense)
    except TypeError:
        mujoco.mj_fullM(reference, dense, data.qM)
    sim = Simulator(_load(text), backend="reference")
    state = sim.initial_state(q=data.qpos.copy().tolist(), on_penetration="ignore")
    np.testing.assert_allclose(sim.mass_matrix(state)[0], dense, atol=1e-10)
    place = sim.forward_kinematics(state).position[0]
    for index in range(1, reference.nbody):
        body = sim.model.body(mujoco.mj_id2name(reference, mujoco.mjtObj.mjOBJ_BODY, index))
        np.testing.assert_allclose(place[body.index], data.xpos[index], atol=1e-10)


def test_limits_efforts_damping_and_friction_are_the_joints(tmp_path: Path) -> None:
    path = tmp_path / "arm.urdf"
    path.write_text(ARM)
    robot = _load(path, strict=True)
    numbers = robot.parameters()
    assert robot.name == "arm"
    assert robot.source == str(path)
    assert [joint.is_limited for joint in robot.joints] == [True, True]
    assert numbers["limit_lower"].tolist() == [-1.5, 0.0]
    assert numbers["limit_upper"].tolist() == [1.2, 0.2]
    assert numbers["damping"].tolist() == [0.7, 0.0]
    assert numbers["friction_loss"].tolist() == [0.3, 0.0]
    # An effort of zero is no motor.
    assert robot.actuator("shoulder").kind == "motor"
    assert numbers["control_lower"].tolist() == [-40.0]
    assert numbers["control_upper"].tolist() == [40.0]
    assert numbers["gear"][0, 0] == 1.0
    assert robot.warnings == ()


@pytest.mark.parametrize(
    ("lower", "upper", "limited"), [("-inf", "inf", False), ("-inf", "1.2", True)]
)
def test_a_bound_at_infinity_is_none(lower: str, upper: str, limited: bool) -> None:
    joint = _load(ARM.replace('lower="-1.5" upper="1.2"', f'lower="{lower}" upper="{upper}"'))
    assert joint.joints[0].is_limited is limited
    if limited:
        numbers = joint.parameters()
        assert float(numbers["limit_upper"][0]) == 1.2
        assert float(numbers["limit_lower"][0]) < -1e6


def test_an_infinite_effort_is_an_unbounded_motor() -> None:
    robot = _load(ARM.replace('effort="40" velocity="0"', 'effort="inf" velocity="inf"'))
    assert robot.parameters()["control_upper"].tolist() == [np.inf]
    assert robot.warnings == ()


def test_a_quadruped_floats_if_asked_for() -> None:
    fixed, floating = _load(QUADRUPED), _load(QUADRUPED, floating_base=True)
    assert (fixed.nq, fixed.nv, fixed.nu) == (4, 4, 4)
    assert (floating.nq, floating.nv, floating.nu) == (11, 10, 4)
    assert floating.joints[0].name == "floating_base"
    assert floating.joints[0].kind == "free"
    assert floating.body("trunk").joints == (0,)
    assert floating.body_names == fixed.body_names
    total = floating.parameters()["mass"].sum()
    assert float(total) == pytest.approx(6 + 4 * 0.7)
    sim = Simulator(floating, timestep=0.01, backend="reference")
    after, _ = sim.step(sim.initial_state())
    assert float(after.v[0, 2]) == pytest.approx(-9.81 * 0.01, rel=1e-9)


def test_a_quadruped_stands_on_the_floor_that_it_is_given() -> None:
    robot = _load(QUADRUPED, floating_base=True, floor=True)
    pairs = [(robot.shapes[p.shape_a].name, robot.shapes[p.shape_b].body) for p in robot.pairs]
    feet = [robot.body(f"{name}_foot").index for name in LEGS]
    assert [body for name, body in pairs if name == "floor" and body in feet] == feet
    sim = Simulator(robot, timestep=0.01, backend="reference")
    start = robot.initial_q.clone()
    start[2] = 0.28
    state, _ = sim.step(sim.initial_state(q=start))
    weight = 9.81 * float(robot.parameters()["mass"].sum())
    assert float(sim.constraint_forces(state).contact[0, :, 2].sum()) == pytest.approx(weight)
    assert "floor" not in _load(QUADRUPED).shape_names


def test_an_axis_that_is_not_given_is_x() -> None:
    robot = _load(ARM.replace('<axis xyz="0 1 0"/>', ""))
    assert robot.joint("shoulder").axis == (1.0, 0.0, 0.0)


def test_a_child_of_the_world_may_float() -> None:
    text = QUADRUPED.replace(
        '<link name="trunk">',
        '<link name="world"/><joint name="root" type="floating"><parent link="world"/>'
        '<child link="trunk"/></joint><link name="trunk">',
    )
    robot = _load(text)
    assert (robot.nv, robot.joints[0].name, robot.joints[0].kind) == (10, "root", "free")
    with pytest.raises(ModelError, match="'world'.*cannot float"):
        load_model(text, floating_base=True)


def test_a_planar_joint_is_two_slides_and_a_hinge() -> None:
    text = re.sub(r'name="shoulder" type="revolute"', 'name="shoulder" type="planar"', ARM)
    robot = _load(text)
    assert [joint.kind for joint in robot.joints] == ["slide", "slide", "hinge", "slide"]
    assert robot.nu == 0


def test_a_mimic_joint_is_said_and_has_no_motor() -> None:
    mimic = '<mimic joint="lift" multiplier="2"/><dynamics'
    with pytest.warns(PhysimWarning, match="'shoulder'.*'lift'.*mimic"):
        robot = load_model(ARM.replace("<dynamics", mimic))
    assert robot.nu == 0
    with pytest.raises(ModelError, match="mimic"):
        load_model(ARM.replace("<dynamics", mimic), strict=True)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('velocity="0"', 'velocity="2"', "joints 'shoulder', 'lift': the velocity limit"),
        ('effort="40" velocity="0"/>', 'effort="40"/>', ""),
        ('effort="0"', 'effort="-3"', "'lift': no motor, because of a negative effort"),
        ('<limit lower="0" upper="0.2" effort="0" velocity="0"/>', "", "'lift': no <limit>"),
        (
            '<link name="tool"><inertial><mass value="0.2"/>',
            '<link name="tool"><collision><geometry><sphere radius="0.01"/></geometry></collision>'
            '</link><link name="tip"><inertial><mass value="0.2"/>',
            "",
        ),
    ],
)
def test_what_has_no_effect_here_is_noted(old: str, new: str, message: str) -> None:
    if "tip" in new:
        new_joint = (
            '<joint name="end" type="fixed"><parent link="tool"/><child link="tip"/></joint>'
        )
        robot = _load(ARM.replace(old, new).replace("<transmission", new_joint + "<transmission"))
        message = "link 'tool': no <inertial>"
    else:
        robot = _load(ARM.replace(old, new), strict=True)
    notes = [str(warning) for warning in robot.warnings]
    assert any(message in note for note in notes) if message else notes == []


TETRAHEDRON = "v 0 0 0\nv .1 0 0\nv 0 .1 0\nv 0 0 .1\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"
MESHED = """<robot name="m"><link name="base"/><link name="l">
  <collision><geometry><mesh filename="{name}"/></geometry></collision></link>
  <joint name="j" type="continuous"><parent link="base"/><child link="l"/></joint></robot>"""


@pytest.mark.parametrize(
    ("name", "place", "directory"),
    [
        ("meshes/a.obj", "m_description/urdf/meshes", None),
        ("package://m_description/meshes/a.obj", "m_description/meshes", None),
        ("package://other/meshes/a.obj", "share/other/meshes", "share"),
        ("package://other/meshes/a.obj", "share/meshes", "share"),
        ("a.obj", "share", "share"),
        ("meshes/a.obj", "m_description/urdf/own", None),
    ],
)
def test_meshes_are_found(tmp_path: Path, name: str, place: str, directory: str | None) -> None:
    folder = tmp_path / "m_description" / "urdf"
    for made in (folder, tmp_path / place):
        made.mkdir(parents=True, exist_ok=True)
    (tmp_path / place / "a.obj").write_text(TETRAHEDRON)
    path = folder / "m.urdf"
    text, folder_of_meshes = MESHED.format(name=name), '<mujoco><compiler meshdir="own"/></mujoco>'
    path.write_text(text.replace("</robot>", folder_of_meshes * (place[-3:] == "own") + "</robot>"))
    root = tmp_path / "m_description"
    chosen = None if directory is None else tmp_path / directory
    robot = _load(path, root=root, mesh_directory=chosen)
    # A tetrahedron of water.
    assert float(robot.parameters()["mass"][1]) == pytest.approx(1000 * 0.1**3 / 6)


def test_missing_and_outlying_meshes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "urdf" / "m.urdf"
    path.parent.mkdir()
    path.write_text(MESHED.format(name="package://m/a.stl"))
    with pytest.raises(ModelError, match="a.stl.*link 'l'.*mesh_directory="):
        load_model(path)
    with pytest.raises(ModelError, match="mesh_directory="):
        load_model(MESHED.format(name="a.stl"))
    (tmp_path / "a.obj").write_text(TETRAHEDRON)
    path.write_text(MESHED.format(name="../a.obj"))
    with pytest.raises(ModelError, match="outside the robot's folder"):
        load_model(path)
    path.write_text(MESHED.format(name="http://example.org/a.obj"))
    with pytest.raises(ModelError, match="relative path or package://"):
        load_model(path)


BROKEN = {
    "unknown parent": (
        '<parent link="upper"/>',
        '<parent link="uper"/>',
        "'lift'.*'uper'.*'upper'",
    ),
    "no child": ('<child link="tool"/>', "", "'flange'.*child link ''"),
    "two parents": ('<child link="tool"/>', '<child link="hand"/>', "'hand'.*two joints"),
    "two roots": ('<link name="base"/>', '<link name="base"/><link name="x"/>', "'base', 'x'"),
    "loop": ('<parent link="base"/>', '<parent link="tool"/>', "loop of joints"),
    "same name": ('<link name="base"/>', '<link name="base"/><link name="base"/>', "two of <link>"),
    "no name": ('<link name="base"/>', '<link name="base"/><link/>', "a <link> has no name"),
    "kind": ('type="prismatic"', 'type="screw"', "'lift'.*'screw'.*revolute"),
    "floating": ('type="prismatic"', 'type="floating"', "'lift'.*floating_base=True"),
    "effort": ('effort="40"', 'effort="strong"', "'shoulder'.*effort 'strong'"),
    "no effort": ('effort="40"', 'effort="nan"', "'shoulder'.*effort 'nan'"),
    "nan": ('value="1.5"', 'value="nan"', "link .*value 'nan'"),
    "reversed": (
        'lower="-1.5" upper="1.2"',
        'lower="1.5" upper="-1.2"',
        "'shoulder'.*lower < upper",
    ),
    "negative mass": ('<mass value="0.5"/>', '<mass value="-1"/>', "mass"),
    "inertia": ('ixx="0.02" iyy="0.025"', 'ixx="0.02" iyy="0.25"', "inertia"),
    "not closed": ("</robot>", "", "not well-formed"),
    "entity": ("<robot", "<!DOCTYPE a><robot", "DOCTYPE"),
}


@pytest.mark.parametrize(("old", "new", "message"), BROKEN.values(), ids=BROKEN)
def test_broken_robots_are_refused_by_name(old: str, new: str, message: str) -> None:
    assert old in ARM
    with pytest.raises(ModelError, match=message):
        _load(ARM.replace(old, new, 1))


def test_a_robot_of_nothing_is_refused() -> None:
    with pytest.raises(ModelError, match="no <link>"):
        load_model('<robot name="r"/>')


def test_arguments_of_urdf_are_refused_with_mjcf() -> None:
    with pytest.raises(ModelError, match="floating_base is True.*no URDF"):
        load_model(SAME_ARM.format(inertia=_turned_inertia()), floating_base=True)
