"""Pendulums and sliders: energy, order, springs and limits against closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from physim import Simulator, State

DOUBLE = """<mujoco><default><geom contype="0" conaffinity="0"/></default><worldbody>
  <body><joint axis="0 1 0"/><geom type="capsule" size="0.02" fromto="0 0 0 0 0 -1" mass="1"/>
    <body pos="0 0 -1"><joint axis="0 1 0"/>
      <geom type="capsule" size="0.02" fromto="0 0 0 0 0 -1" mass="1"/></body></body>
</worldbody></mujoco>"""
WEIGHT = 9.81
"""m g L of a link [J]."""

SLIDER = """<mujoco><option gravity="0 0 0"/><worldbody>
  <body><joint type="slide" axis="1 0 0" stiffness="100"/><geom size="0.1" mass="1"/></body>
</worldbody></mujoco>"""

LIMITED = """<mujoco><compiler angle="radian"/><worldbody><body>
  <joint axis="0 1 0" range="-0.5 0.7" limited="true"/>
  <geom type="capsule" size="0.02" fromto="0 0 0 0.5 0 0.1" mass="1"/></body>
</worldbody></mujoco>"""


def energy_error(sim: Simulator, nodes: Callable[..., State], duration: float) -> np.ndarray:
    start = sim.initial_state(q=[1.0, 0.0])
    steps = round(duration / sim.timestep)
    energy = sim.energy(nodes(sim.rollout(sim.initial_state(q=start.q, at="node"), steps=steps)))
    return ((energy - energy[0]) / WEIGHT).numpy()


@pytest.mark.slow
def test_double_pendulum_keeps_its_energy_for_100_s(
    simulator: Callable[..., Simulator], nodes: Callable[..., State]
) -> None:
    sim = simulator(DOUBLE, timestep=0.01)
    error = energy_error(sim, nodes, 100.0)
    assert np.abs(error).max() <= 5e-4
    # The oscillation is far larger than the trend: average it over ten seconds at both ends.
    secular = error[-1000:].mean() - error[:1000].mean()
    slope = np.polyfit(np.linspace(0.0, 1.0, len(error)), error, 1)[0]
    print(f"max {np.abs(error).max():.2e}, ends {secular:.2e}, trend {slope:.2e}")
    assert abs(slope) <= 1e-5


def test_double_pendulums_energy_error_is_of_second_order(
    simulator: Callable[..., Simulator], nodes: Callable[..., State]
) -> None:
    errors = [
        np.abs(energy_error(simulator(DOUBLE, timestep=h), nodes, 2.0)).max()
        for h in (0.02, 0.01, 0.005, 0.0025)
    ]
    ratios = np.array(errors[:-1]) / np.array(errors[1:])
    assert (ratios >= 3.6).all()
    assert (ratios <= 4.4).all()


def test_spring_slider_swings_like_the_closed_form(
    simulator: Callable[..., Simulator], nodes: Callable[..., State]
) -> None:
    sim = simulator(SLIDER, timestep=0.01)
    omega, amplitude = 10.0, 0.2
    trajectory = sim.rollout(sim.initial_state(q=[amplitude], at="node"), steps=500)
    states = nodes(trajectory)
    q, v = states.q[:, 0], sim.node_velocity(states)[:, 0]
    reach = (q**2 + (v / omega) ** 2).sqrt()
    assert (reach - amplitude).abs().max() <= 1e-4 * amplitude
    assert (reach * omega - amplitude * omega).abs().max() <= 1e-4 * amplitude * omega
    energy = sim.energy(states)
    assert (energy / (0.5 * 100 * amplitude**2) - 1).abs().max() <= 1e-3
    # The only error left is the phase's: tan(phase / 2) = omega h / 2 per step.
    phase = 2 * math.atan(omega * 0.01 / 2) * torch.arange(501, dtype=torch.float64)
    torch.testing.assert_close(q, amplitude * torch.cos(phase), atol=1e-8, rtol=0)


def test_a_servo_stores_no_energy(simulator: Callable[..., Simulator]) -> None:
    servo = '<actuator><position joint="j" kp="40" kv="2"/></actuator></mujoco>'
    held = SLIDER.replace("<joint", '<joint name="j"').replace("</mujoco>", servo)
    sim = simulator(held, timestep=0.01)
    start = sim.initial_state(q=[0.2], v=[3.0], at="node")
    assert float(sim.energy(start)) == pytest.approx(0.5 * 3.0**2 + 0.5 * 100 * 0.2**2, rel=1e-9)


@pytest.mark.parametrize("timestep", [0.05, 0.01])
def test_pendulum_rests_on_its_limit(simulator: Callable[..., Simulator], timestep: float) -> None:
    sim = simulator(LIMITED, timestep=timestep)
    trajectory = sim.rollout(sim.initial_state(q=[[0.0], [-0.4]]), steps=round(5 / timestep))
    angle = trajectory.q[..., 0]
    assert bool(trajectory.report.converged.all())
    assert angle.max() <= 0.7 + 1e-6
    assert angle.min() >= -0.5 - 1e-6
    assert (angle[-1] - 0.7).abs().max() <= 1e-4
    assert trajectory.v[-1].abs().max() <= 1e-6
    # The slack of the limit counts in the convergence test.
    assert trajectory.report.residual.max() <= sim.settings.newton_tolerance
    assert trajectory.report.counts["kappa_error"].max() <= 0.01


def test_damper_takes_the_energy_that_the_closed_form_says(
    simulator: Callable[..., Simulator],
) -> None:
    sim = simulator(SLIDER.replace('stiffness="100"', 'damping="0.8"'), timestep=0.01)
    end = sim.rollout(sim.initial_state(v=[1.0], at="node"), steps=200).state(-1)
    assert float(sim.node_velocity(end)) == pytest.approx(math.exp(-0.8 * 2.0), rel=1e-5)


def test_dry_friction_stops_a_slider_where_coulomb_says(
    simulator: Callable[..., Simulator],
) -> None:
    sim = simulator(SLIDER.replace('stiffness="100"', 'frictionloss="2"'), timestep=0.01)
    trajectory = sim.rollout(sim.initial_state(v=[1.0]), steps=200)
    travel = 1.0 / (2 * 2.0) - 0.5 * 0.01
    assert float(trajectory.q[-1]) == pytest.approx(travel, abs=1e-4)
    assert float(trajectory.v[-1].abs()) <= 1e-5


def test_a_start_at_the_node_counts_the_control_of_the_first_step(
    simulator: Callable[..., Simulator],
) -> None:
    """The node velocity under that control is the one asked for."""
    sim = simulator(
        """<mujoco><worldbody><body><joint name="h" axis="0 1 0" damping="0.1"/>
        <geom type="capsule" size="0.02" fromto="0 0 0 0.3 0 0" mass="1"/></body></worldbody>
        <actuator><motor joint="h" gear="2"/></actuator></mujoco>""",
        timestep=0.01,
    )
    state = sim.initial_state(q=[0.3], v=[1.5], control=[0.7], at="node")
    assert float(sim.node_velocity(state, [0.7])[0, 0]) == pytest.approx(1.5, rel=1e-12)
    assert float(sim.node_velocity(state)[0, 0]) != pytest.approx(1.5, rel=1e-3)
