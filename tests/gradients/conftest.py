"""Models, states and difference quotients shared by the gradient tests."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from torch import Tensor

import physim
from physim.dynamics import SolverSettings

DOUBLE = torch.float64
# A difference quotient divides the solver's error by its step, so the solve must be far tighter
# than the simulation's default.
TIGHT = SolverSettings(newton_tolerance=1e-9, tolerance=1e-13, path_tolerance=1e-9)
# In units of an input's own size.
STEPS = (3e-4, 1e-4, 5e-5, 2e-5, 1e-5)

# Every kind of joint, shape and number: no entry of `parameters` is without effect in all regimes.
ZOO = """
<mujoco model="zoo">
  <option timestep="0.01" gravity="0.3 -0.2 -9.7"/>
  <default><geom contype="0" conaffinity="1" density="600"/></default>
  <worldbody>
    <geom name="floor" type="plane" size="5 5 1" contype="1" conaffinity="0" friction="0.3"
      pos="0.01 0.02 0"/>
    <body name="base" pos="0 0 0.2"><freejoint name="base"/>
      <geom name="box" type="box" size="0.14 0.11 0.05" friction="0.7"/>
      <body name="arm" pos="0.2 0.02 0.03">
        <joint name="shoulder" type="hinge" axis="0.1 1 0.2" pos="-0.04 0 0.01" range="-40 35"
          stiffness="3" springref="10" damping="0.2" armature="0.01" frictionloss="0.15"/>
        <geom name="capsule" type="capsule" fromto="0 0 0 0.22 0.03 0.01" size="0.03"
          friction="0.8"/>
        <body name="forearm" pos="0.26 0.04 0.01">
          <joint name="elbow" type="hinge" axis="0.2 1 -0.3" range="-50 50" damping="0.05"
            armature="0.004"/>
          <geom name="egg" type="ellipsoid" size="0.09 0.05 0.04" pos="0.08 0 0" euler="0 10 25"
            friction="0.6"/>
          <body name="tip" pos="0.15 0.01 -0.03">
            <geom name="bead" type="sphere" size="0.02" friction="0.9"/>
          </body>
        </body>
      </body>
      <body name="mast" pos="-0.2 0.05 0.08">
        <joint name="lift" type="slide" axis="0.1 0.2 1" range="-0.08 0.06" stiffness="80"
          springref="0.01" damping="2" armature="0.05" frictionloss="0.4"/>
        <geom type="box" size="0.03 0.03 0.06" contype="0" conaffinity="0"/>
        <body name="drum" pos="-0.03 0.02 -0.05">
          <joint name="swivel" type="ball" pos="0.01 0 0.02" damping="0.03" armature="0.002"/>
          <geom name="drum" type="cylinder" size="0.05 0.06" pos="-0.04 0.02 -0.06"
            euler="20 5 0" friction="0.2"/>
        </body>
      </body>
    </body>
    <body name="stone" pos="0.35 0.05 0.4"><freejoint name="stone"/>
      <geom name="stone" type="sphere" size="0.05" pos="0.01 0.004 -0.003" friction="0.4"/>
    </body>
  </worldbody>
  <contact>
    <pair geom1="stone" geom2="capsule" friction="0.15 0.15 0.005 0.0001 0.0001"/>
  </contact>
  <actuator>
    <position name="shoulder" joint="shoulder" kp="4" kv="0.1" gear="1.3" ctrlrange="-1 0.15"/>
    <general name="elbow" joint="elbow" gainprm="2.5" biastype="affine" biasprm="0.3 -1.5 -0.1"
      ctrlrange="-0.8 0.8" forcerange="-60 60" gear="0.7"/>
    <position name="elbow_weak" joint="elbow" kp="3" forcerange="-0.25 0.2" gear="1.1"/>
    <motor name="lift" joint="lift" gear="3" ctrlrange="-0.6 0.7"/>
    <motor name="lift_weak" joint="lift" gear="2" forcerange="-0.3 0.4"/>
    <motor name="push" joint="base" gear="0.4 0.2 -0.3 0.05 0.1 0.2"/>
    <motor name="twist" joint="swivel" gear="0.05 0.1 0.02"/>
  </actuator>
</mujoco>
"""
# Beyond a control bound, within, beyond a force bound, beyond a control bound, beyond a force
# bound, within, within.
ZOO_CONTROL = (0.2, 0.3, 0.9, -0.9, -0.5, 0.2, 0.3)

# A free capsule that carries a ball joint and a limited hinge: small enough for the reference.
TUMBLER = """
<mujoco model="tumbler">
  <option timestep="0.01"/>
  <default><geom contype="0" conaffinity="1" density="800"/></default>
  <worldbody>
    <geom name="floor" type="plane" size="5 5 1" contype="1" conaffinity="0" friction="0.5"/>
    <body name="trunk" pos="0 0 0.3"><freejoint/>
      <geom name="trunk" type="capsule" fromto="-0.1 0 0 0.1 0.02 0.01" size="0.05"/>
      <body name="head" pos="0.15 0 0.05">
        <joint name="neck" type="ball" damping="0.05" armature="0.002"/>
        <geom name="head" type="sphere" size="0.04" pos="0.03 0.02 0.01"/>
      </body>
      <body name="tail" pos="-0.15 0 0.02">
        <joint name="hip" type="hinge" axis="0 1 0" range="-30 30" stiffness="2" damping="0.05"
          frictionloss="0.05"/>
        <geom name="tail" type="capsule" fromto="0 0 0 -0.12 0 0" size="0.02"/>
      </body>
    </body>
  </worldbody>
  <actuator>
    <position name="hip" joint="hip" kp="3"/>
    <motor name="neck" joint="neck" gear="0.1 0.2 0.05"/>
  </actuator>
</mujoco>
"""
TUMBLER_CONTROL = (0.3, 0.2)

# A disc that slides and drops without turning: contact and friction with the fewest unknowns.
PUCK = """
<mujoco model="puck">
  <option timestep="0.01"/>
  <worldbody>
    <geom name="floor" type="plane" size="5 5 1" contype="1" conaffinity="0" friction="0.5"/>
    <body name="puck">
      <joint name="x" type="slide" axis="1 0 0"/>
      <joint name="y" type="slide" axis="0 1 0"/>
      <joint name="z" type="slide" axis="0 0 1"/>
      <geom name="puck" type="sphere" size="0.1" mass="2" friction="0.2"
        contype="0" conaffinity="1"/>
    </body>
  </worldbody>
  <actuator><motor name="x" joint="x"/><motor name="z" joint="z"/></actuator>
</mujoco>
"""
MODELS = {"zoo": ZOO, "tumbler": TUMBLER, "puck": PUCK}
CONTROLS = {"zoo": ZOO_CONTROL, "tumbler": TUMBLER_CONTROL, "puck": (0.5, -0.3)}


def _state(*rows: tuple[Sequence[float], Sequence[float]], turns: Sequence[int]) -> physim.State:
    q = torch.tensor([row[0] for row in rows], dtype=DOUBLE)
    for start in turns:
        q[:, start : start + 4] /= q[:, start : start + 4].norm(dim=-1, keepdim=True)
    return physim.State(q=q, v=torch.tensor([row[1] for row in rows], dtype=DOUBLE))


def _zoo_state(
    base: Sequence[float], stone: Sequence[float], speed: Sequence[float], height: float = 0.0
) -> physim.State:
    place = [base[0], base[1], base[2] + height, *base[3:], 1.0, 0.0, 0.0, 0.0]
    return _state(([*place, *stone, 0.9, 0.1, 0.3, -0.2], speed), turns=(3, 10, 17))


# Poses in which one point of box, drum and arm is 0.05 mm above the floor. No link has more
# contacts than it needs: where contacts are redundant, the sharp central path bends within
# nanometres, and no difference quotient in double precision can follow it.
_ON_BEAD = (0, 0, 0.0738063, 0.9976706, 0.0438584, -0.0522475, 0, 0.2860676, 0.0987187, 0.0520469)
_ON_EGG = (0, 0, 0.0628786, 0.9991959, 0.0355884, -0.0184654, 0, 0.3537077, -0.4991942, 0.046304)
_ON_ARM = (0, 0, 0.0719739, 0.9975885, 0.0617119, -0.0317614, 0, 0.4893473, -0.85, 0.0401301)
_IN_AIR = (0.1, -0.2, 1.0, 0.8, 0.3, -0.4, 0.2, 0.2, 0.3, -0.01)
_AT_LIMITS = (0.1, -0.2, 1.0, 0.8, 0.3, -0.4, 0.2, 0.608, -0.87, -0.0795)
_JOINTS = (0.1, -0.2, 0.1, 0.2, 0.1, -0.1)
_FAST = (4.0, -6.0, -1.0, 0.2, 0.1, -0.1)

ZOO_STATES = {
    "flight": _zoo_state(
        _IN_AIR,
        (0.5, 0.6, 1.2),
        (0.3, 0.1, -1.5, 0.4, 0.5, -0.6, *_JOINTS, 0.1, 0.3, -1.0, 0.5, -0.4, 0.3),
    ),
    "sliding": _zoo_state(
        _ON_BEAD,
        (0.3, 0.4, 0.0592),
        (1.2, 0.5, -0.2, 0, 0, 0, *_JOINTS, 1.0, 0.3, -0.2, 0.5, -0.4, 0.3),
        height=1e-3,
    ),
    "sticking": _zoo_state(
        _ON_EGG,
        (0.3, 0.4, 0.0592),
        (0, 0, -0.2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, -0.2, 0, 0, 0),
        height=1e-3,
    ),
    "impact": _zoo_state(
        _ON_ARM,
        (0.33, 0.152, 0.0768),
        (0.3, 0.1, -1.5, 0, 0, 0, *_JOINTS, 0.1, -1.3, -1.9, 15.0, -12.0, 9.0),
        height=5e-3,
    ),
    "limits": _zoo_state(
        _AT_LIMITS,
        (0.5, 0.6, 1.2),
        (0.3, 0.1, -1.5, 0.4, 0.5, -0.6, *_FAST, 0.1, 0.3, -1.0, 0.5, -0.4, 0.3),
    ),
}
_UPRIGHT = (1.0, 0.0, 0.0, 0.0)
_TURNED = (0.9, 0.2, -0.1, 0.3)
# In flight with the hinge at its limit; landing; sliding.
TUMBLER_STATES = _state(
    ((0, 0, 0.6, *_TURNED, *_TURNED, 0.52), (0.3, 0.1, -0.5, 1, -2, 0.5, 0.3, 0.6, -0.4, 1.0)),
    ((0, 0, 0.052, *_UPRIGHT, *_TURNED, 0.1), (0.2, 0, -0.9, 0, 0.2, 0, 0.3, 0.6, -0.4, 0.2)),
    ((0, 0, 0.0502, *_UPRIGHT, *_UPRIGHT, 0.1), (1.2, 0.6, -0.1, 0, 0, 0.2, 0, 0.1, 0, 0.0)),
    turns=(3, 7),
)
PUCK_STATES = _state(
    ((0, 0, 0.5), (0.3, 0.2, -1.0)),
    ((0, 0, 0.102), (0.3, 0.2, -1.0)),
    ((0, 0, 0.1003), (1.0, 0.4, -0.1)),
    ((0, 0, 0.1), (0.0, 0.0, 0.0)),
    turns=(),
)
STATES = {"tumbler": TUMBLER_STATES, "puck": PUCK_STATES}


@cache
def _model(source: str) -> physim.Model:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return physim.load_model(MODELS.get(source, source))


@cache
def _simulator(source: str, **settings: object) -> physim.Simulator:
    return physim.Simulator(_model(source), **settings)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One step as a function of everything that it depends on, and its two derivatives.

    Outputs are next configuration over time step and next velocity, so that all are speeds.
    """

    sim: physim.Simulator
    state: physim.State
    control: Tensor

    def inputs(self) -> dict[str, Tensor]:
        """All inputs by name with a leading batch dimension; ``q`` is a tangent step."""
        model, like = self.sim.model, self.state.v
        return {
            "q": torch.zeros_like(like),
            "v": like,
            "control": self.control.expand(len(like), -1),
            "external_force": like.new_zeros(len(like), len(model.bodies), 6),
            "interval": torch.full((len(like),), self.sim.timestep, dtype=DOUBLE),
        } | {
            name: value.expand(len(like), *value.shape)
            for name, value in self.sim.parameters().items()
        }

    def outputs(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, physim.Report]:
        """(B, nq + nv) outputs and the report."""
        rest = dict(inputs)
        batch = rest["v"].shape[0]
        q = self.sim.retract(self.state.q.expand(batch, -1), rest.pop("q"))
        start = physim.State(q=q, v=rest.pop("v"), interval=rest.pop("interval"))
        following, report = self.sim.step(
            start,
            rest.pop("control"),
            external_force=rest.pop("external_force"),
            parameters=rest,
        )
        return torch.cat([following.q / self.sim.timestep, following.v], dim=-1), report

    def jacobians(self) -> dict[str, Tensor]:
        """Derivative of every output with respect to every input, by one adjoint solve each."""
        rows = self.sim.model.nq + self.sim.model.nv
        x = {
            name: value.expand(rows, *value.shape[1:]).clone().requires_grad_()
            for name, value in self.inputs().items()
        }
        y, report = self.outputs(x)
        assert bool((report.counts["parts"] == 1).all())
        grads = torch.autograd.grad(y.diagonal().sum(), list(x.values()), allow_unused=True)
        return {
            name: torch.zeros_like(value) if grad is None else grad
            for (name, value), grad in zip(x.items(), grads, strict=True)
        }

    def differences(self, directions: Sequence[tuple[str, Tensor]]) -> Tensor:
        """Sixth-order central differences along directions of single inputs (D, nq + nv).

        Of several step sizes each direction takes the one whose result changes least to the next
        size: long steps cross kinks and bend with the sharp central path, short ones drown in
        the rounding of positions over time step. The adjoint has no say in the choice.
        """
        weights = torch.tensor([-1.0, 9.0, -45.0, 45.0, -9.0, 1.0], dtype=DOUBLE) / 60.0
        places = torch.tensor([-3.0, -2.0, -1.0, 1.0, 2.0, 3.0], dtype=DOUBLE)
        steps = torch.tensor(STEPS, dtype=DOUBLE)
        shifts = (steps[:, None] * places).reshape(-1)
        x = {
            name: value.repeat(len(directions) * len(shifts), *[1] * (value.dim() - 1))
            for name, value in self.inputs().items()
        }
        for row, (name, direction) in enumerate(directions):
            here = slice(len(shifts) * row, len(shifts) * (row + 1))
            x[name][here] += torch.einsum("s,...->s...", shifts, direction)
        y, report = self.outputs(x)
        assert bool((report.counts["parts"] == 1).all())
        y = y.reshape(len(directions), len(steps), len(places), -1)
        quotients = torch.einsum("dsjk,j->dsk", y, weights) / steps[:, None]
        change = (quotients[:, 1:] - quotients[:, :-1]).abs().amax(-1)
        return quotients[torch.arange(len(directions)), change.argmin(-1)]

    def direction(self, name: str, generator: torch.Generator) -> Tensor:
        """A random direction of one input in units of its own size; nothing where infinite."""
        x = self.inputs()[name][0]
        finite = torch.where(torch.isfinite(x), x, 0.0)
        rows = finite.abs().amax(-1, keepdim=True) if x.dim() else finite.abs()
        # Inputs that are zero here have the size 1 in SI units (or 0.1 m or rad).
        size = finite.abs() + 0.1 * torch.where(rows > 0, rows, 1.0)
        noise = torch.randn(x.shape, generator=generator, dtype=DOUBLE)
        return torch.where(torch.isfinite(x), noise * size, 0.0)


@pytest.fixture(scope="session")
def simulator() -> Callable[..., physim.Simulator]:
    """Build a simulator of a model's name or file, or take the one built before."""
    return _simulator


@pytest.fixture(scope="session")
def tight() -> SolverSettings:
    """Settings for solves that are differenced."""
    return TIGHT


@pytest.fixture(scope="session")
def firm() -> SolverSettings:
    """Settings for solves that are compared: as exact as positions near 1 m allow."""
    return SolverSettings(newton_tolerance=1e-9, tolerance=1e-12, path_tolerance=1e-7)


@pytest.fixture(scope="session")
def states() -> Mapping[str, physim.State]:
    """States of the models, in contact and out, one batch per model."""
    zoo = list(ZOO_STATES.values())
    merged = physim.State(q=torch.cat([s.q for s in zoo]), v=torch.cat([s.v for s in zoo]))
    return STATES | {"zoo": merged}


@pytest.fixture(scope="session")
def controls() -> Mapping[str, Tensor]:
    """A control of each model, shape ``(1, nu)``."""
    return {name: torch.tensor([row], dtype=DOUBLE) for name, row in CONTROLS.items()}


@pytest.fixture(scope="session")
def make_probe(
    simulator: Callable[..., physim.Simulator], controls: Mapping[str, Tensor]
) -> Callable[..., Probe]:
    """Probe of a model at a state, both solves at one smoothing."""

    def build(
        source: str, state: physim.State, smoothing: float, control: Tensor | None = None
    ) -> Probe:
        sim = simulator(source, smoothing=smoothing, gradient_smoothing=smoothing, settings=TIGHT)
        return Probe(sim=sim, state=state, control=controls[source] if control is None else control)

    return build


@pytest.fixture(scope="session")
def zoo_states() -> Mapping[str, physim.State]:
    """One state per regime of the zoo."""
    return ZOO_STATES


@pytest.fixture
def generator() -> torch.Generator:
    """Random numbers that are the same in every run."""
    return torch.Generator().manual_seed(0)
