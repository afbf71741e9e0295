"""One-step gradients of the kernel against difference quotients of the step itself."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import physim

REGIMES = ("flight", "sliding", "sticking", "impact", "limits")
SMOOTHINGS = (1e-3, 1e-6)
STATE_AND_FORCE = ("q", "v", "interval", "control", "external_force")
PARAMETERS = (
    "gravity timestep mass center_of_mass inertia body_position joint_anchor stiffness "
    "spring_reference damping armature friction_loss limit_lower limit_upper shape_size "
    "shape_position friction pair_friction gear gain bias control_lower control_upper force_lower "
    "force_upper"
).split()
TOLERANCE = 1e-6
# Derivatives below 1 cm/s per unit drown in the rounding of the quotient; they count as this large.
FLOOR = 1e-2

Slopes = dict[str, tuple[Tensor, Tensor]]


def slopes(probe: Any) -> Slopes:
    """Per input the derivatives along a random direction: adjoint, difference quotient."""
    generator = torch.Generator().manual_seed(0)
    jacobians = probe.jacobians()
    directions = [(name, probe.direction(name, generator)) for name in jacobians]
    return {
        name: (torch.einsum("n...,...->n", jacobians[name], direction), quotient)
        for (name, direction), quotient in zip(
            directions, probe.differences(directions), strict=True
        )
    }


def error(pair: tuple[Tensor, Tensor]) -> float:
    adjoint, quotient = pair
    return float((adjoint - quotient).abs().max() / quotient.abs().max().clamp(min=FLOOR))


def effect(pair: tuple[Tensor, Tensor]) -> float:
    return float(pair[0].abs().max())


@pytest.fixture(scope="module")
def measured(
    make_probe: Callable[..., Any], zoo_states: Mapping[str, physim.State]
) -> Callable[[str, float], Slopes]:
    """Slopes of one regime at one smoothing, measured once."""
    known: dict[tuple[str, float], Slopes] = {}

    def measure(regime: str, smoothing: float) -> Slopes:
        if (regime, smoothing) not in known:
            probe = make_probe("zoo", zoo_states[regime], smoothing)
            known[regime, smoothing] = slopes(probe)
        return known[regime, smoothing]

    return measure


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("name", [*STATE_AND_FORCE, *PARAMETERS])
def test_gradient_equals_difference_quotient(
    measured: Callable[[str, float], Slopes], name: str, regime: str, smoothing: float
) -> None:
    assert error(measured(regime, smoothing)[name]) < TOLERANCE


@pytest.mark.parametrize("name", [*STATE_AND_FORCE, *PARAMETERS])
def test_every_input_matters_somewhere(measured: Callable[[str, float], Slopes], name: str) -> None:
    """Otherwise the comparison above would compare zeros."""
    assert max(effect(measured(regime, 1e-6)[name]) for regime in REGIMES) > FLOOR


def test_all_parameters_are_covered(make_probe: Callable[..., Any], zoo_states: Any) -> None:
    probe = make_probe("zoo", zoo_states["flight"], 1e-3)
    assert set(PARAMETERS) == set(probe.sim.parameters())


def test_regimes_are_what_they_are_called(
    make_probe: Callable[..., Any], zoo_states: Mapping[str, physim.State]
) -> None:
    seen = {}
    for regime, state in zoo_states.items():
        probe = make_probe("zoo", state, 1e-6)
        following, _ = probe.sim.step(state, probe.control)
        pairs = probe.sim.contact_pairs()
        gaps = [float(g) for g in probe.sim.contact_gaps(following)[0]]
        touching = {pair for pair, gap in zip(pairs, gaps, strict=True) if gap < 1e-6}
        seen[regime] = (following, touching, gaps)
    floor = {(("floor", name)) for name in ("box", "drum")}
    assert min(seen["flight"][2]) > 0.1
    assert min(seen["limits"][2]) > 0.1
    assert seen["sliding"][1] == floor | {("floor", "bead"), ("floor", "stone")}
    assert seen["sticking"][1] == floor | {("floor", "egg"), ("floor", "stone")}
    assert seen["impact"][1] == floor | {("floor", "capsule"), ("capsule", "stone")}
    assert float(seen["sliding"][0].v[0, :2].norm()) > 0.5
    assert float(zoo_states["impact"].v[0, 2]) < -1.0
    shoulder, elbow, lift = seen["limits"][0].q[0, 7:10].tolist()
    upper = make_probe("zoo", zoo_states["limits"], 1e-6).sim.parameters()["limit_upper"]
    assert abs(shoulder - float(upper[1])) < 1e-4
    assert elbow > -0.8727
    assert abs(lift + 0.08) < 1e-4


def entries(probe: Any) -> Iterator[tuple[str, Tensor]]:
    """Every entry of every finite input as a direction of its own."""
    for name, value in probe.inputs().items():
        flat = value[0].reshape(-1)
        for index in torch.isfinite(flat).nonzero()[:, 0].tolist():
            direction = torch.zeros_like(flat)
            # Sizes as in `Probe.direction`: entries below 0.1 move by tenths.
            direction[index] = flat[index].abs().clamp(0.1, 1.0)
            if name in ("interval", "timestep"):
                direction[index] = flat[index]
            if name == "inertia":
                direction[index] = value[0, index // 6].abs().max()
            yield name, direction.reshape(value[0].shape)


@pytest.mark.slow
@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@pytest.mark.parametrize("regime", REGIMES)
def test_every_single_entry(
    make_probe: Callable[..., Any],
    zoo_states: Mapping[str, physim.State],
    regime: str,
    smoothing: float,
) -> None:
    probe = make_probe("zoo", zoo_states[regime], smoothing)
    jacobians, directions = probe.jacobians(), list(entries(probe))
    quotients = probe.differences(directions)
    wrong = []
    for (name, direction), quotient in zip(directions, quotients, strict=True):
        adjoint = torch.einsum("n...,...->n", jacobians[name], direction)
        found = error((adjoint, quotient))
        if found >= TOLERANCE:
            wrong.append((name, direction.nonzero().tolist(), found))
    assert not wrong


def _gymnasium(name: str) -> Path:
    assets = pytest.importorskip("gymnasium").__path__[0]
    return Path(assets, "envs", "mujoco", "assets", f"{name}.xml")


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@pytest.mark.parametrize(
    "robot",
    [
        "hopper",
        pytest.param("ant", marks=pytest.mark.slow),
        pytest.param("humanoid", marks=pytest.mark.slow),
    ],
)
def test_gradients_of_robots(
    make_probe: Callable[..., Any], generator: torch.Generator, robot: str, smoothing: float
) -> None:
    """The step in which a robot lands, its controls random, its joints off their limits.

    Left out is what kinks by itself: the friction of a pair is the larger of two equal numbers,
    and frictionless pairs stand at the least coefficient that a cone can have.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = physim.load_model(_gymnasium(robot))
    control = 0.5 * torch.randn(1, model.nu, generator=generator, dtype=torch.float64)
    probe = make_probe(str(_gymnasium(robot)), None, smoothing, control)
    now = probe.sim.initial_state(on_penetration="ignore")
    q, numbers, up = now.q.clone(), model.parameters(), 1 if robot == "hopper" else 2
    for joint in model.joints:
        if joint.is_limited:
            middle = numbers["limit_lower"][joint.index] + numbers["limit_upper"][joint.index]
            q[:, joint.q_index] = 0.5 * middle
    on_floor = [model.shape(a).kind == "plane" for a, _ in probe.sim.contact_pairs()]
    q[:, up] -= probe.sim.contact_gaps(physim.State(q=q, v=now.v))[0, on_floor].min() - 1e-3
    v = 0.2 * torch.randn(1, model.nv, generator=generator, dtype=torch.float64)
    v[:, up] = -1.0
    before = physim.State(q=q, v=v)
    after, _ = probe.sim.step(before, control)
    assert float(probe.sim.contact_gaps(after)[0, on_floor].min()) < 1e-4
    found = slopes(make_probe(str(_gymnasium(robot)), before, smoothing, control))
    wrong = {name: error(pair) for name, pair in found.items() if error(pair) >= TOLERANCE}
    assert not wrong.keys() - {"friction", "pair_friction"}, wrong
