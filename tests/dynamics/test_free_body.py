"""A free rigid body: momentum, energy and the flip about the middle axis."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from physim import Simulator, State

INERTIA = (0.01, 0.02, 0.025)
BODY = """<mujoco><option gravity="0 0 0"/><worldbody>
  <body><freejoint/><inertial pos="0.1 0.05 -0.02" mass="2" diaginertia="0.01 0.02 0.025"/></body>
</worldbody></mujoco>"""


@pytest.mark.parametrize("timestep", [0.05, 0.01, 0.005])
def test_tumbling_body_keeps_momentum_and_energy(
    simulator: Callable[..., Simulator],
    nodes: Callable[..., State],
    timestep: float,
) -> None:
    sim = simulator(BODY, timestep=timestep)
    start = sim.initial_state(v=[0.3, -0.2, 0.5, 1.0, 2.0, 3.0], at="node")
    states = nodes(sim.rollout(start, steps=round(10 / timestep)))
    linear, angular = sim.momentum(states)
    energy = sim.energy(states)
    assert (linear - linear[0]).abs().max() <= 1e-9
    assert (angular - angular[0]).abs().max() <= 1e-9
    assert ((energy - energy[0]) / energy[0]).abs().max() <= 1e-9


def test_momentum_and_energy_are_the_textbooks(simulator: Callable[..., Simulator]) -> None:
    sim = simulator(BODY, timestep=0.01)
    spin, speed = np.array([1.0, 2.0, 3.0]), np.array([0.3, -0.2, 0.5])
    start = sim.initial_state(v=[*speed, *spin], at="node")
    linear, angular = sim.momentum(start)
    center = np.array([0.1, 0.05, -0.02])
    velocity = speed + np.cross(spin, center)
    own = np.array(INERTIA) * spin
    np.testing.assert_allclose(linear[0], 2 * velocity, atol=1e-12)
    np.testing.assert_allclose(angular[0], own + np.cross(center, 2 * velocity), atol=1e-12)
    kinetic = 0.5 * (own @ spin + 2 * velocity @ velocity)
    assert float(sim.energy(start)) == pytest.approx(kinetic, abs=1e-12)


def flips(time: np.ndarray, spin: np.ndarray) -> np.ndarray:
    """Times at which the spin about the middle axis changes its sign."""
    where = np.nonzero(spin[:-1] * spin[1:] < 0)[0]
    share = spin[where] / (spin[where] - spin[where + 1])
    return time[where] + share * (time[where + 1] - time[where])


def test_dzhanibekov_flip_has_the_period_of_eulers_equations(
    simulator: Callable[..., Simulator], nodes: Callable[..., State]
) -> None:
    spin, duration = [0.1, 6.0, 0.1], 20.0

    def euler(_: float, w: np.ndarray) -> list[float]:
        a, b, c = INERTIA
        return [(b - c) / a * w[1] * w[2], (c - a) / b * w[2] * w[0], (a - b) / c * w[0] * w[1]]

    time = np.linspace(0, duration, 20_001)
    exact = solve_ivp(euler, (0, duration), spin, t_eval=time, rtol=1e-11, atol=1e-13)
    expected = np.diff(flips(time, exact.y[1]))
    sim = simulator(BODY.replace('pos="0.1 0.05 -0.02"', 'pos="0 0 0"'), timestep=0.01)
    start = sim.initial_state(v=[0.0, 0.0, 0.0, *spin], at="node")
    trajectory = sim.rollout(start, steps=round(duration / 0.01))
    velocity = sim.node_velocity(nodes(trajectory))
    found = np.diff(flips(trajectory.time.numpy(), velocity[:, 4].numpy()))
    assert len(expected) >= 3
    assert len(found) == len(expected)
    np.testing.assert_allclose(found, expected, rtol=0.01)


def test_free_fall_is_exact(simulator: Callable[..., Simulator]) -> None:
    text = BODY.replace('gravity="0 0 0"', 'gravity="0.3 0 -9.81"')
    sim = simulator(text.replace('pos="0.1 0.05 -0.02"', 'pos="0 0 0"'), timestep=0.02)
    start = sim.initial_state(v=[1.0, 0.0, 2.0, 0.0, 0.0, 0.0], at="node")
    end = sim.rollout(start, steps=50).state(-1)
    gravity = torch.tensor([0.3, 0.0, -9.81], dtype=torch.float64)
    speed = torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64)
    torch.testing.assert_close(end.q[0, :3], speed + 0.5 * gravity, atol=1e-9, rtol=0)
    velocity = sim.node_velocity(end)[0, :3]
    torch.testing.assert_close(velocity, speed + gravity, atol=1e-9, rtol=0)


@pytest.mark.parametrize("timestep", [1e-2, 1e-5, 1e-6])
@pytest.mark.parametrize("place", [0.0, 30.0])
def test_a_slow_start_at_the_node_has_its_velocity_at_any_time_step(
    simulator: Callable[..., Simulator], timestep: float, place: float
) -> None:
    sim = simulator(BODY, timestep=timestep)
    speed = torch.tensor([[1e-3, 0.0, 0.0, 0.0, 2e-3, 1e-3]], dtype=torch.float64)
    pose = sim.model.initial_q.clone()
    pose[:3] += place
    start = sim.initial_state(q=pose, v=speed, at="node")
    # What is left is the rounding of places over a time step.
    rounding = 100 * torch.finfo(torch.float64).eps * (1 + place) ** 2 / timestep
    torch.testing.assert_close(sim.node_velocity(start), speed, rtol=0, atol=1e-9 + rounding)
