"""What nobody drives loses energy; units do not matter."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from physim import Simulator, State, load_model

RAGDOLL = """<mujoco><option gravity="0 0 {gravity}"/><compiler angle="radian"/><worldbody>
  <geom name="floor" type="plane" size="1 1 1" friction="0.7"/>
  <body name="trunk"><freejoint/>
    <geom name="trunk" type="capsule" size="{r}" fromto="-{l} 0 0 {l} 0 0" mass="{m}"
      friction="0.7"/>
    <body pos="{l} 0 0"><joint axis="0 1 0" damping="{damping}" stiffness="{stiffness}"
        armature="{armature}" range="-0.5 0.5" limited="true"/>
      <geom name="arm" type="capsule" size="{r}" fromto="0 0 0 {l} 0 0" mass="{m}"
        friction="0.7"/></body></body>
</worldbody></mujoco>"""


def ragdoll(mass: float = 1.0, length: float = 1.0, time: float = 1.0) -> str:
    """The same body in units of ``mass`` kg, ``length`` m and ``time`` s."""
    moment = mass * length**2
    numbers = {
        "gravity": -9.81 * length / time**2,
        "r": 0.05 * length,
        "l": 0.3 * length,
        "m": mass,
        "damping": 0.02 * moment / time,
        "stiffness": 0.5 * moment / time**2,
        "armature": 0.01 * moment,
    }
    return RAGDOLL.format(**{name: repr(value) for name, value in numbers.items()})


@pytest.mark.parametrize("timestep", [0.02, 0.005])
def test_energy_never_grows(
    simulator: Callable[..., Simulator],
    nodes: Callable[[object, int], State],
    timestep: float,
) -> None:
    sim = simulator(ragdoll(), timestep=timestep)
    v = [[1.0, 0.5, 0.0, 2.0, -1.0, 3.0, 1.0], [0.0, 0.0, 0.0, 0.0, 4.0, 0.0, -3.0]]
    q = torch.tensor([0.0, 0.0, 0.5, 1.0, 0.0, 0.0, 0.0, 0.2], dtype=torch.float64)
    start = sim.initial_state(q=q, v=torch.tensor(v), at="node")
    trajectory = sim.rollout(start, steps=round(4 / timestep))
    assert bool(trajectory.report.converged.all())
    for item in range(2):
        energy = sim.energy(nodes(trajectory, item))
        growth = (energy - energy.cummin(0).values).max()
        # At rest the velocity of the node is half a kick of gravity, short of the floor's answer.
        half_kick = 0.5 * 2.0 * (0.5 * 9.81 * timestep) ** 2
        print(f"growth {float(growth):.2e} J of {float(energy[0]):.2f} J, kick {half_kick:.2e} J")
        assert growth <= 2 * half_kick
        assert energy[-1] < 0.5 * energy[0]


# Every try of a shrink costs seconds.
@settings(max_examples=5, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(
    mass=st.floats(1e-3, 1e3),
    length=st.floats(1e-2, 1e2),
    time=st.floats(1e-2, 1e2),
)
def test_units_do_not_matter(mass: float, length: float, time: float) -> None:
    ends = []
    for m, l, t in ((1.0, 1.0, 1.0), (mass, length, time)):
        sim = Simulator(load_model(ragdoll(m, l, t)), timestep=0.02 * t, backend="reference")
        q = [0.0, 0.0, 0.06 * l, 1.0, 0.05, 0.1, 0.0, 0.2]
        v = [1.0 * l / t, 0.5 * l / t, -1.0 * l / t, 2.0 / t, -1.0 / t, 3.0 / t, 1.0 / t]
        start = sim.initial_state(q=q, v=v, on_penetration="ignore")
        trajectory = sim.rollout(start, steps=6)
        end = trajectory.state(-1)
        q_scale = torch.tensor([l, l, l, 1, 1, 1, 1, 1], dtype=torch.float64)
        v_scale = torch.tensor([l, l, l, 1, 1, 1, 1], dtype=torch.float64) / t
        ends.append((end.q / q_scale, end.v / v_scale, trajectory.report.iterations))
    (q_one, v_one, _), (q_two, v_two, _) = ends
    torch.testing.assert_close(q_two, q_one, atol=1e-9, rtol=0)
    torch.testing.assert_close(v_two, v_one, atol=1e-7, rtol=0)
