"""Chains of every joint that MJCF has: momentum stays, joints hold."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from physim import Simulator, State

LINK = 'mass="{mass}" type="capsule" size="0.05" fromto="0 0 0 0.3 0 0"'
PASSIVE = 'stiffness="2" damping="0.1"'
CHAIN = f"""<mujoco><option gravity="{{gravity}}"/>
  <default><geom contype="0" conaffinity="0"/></default>
  <worldbody>
    <body name="base"><freejoint/><geom {LINK.format(mass=2)}/>
      <body name="shoulder" pos="0.3 0 0" euler="20 0 30"><joint name="ball" type="ball"
          pos="-0.02 0.01 0" damping="0.05"/><geom {LINK.format(mass=1)}/>
        <body name="elbow" pos="0.3 0 0"><joint name="hinge" axis="0 1 0.2" pos="0 0 0.03"
            {PASSIVE} armature="0.01"/><geom {LINK.format(mass=0.7)}/>
          <body name="piston" pos="0.3 0 0"><joint name="slide" type="slide" axis="1 0.5 0"
              {PASSIVE}/><geom {LINK.format(mass=0.5)}/>
            <body name="wrist" pos="0.3 0 0"><joint name="yaw" axis="0 0 1" {PASSIVE}/>
                <joint name="pitch" axis="0 1 0" {PASSIVE}/><joint name="roll" axis="1 0 0"
                {PASSIVE}/><geom {LINK.format(mass=0.3)}/></body>
          </body></body></body>
      <body name="tail" pos="-0.1 0 0"><joint name="rail" type="slide" axis="0 0 1" {PASSIVE}/>
          <joint name="swing" axis="0 1 0" pos="0.05 0 0" {PASSIVE}/>
          <geom {LINK.format(mass=0.4)}/></body>
    </body>
  </worldbody>
  <actuator>
    <motor joint="hinge" gear="2"/><motor joint="slide"/><motor joint="yaw" gear="0.5"/>
    <motor joint="pitch" gear="0.5"/><motor joint="roll" gear="0.5"/><motor joint="rail"/>
    <motor joint="swing"/><position joint="hinge" kp="3" kv="0.1"/>
  </actuator>
</mujoco>"""


def random_start(sim: Simulator, generator: torch.Generator, batch: int) -> State:
    q = sim.model.initial_q.expand(batch, -1).clone()
    q += 0.3 * torch.randn(q.shape, generator=generator, dtype=q.dtype)
    v = torch.randn(batch, sim.model.nv, generator=generator, dtype=q.dtype)
    return sim.initial_state(q=q, v=v, at="node")


def test_internal_forces_do_not_change_the_momentum(
    simulator: Callable[..., Simulator], generator: torch.Generator
) -> None:
    sim = simulator(CHAIN.format(gravity="0 0 0"), timestep=0.01)
    start = random_start(sim, generator, 4)
    controls = torch.randn(150, 4, sim.model.nu, generator=generator, dtype=torch.float64)
    trajectory = sim.rollout(start, controls)
    moved = (trajectory.q[-1] - trajectory.q[0]).abs().amax(-1)
    assert moved.min() > 0.1
    before = sim.momentum(start)
    for step in range(0, 151, 10):
        for now, then in zip(sim.momentum(trajectory.state(step)), before, strict=True):
            assert (now - then).abs().max() <= 1e-9


def test_gravity_changes_the_momentum_by_the_weight(
    simulator: Callable[..., Simulator], generator: torch.Generator
) -> None:
    sim = simulator(CHAIN.format(gravity="0 0 -9.81"), timestep=0.01)
    start = random_start(sim, generator, 2)
    end = sim.rollout(start, steps=50).state(-1)
    gained = sim.momentum(end)[0] - sim.momentum(start)[0]
    weight = float(sim.parameters()["mass"].sum()) * 9.81
    expected = torch.tensor([0.0, 0.0, -0.5 * weight], dtype=torch.float64)
    torch.testing.assert_close(gained, expected.expand(2, 3), atol=1e-8, rtol=0)


@pytest.fixture(scope="module")
def after_10_s(simulator: Callable[..., Simulator]) -> tuple[Simulator, State]:
    sim = simulator(CHAIN.format(gravity="0 0 0"), timestep=0.01)
    start = random_start(sim, torch.Generator().manual_seed(1), 2)
    return sim, sim.rollout(start, steps=1000).state(-1)


@pytest.mark.parametrize("body", ["shoulder", "elbow", "piston", "wrist", "tail"])
def test_joints_hold(after_10_s: tuple[Simulator, State], body: str) -> None:
    """Seen from its parent a body keeps what its joints do not move, after 10 s as at first."""
    sim, end = after_10_s
    poses, model, numbers = sim.forward_kinematics(end), sim.model, sim.parameters()
    record = model.body(body)
    parent, child = record.parent, record.index
    turn = poses.rotation[:, parent].mT
    rotation = turn @ poses.rotation[:, child]
    place = (turn @ (poses.position[:, child] - poses.position[:, parent])[..., None])[..., 0]
    fixed = rotation_matrix(record.quaternion)
    home = numbers["body_position"][child].expand(2, 3)
    for index in record.joints:
        joint = model.joints[index]
        axis = torch.tensor(joint.axis, dtype=torch.float64)
        value = end.q[:, joint.q_index]
        if joint.kind == "slide":
            home = home + value[:, None] * (fixed @ axis)
        elif joint.kind == "hinge" and len(record.joints) == 1:
            torch.testing.assert_close(
                rotation @ axis, (fixed @ axis).expand(2, 3), atol=1e-9, rtol=0
            )
    if body == "piston":
        torch.testing.assert_close(rotation, fixed.expand(2, 3, 3), atol=1e-9, rtol=0)
    # The last joint's anchor is the fixed point of all rotations of a body here.
    anchor = numbers["joint_anchor"][record.joints[-1]]
    seen = place + (rotation @ anchor)
    torch.testing.assert_close(seen, home + fixed @ anchor, atol=1e-9, rtol=0)


def rotation_matrix(quaternion: tuple[float, float, float, float]) -> torch.Tensor:
    w, x, y, z = quaternion
    return torch.tensor(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ],
        dtype=torch.float64,
    )
