"""Complementarity, maximum dissipation and smoothing of one contact, from public quantities.

A ball has one contact, so that the generalized force that `inverse_dynamics` finds missing along
its three translations is the contact's impulse over the time step.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from physim import Simulator, State
from physim.dynamics import SolverSettings

GRAVITY, RADIUS, MASS, FRICTION, TIMESTEP = 9.81, 0.1, 0.5, 0.6, 0.01
BALL = f"""<mujoco><option gravity="0 0 -{GRAVITY}"/><worldbody>
  <geom name="floor" type="plane" size="1 1 1" friction="{FRICTION}"/>
  <body><freejoint/>
    <geom name="ball" size="{RADIUS}" mass="{MASS}" friction="{FRICTION}"/></body>
</worldbody></mujoco>"""
BATCH = 64


def rotation(q: torch.Tensor) -> torch.Tensor:
    w, x, y, z = q[:, 3:].unbind(-1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


@pytest.fixture
def contact(
    simulator: Callable[..., Simulator], generator: torch.Generator
) -> tuple[Simulator, State, State, torch.Tensor, torch.Tensor]:
    """Random hits, rolls and slides: before, after, impulse [N s] and slip [m/s]."""
    sim = simulator(BALL, timestep=TIMESTEP, settings=SolverSettings(newton_tolerance=1e-8))
    q = torch.randn(BATCH, 7, generator=generator, dtype=torch.float64)
    q[:, 2] = RADIUS + 0.005 * torch.rand(BATCH, generator=generator, dtype=torch.float64)
    v = torch.randn(BATCH, 6, generator=generator, dtype=torch.float64)
    v[:, 2] = -v[:, 2].abs()
    v[:, 3:] *= 10.0
    # A third of them slow enough, sideways, to stick.
    v[: BATCH // 3, [0, 1, 3, 4, 5]] *= 0.01
    before = sim.initial_state(q=q, v=v)
    after, report = sim.step(before)
    assert bool(report.converged.all())
    impulse = TIMESTEP * sim.inverse_dynamics(before, after)[:, :3]
    lowest = before.q[:, :3] - torch.tensor([0.0, 0.0, RADIUS], dtype=torch.float64)
    local = rotation(before.q).mT @ (lowest - before.q[:, :3])[..., None]
    moved = after.q[:, :3] + (rotation(after.q) @ local)[..., 0]
    return sim, before, after, impulse, ((moved - lowest) / TIMESTEP)[:, :2]


def kappa(sim: Simulator, smoothing: float) -> float:
    return smoothing * MASS * GRAVITY * TIMESTEP * math.sqrt(GRAVITY * sim.mechanism.scales.length)


def test_contact_pushes_and_never_pulls(
    contact: tuple[Simulator, State, State, torch.Tensor, torch.Tensor],
) -> None:
    sim, _, after, impulse, _ = contact
    gap = after.q[:, 2] - RADIUS
    weight = MASS * GRAVITY * TIMESTEP
    assert (impulse[:, 2] > weight).sum() >= BATCH // 4
    # To within the solver's tolerance in units of mass and speed.
    assert impulse[:, 2].min() >= -1e-8 * MASS
    assert gap.min() >= -1e-12
    product = impulse[:, 2] * gap / TIMESTEP
    asked = kappa(sim, sim.smoothing)
    assert product.max() <= asked * 1.01 + 1e-9 * gap.max() / TIMESTEP


def test_friction_stays_in_its_cone(
    contact: tuple[Simulator, State, State, torch.Tensor, torch.Tensor],
) -> None:
    _, _, _, impulse, _ = contact
    drag = impulse[:, :2].norm(dim=-1)
    assert (drag <= FRICTION * impulse[:, 2] * (1 + 1e-6) + 1e-9).all()


def test_friction_opposes_the_slip(
    contact: tuple[Simulator, State, State, torch.Tensor, torch.Tensor],
) -> None:
    _, _, _, impulse, slip = contact
    pressed = impulse[:, 2] > 0.1 * MASS * GRAVITY * TIMESTEP
    slides = pressed & (slip.norm(dim=-1) > 0.01)
    assert int(slides.sum()) >= 10
    b, u = impulse[slides, :2], slip[slides]
    cross = b[:, 0] * u[:, 1] - b[:, 1] * u[:, 0]
    angle = torch.atan2(cross.abs(), -(b * u).sum(-1))
    assert angle.max() <= 1e-3
    torch.testing.assert_close(b.norm(dim=-1), FRICTION * impulse[slides, 2], rtol=1e-4, atol=0)
    sticks = pressed & (slip.norm(dim=-1) < 1e-4)
    assert int(sticks.sum()) >= 3
    assert (impulse[sticks, :2].norm(dim=-1) < FRICTION * impulse[sticks, 2]).all()


@pytest.mark.parametrize("smoothing", [1e-2, 1e-4, 1e-6, 1e-8])
def test_lift_of_a_resting_ball_has_half_the_slope_of_free_flight(
    simulator: Callable[..., Simulator], smoothing: float
) -> None:
    """m s = kappa / s + h (f - m g): at f = m g the slope ds/df is h / (2 m)."""
    sim = simulator(
        BALL,
        timestep=TIMESTEP,
        smoothing=smoothing,
        gradient_smoothing=smoothing,
        backend="reference",
    )
    start = sim.initial_state(q=[0.0, 0.0, RADIUS, 1.0, 0.0, 0.0, 0.0])
    lift = torch.tensor(MASS * GRAVITY, dtype=torch.float64, requires_grad=True)
    force = torch.zeros(1, 1, 6, dtype=torch.float64)
    force = force.index_put((torch.tensor(0), torch.tensor(0), torch.tensor(2)), lift)
    after, _ = sim.step(start, external_force=force)
    (slope,) = torch.autograd.grad(after.v[0, 2], lift)
    expected = math.sqrt(kappa(sim, smoothing) / MASS)
    assert float(after.v[0, 2].detach()) == pytest.approx(expected, rel=1e-6)
    assert float(slope) == pytest.approx(TIMESTEP / (2 * MASS), rel=1e-6)


def test_lift_grows_with_the_force(simulator: Callable[..., Simulator]) -> None:
    sim = simulator(BALL, timestep=TIMESTEP, smoothing=1e-4)
    start = sim.initial_state(41, q=[0.0, 0.0, RADIUS, 1.0, 0.0, 0.0, 0.0])
    force = torch.zeros(41, 1, 6, dtype=torch.float64)
    force[:, 0, 2] = MASS * GRAVITY * torch.linspace(0.0, 2.0, 41, dtype=torch.float64)
    speed = sim.step(start, external_force=force)[0].v[:, 2]
    assert (speed[1:] > speed[:-1]).all()
    # Far from lift-off: at rest below it, in free flight above it.
    assert speed[0] == pytest.approx(0.0, abs=1e-3)
    assert speed[-1] == pytest.approx(GRAVITY * TIMESTEP, rel=1e-2)
