"""The compiled adjoint against its torch twin, and the meaning of the two smoothings."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import physim

Build = Callable[..., physim.Simulator]
DEFAULT = (1e-7, 1e-4)
NAMES = (
    "mass",
    "inertia",
    "gravity",
    "timestep",
    "shape_size",
    "shape_position",
    "friction",
    "damping",
    "armature",
    "gear",
    "body_position",
)


def pull_back(
    sim: physim.Simulator, state: physim.State, control: Tensor, weights: Tensor
) -> list[Tensor]:
    """Gradients of a weighted sum of all outputs: q, v, control, external force, parameters."""
    parameters = sim.parameters()
    batch = state.batch
    values = [state.q, state.v, control.expand(batch, -1)]
    values.append(torch.zeros(batch, len(sim.model.bodies), 6, dtype=torch.float64))
    values += [parameters[name] for name in NAMES]
    leaves = [x.clone().requires_grad_() for x in values]
    following, _ = sim.step(
        physim.State(q=leaves[0], v=leaves[1]),
        leaves[2],
        external_force=leaves[3],
        parameters=dict(zip(NAMES, leaves[4:], strict=True)),
    )
    out = torch.cat([following.q, following.v], dim=-1)
    return list(torch.autograd.grad((out * weights).sum(), leaves))


def relative(found: list[Tensor], expected: list[Tensor]) -> float:
    """Largest deviation, each tensor in units of its own largest entry."""
    return max(
        float((a - b).abs().max() / b.abs().max().clamp(min=1e-6))
        for a, b in zip(found, expected, strict=True)
    )


def random_weights(state: physim.State, generator: torch.Generator) -> Tensor:
    shape = (state.batch, state.q.shape[1] + state.v.shape[1])
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("smoothings", [DEFAULT, (1e-3, 1e-3), (1e-6, 1e-6), (1e-3, 1e-6)])
@pytest.mark.parametrize("name", ["puck", "tumbler", pytest.param("zoo", marks=pytest.mark.slow)])
def test_kernel_adjoint_equals_reference(
    simulator: Build,
    firm: object,
    states: dict[str, physim.State],
    controls: dict[str, Tensor],
    generator: torch.Generator,
    name: str,
    smoothings: tuple[float, float],
) -> None:
    settings = {"smoothing": smoothings[0], "gradient_smoothing": smoothings[1], "settings": firm}
    weights = random_weights(states[name], generator)
    arguments = (states[name], controls[name], weights)
    kernel = pull_back(simulator(name, **settings), *arguments)
    reference = pull_back(simulator(name, backend="reference", **settings), *arguments)
    assert relative(kernel, reference) < 1e-8


def test_adjoint_without_numbers_is_the_same(
    simulator: Build, states: dict[str, physim.State], controls: dict[str, Tensor]
) -> None:
    """The leaner kernel that runs where no parameter wants a gradient."""
    sim = simulator("tumbler")
    state, control = states["tumbler"], controls["tumbler"]
    found = []
    for given in (None, {"mass": sim.parameters()["mass"].requires_grad_()}):
        v = state.v.clone().requires_grad_()
        following, _ = sim.step(physim.State(q=state.q, v=v), control, parameters=given)
        found.append(torch.autograd.grad(following.v.sum(), v)[0])
    torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["puck", "tumbler", pytest.param("zoo", marks=pytest.mark.slow)])
def test_gradient_is_that_of_its_own_smoothing(
    simulator: Build,
    firm: object,
    states: dict[str, physim.State],
    controls: dict[str, Tensor],
    generator: torch.Generator,
    name: str,
) -> None:
    """From one input and for one cotangent, the state's smoothing has no say in the velocities'."""
    weights = random_weights(states[name], generator)
    # Cotangents of a quaternion belong to one tangent space, which differs between the solutions.
    weights[:, : states[name].q.shape[1]] = 0.0
    arguments = (states[name], controls[name], weights)
    both = {"gradient_smoothing": 1e-4, "settings": firm}
    sharp = pull_back(simulator(name, smoothing=1e-7, **both), *arguments)
    soft = pull_back(simulator(name, smoothing=1e-4, **both), *arguments)
    hard = pull_back(
        simulator(name, smoothing=1e-7, gradient_smoothing=1e-7, settings=firm), *arguments
    )
    assert relative(sharp, soft) < 1e-8
    assert relative(sharp, hard) > 1e-3


def test_two_steps_chain_at_the_sharp_states(
    simulator: Build, states: dict[str, physim.State], controls: dict[str, Tensor]
) -> None:
    """A rollout's gradient: soft Jacobians, each taken where the sharp states really are."""
    control = controls["puck"]
    mixed = simulator("puck", smoothing=1e-7, gradient_smoothing=1e-4)
    soft = simulator("puck", smoothing=1e-4, gradient_smoothing=1e-4)
    start = states["puck"]
    v = start.v.clone().requires_grad_()
    middle, _ = mixed.step(physim.State(q=start.q, v=v), control)
    last, _ = mixed.step(middle, control)
    (found,) = torch.autograd.grad(last.q.sum() + last.v.sum(), v)
    first_a, _ = soft.linearize(start, control)
    second_a, _ = soft.linearize(middle.detach(), control)
    expected = (second_a @ first_a).sum(1)[:, 3:]
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)
    # Not the gradient of the soft simulator, whose second step starts elsewhere.
    elsewhere, _ = soft.step(start, control)
    other_a, _ = soft.linearize(elsewhere, control)
    assert float((found - (other_a @ first_a).sum(1)[:, 3:]).abs().max()) > 1e-5
