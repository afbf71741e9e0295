"""Gradients of balls and capsules that hit each other, and faces, edges and rims of solids."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import physim

INPUTS = (
    "q v interval external_force timestep mass body_position shape_size shape_position friction"
).split()
# Steps of a millionth leave more rounding of positions than longer ones.
FLOOR = 0.1
FREE = '<body pos="{}"><freejoint/><geom type="{}" size="{}" friction="0.4" {}/></body>'
HELD = '<geom type="{}" size="{}" pos="{}" friction="0.3"/>'
BALL_SPEED = (0.5, 0.2, -1.0, 1.0, 0.4, -0.3)
FALL = (0.2, 0.1, -1.0, 0.3, -0.2, 0.1)
# Bodies 1 mm apart, and speeds that bring them together.
SCENES = {
    "ball on the face of a free box": (
        FREE.format("0 0 0", "box", "0.2 0.15 0.1", "")
        + FREE.format("0.03 0.02 0.151", "sphere", "0.05", ""),
        ((0.1, 0.0, 0.2, 0.3, -0.2, 0.1), BALL_SPEED),
    ),
    "rod across the edge of a box": (
        HELD.format("box", "0.2 0.15 0.1", "0 0 0")
        + FREE.format("-0.22192 -0.02 0.12192", "capsule", "0.03 0.12", 'zaxis="1 0.2 1"'),
        ((1.0, 0.1, -1.0, 0.3, -0.4, 0.2),),
    ),
    "ball on the rim of a cylinder": (
        HELD.format("cylinder", "0.1 0.1", "0 0 0")
        + FREE.format("0 -0.12192 0.12192", "sphere", "0.03", ""),
        ((0.2, 1.0, -1.0, 0.5, 0.3, 0.2),),
    ),
    "rod across a free rod": (
        FREE.format("0 0 0", "capsule", "0.04 0.2", 'zaxis="1 0 0.1"')
        + FREE.format("0.03 0.02 0.0845", "capsule", "0.04 0.2", 'zaxis="1 2 0.1"'),
        ((0.1, 0.0, 0.2, 0.3, -0.2, 0.1), FALL),
    ),
    "box on a ball": (
        HELD.format("sphere", "0.07", "0.03 0.02 -0.121")
        + FREE.format("0 0 0", "box", "0.15 0.1 0.05", ""),
        (FALL,),
    ),
    "cylinder on a ball": (
        HELD.format("sphere", "0.06", "0.02 0.03 -0.161")
        + FREE.format("0 0 0", "cylinder", "0.08 0.1", ""),
        (FALL,),
    ),
}


def central_difference(probe: Any, name: str, direction: Tensor) -> Tensor:
    """Richardson's: a body that is hit beside its middle turns so fast that long steps bend."""
    steps = torch.tensor([4e-6, -4e-6, 2e-6, -2e-6], dtype=torch.float64)
    x = {k: value.repeat(4, *[1] * (value.dim() - 1)) for k, value in probe.inputs().items()}
    x[name] = x[name] + torch.einsum("s,...->s...", steps, direction)
    y, _ = probe.outputs(x)
    long, short = (y[0] - y[1]) / 8e-6, (y[2] - y[3]) / 4e-6
    return (4.0 * short - long) / 3.0


@pytest.mark.slow
@pytest.mark.parametrize("scene", list(SCENES))
def test_gradient_equals_difference_quotient(
    make_probe: Callable[..., Any], generator: torch.Generator, scene: str
) -> None:
    bodies, speed = SCENES[scene]
    source = f'<mujoco><option gravity="0 0 0"/><worldbody>{bodies}</worldbody></mujoco>'
    nothing = torch.zeros(1, 0, dtype=torch.float64)
    start = torch.tensor(speed, dtype=torch.float64).reshape(1, -1)
    model = physim.load_model(source)
    state = physim.State(q=model.initial_q[None], v=start)
    probe = make_probe(source, state, 1e-6, nothing)
    following, _ = probe.sim.step(state, nothing)
    assert int((probe.sim.contact_gaps(following) < 1e-5).sum()) == 1
    jacobians = probe.jacobians()
    for name in INPUTS:
        direction = probe.direction(name, generator)
        slope = torch.einsum("n...,...->n", jacobians[name], direction)
        quotient = central_difference(probe, name, direction)
        error = (slope - quotient).abs().max() / quotient.abs().max().clamp(min=FLOOR)
        assert float(error) < 3e-6, name
