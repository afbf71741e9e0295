"""Starts in overlap are told, pushed out at a bounded speed, or refused."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from physim import NumericalWarning, SettingsError, Simulator

BALL = """<mujoco><worldbody><geom name="floor" type="plane" size="1 1 1"/>
  <body pos="0 0 0.064"><freejoint/><geom name="ball" size="0.1" mass="1"/></body>
</worldbody></mujoco>"""
SPEED = 0.2 * math.sqrt(9.81 * 0.1)


def test_overlap_is_told_with_names_and_depth(simulator: Callable[..., Simulator]) -> None:
    sim = simulator(BALL, timestep=0.01)
    with pytest.warns(NumericalWarning, match=r"'floor' and 'ball' overlapping by 36 mm"):
        sim.initial_state()


def test_overlap_is_refused_on_demand(simulator: Callable[..., Simulator]) -> None:
    sim = simulator(BALL, timestep=0.01)
    with pytest.raises(SettingsError, match="overlapping by 36 mm"):
        sim.initial_state(on_penetration="raise")


def test_overlap_may_be_ignored_and_touching_is_none(
    simulator: Callable[..., Simulator],
) -> None:
    sim = simulator(BALL, timestep=0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sim.initial_state(on_penetration="ignore")
        sim.initial_state(q=[0.0, 0.0, 0.1, 1.0, 0.0, 0.0, 0.0], on_penetration="raise")


@pytest.mark.parametrize("timestep", [0.05, 0.01, 0.002])
def test_ball_leaves_the_floor_slowly_and_stays(
    simulator: Callable[..., Simulator], timestep: float
) -> None:
    sim = simulator(BALL, timestep=timestep)
    start = sim.initial_state(on_penetration="ignore")
    trajectory = sim.rollout(start, steps=round(2 / timestep))
    assert bool(trajectory.report.converged.all())
    assert trajectory.v[..., 2].max() <= SPEED * 1.01
    height = trajectory.q[:, 0, 2]
    assert height.max() <= 0.1 + SPEED**2 / (2 * 9.81) + SPEED * timestep
    assert height[-1] == pytest.approx(0.1, abs=2e-6)
    assert trajectory.v[-1].abs().max() <= 1e-4


def test_a_violated_joint_limit_is_recovered_slowly(simulator: Callable[..., Simulator]) -> None:
    sim = simulator(
        """<mujoco><compiler angle="radian"/><option gravity="0 0 0"/><worldbody><body>
        <joint axis="0 1 0" range="-0.5 0.5" limited="true" damping="0.1"/>
        <geom type="capsule" size="0.02" fromto="0 0 0 0.5 0 0" mass="1"/></body>
        </worldbody></mujoco>""",
        timestep=0.01,
    )
    trajectory = sim.rollout(sim.initial_state(q=[0.9]), steps=300)
    assert trajectory.v.abs().max() <= sim.mechanism.recovery.speed * 1.01
    assert float(trajectory.q[-1]) <= 0.5 + sim.mechanism.recovery.dead_band


@pytest.mark.slow
def test_humanoid_standup_starts_in_the_floor_and_is_recovered(
    simulator: Callable[..., Simulator],
) -> None:
    pytest.importorskip("gymnasium")
    import gymnasium

    assets = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"
    sim = simulator(assets / "humanoidstandup.xml", timestep=0.01)
    with pytest.raises(SettingsError, match="overlapping"):
        sim.initial_state(on_penetration="raise")
    with pytest.warns(NumericalWarning, match="overlapping by 3[0-9]"):
        start = sim.initial_state()
    height = start.q[0, 2]
    trajectory = sim.rollout(start, steps=200)
    assert bool(trajectory.report.converged.all())
    assert sim.contact_gaps(trajectory.state(-1)).min() >= -1e-5
    # Thrown out, it would fly; pushed out, its trunk stays near the floor.
    assert (trajectory.q[:, 0, 2] - height).max() <= 0.1
    assert torch.isfinite(trajectory.q).all()


def test_balls_in_one_place_part_and_clear(simulator: Callable[..., Simulator]) -> None:
    ball = '<body><freejoint/><geom size="0.1" mass="1"/></body>'
    text = f"<mujoco><worldbody>{ball}{ball}</worldbody></mujoco>"
    sim = simulator(text, timestep=0.04, backend="reference")
    start = sim.initial_state(on_penetration="ignore")
    assert float(sim.contact_gaps(start)) == pytest.approx(-0.2, abs=1e-9)
    motion = sim.rollout(start, steps=50)
    assert bool(motion.report.converged.all())
    assert float(sim.contact_gaps(motion.state(-1))) > -1e-6
