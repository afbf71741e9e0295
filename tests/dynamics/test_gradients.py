"""Gradients of a step against central differences of the step at the same smoothing.

One body with everything: a sliding or sticking foot, an arm with spring, damper, armature, dry
friction and a limit, a motor and a servo. The items of the batch are the modes.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from physim import Simulator, State
from physim.dynamics import SolverSettings

MODEL = """<mujoco><compiler angle="radian"/><worldbody>
  <geom name="floor" type="plane" size="1 1 1" friction="0.6"/>
  <body name="trunk"><freejoint/>
    <geom name="foot" type="sphere" size="0.1" mass="1" friction="0.5"/>
    <geom name="rod" type="capsule" size="0.05" fromto="0.05 0 0 0.2 0 0.05" mass="0.5"
      friction="0.4"/>
    <body name="arm" pos="0.1 0.02 0.1"><joint name="elbow" axis="0.1 1 0" stiffness="2"
        damping="0.1" armature="0.01" frictionloss="0.02" range="-0.5 0.5" limited="true"/>
      <geom name="arm" type="capsule" size="0.03" fromto="0 0 0 0.2 0 0.1" mass="0.3"
        contype="0" conaffinity="0"/></body></body>
</worldbody>
<actuator><motor joint="elbow" gear="2"/><position joint="elbow" kp="1" kv="0.05"/></actuator>
</mujoco>"""
MODES = ("flight", "sliding", "sticking", "impact", "limit", "rolling")
TIGHT = SolverSettings(newton_tolerance=1e-9, tolerance=1e-12, path_tolerance=1e-9)
Inputs = dict[str, Tensor]


def inputs(sim: Simulator) -> Inputs:
    """State, control and parameters of all modes, each with a leading batch dimension."""
    batch, nv = len(MODES), sim.model.nv
    q = torch.zeros(batch, 8, dtype=torch.float64)
    # Above the floor by more than the differences move it: at an overlap the recovery begins.
    q[:, 2], q[:, 3] = 0.1001, 1.0
    q[:, 4:7] = torch.tensor([0.02, -0.03, 0.1], dtype=torch.float64)
    q[:, 7] = 0.1
    v = torch.zeros(batch, nv, dtype=torch.float64)
    v[:, 6] = 0.3
    q[0, 2], v[0, :6] = 0.5, torch.tensor([1.0, 0.3, 0.2, 1.0, -2.0, 0.5])
    v[1, :2] = torch.tensor([1.0, 0.5])
    q[3, 2], v[3, :3] = 0.11, torch.tensor([0.3, 0.0, -2.0])
    q[4, 7], v[4, 6] = 0.499, 2.0
    v[5, :5] = torch.tensor([0.5, 0.0, 0.0, 0.0, 5.0])
    start = sim.initial_state(q=q, v=v, on_penetration="ignore")
    values: Inputs = {"q": start.q, "v": start.v}
    values["control"] = torch.tensor([[0.1, -0.2]], dtype=torch.float64).repeat(batch, 1)
    for name, own in sim.parameters().items():
        if own.numel():
            values[name] = own.expand(batch, *own.shape).clone()
    return values


def outcome(sim: Simulator, values: Inputs) -> tuple[Tensor, Tensor]:
    """Next state (B, nq + nv), and which items converged in one piece."""
    rest = {k: x for k, x in values.items() if k not in ("q", "v", "control", "step")}
    q = values["q"]
    if "step" in values:
        q = sim.retract(q, values["step"])
    state = State(q=q, v=values["v"])
    after, report = sim.step(state, values["control"], parameters=rest)
    good = report.converged & (report.counts["parts"] == 1)
    return torch.cat([after.q, after.v], dim=-1), good


def differences(sim: Simulator, values: Inputs, weights: Tensor, name: str, step: float) -> Tensor:
    """Derivative of the weighted outcome by Richardson's central differences (B, ...)."""
    base = values[name]
    size = base[0].numel()
    totals = []
    for h in (step, 0.5 * step):
        moved = base[None, None].repeat(2, size, *[1] * base.dim())
        flat = moved.reshape(2, size, len(MODES), size)
        for k in range(size):
            flat[0, k, :, k] += h
            flat[1, k, :, k] -= h
        copies = 2 * size
        batch = {k: x.repeat(copies, *[1] * (x.dim() - 1)) for k, x in values.items()}
        batch[name] = flat.reshape(copies * len(MODES), *base.shape[1:])
        with torch.no_grad():
            out, good = outcome(sim, batch)
        assert bool(good.all())
        value = (out.reshape(copies, len(MODES), -1) * weights).sum(-1)
        value = value.reshape(2, size, len(MODES))
        totals.append((value[0] - value[1]).T / (2 * h))
    return ((4 * totals[1] - totals[0]) / 3).reshape(base.shape)


@pytest.fixture(scope="module", params=[1e-3, 1e-6], ids=["smooth", "sharp"])
def case(
    simulator: Callable[..., Simulator], request: pytest.FixtureRequest
) -> tuple[Simulator, float]:
    smoothing: float = request.param
    sim = simulator(
        MODEL, timestep=0.01, smoothing=smoothing, gradient_smoothing=smoothing, settings=TIGHT
    )
    return sim, {1e-3: 2e-5, 1e-6: 3e-7}[smoothing]


NAMES = (
    "step v control gravity timestep mass center_of_mass inertia body_position joint_anchor "
    "stiffness spring_reference damping armature friction_loss limit_lower limit_upper "
    "shape_size shape_position friction gear gain bias"
).split()
FIXED = {
    "pair_friction": "rows that a pair of this model does not have of its own",
    "control_lower": "not limited",
    "control_upper": "not limited",
    "force_lower": "not limited",
    "force_upper": "not limited",
    "q": "its tangent step stands for it",
}


def test_all_parameters_are_checked(case: tuple[Simulator, float]) -> None:
    assert {*NAMES, *FIXED} >= set(case[0].parameters())


@pytest.mark.parametrize("name", NAMES)
def test_gradient_is_the_derivative(case: tuple[Simulator, float], name: str) -> None:
    sim, step = case
    values = inputs(sim)
    values["step"] = torch.zeros(len(MODES), sim.model.nv, dtype=torch.float64)
    random = torch.Generator().manual_seed(0)
    weights = torch.randn(sim.model.nq + sim.model.nv, generator=random, dtype=torch.float64)
    leaf = values[name].clone().requires_grad_()
    out, good = outcome(sim, {**values, name: leaf})
    assert bool(good.all())
    (gradient,) = torch.autograd.grad((out * weights).sum(), leaf)
    expected = differences(sim, values, weights, name, step)
    scale = expected.reshape(len(MODES), -1).norm(dim=-1)
    error = (gradient - expected).reshape(len(MODES), -1).norm(dim=-1)
    for mode, now, size in zip(MODES, error.tolist(), scale.tolist(), strict=True):
        assert now <= 1e-6 * max(size, 1.0), (mode, now, size)


def test_both_backends_give_the_same_gradient(simulator: Callable[..., Simulator]) -> None:
    gradients = []
    for backend in ("kernel", "reference"):
        sim = simulator(MODEL, timestep=0.01, backend=backend, settings=TIGHT)
        values = {k: x.clone().requires_grad_() for k, x in inputs(sim).items()}
        out, _ = outcome(sim, values)
        weights = torch.linspace(-1.0, 1.0, out.shape[-1], dtype=torch.float64)
        found = torch.autograd.grad((out * weights).sum(), list(values.values()), allow_unused=True)
        gradients.append(dict(zip(values, found, strict=True)))
    for name, fast in gradients[0].items():
        slow = gradients[1][name]
        assert (fast is None) == (slow is None), name
        if fast is not None and slow is not None:
            size = max(float(slow.abs().max()), 1.0)
            torch.testing.assert_close(fast / size, slow / size, atol=1e-7, rtol=0, msg=name)


def test_linearize_is_the_derivative_of_the_tangent_step(case: tuple[Simulator, float]) -> None:
    sim, step = case
    values = inputs(sim)
    matrix, gain = sim.linearize(State(q=values["q"], v=values["v"]), values["control"])
    nv = sim.model.nv
    assert matrix.shape == (len(MODES), 2 * nv, 2 * nv)
    values["step"] = torch.zeros(len(MODES), nv, dtype=torch.float64)
    # Rows of the velocity are those of the state itself.
    for row in range(nv):
        weights = torch.zeros(sim.model.nq + nv, dtype=torch.float64)
        weights[sim.model.nq + row] = 1.0
        for name, block in (
            ("step", matrix[:, nv + row, :nv]),
            ("v", matrix[:, nv + row, nv:]),
            ("control", gain[:, nv + row]),
        ):
            expected = differences(sim, values, weights, name, step)
            size = expected.norm(dim=-1, keepdim=True).clamp(min=1.0)
            assert ((block - expected) / size).abs().max() <= 1e-6
