"""Capsules that lie on one another: a log rests in a cradle, and its weight is carried."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

import physim

Build = Callable[..., physim.Simulator]
WORLD = '<mujoco><worldbody><geom type="plane" size="5 5 1"/>{}</worldbody></mujoco>'
LOG = """<body pos="{} {} {}" euler="{}">{}
  <geom type="capsule" size="0.1 {}" mass="1" friction="0.5"/></body>"""
TOP = 0.1 + 0.1 * math.sqrt(3)
GRAVITY = 9.81


def log(
    x: float, y: float, z: float, *, half: float = 0.5, turned: str = "90 0 0", held: bool = False
) -> str:
    return LOG.format(x, y, z, turned, "" if held else "<freejoint/>", half)


CRADLE = log(-0.1, 0, 0.1, held=True) + log(0.1, 0, 0.1, held=True)
SCENES = {
    "shorter log in a cradle": CRADLE + log(0, 0.1, TOP + 0.05, half=0.3, turned="93 2 4"),
    "equal log in a cradle": CRADLE + log(0, 0, TOP),
    "on two free ones": log(-0.1, 0, 0.1) + log(0.1, 0, 0.1) + log(0, 0.1, TOP, half=0.3),
    "across two free ones": log(-0.2, 0, 0.1) + log(0.2, 0, 0.1) + log(0, 0, 0.3, turned="0 90 0"),
}


@pytest.mark.parametrize(
    "scene", [pytest.param(k, marks=pytest.mark.slow if "free" in k else ()) for k in SCENES]
)
def test_logs_come_to_rest_on_logs_or_roll_off(simulator: Build, scene: str) -> None:
    sim = simulator(WORLD.format(SCENES[scene]), timestep=0.01)
    start = sim.initial_state(batch=4)
    generator = torch.Generator().manual_seed(0)
    v = 0.2 * torch.randn(start.v.shape, generator=generator, dtype=torch.float64)
    motion = sim.rollout(physim.State(q=start.q, v=v), steps=150)
    assert bool(motion.report.converged.all())
    assert motion.report.counts["min_gap"].min() > -1e-6
    # Contact points that turn within a step leave an error of its first order.
    energy = torch.stack([sim.energy(motion.state(k)) for k in range(1, 151)])
    assert (energy[1:] - energy[:-1]).max() < 1e-2
    if "cradle" in scene:
        # Friction may hold a log askew, a little above where it would lie.
        height = motion.q[-1, :, 2] - TOP
        assert height.min() > -1e-7
        assert height.max() < 0.02


@pytest.mark.parametrize("half", [0.3, 0.5, 0.7])
def test_a_cradle_carries_the_weight(simulator: Build, half: float) -> None:
    sim = simulator(WORLD.format(CRADLE + log(0, 0.05, TOP, half=half)), timestep=0.01)
    state = sim.initial_state()
    for _ in range(10):
        state, _ = sim.step(state)
    forces = sim.constraint_forces(state)
    on_log = [pair[1] == "shape_3" for pair in sim.contact_pairs()]
    force, point = forces.contact[0, on_log], forces.point[0, on_log]
    total = force.sum(0)
    weight = torch.tensor([0.0, 0.0, GRAVITY], dtype=torch.float64)
    torch.testing.assert_close(total, weight, rtol=0, atol=1e-6)
    moment = torch.linalg.cross(point - state.q[0, :3], force).sum(0)
    assert moment.abs().max() < 1e-6
    # One half of it comes from each side, which stand at 60 degrees.
    side = force[force[:, 0] > 0].sum(0)
    assert float(side[2]) == pytest.approx(GRAVITY / 2, abs=1e-6)
    assert float((state.v).abs().max()) < 1e-9


def test_limbs_of_one_body_touch_at_one_point(simulator: Build) -> None:
    limb = """<body pos="{} 0 0"><joint axis="0 1 0"/>
      <geom type="capsule" size="0.1 0.3" mass="1"/></body>"""
    limbs = limb.format(-0.3) + limb.format(0.3)
    robot = f'<body pos="0 0 1"><freejoint/><geom size="0.05"/>{limbs}</body>'
    sim = simulator(f"<mujoco><worldbody>{robot}</worldbody></mujoco>")
    assert sim.contact_pairs().count(("shape_1", "shape_2")) == 1
    apart = f"<mujoco><worldbody>{log(0, 0, 1) + log(1, 0, 1)}</worldbody></mujoco>"
    assert len(simulator(apart).contact_pairs()) == 5


def test_a_crossing_log_is_where_its_axis_is(simulator: Build) -> None:
    """The margin that puts ends first is nothing at right angles."""
    logs = log(0, 0, 0.1, held=True) + log(0, 0, 0.3, turned="0 90 0")
    sim = simulator(WORLD.format(logs), timestep=0.01)
    gaps = sim.contact_gaps(sim.initial_state())[0]
    assert float(gaps.abs().min()) < 1e-9
