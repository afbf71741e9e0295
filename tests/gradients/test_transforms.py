"""torch.func sees a step as it sees any other function."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.func import jacrev, jvp, vmap

import physim

Build = Callable[..., physim.Simulator]


@pytest.fixture(scope="module", params=["kernel", "reference"])
def sim(request: pytest.FixtureRequest, simulator: Build) -> physim.Simulator:
    return simulator("puck", backend=request.param)


def move(sim: physim.Simulator) -> Callable[[Tensor, Tensor], Tensor]:
    """A step of one item as a function of vectors: (q, v) and control to (q, v)."""
    nq = sim.model.nq

    def function(x: Tensor, u: Tensor) -> Tensor:
        state = physim.State(q=x[None, :nq], v=x[None, nq:])
        following, _ = sim.step(state, u[None])
        return torch.cat([following.q, following.v], dim=-1)[0]

    return function


def packed(state: physim.State) -> Tensor:
    return torch.cat([state.q, state.v], dim=-1)


def test_jacrev_equals_linearize(
    sim: physim.Simulator, states: dict[str, physim.State], controls: dict[str, Tensor]
) -> None:
    a, b = sim.linearize(states["puck"], controls["puck"])
    for item, x in enumerate(packed(states["puck"])):
        found_a, found_b = jacrev(move(sim), argnums=(0, 1))(x, controls["puck"][0])
        torch.testing.assert_close(found_a, a[item], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(found_b, b[item], rtol=1e-12, atol=1e-12)


def test_jvp_equals_linearize(
    sim: physim.Simulator,
    states: dict[str, physim.State],
    controls: dict[str, Tensor],
    generator: torch.Generator,
) -> None:
    a, b = sim.linearize(states["puck"], controls["puck"])
    u = controls["puck"][0]
    for item, x in enumerate(packed(states["puck"])):
        dx = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        du = torch.randn(u.shape, generator=generator, dtype=torch.float64)
        value, found = jvp(move(sim), (x, u), (dx, du))
        torch.testing.assert_close(found, a[item] @ dx + b[item] @ du, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(value, move(sim)(x, u), rtol=0, atol=1e-7)


@pytest.mark.parametrize("backend", ["kernel", "reference"])
def test_vmap_equals_batch(
    simulator: Build, backend: str, states: dict[str, physim.State], controls: dict[str, Tensor]
) -> None:
    sim, state = simulator("puck", backend=backend), states["puck"]
    mapped = vmap(move(sim), in_dims=(0, None))(packed(state), controls["puck"][0])
    following, _ = sim.step(state, controls["puck"])
    torch.testing.assert_close(mapped, packed(following), rtol=0, atol=1e-7)


def test_vmap_of_jacrev_equals_linearize(
    sim: physim.Simulator, states: dict[str, physim.State], controls: dict[str, Tensor]
) -> None:
    state = states["puck"]
    a, b = sim.linearize(state, controls["puck"])
    both = vmap(jacrev(move(sim), argnums=(0, 1)), in_dims=(0, None))
    found_a, found_b = both(packed(state), controls["puck"][0])
    torch.testing.assert_close(found_a, a, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found_b, b, rtol=1e-12, atol=1e-12)


def test_jacrev_through_parameters(
    simulator: Build, states: dict[str, physim.State], controls: dict[str, Tensor]
) -> None:
    """The derivative with respect to the mass, against one backward pass a row."""
    sim = simulator("puck")
    state, mass = states["puck"], sim.parameters()["mass"]

    def speeds(m: Tensor) -> Tensor:
        following, _ = sim.step(state, controls["puck"], parameters={"mass": m})
        return following.v

    found = jacrev(speeds)(mass)
    leaf = mass.clone().requires_grad_()
    v = speeds(leaf)
    for index in torch.cartesian_prod(torch.arange(v.shape[0]), torch.arange(v.shape[1])):
        (row,) = torch.autograd.grad(v[tuple(index)], leaf, retain_graph=True)
        torch.testing.assert_close(found[tuple(index)], row, rtol=1e-12, atol=1e-14)
    assert float(found.abs().max()) > 1e-3


def test_free_and_ball_joints(
    simulator: Build, states: dict[str, physim.State], controls: dict[str, Tensor]
) -> None:
    """vmap(jacrev) in tangent coordinates of the start, and rows of the plain gradient.

    A shift by zero rounds: the smoothing is one at which that rounding is not amplified.
    """
    sim = simulator("tumbler", gradient_smoothing=1e-2)
    state, u = states["tumbler"], controls["tumbler"]

    def speeds(q: Tensor, v: Tensor, shift: Tensor) -> Tensor:
        moved = sim.retract(q[None], shift[None])
        following, _ = sim.step(physim.State(q=moved, v=v[None]), u)
        return following.v[0]

    shift = torch.zeros_like(state.v)
    by_v, by_q = vmap(jacrev(speeds, argnums=(1, 2)))(state.q, state.v, shift)
    a, _ = sim.linearize(state, u)
    nv = sim.model.nv
    size = float(a.abs().max())
    torch.testing.assert_close(by_q, a[:, nv:, :nv], rtol=0, atol=1e-12 * size)
    torch.testing.assert_close(by_v, a[:, nv:, nv:], rtol=0, atol=1e-12 * size)


def test_forward_mode_is_the_transpose_of_reverse_mode_at_any_smoothing(
    states: dict[str, physim.State], controls: dict[str, Tensor], simulator: Build
) -> None:
    """<g, J t> = <J' g, t>, also where the gradient has a smoothing of its own."""
    sim = simulator("tumbler", smoothing=1e-6, gradient_smoothing=1e-2)
    state, u = states["tumbler"], controls["tumbler"]
    generator = torch.Generator().manual_seed(3)
    t = torch.randn(state.v.shape, generator=generator, dtype=torch.float64)

    def out(v: Tensor) -> Tensor:
        following, _ = sim.step(physim.State(q=state.q, v=v), u)
        return torch.cat([following.q, following.v], dim=-1)

    value, pushed = torch.func.jvp(out, (state.v,), (t,))
    g = torch.randn(value.shape, generator=generator, dtype=torch.float64)
    _, pull = torch.func.vjp(out, state.v)
    forward, backward = float((g * pushed).sum()), float((pull(g)[0] * t).sum())
    assert forward == pytest.approx(backward, rel=1e-9)


@pytest.mark.parametrize("backend", ["kernel", "reference"])
def test_a_simulator_outlives_what_watched_it(
    simulator: Build, backend: str, states: dict[str, physim.State], controls: dict[str, Tensor]
) -> None:
    # Nobody has stepped batches of these sizes before: what they need is made inside.
    sim = simulator("puck", backend=backend)
    many, more = states["puck"].repeat(7), states["puck"].repeat(11)

    def speeds(timestep: Tensor) -> Tensor:
        return sim.step(many, parameters={"timestep": timestep})[0].v

    jacrev(speeds)(torch.tensor(sim.timestep, dtype=torch.float64))
    with torch.inference_mode():
        sim.step(more.repeat(1))
    for state in (many, more):
        watched = physim.State(q=state.q, v=state.v.clone().requires_grad_())
        following, _ = sim.step(watched)
        torch.testing.assert_close(following.v, sim.step(state)[0].v, rtol=0, atol=1e-7)
        following.v.sum().backward()


@pytest.mark.parametrize("backend", ["kernel", "reference"])
def test_vmap_of_pushes_equals_batch(
    simulator: Build, backend: str, states: dict[str, physim.State], generator: torch.Generator
) -> None:
    sim, state = simulator("puck", backend=backend), states["puck"]
    bodies = len(sim.model.bodies)
    pushes = torch.randn(3, state.batch, bodies, 6, generator=generator, dtype=torch.float64)
    mapped = vmap(lambda push: sim.step(state, external_force=push)[0].v)(pushes)
    for push, found in zip(pushes, mapped, strict=True):
        wanted = sim.step(state, external_force=push)[0].v
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-7)


def test_vmap_of_rollout_equals_batch(
    sim: physim.Simulator, states: dict[str, physim.State], controls: dict[str, Tensor]
) -> None:
    state, drive = states["puck"], controls["puck"][:1].expand(3, -1)

    def end(q: Tensor, v: Tensor, u: Tensor) -> Tensor:
        return sim.rollout(physim.State(q=q[None], v=v[None]), u).v[-1, 0]

    wanted = sim.rollout(state, drive)
    found = vmap(end, in_dims=(0, 0, None))(state.q, state.v, drive)
    torch.testing.assert_close(found, wanted.v[-1], rtol=0, atol=1e-7)
    slopes = vmap(jacrev(end, argnums=2), in_dims=(0, 0, None))(state.q, state.v, drive)
    for item in range(state.batch):
        slope = jacrev(end, argnums=2)(state.q[item], state.v[item], drive)
        torch.testing.assert_close(slopes[item], slope, rtol=1e-6, atol=1e-9)


def test_what_checks_values_says_that_it_is_inside_a_transform(
    sim: physim.Simulator, states: dict[str, physim.State]
) -> None:
    q, v = states["puck"].q, states["puck"].v
    with pytest.raises(physim.SettingsError, match="initial_state: got q or v of a torch.func"):
        vmap(lambda q: sim.initial_state(q=q).q)(q)
    with pytest.raises(physim.SettingsError, match="initial_state"):
        jacrev(lambda v: sim.initial_state(v=v, at="node").v)(v)
    with pytest.raises(physim.SettingsError, match="linearize: got a state or control"):
        jacrev(lambda v: sim.linearize(physim.State(q=q, v=v))[0])(v)
