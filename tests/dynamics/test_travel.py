"""Simulators travel to workers and back as model and settings."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch

from physim import SettingsError, Simulator, State, load_model

# Compiled for the example of `Simulator` as well.
BALL = """<mujoco><worldbody>
  <geom type="plane" size="1 1 1"/>
  <body pos="0 0 1"><freejoint/><geom type="sphere" size="0.1" mass="1"/></body>
</worldbody></mujoco>"""
LIFT = """<mujoco><worldbody><geom name="floor" type="plane" size="1 1 1"/>
  <body pos="0 0 0.12"><joint name="lift" type="slide" axis="0 0 1" range="-1 1" limited="true"/>
    <geom name="trunk" size="0.1" mass="1"/><geom name="fin" size="0.02" mass="0.1"/></body>
  </worldbody><actuator><motor joint="lift"/></actuator></mujoco>"""


@pytest.fixture(scope="module")
def sim() -> Simulator:
    return Simulator(load_model(LIFT), backend="reference", contact_shapes=["trunk", "floor"])


@pytest.mark.parametrize("carry", [lambda x: pickle.loads(pickle.dumps(x)), copy.deepcopy])
@pytest.mark.parametrize("backend", ["kernel", "reference"])
def test_a_simulator_that_travelled_gives_the_same_bits(
    simulator: Callable[..., Simulator], carry: Callable[[Simulator], Simulator], backend: str
) -> None:
    own = simulator(BALL, timestep=0.01, gradient_smoothing=1e-3, backend=backend)
    start = own.initial_state(batch=3)
    start = State(q=start.q, v=torch.arange(18, dtype=torch.float64).view(3, 6) / 9)
    path = own.rollout(start, steps=5)
    other = carry(own)
    again = other.rollout(start, steps=5)
    assert torch.equal(path.q, again.q)
    assert torch.equal(path.v, again.v)
    assert repr(other) == repr(own)
    assert (other.gradient_smoothing, other.threads) == (1e-3, 1)


def test_chosen_shapes_travel(sim: Simulator) -> None:
    other = pickle.loads(pickle.dumps(sim))
    assert other.contact_pairs() == sim.contact_pairs() == [("floor", "trunk")]


def test_numbers_of_numpy_are_numbers_and_tensors_are_told_where_they_belong() -> None:
    model = load_model(LIFT)
    quick = Simulator(
        model, timestep=np.float32(0.5), smoothing=np.float64(1e-3), backend="reference"
    )
    assert (quick.timestep, quick.smoothing) == (0.5, 1e-3)
    for name in ("timestep", "smoothing"):
        with pytest.raises(SettingsError, match=rf"{name} is a tensor, expected .*parameters="):
            Simulator(model, **{name: torch.tensor(0.01)})


@pytest.mark.parametrize("length", [-0.01, 0.0])
def test_a_past_interval_has_a_length(sim: Simulator, length: float) -> None:
    start = sim.initial_state(batch=2, on_penetration="ignore")
    bad = State(q=start.q, v=start.v, interval=torch.tensor([0.01, length], dtype=torch.float64))
    with pytest.raises(SettingsError, match=r"state.interval holds .* expected positive"):
        sim.step(bad)
