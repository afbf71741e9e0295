"""Large models: source that grows with the joints and no faster, and steps that hold the laws."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch

import physim
from physim.dynamics._kernel_body import adjoint_body, path_part, step_body
from physim.dynamics._mechanism import build_mechanism
from physim.dynamics._numbers import reduce_numbers
from physim.dynamics._reference import ReferenceSolver
from physim.dynamics._settings import SolverSettings


def chain(joints: int, *, touching: bool = False) -> physim.Model:
    """A free chain of capsules above a floor; ``touching`` lets its links collide."""
    axes = ("1 0 0", "0 1 0", "0 0 1")
    filters = 'contype="1" conaffinity="1"' if touching else 'contype="0" conaffinity="1"'
    links = "".join(
        f'<body pos="0.1 0 0"><joint axis="{axes[i % 3]}" range="-60 60" damping="0.01"/>'
        f'<geom type="capsule" fromto="0.02 0 0 0.08 0 0" size="0.02" mass="0.1" {filters}/>'
        for i in range(joints)
    )
    return physim.load_model(
        '<mujoco><compiler autolimits="true"/><worldbody>'
        '<geom type="plane" size="9 9 1" contype="1" conaffinity="0"/>'
        f'<body pos="0 0 0.05"><freejoint/><geom size="0.03" mass="0.1" {filters}/>{links}'
        f"{'</body>' * joints}</body></worldbody></mujoco>"
    )


def source_sizes(model: physim.Model) -> dict[str, int]:
    """Characters of the texts that are compiled for a model, tables of numbers aside."""
    mechanism, settings = build_mechanism(model), SolverSettings()
    parameters = {name: value.detach() for name, value in model.parameters().items()}
    numbers = reduce_numbers(mechanism.tree, model, mechanism.layout, mechanism.groups, parameters)
    zeros = frozenset((numbers == 0.0).nonzero()[:, 0].tolist())
    weights = ReferenceSolver(mechanism, settings, model.initial_q, numbers, 0.01).weights
    options = {"with_numbers": False, "is_exact": True}
    texts = {
        "step": step_body(mechanism, settings, zeros, weights),
        "interior point": path_part(mechanism, settings, zeros).body,
        "adjoint": adjoint_body(mechanism, settings, zeros, weights, **options),
    }
    return {
        name: sum(len(line) for line in text.splitlines() if not line.startswith("constexpr"))
        for name, text in texts.items()
    }


def test_source_grows_with_the_joints_and_no_faster() -> None:
    """The same number of links more adds the same text, wherever the chain ends."""
    sizes = [source_sizes(chain(joints)) for joints in (8, 16, 24)]
    for name in sizes[0]:
        growth = [after[name] - before[name] for before, after in pairwise(sizes)]
        assert growth[0] > 0
        assert max(growth) < 1.35 * min(growth)


def test_links_that_touch_add_no_text_per_pair() -> None:
    """Contacts between all links of a chain couple everything: tables grow, code does not."""
    sizes = [source_sizes(chain(joints, touching=True)) for joints in (8, 16, 24)]
    for name in sizes[0]:
        growth = [after[name] - before[name] for before, after in pairwise(sizes)]
        assert max(growth) < 1.35 * min(growth)


def dm_control(name: str) -> Path:
    spec = importlib.util.find_spec("dm_control")
    if spec is None or spec.origin is None:
        pytest.skip("dm_control is not installed")
    return Path(spec.origin).parent / "suite" / f"{name}.xml"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["chain", "humanoid_CMU"])
def test_large_models_fall_and_come_to_no_harm(
    name: str, generator: torch.Generator, simulator: Callable[..., physim.Simulator]
) -> None:
    """A fall under random controls: no failure, no overlap, and a gradient that is right."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = chain(30, touching=True) if name == "chain" else physim.load_model(dm_control(name))
    sim = physim.Simulator(model, timestep=0.005, gradient_smoothing=1e-4)
    batch, steps = 8, 100
    start = sim.initial_state(batch=batch, on_penetration="ignore")
    controls = 2.0 * torch.rand(steps, batch, model.nu, generator=generator, dtype=torch.float64)
    motion = sim.rollout(start, 0.3 * (controls - 1.0), on_failure="mask")
    print(name, motion.summary())
    assert motion.report.all_converged
    assert float(motion.report.counts["min_gap"][1:].min()) >= -1e-6
    state = motion.state(-1)
    direction = torch.randn(batch, model.nv, generator=generator, dtype=torch.float64)

    def total(v: torch.Tensor) -> torch.Tensor:
        begin = physim.State(q=state.q, v=v, interval=state.interval)
        following, report = sim.step(begin, smoothing=1e-4)
        assert report.all_converged
        return following.v.sum(-1)

    v = state.v.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(total(v).sum(), v)
    change = 1e-6 * direction
    difference = (total(state.v + change) - total(state.v - change)) / 2e-6
    slope = (gradient * direction).sum(-1)
    torch.testing.assert_close(slope, difference, rtol=1e-4, atol=1e-3)
