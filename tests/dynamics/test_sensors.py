"""Sensors against MuJoCo's own readings, against statics, and their derivatives."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import mujoco
import numpy as np
import pytest
import torch

import physim
from physim import Simulator, State
from physim.dynamics._sensors import READERS
from physim.dynamics._zones import meets
from physim.model import SensorKind
from solvers.core import ModelError, SettingsError

FRAMES = ("body", "xbody", "geom", "site", "camera")
NAMES = {"body": "arm", "xbody": "arm", "geom": "arm", "site": "tip", "camera": "eye"}
WORDS = (
    *("framepos", "framequat", "framexaxis", "frameyaxis", "framezaxis"),
    *("framelinvel", "frameangvel", "framelinacc", "frameangacc"),
)


def _frame_sensors() -> str:
    lines = []
    for kind in FRAMES:
        for word in WORDS:
            frame = f'objtype="{kind}" objname="{NAMES[kind]}"'
            lines.append(f'<{word} name="{word}-{kind}" {frame}/>')
            if not word.endswith("acc"):
                for other, name in (("site", "base"), ("xbody", "ball"), ("body", "ball")):
                    extra = f'reftype="{other}" refname="{name}"'
                    lines.append(f'<{word} name="{word}-{kind}-{other}-{name}" {frame} {extra}/>')
    return "\n".join(lines)


ROBOT = f"""<mujoco><option magnetic="0.1 -0.4 0.3" timestep="0.005"/>
<worldbody>
  <site name="base" pos="0.3 0.1 -0.2" quat="0.9 0.1 -0.3 0.2"/>
  <body name="pole" pos="1 0 0"><geom size="0.1" mass="3"/></body>
  <body name="ball" pos="0 0 1" quat="0.8 0.4 0.2 -0.1"><freejoint name="free"/>
    <geom type="box" size="0.1 0.2 0.3" pos="0.05 0.02 0.01" mass="2"/>
    <site name="skin" pos="0.1 0 0.2" euler="20 30 40"/>
    <body name="wrist" pos="0.3 0 0" euler="10 50 0"><joint name="wrist" type="ball"/>
      <geom type="capsule" size="0.05 0.2" euler="0 30 60" mass="0.7"/>
      <body name="arm" pos="0 0.4 0.1" euler="40 0 20">
        <joint name="slide" type="slide" axis="1 1 0"/>
        <joint name="elbow" axis="0 1 2" pos="0.1 0 0" ref="0.3" stiffness="2"/>
        <geom name="arm" type="ellipsoid" size="0.1 0.2 0.05" pos="0.1 0 0" euler="0 0 30"/>
        <camera name="eye" pos="0 0.1 0" euler="30 0 0"/>
        <site name="tip" pos="0.2 0 0.1" euler="0 70 0"/>
        <body name="hand" pos="0 0 0.3"><geom size="0.08" mass="0.4"/>
          <site name="palm" pos="0 0 0.1"/></body>
      </body>
    </body>
  </body>
</worldbody>
<actuator>
  <motor name="motor" joint="elbow" gear="3" ctrlrange="-1 1"/>
  <position name="servo" joint="slide" kp="20" kv="2" gear="2" forcerange="-4 4"/>
  <position name="hold" joint="elbow" kp="7" kv="1"/>
  <general name="spin" joint="wrist" gear="1 2 3 0 0 0" gainprm="2"/>
</actuator>
<sensor>
  <jointpos name="elbow" joint="elbow"/> <jointvel joint="slide"/>
  <jointpos name="cut" joint="elbow" cutoff="0.01"/>
  <ballquat joint="wrist"/> <ballangvel joint="wrist"/>
  <jointactuatorfrc name="drive" joint="elbow"/>
  <actuatorpos actuator="servo"/> <actuatorvel actuator="servo"/> <actuatorvel actuator="spin"/>
  <actuatorfrc actuator="motor"/> <actuatorfrc actuator="servo"/> <actuatorfrc actuator="spin"/>
  <gyro name="gyro" site="tip" cutoff="2"/> <velocimeter site="skin"/> <accelerometer site="tip"/>
  <magnetometer site="tip"/> <force name="load" site="tip"/> <torque site="palm"/>
  <force site="skin"/> <torque site="tip"/>
  <subtreecom body="ball"/> <subtreelinvel body="wrist"/> <subtreeangmom body="wrist"/>
  <subtreecom body="world"/> <subtreeangmom body="world"/>
  <e_potential name="potential"/> <e_kinetic name="kinetic"/>
  <touch name="skin" site="skin"/>
  {_frame_sensors()}
</sensor></mujoco>"""


def _mujoco_state(model: mujoco.MjModel, seed: int) -> mujoco.MjData:
    """A random state with the accelerations that MuJoCo gives it, free of contact."""
    rng = np.random.default_rng(seed)
    off = mujoco.mjtDisableBit
    model.opt.disableflags |= off.mjDSBL_CONTACT | off.mjDSBL_EQUALITY
    data = mujoco.MjData(model)
    position = model.qpos0.copy()
    mujoco.mj_integratePos(model, position, 0.5 * rng.normal(size=model.nv), 1.0)
    data.qpos[:], data.qvel[:] = position, rng.normal(size=model.nv)
    data.ctrl[:] = rng.normal(size=model.nu)
    mujoco.mj_forward(model, data)
    return data


def _check_against_mujoco(sim: Simulator, reference: mujoco.MjModel) -> set[str]:
    """Compare all readings; accelerations are read from the velocity that MuJoCo's make."""
    data = _mujoco_state(reference, seed=0)
    state = State.from_mujoco(data)
    faster = state.v + sim.timestep * torch.as_tensor(data.qacc.copy())
    impulses = torch.zeros(1, sim.mechanism.impulse_count, dtype=torch.float64)
    following = State(q=state.q, v=faster, impulses=impulses)
    control = torch.as_tensor(data.ctrl.copy())
    found = sim.sensors(state, control, next_state=following)
    kinds = set()
    for sensor, name in zip(sim.model.sensors, found, strict=True):
        assert sensor.name == name
        file_index = _file_index(reference, sensor)
        first = reference.sensor_adr[file_index]
        expected = data.sensordata[first : first + reference.sensor_dim[file_index]]
        assert found[name].shape == (1, sensor.dim)
        scale = 1.0 + np.abs(expected).max()
        np.testing.assert_allclose(found[name][0], expected, atol=1e-9 * scale, err_msg=name)
        kinds.add(str(sensor.kind))
    return kinds


def _file_index(reference: mujoco.MjModel, sensor: physim.model.Sensor) -> int:
    index = mujoco.mj_name2id(reference, mujoco.mjtObj.mjOBJ_SENSOR, sensor.name)
    return index if index >= 0 else int(sensor.name.rsplit("_", 1)[1])


@pytest.fixture(scope="module")
def robot(simulator: Callable[..., Simulator]) -> Simulator:
    """The model that has one of every kind."""
    return simulator(ROBOT, backend="reference")


def test_every_kind_is_read_and_named_once() -> None:
    assert set(READERS) == set(get_args(SensorKind))


def test_every_kind_reads_what_mujocos_does(robot: Simulator) -> None:
    seen = _check_against_mujoco(robot, mujoco.MjModel.from_xml_string(ROBOT))
    assert seen == set(get_args(SensorKind))


def test_public_models_read_what_mujoco_reads(
    simulator: Callable[..., Simulator], model_file: Path
) -> None:
    _check_file(simulator, model_file, range(1, 30))


@pytest.mark.slow
def test_large_public_models_read_what_mujoco_reads(
    simulator: Callable[..., Simulator], model_file: Path
) -> None:
    _check_file(simulator, model_file, range(30, 1000))


def _check_file(simulator: Callable[..., Simulator], model_file: Path, sizes: range) -> None:
    reference = mujoco.MjModel.from_xml_path(str(model_file))
    if reference.nsensor == 0 or reference.nv not in sizes:
        pytest.skip("it measures nothing or has another size")
    if reference.ntendon or reference.nu != reference.nactuator:
        pytest.skip("its actuators drive tendons, which physim does not honour")
    _check_against_mujoco(simulator(model_file, backend="reference"), reference)


def test_values_are_those_of_the_parameters(robot: Simulator) -> None:
    state = robot.initial_state(batch=2)
    mass = robot.model.parameters()["mass"].expand(2, -1).clone()
    mass[1] *= 2.0
    read = robot.sensors(state, names=["potential"], parameters={"mass": mass})
    energy = read["potential"] - robot.sensors(state, names=["potential"])["potential"]
    assert list(read) == ["potential"]
    torch.testing.assert_close(energy[0], torch.zeros(1, dtype=torch.float64))
    weight = (mass[0] * robot.forward_kinematics(state).center[0, :, 2]).sum() * 9.81
    torch.testing.assert_close(energy[1, 0], weight)


def test_an_accelerometer_feels_no_free_fall() -> None:
    flight = """<mujoco><worldbody><body><freejoint/><geom size="0.1"/><site name="s"/></body>
      </worldbody><sensor><accelerometer name="a" site="s"/><force name="f" site="s"/></sensor>
      </mujoco>"""
    sim = Simulator(physim.load_model(flight), timestep=0.01, backend="reference")
    read = sim.sensors(sim.initial_state(v=[1.0, 2.0, 3.0, 0.4, -0.2, 0.1]))
    for value in read.values():
        torch.testing.assert_close(value, torch.zeros_like(value), atol=1e-9, rtol=0.0)


TABLE = """<mujoco><option timestep="0.01"/><worldbody>
  <geom name="floor" type="plane" size="1 1 1"/><site name="ground" size="9 9 .1" type="box"/>
  <body name="crate" pos="0 0 0.1"><freejoint/>
    <geom type="box" size="0.1 0.1 0.1" mass="2"/>
    <site name="middle"/><site name="under" type="box" size="0.11 0.11 0.02" pos="0 0 -0.1"/>
    <site name="left" type="ellipsoid" size="0.05 0.3 0.05" pos="-0.1 0 -0.1"/>
    <site name="above" type="capsule" size="0.05 0.02" pos="0 0 0.1"/>
    <body name="post" pos="0 0 0.1"><geom size="0.02" mass="0.5"/><site name="weld"/></body>
  </body></worldbody>
  <sensor><touch name="under" site="under"/><touch name="left" site="left"/>
    <touch name="above" site="above"/><touch name="ground" site="ground"/>
    <touch name="capped" site="under" cutoff="3"/>
    <accelerometer name="feel" site="middle"/><force name="weld" site="weld"/>
    <force name="base" site="middle"/><torque name="twist" site="middle"/></sensor></mujoco>"""


@pytest.mark.parametrize("given", [False, True])
def test_a_crate_at_rest_presses_with_its_weight(
    simulator: Callable[..., Simulator], given: bool
) -> None:
    sim = simulator(TABLE, backend="reference")
    state = sim.initial_state(batch=2)
    following = sim.step(state)[0] if given else None
    read = sim.sensors(state, next_state=following)
    g = 9.81
    expected = {
        "under": [2.5 * g],
        "left": [1.25 * g],
        "above": [0.0],
        "ground": [2.5 * g],
        "capped": [3.0],
        "feel": [0.0, 0.0, g],
        "weld": [0.0, 0.0, 0.5 * g],
        "base": [0.0, 0.0, 0.0],
        "twist": [0.0, 0.0, 0.0],
    }
    for name, values in expected.items():
        wanted = torch.tensor(values, dtype=torch.float64).expand(2, -1)
        torch.testing.assert_close(read[name], wanted, atol=1e-7, rtol=1e-7)


def test_readings_of_a_trajectory_are_those_of_its_states(
    simulator: Callable[..., Simulator], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("physim.dynamics._sensors._ROWS", 4)
    sim = simulator(TABLE, backend="reference")
    drop = sim.model.initial_q.clone()
    drop[2] += 0.002
    mass = sim.model.parameters()["mass"] * torch.tensor([[1.0], [1.5]], dtype=torch.float64)
    start = sim.initial_state(batch=2, q=drop)
    for keep in (False, True):
        motion = sim.rollout(
            start, steps=3, keep_impulses=keep, parameters={"mass": mass}, on_failure="raise"
        )
        read = sim.sensors(motion, parameters={"mass": mass})
        assert read["under"].shape == (3, 2, 1)
        for step in range(3):
            now = sim.sensors(motion.state(step), parameters={"mass": mass})
            for name, values in now.items():
                torch.testing.assert_close(read[name][step], values, atol=1e-6, rtol=1e-6)
    with pytest.raises(SettingsError, match="come with a trajectory"):
        sim.sensors(motion, torch.zeros(0))


@pytest.mark.parametrize("solid", ["sphere", "ellipsoid", "capsule", "cylinder", "box"])
def test_rays_meet_the_solids_that_mujocos_do(solid: str) -> None:
    size = {"sphere": "0.3", "capsule": "0.2 0.3", "cylinder": "0.2 0.3"}.get(solid, "0.2 0.3 0.4")
    text = f'<mujoco><worldbody><geom type="{solid}" size="{size}"/></worldbody></mujoco>'
    model = mujoco.MjModel.from_xml_string(text)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    rng = np.random.default_rng(1)
    points, directions = rng.uniform(-0.6, 0.6, (2, 400, 3))
    expected = []
    for point, direction in zip(points, directions, strict=True):
        hit = np.array([-1], dtype=np.int32)
        ray = mujoco.mj_ray(model, data, point, direction, None, 1, -1, hit, None)
        expected.append(ray >= 0)
    found = meets(solid, model.geom_size[0], torch.as_tensor(points), torch.as_tensor(directions))
    assert 50 < sum(expected) < 350
    assert found.tolist() == expected


def test_derivatives_with_respect_to_the_state(robot: Simulator) -> None:
    names = [
        sensor.name
        for sensor in robot.model.sensors
        if sensor.kind not in ("touch", "force", "torque")
        and sensor.name not in ("gyro", "cut")
        and (sensor.mount is None or sensor.mount.kind in ("site", "body"))
    ]
    generator = torch.Generator().manual_seed(0)
    step = torch.randn(1, robot.model.nv, generator=generator, dtype=torch.float64)
    v = torch.randn(1, robot.model.nv, generator=generator, dtype=torch.float64)
    q = robot.retract(robot.initial_state().q, 0.3 * step)
    weights: dict[str, torch.Tensor] = {}

    def combined(dq: torch.Tensor, v: torch.Tensor, faster: torch.Tensor) -> torch.Tensor:
        state = State(q=robot.retract(q, dq), v=v)
        read = robot.sensors(state, names=names, next_state=State(q=q, v=faster))
        for name, value in read.items():
            weights.setdefault(name, torch.randn(value.shape, generator=generator).double())
        return torch.stack([(weights[name] * value).sum() for name, value in read.items()])

    inputs = tuple(x.clone().requires_grad_() for x in (torch.zeros_like(v), v, v + 0.1))
    assert torch.autograd.gradcheck(combined, inputs, atol=1e-6, rtol=1e-5, fast_mode=True)


def test_an_accelerometers_derivative_passes_through_the_step(
    simulator: Callable[..., Simulator],
) -> None:
    text = """<mujoco><option timestep="0.01"/><worldbody><body pos="0 0 1">
      <joint name="j" axis="0 1 0"/><geom size="0.1" pos="0.4 0 0" mass="1"/>
      <site name="s" pos="0.5 0 0"/></body></worldbody>
      <actuator><motor joint="j"/></actuator>
      <sensor><accelerometer name="a" site="s"/></sensor></mujoco>"""
    sim = simulator(text, backend="reference")
    inputs = tuple(torch.full((1, 1), x).double().requires_grad_() for x in (0.3, 0.7, 0.2))

    def read(q: torch.Tensor, v: torch.Tensor, control: torch.Tensor) -> torch.Tensor:
        return sim.sensors(State(q=q, v=v), control)["a"]

    assert torch.autograd.gradcheck(read, inputs, atol=1e-6, rtol=1e-6)


def test_an_unknown_name_is_answered_with_near_ones(robot: Simulator) -> None:
    with pytest.raises(ModelError, match="no sensor named 'elbw'.*'elbow'"):
        robot.sensors(robot.initial_state(), names=["elbw"])


def test_what_is_not_read_is_said() -> None:
    text = """<mujoco><worldbody><body name="b"><joint/><geom size="0.1"/><site name="s"/></body>
      </worldbody><sensor><rangefinder name="beam" site="s"/><clock name="time"/>
      <gyro site="s"/></sensor></mujoco>"""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = physim.load_model(text)
    assert model.sensor_names == ("gyro_2",)
    said = [str(warning) for warning in model.warnings]
    assert any("'beam'" in note and "rangefinder" in note for note in said)
    assert any("'time'" in note and "clock" in note for note in said)
    assert not any(warning.changes_dynamics for warning in model.warnings)


def test_readings_of_a_trajectory_carry_its_gradient(simulator: Callable[..., Simulator]) -> None:
    text = """<mujoco><option timestep="0.01"/><worldbody><body><joint name="j" type="slide"/>
      <geom size="0.1" mass="2"/></body></worldbody><actuator><motor joint="j"/></actuator>
      <sensor><jointvel name="v" joint="j"/><framelinacc name="a" objtype="xbody" objname="body"/>
      </sensor></mujoco>""".replace("<body>", '<body name="body">')
    sim = simulator(text, backend="reference")
    controls = torch.ones(3, 1, 1, dtype=torch.float64, requires_grad=True)
    read = sim.sensors(sim.rollout(sim.initial_state(), controls))
    (pushed,) = torch.autograd.grad(read["v"][2].sum(), controls, retain_graph=True)
    # Two steps of 0.01 s move 2 kg before the third state.
    torch.testing.assert_close(pushed[:, 0, 0].tolist(), [0.005, 0.005, 0.0])
    (felt,) = torch.autograd.grad(read["a"][1, 0, 2], controls)
    torch.testing.assert_close(felt[:, 0, 0].tolist(), [0.0, 0.5, 0.0])
