"""Balls that are dropped as hidden never were the nearest to the floor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from physim import Simulator
from physim.dynamics._assembly import Assembly, StepData
from physim.dynamics._mechanism import Mechanism, build_mechanism
from physim.dynamics._numbers import reduce_numbers

BENT = """<mujoco><worldbody><geom type="plane" size="5 5 1"/>
  <body pos="0 0 1"><freejoint/><geom type="capsule" size="0.05" fromto="0 0 0 0.4 0 0"/>
    <body pos="0.4 0 0"><joint axis="0 1 0"/>
      <geom type="capsule" size="{radius}" fromto="0 0 0 0.3 0 0"/></body></body>
</worldbody></mujoco>"""


def nearest(sim: Simulator, mechanism: Mechanism, q: torch.Tensor) -> torch.Tensor:
    """Smallest gap of balls on the floor at configurations (B, nq)."""
    m, batch = mechanism, len(q)
    numbers = reduce_numbers(m.tree, sim.model, m.layout, m.groups, sim.model.parameters())
    still, step = torch.zeros(batch, m.tree.nv).double(), torch.ones(batch).double()
    control = torch.zeros(batch, sim.model.nu).double()
    data = StepData(q, still, control, still, step, step, numbers.detach().expand(batch, -1))
    on_floor = [g.kind == "ball" for g in m.groups for _ in range(g.count)]
    return Assembly(m).node(data).gap[:, on_floor].amin(-1)


def test_the_floor_is_as_near_without_hidden_balls(
    simulator: Callable[..., Simulator], generator: torch.Generator, locomotion_file: Path
) -> None:
    sim = simulator(locomotion_file)
    everything = build_mechanism(sim.model, prune=False)
    assert everything.contact_count >= sim.mechanism.contact_count
    step = 2.0 * torch.randn(200, sim.model.nv, generator=generator, dtype=torch.float64)
    q = sim.retract(sim.model.initial_q.expand(200, -1), step)
    kept, every = nearest(sim, sim.mechanism, q), nearest(sim, everything, q)
    torch.testing.assert_close(kept, every, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("radius", "kept"), [(0.05, 3), (0.04, 3), (0.06, 4)])
def test_a_ball_on_a_hinge_is_hidden_by_one_that_is_as_large(
    simulator: Callable[..., Simulator], radius: float, kept: int
) -> None:
    """A larger one of the child stays, and so does what it does not cover as the joint bends."""
    sim = simulator(BENT.format(radius=radius))
    (balls,) = (g for g in sim.mechanism.groups if g.kind == "ball")
    assert balls.count == kept
