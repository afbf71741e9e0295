"""Policies inside a rollout's native calls against the same policies asked once a step."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from physim import SettingsError, ShapeError, Simulator, State
from physim.dynamics import LinearFeedback, MLPPolicy

# A free trunk on the floor with a ball and a hinge joint: every kind of coordinate.
CRAWLER = """<mujoco><worldbody><geom type="plane" size="5 5 1" friction="0.6"/>
  <body pos="0 0 0.08"><freejoint/><geom type="capsule" size="0.05"
      fromto="-0.1 0 0 0.1 0.02 0.01" mass="1"/>
    <body pos="0.15 0 0"><joint name="hip" axis="0 1 0" damping="0.05"/>
      <geom type="capsule" size="0.02" fromto="0 0 0 0.15 0 0" mass="0.2"/></body>
    <body pos="-0.15 0 0.1"><joint name="neck" type="ball" damping="0.05"/>
      <geom type="sphere" size="0.04" pos="0 0 0.05" mass="0.2"/></body></body></worldbody>
  <actuator><motor joint="hip" ctrlrange="-2 2"/><motor joint="neck" gear="0.1 0.2 0.05"/>
  </actuator></mujoco>"""
BATCH, STEPS = 11, 12
Build = Callable[..., Simulator]


def start_of(sim: Simulator) -> State:
    random = torch.Generator().manual_seed(1)
    v = 0.5 * torch.randn(BATCH, sim.model.nv, generator=random, dtype=torch.float64)
    return sim.initial_state(batch=BATCH, v=v)


def noise(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(*shape, generator=random, dtype=torch.float64)).requires_grad_()


def perceptron(sim: Simulator, *, is_own: bool, kinds: tuple[str, ...]) -> tuple[Any, list[Tensor]]:
    model = sim.model
    observe = range(2, model.nq + model.nv)
    widths = [len(observe), *[13, 6][: len(kinds) - 1], model.nu]
    outer = (BATCH,) if is_own else ()
    shapes = [(*outer, n, m) for m, n in itertools.pairwise(widths)]
    weights = [noise(*shape, seed=k, scale=0.4) for k, shape in enumerate(shapes)]
    biases = [noise(*shape[:-1], seed=k + 9, scale=0.3) for k, shape in enumerate(shapes)]
    policy = MLPPolicy(weights, biases, kinds, observe=observe, bounds=(-0.5, 0.6))
    return policy, [*weights, *biases]


def feedback(sim: Simulator, *, outer: tuple[int, ...]) -> tuple[Any, list[Tensor]]:
    model = sim.model
    gain = noise(*outer, model.nu, 2 * model.nv, scale=0.3)
    control = noise(*outer, model.nu, seed=1, scale=0.1)
    q = model.initial_q + noise(*outer, model.nq, seed=2, scale=0.05)
    q = q.detach().requires_grad_()
    policy = LinearFeedback(model, gain, q=q, control=control, bounds=(-0.7, 0.7))
    return policy, [gain, control, q]


CASES = {
    "shared": lambda sim: perceptron(sim, is_own=False, kinds=("tanh", "relu", "identity")),
    "own": lambda sim: perceptron(sim, is_own=True, kinds=("relu", "tanh")),
    "single layer": lambda sim: perceptron(sim, is_own=False, kinds=("tanh",)),
    "constant gain": lambda sim: feedback(sim, outer=()),
    "gains in time": lambda sim: feedback(sim, outer=(STEPS,)),
    "gains of items": lambda sim: feedback(sim, outer=(1, BATCH)),
    "gains of both": lambda sim: feedback(sim, outer=(STEPS, BATCH)),
}


@pytest.mark.parametrize("case", CASES)
def test_native_and_python_policy_agree(simulator: Build, case: str) -> None:
    sim = simulator(CRAWLER, timestep=0.01)
    policy, numbers = CASES[case](sim)
    found = []
    for controls in (policy, policy.__call__):
        start = start_of(sim)
        v = start.v.clone().requires_grad_()
        motion = sim.rollout(State(q=start.q, v=v), controls, steps=STEPS)
        loss = motion.q[-1].sum() + 0.1 * motion.v.square().sum() + motion.control.square().sum()
        found.append((motion, torch.autograd.grad(loss, [v, *numbers])))
    (native, fast), (python, slow) = found
    assert native.report.all_converged
    torch.testing.assert_close(native.control, python.control, rtol=0, atol=1e-11)
    torch.testing.assert_close(native.q, python.q, rtol=0, atol=1e-11)
    bounds = native.control.detach().abs()
    assert float(bounds.max()) <= 0.7
    for a, b in zip(fast, slow, strict=True):
        scale = max(float(b.abs().max()), 1.0)
        torch.testing.assert_close(a / scale, b / scale, rtol=0, atol=1e-8)
        assert float(b.abs().max()) > 0.0


def test_checkpointed_policy_has_the_same_gradient(simulator: Build) -> None:
    sim = simulator(CRAWLER, timestep=0.01)
    for case in ("shared", "gains of both"):
        found = []
        for every in (None, 5):
            policy, numbers = CASES[case](sim)
            motion = sim.rollout(start_of(sim), policy, steps=STEPS, checkpoint_every=every)
            found.append(torch.autograd.grad(motion.q[-1].sum(), numbers))
        for a, b in zip(*found, strict=True):
            assert torch.equal(a, b)


def test_threads_and_cuts_do_not_change_a_policy_rollout(simulator: Build) -> None:
    sim = simulator(CRAWLER, timestep=0.01)
    policy, _ = CASES["shared"](sim)
    with torch.no_grad():
        whole = sim.rollout(start_of(sim), policy, steps=STEPS)
        first = sim.rollout(start_of(sim), policy, steps=5)
        second = sim.rollout(first.state(-1), policy, steps=STEPS - 5)
        threaded = simulator(CRAWLER, timestep=0.01, threads=2)
        assert torch.equal(threaded.rollout(start_of(sim), policy, steps=STEPS).q, whole.q)
        alone = sim.rollout(start_of(sim)[4], policy, steps=STEPS)
    assert torch.equal(second.q[-1], whole.q[-1])
    assert torch.equal(alone.q[:, 0], whole.q[:, 4])


def test_gain_of_linearize_stabilises(simulator: Build) -> None:
    """Tangent coordinates are those of `linearize`: a gain from its matrices stands a pole up."""
    pole = """<mujoco><worldbody><body><joint name="x" type="slide" axis="1 0 0"/>
      <geom size="0.1" mass="1"/><body><joint name="pole" axis="0 1 0"/>
      <geom type="capsule" fromto="0 0 0 0 0 0.6" size="0.02" mass="0.1"/></body></body></worldbody>
      <actuator><motor joint="x"/></actuator></mujoco>"""
    from scipy.linalg import solve_discrete_are

    sim = simulator(pole, timestep=0.02)
    matrix, push = (y[0].numpy() for y in sim.linearize(sim.initial_state()))
    cost = solve_discrete_are(matrix, push, torch.eye(4).numpy(), torch.eye(1).numpy())
    gain = torch.linalg.solve(
        torch.as_tensor(1.0 + push.T @ cost @ push), torch.as_tensor(push.T @ cost @ matrix)
    )
    start = sim.initial_state(q=[0.0, 0.2])
    motion = sim.rollout(start, LinearFeedback(sim.model, -gain), steps=500)
    assert float(motion.q[-1].abs().max()) < 1e-3
    assert float(sim.rollout(start, steps=100).q[..., 1].abs().max()) > 1.0


def test_network_is_shared_not_copied(simulator: Build) -> None:
    sim = simulator(CRAWLER, timestep=0.01)
    size = sim.model.nq + sim.model.nv
    network = nn.Sequential(nn.Linear(size, 8), nn.ReLU(), nn.Linear(8, sim.model.nu, bias=False))
    policy = MLPPolicy.from_network(network)
    motion = sim.rollout(start_of(sim), policy, steps=3)
    x = torch.cat([motion.q, motion.v], dim=-1)[:-1]
    with torch.no_grad():
        torch.testing.assert_close(motion.control, network.double()(x), rtol=0, atol=1e-12)
    motion.q[-1].sum().backward()
    assert all(y.grad is not None for y in network.parameters())


def test_policy_of_many_values_runs_step_by_step(simulator: Build) -> None:
    sim = simulator(CRAWLER, timestep=0.01)
    size = sim.model.nq + sim.model.nv
    network = nn.Sequential(nn.Linear(size, 2000), nn.Tanh(), nn.Linear(2000, sim.model.nu))
    policy = MLPPolicy.from_network(network.double())
    with torch.no_grad():
        motion = sim.rollout(start_of(sim), policy, steps=2)
        expected = network(torch.cat([motion.q[1], motion.v[1]], dim=-1))
    torch.testing.assert_close(motion.control[1], expected, rtol=0, atol=1e-12)


def test_lost_items_spoil_no_weights(simulator: Build) -> None:
    sim = simulator(CRAWLER, timestep=0.01)
    gradients = []
    for is_lost in (False, True):
        policy, numbers = CASES["shared"](sim)
        start = start_of(sim)
        v = start.v.clone()
        if is_lost:
            v[3] = torch.nan
        motion = sim.rollout(State(q=start.q, v=v), policy, steps=4, on_failure="mask")
        others = [i for i in range(BATCH) if i != 3]
        gradients.append(torch.autograd.grad(motion.q[-1, others].sum(), numbers))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_what_does_not_fit_is_named(simulator: Build) -> None:
    sim = simulator(CRAWLER, timestep=0.01)
    nu, nv, size = sim.model.nu, sim.model.nv, sim.model.nq + sim.model.nv
    start = start_of(sim)
    with pytest.raises(ShapeError, match="gain"):
        LinearFeedback(sim.model, torch.zeros(nu, nv))
    with pytest.raises(ShapeError, match="bounds"):
        LinearFeedback(sim.model, torch.zeros(nu, 2 * nv), bounds=(torch.zeros(nu + 1), 1.0))
    with pytest.raises(ShapeError, match="steps"):
        sim.rollout(start, LinearFeedback(sim.model, torch.zeros(3, nu, 2 * nv)), steps=4)
    with pytest.raises(SettingsError, match="Softplus"):
        MLPPolicy.from_network(nn.Sequential(nn.Linear(size, nu), nn.Softplus()))
    with pytest.raises(ShapeError, match="policy maps"):
        sim.rollout(start, MLPPolicy.from_network(nn.Sequential(nn.Linear(5, nu))), steps=2)
    net = nn.Sequential(nn.Linear(1, nu))
    with pytest.raises(SettingsError, match="observe"):
        sim.rollout(start, MLPPolicy.from_network(net, observe=[size]), steps=2)
    with pytest.raises(ShapeError, match=r"weights\[1\]"):
        MLPPolicy(
            [torch.zeros(3, 2), torch.zeros(1, 4)],
            [torch.zeros(3), torch.zeros(1)],
            ["tanh", "tanh"],
        )
    with pytest.raises(SettingsError, match="activations"):
        MLPPolicy([torch.zeros(1, 2)], [torch.zeros(1)], ["gelu"])
