"""Sliding, sticking and slipping on planes and on bodies: Coulomb's law in every direction."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from physim import Simulator

GRAVITY, FRICTION, SPEED, TIMESTEP = 9.81, 0.5, 2.0, 0.01
SLED = f"""<mujoco><option gravity="0 0 -{GRAVITY}"/><worldbody>
  <geom name="floor" type="plane" size="1 1 1" friction="{FRICTION}" {{tilt}}/>
  <body><freejoint/>
    <geom name="sled" type="box" size="0.2 0.2 0.05" mass="1" friction="{FRICTION}"/></body>
</worldbody></mujoco>"""
FLAT = SLED.format(tilt="")


def angle_between(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Angle between plane vectors [deg]."""
    cross = a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
    return torch.rad2deg(torch.atan2(cross, (a * b).sum(-1)))


def test_sliding_box_keeps_its_heading_and_stops_in_time(
    simulator: Callable[..., Simulator],
) -> None:
    sim = simulator(FLAT, timestep=TIMESTEP)
    headings = 2 * math.pi * (torch.arange(16, dtype=torch.float64) + 0.3) / 16
    direction = torch.stack([torch.cos(headings), torch.sin(headings)], dim=-1)
    q = torch.tensor([0.0, 0.0, 0.05, 1.0, 0.0, 0.0, 0.0], dtype=torch.float64).repeat(16, 1)
    v = torch.zeros(16, 6, dtype=torch.float64)
    v[:, :2] = SPEED * direction
    trajectory = sim.rollout(sim.initial_state(q=q, v=v), steps=80)
    assert bool(trajectory.report.converged.all())
    travel = trajectory.q[-1, :, :2]
    error = angle_between(direction, travel)
    distance = travel.norm(dim=-1)
    expected = SPEED**2 / (2 * FRICTION * GRAVITY) - 0.5 * SPEED * TIMESTEP
    missed = float((distance - expected).abs().max())
    print(f"heading {float(error.abs().max()):.1e} deg, distances off by at most {missed:.1e} m")
    assert error.abs().max() <= 1e-3
    assert missed <= 1e-4
    assert error.max() - error.min() <= 1e-3
    assert distance.max() - distance.min() <= 1e-5


BALL_ON_BAR = """<mujoco><option gravity="0 0 0"/><worldbody>
  {bar}
  <body name="ball"><freejoint/>
    <geom name="ball" size="0.1" mass="1" friction="0.5"/></body>
</worldbody></mujoco>"""
BAR = '<geom name="bar" type="capsule" size="0.1" fromto="-1 -0.5 -0.3 1 0.5 0.3" friction="0.5"'
FIXED_BAR = BALL_ON_BAR.format(bar=f"{BAR}/>")
FREE_BAR = BALL_ON_BAR.format(bar=f'<body name="bar"><freejoint/>{BAR} mass="2"/></body>')


def oblique_contact() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Where the ball touches the bar, the oblique normal there, and 16 tangents."""
    along = torch.tensor([1.0, 0.5, 0.3], dtype=torch.float64)
    along = along / along.norm()
    normal = torch.linalg.cross(along, torch.tensor([0.4, 1.0, -0.7], dtype=torch.float64))
    normal = normal / normal.norm()
    side = torch.linalg.cross(normal, along)
    heading = 2 * math.pi * (torch.arange(16, dtype=torch.float64) + 0.3)[:, None] / 16
    return 0.2 * normal, normal, torch.cos(heading) * along + torch.sin(heading) * side


def test_friction_between_bodies_opposes_the_slip_in_every_heading(
    simulator: Callable[..., Simulator],
) -> None:
    """A ball pressed along an oblique normal onto a fixed bar while it slides."""
    sim = simulator(FIXED_BAR, timestep=1e-4)
    place, normal, tangents = oblique_contact()
    q = torch.tensor([*place, 1.0, 0.0, 0.0, 0.0], dtype=torch.float64).repeat(16, 1)
    v = torch.zeros(16, 6, dtype=torch.float64)
    v[:, :3] = tangents - 0.5 * normal
    after, report = sim.step(sim.initial_state(q=q, v=v))
    assert bool(report.converged.all())
    change = after.v[:, :3] - v[:, :3]
    push = change @ normal
    drag = change - push[:, None] * normal
    cosine = -(drag * tangents).sum(-1) / drag.norm(dim=-1)
    across = torch.linalg.cross(drag, tangents).norm(dim=-1) / drag.norm(dim=-1)
    assert push.min() > 0.4
    assert torch.rad2deg(torch.atan2(across, cosine)).max() <= 1e-3
    torch.testing.assert_close(drag.norm(dim=-1), 0.5 * push, rtol=1e-5, atol=0)


def test_friction_between_two_free_bodies_is_isotropic(
    simulator: Callable[..., Simulator],
) -> None:
    """Tangents that are not unit vectors would make the cone an ellipse."""
    sim = simulator(FREE_BAR, timestep=1e-3)
    place, normal, tangents = oblique_contact()
    q = torch.zeros(16, 14, dtype=torch.float64)
    q[:, 3], q[:, 10], q[:, 7:10] = 1.0, 1.0, place
    names = [body.name for body in sim.model.bodies]
    assert names == ["bar", "ball"]
    v = torch.zeros(16, 12, dtype=torch.float64)
    v[:, 6:9] = 2.0 * tangents - 0.5 * normal
    start = sim.initial_state(q=q, v=v)
    assert sim.contact_gaps(start).abs().max() <= 1e-9
    after, report = sim.step(start)
    assert bool(report.converged.all())
    change = after.v[:, 6:9] - v[:, 6:9]
    push = change @ normal
    drag = (change - push[:, None] * normal).norm(dim=-1)
    assert push.min() > 0.1
    torch.testing.assert_close(drag, 0.5 * push, rtol=1e-5, atol=0)
    torch.testing.assert_close(2.0 * after.v[:, :3], -change, atol=1e-9, rtol=0)


def slope(sim: Simulator, degrees: float) -> tuple[torch.Tensor, list[float]]:
    """Downhill direction, and a sled that lies on the slope."""
    a = math.radians(degrees)
    downhill = torch.tensor([math.cos(a), 0.0, -math.sin(a)], dtype=torch.float64)
    half = a / 2
    q = [0.05 * math.sin(a), 0.0, 0.05 * math.cos(a), math.cos(half), 0.0, math.sin(half), 0.0]
    return downhill, q


@pytest.mark.parametrize(
    ("smoothing", "most"), [(None, 1e-4), (1e-9, 1e-6)], ids=["default", "smallest"]
)
def test_sled_sticks_on_a_gentle_slope(
    simulator: Callable[..., Simulator], smoothing: float | None, most: float
) -> None:
    settings = {} if smoothing is None else {"smoothing": smoothing}
    sim = simulator(SLED.format(tilt='euler="0 20 0"'), timestep=TIMESTEP, **settings)
    _, q = slope(sim, 20.0)
    trajectory = sim.rollout(sim.initial_state(q=q), steps=1000)
    assert bool(trajectory.report.converged.all())
    creep = (trajectory.q[-1, 0, :3] - trajectory.q[0, 0, :3]).norm()
    print(f"creep {float(creep):.2e} m in 10 s")
    assert creep <= most


def test_sled_slides_down_a_steep_slope(simulator: Callable[..., Simulator]) -> None:
    sim = simulator(SLED.format(tilt='euler="0 30 0"'), timestep=TIMESTEP)
    downhill, q = slope(sim, 30.0)
    trajectory = sim.rollout(sim.initial_state(q=q), steps=100)
    assert bool(trajectory.report.converged.all())
    speed = trajectory.v[:, 0, :3] @ downhill
    found = float(speed[100] - speed[20]) / 0.8
    a = math.radians(30.0)
    assert found == pytest.approx(GRAVITY * (math.sin(a) - 0.5 * math.cos(a)), rel=1e-3)
