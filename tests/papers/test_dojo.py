"""Howell, Le Cleac'h, Bruedigam, Chen, Sun, Kolter, Schwager, Manchester: Dojo (2022-2025).

Claims that a simulator of this kind makes, in the paper's settings, with our tolerance:

| claim                                                     | paper / its code        | here      |
|-----------------------------------------------------------|-------------------------|-----------|
| momentum of a free chain is conserved (no gravity, 1 s)   | 1e-8                    | 1e-9      |
| a tossed box comes to rest without penetrating, h = 0.1 s | sdf >= 0, speed 1e-8    | -1e-9 m   |
| gradients are those of the asked central-path parameter   | off by 3 orders         | 1 %       |
| friction has no preferred directions                      | pyramid-free on planes  | 1e-3 deg  |
| a step takes about ten Newton iterations, at most 15      | "typically ~10", <= 15  | mean <= 4 |
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from physim import Simulator, State

SNAKE = """<mujoco><option gravity="0 0 0"/><default><geom contype="0" conaffinity="0"/></default>
<worldbody><body><freejoint/><geom type="capsule" size="0.05" fromto="0 0 0 0 0 -1" mass="1"/>
  {links}</body></worldbody></mujoco>"""
LINK = """<body pos="0 0 -1">{joint}
  <geom type="capsule" size="0.05" fromto="0 0 0 0 0 -1" mass="1"/>{{}}</body>"""
JOINTS = {
    "hinge": '<joint axis="1 0 0" stiffness="1" damping="0.1"/>',
    "slide": '<joint type="slide" axis="1 0 0" stiffness="1" damping="0.1"/>',
    "ball": '<joint type="ball" damping="0.1"/>',
    "universal": '<joint axis="1 0 0" damping="0.1"/><joint axis="0 1 0" damping="0.1"/>',
    "cylindrical": '<joint axis="0 0 1" damping="0.1"/>'
    '<joint type="slide" axis="0 0 1" stiffness="1" damping="0.1"/>',
    "planar": '<joint type="slide" axis="1 0 0" stiffness="1"/>'
    '<joint type="slide" axis="0 1 0" stiffness="1"/><joint axis="0 0 1" damping="0.1"/>',
}
BLOCK = """<mujoco><worldbody><geom type="plane" size="1 1 1" friction="0.5"/>
  <body pos="0 0 1"><freejoint/>
    <geom type="box" size="0.25 0.25 0.25" mass="1" friction="0.5"/></body>
</worldbody></mujoco>"""


@pytest.mark.slow
@pytest.mark.parametrize("joint", list(JOINTS))
def test_momentum_of_a_snake_is_conserved(simulator: Callable[..., Simulator], joint: str) -> None:
    link = LINK.format(joint=JOINTS[joint])
    text = SNAKE.format(links=link.format(link.format("")))
    sim = simulator(text, timestep=0.01)
    random = torch.Generator().manual_seed(0)
    v = torch.randn(sim.model.nv, generator=random, dtype=torch.float64)
    start = sim.initial_state(v=v, at="node")
    trajectory = sim.rollout(start, steps=100)
    for step in (50, 100):
        for now, then in zip(
            sim.momentum(trajectory.state(step)), sim.momentum(start), strict=True
        ):
            assert (now - then).abs().max() <= 1e-9


def test_a_block_comes_to_rest_at_ten_hertz(simulator: Callable[..., Simulator]) -> None:
    sim = simulator(BLOCK, timestep=0.1)
    v = [1.0, 0.3, 0.0, 2.0, -3.0, 4.0]
    trajectory = sim.rollout(sim.initial_state(v=v), steps=60)
    assert trajectory.report.counts["min_gap"].min() >= -1e-9
    assert trajectory.v[-1].norm() <= 1e-8
    # Newton's method needs few; where it does not verify, an interior point is added to them.
    assert trajectory.report.iterations.double().mean() <= 4
    assert trajectory.report.iterations.max() <= 30


@pytest.mark.parametrize("smoothing", [1e-2, 1e-4, 1e-6])
def test_gradients_belong_to_the_asked_path_parameter(
    simulator: Callable[..., Simulator], smoothing: float
) -> None:
    """Lift of a resting ball: 2 m s = h (f - m g) + sqrt((h (f - m g))^2 + 4 m kappa)."""
    text = BLOCK.replace('type="box" size="0.25 0.25 0.25"', 'size="0.25"')
    sim = simulator(text, timestep=0.05, gradient_smoothing=smoothing, backend="reference")
    start = sim.initial_state(q=[0.0, 0.0, 0.25, 1.0, 0.0, 0.0, 0.0])
    kappa = smoothing * 9.81 * 0.05 * math.sqrt(9.81 * sim.mechanism.scales.length)
    # A push down of a tenth of the weight, so that the slope tells kappa.
    push = torch.tensor(-0.981, dtype=torch.float64, requires_grad=True)
    force = torch.zeros(1, 1, 6, dtype=torch.float64)
    force = force.index_put((torch.tensor(0), torch.tensor(0), torch.tensor(2)), push)
    after, _ = sim.step(start, external_force=force)
    (slope,) = torch.autograd.grad(after.v[0, 2], push)
    load = 0.05 * (-0.981 - 9.81)
    expected = 0.05 * 0.5 * (1 + load / math.sqrt(load**2 + 4 * kappa))
    assert float(slope) == pytest.approx(expected, rel=0.01)


def test_friction_on_a_plane_has_no_preferred_directions(
    simulator: Callable[..., Simulator],
) -> None:
    sim = simulator(BLOCK, timestep=0.05)
    heading = 2 * math.pi * torch.arange(8, dtype=torch.float64) / 8 + 0.1
    q = torch.tensor([0.0, 0.0, 0.25, 1.0, 0.0, 0.0, 0.0], dtype=torch.float64).repeat(8, 1)
    v = torch.zeros(8, 6, dtype=torch.float64)
    v[:, 0], v[:, 1] = torch.cos(heading), torch.sin(heading)
    after, _ = sim.step(State(q=q, v=v))
    left = torch.atan2(after.v[:, 1], after.v[:, 0]) - heading
    turned = torch.rad2deg(torch.remainder(left + math.pi, 2 * math.pi) - math.pi)
    assert turned.abs().max() <= 1e-3
    speeds = after.v[:, :2].norm(dim=-1)
    assert speeds.max() - speeds.min() <= 1e-5
