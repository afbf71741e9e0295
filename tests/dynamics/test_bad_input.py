"""Wrong input is refused with its name, what was got and what was expected."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from physim import (
    ModelError,
    NonFiniteError,
    NotConvergedError,
    SettingsError,
    ShapeError,
    Simulator,
    State,
    Status,
    load_model,
)
from physim.dynamics import MLPPolicy, SolverSettings

CART = """<mujoco><worldbody><geom name="floor" type="plane" size="1 1 1"/>
  <body pos="0 0 1"><freejoint name="root"/><geom name="ball" size="0.1" mass="1"/>
    <body><joint name="hip" type="ball"/><geom name="arm" type="capsule" size="0.02 0.2"
      pos="0.4 0 0" mass="1"/></body></body></worldbody>
  <actuator><motor joint="root" gear="1 0 0 0 0 0"/></actuator></mujoco>"""
BALL = """<mujoco><worldbody><geom type="plane" size="1 1 1"/><body pos="0 0 0.1">
  <joint type="slide" axis="0 0 1"/><geom size="0.1" mass="1"/></body></worldbody></mujoco>"""
SLIDER = """<mujoco><worldbody><body><joint name="x" type="slide"/><geom size="0.1" mass="1"/>
  </body></worldbody><actuator><motor joint="x"/></actuator></mujoco>"""
QUICK_TO_FAIL = SolverSettings(max_substeps=1)
FIXED = '<mujoco><worldbody><body><geom size="0.1" mass="1"/></body></worldbody></mujoco>'


@pytest.fixture
def sim(simulator: Callable[..., Simulator]) -> Simulator:
    return simulator(CART, timestep=0.01, backend="reference", settings=QUICK_TO_FAIL)


@pytest.mark.parametrize("name", ["timestep", "smoothing", "gradient_smoothing"])
@pytest.mark.parametrize("value", [-0.01, float("nan"), float("inf"), "fast"])
def test_settings_must_be_numbers_in_range(name: str, value: Any) -> None:
    with pytest.raises(SettingsError, match=name):
        Simulator(load_model(CART), **{name: value})


def test_a_time_step_of_zero_is_refused() -> None:
    with pytest.raises(SettingsError, match="timestep"):
        Simulator(load_model(CART), timestep=0.0)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"backend": "cuda"}, "backend"),
        ({"threads": 0}, "threads"),
        ({"contact_shapes": ["bal"]}, "bal"),
        ({"contact_shapes": "ball"}, r"contact_shapes is 'ball', expected names"),
        ({"contact_shapes": 3}, "contact_shapes is 3"),
    ],
)
def test_unknown_choices_are_named(settings: dict[str, Any], word: str) -> None:
    with pytest.raises((SettingsError, ModelError), match=word):
        Simulator(load_model(CART), **settings)


def test_a_model_that_cannot_move_is_refused() -> None:
    with pytest.raises(SettingsError, match="no joints"):
        Simulator(load_model(FIXED))


@pytest.mark.parametrize(
    ("arguments", "error", "word"),
    [
        ({"q": [0.0] * 10}, ShapeError, r"q has shape \(10,\), expected \(11,\)"),
        ({"q": torch.zeros(2, 3, 11)}, ShapeError, "q has shape"),
        ({"v": torch.zeros(2, 8)}, ShapeError, r"v has shape \(2, 8\)"),
        ({"q": torch.ones(3, 11), "v": torch.zeros(2, 9)}, ShapeError, "v has 2 rows"),
        ({"batch": 4, "q": torch.ones(3, 11)}, ShapeError, "q has 3 rows"),
        ({"v": torch.full((9,), torch.nan)}, NonFiniteError, "v"),
        ({"q": torch.full((11,), torch.inf)}, NonFiniteError, "q"),
        ({"q": torch.zeros(11)}, SettingsError, "quaternion of joint 'root' of item 0.* is zero"),
        ({"v": torch.zeros(9, dtype=torch.complex128)}, SettingsError, "v is torch.complex128"),
        ({"batch": 0}, SettingsError, "batch"),
        ({"at": "middle"}, SettingsError, "at"),
        ({"on_penetration": "panic"}, SettingsError, "on_penetration"),
        ({"keyframe": "home"}, ModelError, "home"),
        ({"v": [0.0] * 3 + [0.0, 250.0, 0.0] + [0.0] * 3}, SettingsError, "'root' of item 0"),
        ({"v": [0.0] * 6 + [0.0, 250.0, 0.0]}, SettingsError, "'hip' of item 0"),
    ],
)
def test_states_are_checked(
    sim: Simulator, arguments: dict[str, Any], error: Any, word: str
) -> None:
    with pytest.raises(error, match=word):
        sim.initial_state(**arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "word"),
    [
        ({"control": [0.0, 1.0]}, ShapeError, r"control has shape \(2,\), expected \(1,\)"),
        ({"control": torch.zeros(3, 1)}, ShapeError, "control has 3 rows"),
        ({"control": [float("nan")]}, NonFiniteError, "control of item 0"),
        ({"parameters": {"masses": torch.ones(2)}}, SettingsError, "unknown name 'masses'"),
        ({"parameters": {"mass": torch.ones(3)}}, ShapeError, r"'mass'.*\(3,\).*\(2,\)"),
        ({"parameters": {"mass": torch.ones(2).long()}}, SettingsError, "'mass'.*int64"),
        (
            {"parameters": {"mass": torch.full((2,), torch.nan)}},
            NonFiniteError,
            r"parameters\['mass'\] is nan at \[0\]",
        ),
        (
            {"parameters": {"gravity": torch.tensor([[0.0, 0.0, torch.inf]])}},
            NonFiniteError,
            r"'gravity'\] is inf at \[0, 2\]",
        ),
        (
            {"parameters": {"friction": torch.tensor([0.5, -0.5, 0.5])}},
            SettingsError,
            r"'friction'\] is -0.5 at \[1\], expected zero or more",
        ),
        ({"parameters": {"timestep": torch.tensor(0.0)}}, SettingsError, "timestep.*positive"),
        ({"parameters": {"timestep": torch.tensor(-0.01)}}, SettingsError, "timestep.*positive"),
        (
            {"parameters": {"mass": torch.tensor([1.0, -2.0])}},
            SettingsError,
            r"'mass'.*-2 at \[1\]",
        ),
        ({"parameters": {"inertia": -torch.ones(2, 6)}}, SettingsError, "'inertia'.*principal"),
        ({"parameters": {"mass": "heavy"}}, SettingsError, "'mass'.* is a str"),
        ({"parameters": ["mass"]}, SettingsError, "parameters is a list"),
        ({"external_force": torch.zeros(2, 5)}, ShapeError, "external_force"),
        ({"external_force": torch.zeros(2, 2, 6)}, ShapeError, "external_force"),
        ({"external_force": torch.full((1, 2, 6), torch.inf)}, NonFiniteError, "force"),
        ({"smoothing": -1.0}, SettingsError, "smoothing"),
        ({"smoothing": float("nan")}, SettingsError, "smoothing"),
        ({"on_failure": "ignore"}, SettingsError, "on_failure"),
    ],
)
def test_steps_are_checked(
    sim: Simulator, arguments: dict[str, Any], error: Any, word: str
) -> None:
    with pytest.raises(error, match=word):
        sim.step(sim.initial_state(), **arguments)


@pytest.mark.parametrize("backend", ["kernel", "reference"])
@pytest.mark.parametrize("call", ["step", "rollout", "linearize"])
def test_a_parameter_that_is_not_finite_is_named_and_fails_its_item_only(
    simulator: Callable[..., Simulator], backend: str, call: str
) -> None:
    sim = simulator(BALL, timestep=0.01, backend=backend)
    start, friction = sim.initial_state(2), torch.full((2, 2), 0.5)
    friction[1, 1] = torch.nan
    asked = partial(getattr(sim, call), start, **({"steps": 2} if call == "rollout" else {}))
    with pytest.raises(NonFiniteError, match=r"parameters\['friction'\] is nan at \[1, 1\]"):
        asked(parameters={"friction": friction})
    if call == "step" and backend == "kernel":
        after, report = asked(parameters={"friction": friction}, on_failure="mask")
        assert report.converged.tolist() == [True, False]
        assert torch.equal(after.q[0], sim.step(start)[0].q[0])


def test_crossed_bounds_are_named(simulator: Callable[..., Simulator]) -> None:
    sim = simulator(
        """<mujoco><worldbody><body><joint name="hip" type="slide"
        range="-1 0.5" limited="true"/><geom size="0.1" mass="1"/></body></worldbody><actuator>
        <motor joint="hip" ctrlrange="-1 1" ctrllimited="true"/></actuator></mujoco>""",
        timestep=0.01,
        backend="reference",
    )
    state = sim.initial_state(2)
    with pytest.raises(
        SettingsError, match="limit_lower of 'hip' is 2, above its limit_upper of 0.5"
    ):
        sim.step(state, parameters={"limit_lower": torch.tensor([[0.0], [2.0]])})
    with pytest.raises(SettingsError, match="control_upper of -3"):
        sim.step(state, parameters={"control_upper": torch.tensor([-3.0])})


@pytest.mark.parametrize(
    ("data", "error", "word"),
    [
        (None, SettingsError, "NoneType without qpos, expected a mujoco.MjData"),
        ({"qpos": [0.0]}, SettingsError, "dict without qpos"),
        (SimpleNamespace(qpos=[0.0]), SettingsError, "without qvel"),
        (SimpleNamespace(qpos="abc", qvel=[0.0]), SettingsError, "data.qpos is a str"),
        (SimpleNamespace(qpos=[[0.0]], qvel=[0.0]), ShapeError, r"data.qpos has shape \(1, 1\)"),
    ],
)
def test_what_is_no_mjdata_is_refused(data: Any, error: Any, word: str) -> None:
    with pytest.raises(error, match=word):
        State.from_mujoco(data)


@pytest.mark.parametrize("batch", [0, -1, 1.5])
def test_copies_of_an_mjdata_are_counted(batch: Any) -> None:
    with pytest.raises(SettingsError, match="batch"):
        State.from_mujoco(SimpleNamespace(qpos=[0.0], qvel=[0.0]), batch=batch)


@pytest.mark.parametrize(
    ("state", "error"),
    [
        (State(q=torch.ones(2, 11), v=torch.zeros(3, 9)), ShapeError),
        (State(q=torch.ones(2, 10), v=torch.zeros(2, 9)), ShapeError),
        (State(q=torch.ones(1, 11), v=torch.full((1, 9), torch.nan)), NonFiniteError),
        (State(q=torch.zeros(1, 11), v=torch.zeros(1, 9)), NonFiniteError),
        (State(q=torch.ones(0, 11), v=torch.zeros(0, 9)), ShapeError),
        (State(q=torch.ones(1, 11), v=torch.zeros(1, 9), interval=0.1), ShapeError),
        ((torch.ones(1, 11), torch.zeros(1, 9)), SettingsError),
        (None, SettingsError),
    ],
)
def test_hand_made_states_are_checked(sim: Simulator, state: Any, error: Any) -> None:
    with pytest.raises(error):
        sim.step(state)


@pytest.mark.parametrize(
    ("arguments", "error", "word"),
    [
        ({}, SettingsError, "steps"),
        ({"steps": 0}, SettingsError, "steps"),
        ({"controls": torch.zeros(4, 2)}, ShapeError, "controls"),
        ({"controls": torch.zeros(4, 1), "steps": 5}, ShapeError, "steps is 5"),
        ({"steps": 2, "checkpoint_every": 0}, SettingsError, "checkpoint_every"),
        ({"steps": 2, "checkpoint_every": 1.5}, SettingsError, "checkpoint_every"),
        ({"steps": 2.5}, SettingsError, "steps"),
        ({"steps": 2, "on_failure": "ignore"}, SettingsError, "on_failure"),
        ({"controls": torch.zeros(4, 3, 1)}, ShapeError, r"controls.*\(4, 3, 1\).*\(steps, 1\)"),
        ({"controls": [0.0, 1.0]}, ShapeError, r"controls have shape \(2,\)"),
        ({"controls": "sine", "steps": 2}, SettingsError, "controls is a str"),
        ({"controls": torch.zeros(4, 1).to(torch.complex128)}, SettingsError, "controls.*complex"),
        (
            {"controls": lambda _, __: torch.zeros(3, 1), "steps": 2},
            ShapeError,
            r"policy.*\(3, 1\)",
        ),
        ({"controls": lambda _, __: None, "steps": 2}, SettingsError, "policy gave is a NoneType"),
        ({"controls": lambda _: [0.0], "steps": 2}, SettingsError, r"take \(state, step\)"),
        ({"controls": torch.nn.Linear(20, 1), "steps": 2}, SettingsError, "Linear.*MLPPolicy"),
        (
            {"controls": lambda _, k: [torch.nan if k else 0.0], "steps": 2},
            NonFiniteError,
            "controls of step 1, item 0",
        ),
    ],
)
def test_rollouts_are_checked(
    sim: Simulator, arguments: dict[str, Any], error: Any, word: str
) -> None:
    with pytest.raises(error, match=word):
        sim.rollout(sim.initial_state(), **arguments)


def push(kind: str) -> Any:
    """Controls of three steps and two items, NaN at step 1 of item 1."""
    table = torch.ones(3, 2, 1, dtype=torch.float64)
    table[1, 1] = torch.nan
    if kind == "network":
        weights = torch.zeros(2, 1, 2, dtype=torch.float64)
        weights[1, 0, 1] = torch.nan
        return MLPPolicy([weights], [torch.ones(1, dtype=torch.float64)], ["identity"])
    return table if kind == "table" else lambda _, step: table[step]


@pytest.mark.parametrize("kind", ["table", "function", "network"])
@pytest.mark.parametrize("backend", ["kernel", "reference"])
def test_the_step_and_item_of_a_bad_control_are_told(
    simulator: Callable[..., Simulator], kind: str, backend: str
) -> None:
    sim = simulator(SLIDER, timestep=0.01, backend=backend, settings=QUICK_TO_FAIL)
    start, first = sim.initial_state(2), 0 if kind == "network" else 1
    with pytest.raises(NonFiniteError, match=f"controls of step {first}, item 1 are not finite"):
        sim.rollout(start, push(kind), 3)
    motion = sim.rollout(start, push(kind), 3, on_failure="mask")
    status = motion.report.status
    assert bool(motion.report.converged[:, 0].all())
    assert int(status[first, 1]) == int(Status.NON_FINITE)
    assert bool(torch.isfinite(motion.q).all())
    if kind != "network":
        assert torch.equal(motion.q[:, 0], sim.rollout(start, torch.ones(3, 1)).q[:, 0])


def test_the_step_of_a_failure_is_told(simulator: Callable[..., Simulator]) -> None:
    impatient = SolverSettings(
        newton_first=1, newton_iterations=1, attempt_iterations=1, max_substeps=1
    )
    sim = simulator(CART, timestep=0.01, backend="reference", settings=impatient)
    with pytest.raises(NotConvergedError, match="Simulator.rollout at step 0 did not converge"):
        sim.rollout(sim.initial_state(v=[0.0] * 3 + [1.0] * 6), None, 2)


@pytest.mark.parametrize(
    "state",
    [
        State(q=torch.ones(1, 5), v=torch.zeros(1, 9)),
        State(q=torch.ones(1, 11), v=torch.zeros(1, 2)),
        State(q=torch.ones(2, 11), v=torch.zeros(1, 9)),
    ],
)
@pytest.mark.parametrize(
    "query", ["energy", "momentum", "mass_matrix", "forward_kinematics", "linearize"]
)
@pytest.mark.parametrize("backend", ["kernel", "reference"])
def test_every_question_checks_its_state(
    simulator: Callable[..., Simulator], state: State, query: str, backend: str
) -> None:
    asked = simulator(CART, timestep=0.01, backend=backend)
    with pytest.raises(ShapeError, match="state"):
        getattr(asked, query)(state)


def test_inverse_dynamics_wants_as_many_items_after_as_before(sim: Simulator) -> None:
    with pytest.raises(ShapeError, match="next_state.q has 3 rows"):
        sim.inverse_dynamics(sim.initial_state(2), sim.initial_state(3))


def test_a_simulator_wants_a_model() -> None:
    with pytest.raises(SettingsError, match="model is a str.*load_model"):
        Simulator("hopper.xml")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [list, np.asarray])
def test_controls_may_be_lists_and_arrays(sim: Simulator, kind: Any) -> None:
    rows = [[0.5], [-1.0], [2.0]]
    start = sim.initial_state(2)
    expected = sim.rollout(start, torch.tensor(rows))
    assert float(expected.q[-1, 0, 0]) != 0.0
    assert torch.equal(sim.rollout(start, kind(rows)).q, expected.q)
    assert torch.equal(sim.rollout(start, lambda _, k: rows[k], steps=3).q, expected.q)


def test_numbers_in_lists_keep_their_precision(sim: Simulator) -> None:
    state = sim.initial_state(v=[0.1] * 9)
    assert float(state.v[0, 0]) == 0.1
    pushed, _ = sim.step(state, [0.1])
    exact, _ = sim.step(state, torch.tensor([0.1], dtype=torch.float64))
    assert torch.equal(pushed.v, exact.v)


def test_quaternions_are_normalised(sim: Simulator) -> None:
    q = sim.model.initial_q.clone()
    q[3:7] = torch.tensor([3.0, 0.0, 4.0, 0.0], dtype=torch.float64)
    state = sim.initial_state(q=q)
    expected = torch.tensor([0.6, 0.0, 0.8, 0.0], dtype=torch.float64)
    torch.testing.assert_close(state.q[0, 3:7], expected)


def test_a_start_at_rest_at_the_node_is_possible(sim: Simulator) -> None:
    state = sim.initial_state(at="node")
    assert sim.node_velocity(state).abs().max() <= 1e-10


def test_a_failed_step_says_so_and_keeps_the_solution(
    simulator: Callable[..., Simulator],
) -> None:
    impatient = SolverSettings(
        newton_first=1, newton_iterations=1, attempt_iterations=1, max_substeps=1
    )
    sim = simulator(CART, timestep=0.01, backend="reference", settings=impatient)
    start = sim.initial_state(v=[0.0] * 3 + [1.0] * 6)
    with pytest.raises(NotConvergedError, match=r"1 of 1 items") as caught:
        sim.step(start)
    assert caught.value.solution is not None
    _, report = sim.step(start, on_failure="mask")
    assert not report.all_converged


def test_a_state_ends_after_its_items(sim: Simulator) -> None:
    state = sim.initial_state(batch=2)
    assert len(list(state)) == 2
    with pytest.raises(IndexError, match="item 2 of a state with 2"):
        state[2]


@pytest.mark.parametrize("step", [4, -5, 1.5, "last"])
def test_a_trajectory_ends_after_its_steps(sim: Simulator, step: Any) -> None:
    motion = sim.rollout(sim.initial_state(), None, 3)
    assert torch.equal(motion.state(3).q, motion.state(np.int64(-1)).q)
    with pytest.raises(IndexError, match=f"step is {step!r}, expected a whole number up to 3"):
        motion.state(step)
