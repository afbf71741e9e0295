"""Quantities of a state take parameters: those of a model that was made with the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from physim import SettingsError, Simulator, State, load_model

ARM = """<mujoco><worldbody><geom name="floor" type="plane" size="1 1 1"/>
  <body name="base" pos="0 0 1"><freejoint/><geom name="hull" size="0.1" mass="1"/>
    <body name="arm" pos="0.1 0 0"><joint name="hip" axis="0 1 0" stiffness="3" armature="0.02"/>
      <geom name="rod" type="capsule" fromto="0 0 0 0.4 0 0" size="0.03" mass="0.5"/></body></body>
</worldbody><actuator><motor joint="hip"/></actuator></mujoco>"""
CHANGED: dict[str, Any] = {
    "mass": [1.3, 0.2],
    "gravity": [0.5, 0.0, -3.0],
    "shape_size": [[1.0, 1.0, 1.0], [0.2, 0.0, 0.0], [0.05, 0.2, 0.0]],
    "body_position": [[0.0, 0.0, 1.0], [0.15, 0.02, 0.0]],
    "center_of_mass": [[0.01, 0.0, 0.0], [0.3, 0.0, 0.0]],
    "stiffness": [0.0] * 6 + [5.0],
    "armature": [0.0] * 6 + [0.1],
}
QUESTIONS: dict[str, Callable[..., Any]] = {
    "contact_gaps": lambda sim, state, **p: sim.contact_gaps(state, **p),
    "node_velocity": lambda sim, state, **p: sim.node_velocity(state, [0.3], **p),
    "energy": lambda sim, state, **p: sim.energy(state, [0.3], **p),
    "momentum": lambda sim, state, **p: torch.cat(sim.momentum(state, **p)),
    "mass_matrix": lambda sim, state, **p: sim.mass_matrix(state, **p),
    "forward_kinematics": lambda sim, state, **p: sim.forward_kinematics(state, **p).center,
    "jacobian": lambda sim, state, **p: torch.cat(sim.jacobian(state, "arm", **p)),
    "inverse_dynamics": lambda sim, state, **p: sim.inverse_dynamics(
        state, State(q=sim.retract(state.q, 0.01 * state.v), v=state.v), **p
    ),
    "initial_state": lambda sim, state, **p: (
        sim.initial_state(q=state.q, v=state.v, at="node", **p).v
    ),
}


@pytest.fixture(scope="module")
def pair() -> tuple[Simulator, Simulator]:
    model = load_model(ARM)
    changed = model.replace_parameters(CHANGED)
    return (
        Simulator(model, timestep=0.01, backend="reference"),
        Simulator(changed, timestep=0.01, backend="reference"),
    )


@pytest.fixture
def state(pair: tuple[Simulator, Simulator]) -> State:
    random = torch.Generator().manual_seed(0)
    v = torch.randn(2, 7, generator=random, dtype=torch.float64)
    q = pair[0].retract(pair[0].initial_state(2).q, 0.2 * v)
    return State(q=q, v=v)


@pytest.mark.parametrize("question", QUESTIONS)
def test_parameters_are_those_of_the_changed_model(
    pair: tuple[Simulator, Simulator], state: State, question: str
) -> None:
    sim, changed = pair
    ask = QUESTIONS[question]
    given = {name: torch.tensor(value).double() for name, value in CHANGED.items()}
    expected = ask(changed, state)
    torch.testing.assert_close(ask(sim, state, parameters=given), expected)
    assert (ask(sim, state) - expected).abs().max() > 1e-4
    with pytest.raises(SettingsError, match="unknown name 'masses'"):
        ask(sim, state, parameters={"masses": torch.ones(2)})


@pytest.mark.parametrize("question", ["energy", "mass_matrix", "contact_gaps"])
def test_each_item_has_its_own_and_gradients_pass(
    pair: tuple[Simulator, Simulator], state: State, question: str
) -> None:
    name = "shape_size" if question == "contact_gaps" else "mass"
    own = pair[0].parameters()[name]
    both = torch.stack([own, 1.5 * own]).requires_grad_()
    ask = QUESTIONS[question]
    together = ask(pair[0], state, parameters={name: both})
    for item in range(2):
        alone = ask(pair[0], state[item], parameters={name: both[item].detach()})
        torch.testing.assert_close(together[item : item + 1], alone)

    def total(values: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = ask(pair[0], state, parameters={name: values}).sum(0)
        return result

    assert torch.autograd.gradcheck(total, (both,))
