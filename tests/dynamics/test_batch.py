"""Items of a batch do not know of each other."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from physim import NonFiniteError, Simulator, State, Status

SCENE = """<mujoco><worldbody><geom name="floor" type="plane" size="1 1 1"/>
  <body pos="0 0 0.3"><freejoint/><geom name="box" type="box" size="0.25 0.25 0.25" mass="1"/>
  </body></worldbody></mujoco>"""


@pytest.fixture
def scene(
    simulator: Callable[..., Simulator], generator: torch.Generator
) -> tuple[Simulator, State]:
    """Eleven boxes: more than a machine's lanes, and not a multiple of them."""
    sim = simulator(SCENE, timestep=0.01)
    q = torch.randn(11, 7, generator=generator, dtype=torch.float64)
    q[:, 2] = 0.6
    v = torch.randn(11, 6, generator=generator, dtype=torch.float64)
    return sim, sim.initial_state(q=q, v=v)


def run(sim: Simulator, state: State) -> State:
    return sim.rollout(state, steps=30, on_failure="mask").state(-1)


def test_a_bad_item_leaves_the_others_bit_equal(scene: tuple[Simulator, State]) -> None:
    sim, start = scene
    good = run(sim, start)
    v = start.v.clone()
    v[4, 2] = torch.nan
    bad = run(sim, State(q=start.q, v=v))
    others = [i for i in range(11) if i != 4]
    assert torch.equal(bad.q[others], good.q[others])
    assert torch.equal(bad.v[others], good.v[others])
    _, report = sim.step(State(q=start.q, v=v), on_failure="mask")
    assert report.status[4] == Status.NON_FINITE
    assert bool(report.converged[others].all())


def test_a_bad_item_is_named(scene: tuple[Simulator, State]) -> None:
    sim, start = scene
    v = start.v.clone()
    v[4, 2] = torch.inf
    with pytest.raises(NonFiniteError, match="v of item 4"):
        sim.step(State(q=start.q, v=v))


def test_the_order_of_items_does_not_matter(scene: tuple[Simulator, State]) -> None:
    sim, start = scene
    order = torch.arange(10, -1, -1)
    forward, backward = run(sim, start), run(sim, start[order])
    assert torch.equal(backward.q, forward.q[order])
    assert torch.equal(backward.v, forward.v[order])


def test_a_batch_of_one_is_a_row_of_the_batch(scene: tuple[Simulator, State]) -> None:
    sim, start = scene
    together = run(sim, start)
    for item in (0, 5, 10):
        alone = run(sim, start[item])
        assert torch.equal(alone.q[0], together.q[item])
        assert torch.equal(alone.v[0], together.v[item])


def test_threads_do_not_change_the_result(
    simulator: Callable[..., Simulator], scene: tuple[Simulator, State]
) -> None:
    sim, start = scene
    assert torch.equal(run(simulator(SCENE, timestep=0.01, threads=2), start).q, run(sim, start).q)


def test_parameters_of_items_are_their_own(scene: tuple[Simulator, State]) -> None:
    sim, start = scene
    gravity = sim.parameters()["gravity"].repeat(11, 1)
    gravity[3] *= 0.5
    changed, _ = sim.step(start, parameters={"gravity": gravity})
    plain, _ = sim.step(start)
    others = [i for i in range(11) if i != 3]
    assert torch.equal(changed.q[others], plain.q[others])
    gained = (changed.v[3, 2] - start.v[3, 2]) / (plain.v[3, 2] - start.v[3, 2])
    assert float(gained) > 0.0
    assert float(gained) != pytest.approx(1.0, abs=1e-3)


def test_float32_is_taken_and_given_back_as_float64(scene: tuple[Simulator, State]) -> None:
    sim, start = scene
    after, _ = sim.step(State(q=start.q.float(), v=start.v.float()))
    exact, _ = sim.step(start)
    assert after.q.dtype == torch.float64
    torch.testing.assert_close(after.q, exact.q, atol=1e-5, rtol=0)


def test_a_step_is_a_pure_function(scene: tuple[Simulator, State]) -> None:
    sim, start = scene
    q, v = start.q.clone(), start.v.clone()
    first, _ = sim.step(start)
    second, _ = sim.step(start)
    assert torch.equal(first.q, second.q)
    assert torch.equal(start.q, q)
    assert torch.equal(start.v, v)
