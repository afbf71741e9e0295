"""PyTorch's own checkers, second derivatives, and where these are refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import physim

Build = Callable[..., physim.Simulator]
SOFT = {"smoothing": 1e-3, "gradient_smoothing": 1e-3}
CHECKED = ("mass", "friction", "gravity", "shape_size", "stiffness", "timestep")


def step_of(
    sim: physim.Simulator, names: tuple[str, ...] = ()
) -> Callable[..., tuple[Tensor, Tensor]]:
    """A step as a function of plain tensors: q, v, control and named parameters."""

    def function(q: Tensor, v: Tensor, u: Tensor, *values: Tensor) -> tuple[Tensor, Tensor]:
        given = dict(zip(names, values, strict=True))
        following, _ = sim.step(physim.State(q=q, v=v), u, parameters=given)
        return following.q, following.v

    return function


def leaves(state: physim.State, control: Tensor) -> tuple[Tensor, ...]:
    values = (state.q, state.v, control.expand(state.batch, -1))
    return tuple(x.clone().requires_grad_() for x in values)


@pytest.mark.parametrize("name", ["puck", "tumbler"])
def test_gradcheck(
    simulator: Build,
    tight: object,
    states: dict[str, physim.State],
    controls: dict[str, Tensor],
    name: str,
) -> None:
    sim = simulator(name, settings=tight, **SOFT)
    parameters = sim.parameters()
    values = [parameters[n].clone().requires_grad_() for n in CHECKED]
    # The whole shape_size moves together with its structural zeros, which have no effect.
    # No resting state: gaps of zero kink at the edge of the dead band, 1e-6 m away.
    inputs = (*leaves(states[name][:3], controls[name]), *values)
    assert torch.autograd.gradcheck(step_of(sim, CHECKED), inputs, eps=1e-6, rtol=1e-5, atol=1e-5)


def test_gradgradcheck_of_the_reference(
    simulator: Build, tight: object, states: dict[str, physim.State], controls: dict[str, Tensor]
) -> None:
    sim = simulator("puck", backend="reference", settings=tight, **SOFT)
    mass = sim.parameters()["mass"].clone().requires_grad_()
    inputs = (*leaves(states["puck"][1:3], controls["puck"]), mass)
    assert torch.autograd.gradgradcheck(
        step_of(sim, ("mass",)), inputs, eps=1e-6, rtol=1e-4, atol=1e-3
    )


def scalar_loss(following: physim.State) -> Tensor:
    """Curved in every output, so that both parts of the chain rule show."""
    return (following.q.sin() * 1.3).sum() + (following.v**2).sum()


def test_hessian_vector_product(
    simulator: Build,
    tight: object,
    states: dict[str, physim.State],
    controls: dict[str, Tensor],
    generator: torch.Generator,
) -> None:
    """Against difference quotients of the reference's gradient, with respect to all at once."""
    sim = simulator("tumbler", backend="reference", settings=tight, **SOFT)
    state, mass = states["tumbler"], sim.parameters()["mass"]
    shift = torch.zeros_like(state.v)
    at = [shift, state.v, controls["tumbler"].expand(3, -1), mass]
    direction = [torch.randn(x.shape, generator=generator, dtype=torch.float64) for x in at]

    def gradient(values: list[Tensor], *, create_graph: bool) -> tuple[Tensor, ...]:
        start = physim.State(q=sim.retract(state.q, values[0]), v=values[1])
        following, _ = sim.step(start, values[2], parameters={"mass": values[3]})
        return torch.autograd.grad(scalar_loss(following), values, create_graph=create_graph)

    inputs = [x.clone().requires_grad_() for x in at]
    first = gradient(inputs, create_graph=True)
    along = sum((g * d).sum() for g, d in zip(first, direction, strict=True))
    assert isinstance(along, Tensor)
    product = torch.autograd.grad(along, inputs)
    step, rows = 2e-5, []
    for place in (-2, -1, 1, 2):
        moved = [
            (x + step * place * d).requires_grad_() for x, d in zip(at, direction, strict=True)
        ]
        rows.append(gradient(moved, create_graph=False))
    for i, found in enumerate(product):
        slope = (rows[0][i] - 8 * rows[1][i] + 8 * rows[2][i] - rows[3][i]) / (12 * step)
        assert float((found - slope).abs().max()) < 1e-6 * float(slope.abs().max())


def test_kernel_refuses_second_derivatives(
    simulator: Build, states: dict[str, physim.State], controls: dict[str, Tensor]
) -> None:
    sim = simulator("puck")
    q, v, u = leaves(states["puck"], controls["puck"])
    following, _ = sim.step(physim.State(q=q, v=v), u)
    (first,) = torch.autograd.grad(following.v.square().sum(), v, create_graph=True)
    with pytest.raises(RuntimeError, match='backend="reference"'):
        torch.autograd.grad(first.square().sum(), v)


@pytest.mark.parametrize("smoothing", [1e-3, 1e-6])
def test_quaternion_gradients_are_tangent(
    simulator: Build,
    tight: object,
    states: dict[str, physim.State],
    controls: dict[str, Tensor],
    smoothing: float,
) -> None:
    sim = simulator("zoo", smoothing=1e-6, gradient_smoothing=smoothing, settings=tight)
    q, v, u = leaves(states["zoo"], controls["zoo"])
    following, _ = sim.step(physim.State(q=q, v=v), u)
    (gradient,) = torch.autograd.grad(following.v.sum(), q)
    for start in (3, 10, 17):
        part, unit = gradient[:, start : start + 4], q.detach()[:, start : start + 4]
        along = (part * unit).sum(-1).abs()
        assert bool((along <= 1e-12 * part.norm(dim=-1).clamp(min=1.0)).all())
        assert float(part.norm(dim=-1).max()) > 1e-3


@pytest.mark.parametrize("gradient_smoothing", [1e-6, 1e-4])
def test_next_quaternion_stays_of_unit_length(
    simulator: Build,
    tight: object,
    states: dict[str, physim.State],
    controls: dict[str, Tensor],
    gradient_smoothing: float,
) -> None:
    """The length of the next quaternion is 1 whatever the input: its derivative is zero."""
    both = {"smoothing": 1e-6, "gradient_smoothing": gradient_smoothing}
    sim = simulator("zoo", settings=tight, **both)
    q, v, u = leaves(states["zoo"], controls["zoo"])
    following, _ = sim.step(physim.State(q=q, v=v), u)
    (gradient,) = torch.autograd.grad(following.q[:, 3:7].square().sum(), v)
    assert float(gradient.abs().max()) < 1e-12


def test_length_of_a_quaternion_has_no_effect(
    simulator: Build, tight: object, states: dict[str, physim.State], controls: dict[str, Tensor]
) -> None:
    sim = simulator("zoo", settings=tight, **SOFT)
    state = states["zoo"]
    longer = state.q.clone()
    longer[:, 3:7] *= 1.7
    one, _ = sim.step(state, controls["zoo"])
    other, _ = sim.step(physim.State(q=longer, v=state.v), controls["zoo"])
    torch.testing.assert_close(one.v, other.v, rtol=0, atol=1e-8)
