"""Axes that never feel gravity's direction: links turn in it all the same."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import physim

GEOM = '<geom size="0.1" pos="0 0 1" mass="1" contype="0" conaffinity="0"/>'
MODELS = {
    "one pendulum": f'<body><joint axis="0 1 0"/>{GEOM}</body>',
    "two beside each other": f'<body><joint axis="0 1 0"/>{GEOM}</body>'
    f'<body pos="0 1 2"><joint axis="1 0 0"/>{GEOM}</body>',
}


@pytest.mark.parametrize(
    "name", ["one pendulum", pytest.param("two beside each other", marks=pytest.mark.slow)]
)
def test_step_and_rollout_of_pendulums_by_differences(name: str) -> None:
    model = physim.load_model(f"<mujoco><worldbody>{MODELS[name]}</worldbody></mujoco>")
    sim = physim.Simulator(model, timestep=0.05)
    nv = model.nv
    state = torch.linspace(0.3, 0.7, 2 * nv, dtype=torch.float64)

    def end(z: Tensor) -> Tensor:
        start = physim.State(q=z[None, :nv], v=z[None, nv:])
        motion = sim.rollout(start, steps=3)
        return torch.cat([motion.q[-1, 0], motion.v[-1, 0]])

    ours = torch.autograd.functional.jacobian(end, state)
    h = 1e-5
    moves = h * torch.eye(2 * nv, dtype=torch.float64)
    expected = torch.stack([(end(state + m) - end(state - m)) / (2 * h) for m in moves], 1)
    assert torch.allclose(ours, expected, rtol=1e-6, atol=1e-7)

    a, _ = sim.linearize(physim.State(q=state[None, :nv], v=state[None, nv:]))
    one = torch.autograd.functional.jacobian(
        lambda z: torch.cat([
            (s := sim.rollout(physim.State(q=z[None, :nv], v=z[None, nv:]), steps=1)).q[-1, 0],
            s.v[-1, 0],
        ]),
        state,
    )  # fmt: skip
    assert torch.allclose(a[0], one, rtol=1e-7, atol=1e-9)
    # A falling pendulum's angle runs away from small changes, faster with gravity.
    assert float(one[0, 0]) > 1.01
