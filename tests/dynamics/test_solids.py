"""Boxes and cylinders that balls and capsules meet: a face is a plane, and nothing is created."""

from __future__ import annotations

from collections.abc import Callable

import torch

import physim

Build = Callable[..., physim.Simulator]
WORLD = "<mujoco>{option}<worldbody>{bodies}</worldbody></mujoco>"
ROD = """<body pos="0 0 0.3"><freejoint/>
  <geom type="capsule" size="0.05 0.15" mass="1" friction="0.5" euler="20 70 0"/></body>"""
FLOORS = {
    "box": '<geom type="box" size="4 5 0.7" pos="0.3 0.2 -0.7" friction="0.2"/>',
    "plane": '<geom type="plane" size="4 5 1" friction="0.2"/>',
}
FREE = '<body pos="{}"><freejoint/><geom type="{}" size="{}" friction="0.4" {}/></body>'
CRATE = FREE.format("0 0 0", "box", "0.2 0.15 0.1", "") + FREE.format(
    "0.03 0.02 0.151", "sphere", "0.05", ""
)


def world(bodies: str, option: str = "") -> str:
    return WORLD.format(bodies=bodies, option=option)


def test_the_face_of_a_box_is_a_plane(simulator: Build) -> None:
    generator = torch.Generator().manual_seed(0)
    v = 2.0 * torch.randn(8, 6, generator=generator, dtype=torch.float64)
    ends = []
    for floor in FLOORS.values():
        sim = simulator(world(floor + ROD), timestep=0.01)
        start = sim.initial_state(batch=8)
        motion = sim.rollout(physim.State(q=start.q, v=v), steps=60)
        assert motion.report.counts["min_gap"].min() > -1e-8
        assert bool((motion.q[-1, :, 2] < 0.25).any())
        ends.append(torch.cat([motion.q, motion.v], dim=-1))
    assert (ends[0] - ends[1]).abs().max() < 1e-6


def test_a_collision_keeps_momentum_and_makes_no_energy(simulator: Build) -> None:
    sim = simulator(world(CRATE, '<option gravity="0 0 0"/>'), timestep=0.01)
    generator = torch.Generator().manual_seed(1)
    v = torch.randn(8, 12, generator=generator, dtype=torch.float64)
    v[:, 8] -= 3.0
    q = sim.initial_state(batch=8).q
    motion = sim.rollout(physim.State(q=q, v=v), steps=40)
    assert bool(motion.report.converged.all())
    linear, angular = zip(*(sim.momentum(motion.state(k)) for k in range(41)), strict=True)
    for values in (linear, angular):
        first = values[1]
        assert max(float((x - first).abs().max()) for x in values[2:]) < 1e-8
    energy = torch.stack([sim.energy(motion.state(k)) for k in range(1, 41)])
    assert ((motion.v[-1, :, 6:9] - v[:, 6:9]).norm(dim=-1) > 0.1).sum() > 4
    assert (energy[1:] - energy[:-1]).max() < 1e-6
    assert (energy[-1] < energy[0] - 1e-3).sum() > 4
