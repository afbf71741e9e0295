"""Forces of constraints: Newton's law on every degree of freedom, Coulomb's at every contact."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from physim import SettingsError, ShapeError, Simulator, State, Trajectory
from physim.view import read_trajectory

Build = Callable[..., Simulator]

FALLEN = 80
BOX = """<mujoco><worldbody>
  <geom name="floor" type="plane" size="5 5 1" friction="0.5" euler="0 {angle} 0"/>
  <body pos="0 0 {height}" euler="0 {angle} 0"><freejoint/>
    <geom name="box" type="box" size="0.1 0.2 0.1" mass="{mass}" friction="0.5"/></body>
</worldbody></mujoco>"""
RUBBING = """<mujoco><worldbody><body><joint type="hinge" axis="0 1 0" range="-20 20"
  limited="true" frictionloss="0.05" armature="0.01"/>
  <geom type="capsule" fromto="0 0 0 0.3 0 0" size="0.02" mass="0.5"/></body>
  </worldbody></mujoco>"""


@pytest.fixture(params=["hopper", "ant"])
def fallen(request: pytest.FixtureRequest, simulator: Build) -> tuple[Simulator, Trajectory]:
    """Robots without controls that fall, hit the floor and their limits."""
    import gymnasium

    assets = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"
    sim = simulator(assets / f"{request.param}.xml", timestep=0.01)
    generator = torch.Generator().manual_seed(4)
    v = 2.0 * torch.randn(6, sim.model.nv, generator=generator, dtype=torch.float64)
    start = sim.initial_state(v=v, on_penetration="ignore")
    return sim, sim.rollout(start, steps=FALLEN, keep_impulses=True)


def test_they_balance_what_motion_asks_for(fallen: tuple[Simulator, Trajectory]) -> None:
    """Impulses acted at the node before, on the surfaces there: else this is off by percents."""
    sim, motion = fallen
    weight = 9.81 * float(sim.parameters()["mass"].sum())
    largest = 0.0
    for step in range(motion.steps):
        forces = sim.constraint_forces(motion.state(step + 1))
        asked = sim.inverse_dynamics(motion.state(step), motion.state(step + 1))
        torch.testing.assert_close(forces.generalized, asked, rtol=0, atol=1e-6 * weight)
        largest = max(largest, float(forces.generalized.abs().max()))
    assert largest > weight


def test_coulomb(fallen: tuple[Simulator, Trajectory]) -> None:
    sim, motion = fallen
    mu = max(float(sim.parameters()["friction"].max()), 0.0)
    touched = 0
    for step in range(1, motion.steps + 1):
        state = motion.state(step)
        forces = sim.constraint_forces(state)
        along = (forces.contact * forces.normal).sum(-1)
        aside = (forces.contact - along[..., None] * forces.normal).norm(dim=-1)
        assert float(along.min()) >= -1e-9 * float(along.max().clamp(min=1.0))
        assert (aside <= mu * along + 1e-6 * float(along.max().clamp(min=1.0))).all()
        torch.testing.assert_close(forces.normal.norm(dim=-1), torch.ones_like(along))
        # What pushed has closed; what is open does not push.
        assert (along[sim.contact_gaps(state) > 1e-6] < 1e-5).all()
        touched += int((along > 1.0).sum())
    assert touched > 100


@pytest.mark.parametrize("angle", [0, 20])
@pytest.mark.parametrize("mass", [1.0, 50.0])
def test_a_resting_box_is_carried(simulator: Build, angle: int, mass: float) -> None:
    slope = math.radians(angle)
    text = BOX.format(angle=angle, height=0.1 / math.cos(slope), mass=mass)
    sim = simulator(text, timestep=0.01)
    state = sim.rollout(sim.initial_state(), steps=100).state(-1)
    forces = sim.constraint_forces(state)
    up = torch.tensor([0.0, 0.0, 9.81 * mass], dtype=torch.float64)
    assert set(sim.contact_pairs()) == {("floor", "box")}
    total = forces.contact[0].sum(0)
    torch.testing.assert_close(total, up, rtol=1e-7, atol=1e-7 * mass)
    normal = torch.tensor([math.sin(slope), 0.0, math.cos(slope)], dtype=torch.float64)
    torch.testing.assert_close(forces.normal[0], normal.expand(len(forces.normal[0]), 3))
    # They act on the surface of the floor, and their moment about the centre is none.
    pushes = forces.contact[0].norm(dim=-1) > 1e-9 * mass
    assert (forces.point[0][pushes] @ normal).abs().max() < 1e-9
    lever = forces.point[0] - state.q[0, :3]
    moment = torch.linalg.cross(lever, forces.contact[0]).sum(0)
    assert moment.abs().max() < 1e-6 * mass


@pytest.mark.parametrize("is_swapped", [False, True])
def test_the_first_pushes_the_second(simulator: Build, is_swapped: bool) -> None:
    """A ball that carries another: whichever the file names first, the upper one is pushed up."""
    balls = [
        f"""<body pos="0 0 {z}"><joint type="slide" axis="0 0 1"/>
          <geom name="{name}" size="0.1" mass="{mass}"/></body>"""
        for name, z, mass in (("lower", 0.1, 1.0), ("upper", 0.3, 2.0))
    ]
    text = "".join(reversed(balls) if is_swapped else balls)
    sim = simulator(
        f"""<mujoco><worldbody><geom name="floor" type="plane" size="1 1 1"/>{text}</worldbody>
        </mujoco>""",
        timestep=0.01,
    )
    state = sim.rollout(sim.initial_state(), steps=20).state(-1)
    forces = sim.constraint_forces(state).contact[0, :, 2].tolist()
    found = dict(zip(sim.contact_pairs(), forces, strict=True))
    pair = ("upper", "lower") if is_swapped else ("lower", "upper")
    weight = 2.0 * 9.81
    assert found[pair] == pytest.approx(-weight if is_swapped else weight, rel=1e-6)
    assert found["floor", "lower"] == pytest.approx(3.0 * 9.81, rel=1e-6)


@pytest.mark.parametrize("backend", ["kernel", "reference"])
def test_limits_and_dry_friction(simulator: Build, backend: str) -> None:
    """A hinge falls on its limit, which then carries what dry friction does not."""
    sim = simulator(RUBBING, timestep=0.01, backend=backend)
    motion = sim.rollout(sim.initial_state(), steps=60, keep_impulses=True)
    first = sim.constraint_forces(motion.state(1)).generalized[0, 0]
    assert float(first) == pytest.approx(-0.05)
    last = sim.constraint_forces(motion.state(-1)).generalized[0, 0]
    drop = float(motion.q[-1, 0, 0])
    assert drop == pytest.approx(math.radians(20), abs=1e-9)
    assert float(last) == pytest.approx(-0.5 * 9.81 * 0.15 * math.cos(drop), rel=1e-9)


def test_larger_shapes_touch_elsewhere(simulator: Build) -> None:
    """Forces belong to the parameters of their step."""
    text = """<mujoco><worldbody><geom type="plane" size="5 5 1"/>
      <body pos="0 0 0.4"><freejoint/><geom size="0.1" mass="1"/></body></worldbody></mujoco>"""
    sim = simulator(text, timestep=0.01)
    size = sim.parameters()["shape_size"].clone()
    size[size == 0.1] = 0.3
    larger = {"shape_size": size}
    state = sim.rollout(sim.initial_state(), steps=80, parameters=larger).state(-1)
    forces = sim.constraint_forces(state, parameters=larger)
    assert float(state.q[0, 2]) == pytest.approx(0.3, abs=1e-9)
    assert float(forces.point[0, 0, 2]) == pytest.approx(0.0, abs=1e-9)
    assert float(forces.contact[0, 0].norm()) == pytest.approx(9.81, rel=1e-6)


@pytest.mark.parametrize("options", [{}, {"checkpoint_every": 7}])
def test_every_state_of_a_trajectory_can_be_gone_on_from(
    fallen: tuple[Simulator, Trajectory], options: dict[str, int]
) -> None:
    sim, motion = fallen
    for step in (1, 17, FALLEN - 3):
        rest = sim.rollout(motion.state(step), steps=FALLEN - step)
        assert torch.equal(rest.q, motion.q[step:])
        assert torch.equal(motion.state(step - FALLEN - 1).impulses, motion.state(step).impulses)
    q = motion.q[0].clone().requires_grad_()
    start = State(q=q, v=motion.v[0])
    kept = sim.rollout(start, steps=FALLEN, keep_impulses=True, **options)
    assert torch.equal(kept.impulses, motion.impulses)
    plain = sim.rollout(start, steps=FALLEN, **options)
    assert torch.equal(plain.impulses, motion.impulses[-1:])
    weights = torch.randn(q.shape, generator=torch.Generator().manual_seed(1)).double()
    one, other = (torch.autograd.grad((run.q[-1] * weights).sum(), q)[0] for run in (kept, plain))
    assert torch.equal(one, other)


@pytest.mark.parametrize("ending", [".npz", ".h5"])
def test_they_are_saved(fallen: tuple[Simulator, Trajectory], tmp_path: Path, ending: str) -> None:
    _, motion = fallen
    again = read_trajectory(motion.save(tmp_path / f"run{ending}"))
    assert torch.equal(again.impulses, motion.impulses)
    assert again.report.counts.keys() == motion.report.counts.keys()


def test_a_state_without_impulses_has_no_forces(fallen: tuple[Simulator, Trajectory]) -> None:
    sim, motion = fallen
    with pytest.raises(SettingsError, match=r"state\.impulses is None.*keep_impulses"):
        sim.constraint_forces(motion.state(0))
    there = motion.state(5)
    with pytest.raises(ShapeError, match=r"state\.impulses has shape"):
        sim.constraint_forces(State(q=there.q, v=there.v, impulses=there.impulses[:, 1:]))


def test_nothing_touches_in_free_flight(simulator: Build) -> None:
    text = """<mujoco><worldbody><body pos="0 0 1"><freejoint/><geom size="0.1" mass="1"/></body>
      </worldbody></mujoco>"""
    sim = simulator(text, timestep=0.01)
    state, _ = sim.step(sim.initial_state(batch=3))
    forces = sim.constraint_forces(state)
    assert forces.contact.shape == forces.point.shape == forces.normal.shape == (3, 0, 3)
    assert (forces.generalized == 0.0).all()
