"""The compiled step against the same equations on torch tensors."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from physim import Simulator
from physim.dynamics import SolverSettings

JOINTS = """<mujoco><compiler angle="radian"/><worldbody>
  <geom name="floor" type="plane" size="1 1 1" friction="0.7"/>
  <body name="egg" pos="0 0 0.2"><freejoint/>
    <geom name="egg" type="ellipsoid" size="0.1 0.2 0.15" mass="1"/>
    <body pos="0.2 0 0"><joint type="ball" pos="-0.05 0 0" damping="0.01"/>
      <geom type="sphere" size="0.05" mass="0.3" contype="0" conaffinity="0"/>
      <body pos="0.1 0 0"><joint axis="0 1 0" frictionloss="0.05" stiffness="1" armature="0.01"/>
        <joint type="slide" axis="1 0 0" range="-0.01 0.01" limited="true" damping="1"/>
        <geom name="tin" type="cylinder" size="0.08 0.1" mass="0.4"/></body></body></body>
</worldbody></mujoco>"""

COLLISION = """<mujoco><worldbody>
  <geom name="floor" type="plane" size="1 1 1" euler="10 5 0" friction="0.4"/>
  <body pos="0 0 0.15"><freejoint/><geom name="log" type="capsule" size="0.1 0.2" mass="1"
      euler="90 20 0"/></body>
  <body pos="0.05 0.1 0.42"><freejoint/><geom name="ball" size="0.1" mass="0.5"/></body>
  <body pos="0.6 0 0.25"><freejoint/><geom name="box" type="box" size="0.1 0.1 0.2" mass="1"
      euler="10 20 30"/></body>
</worldbody></mujoco>"""


@pytest.mark.parametrize("scene", [JOINTS, COLLISION], ids=["joints", "collision"])
def test_kernel_and_reference_agree(
    simulator: Callable[..., Simulator], generator: torch.Generator, scene: str
) -> None:
    # The last step shrinks the error by the bound of the gains, so the residual must be small.
    tight = SolverSettings(newton_tolerance=1e-8)
    fast = simulator(scene, timestep=0.02, settings=tight)
    slow = simulator(scene, timestep=0.02, backend="reference", settings=tight)
    v = torch.randn(2, fast.model.nv, generator=generator, dtype=torch.float64)
    start = fast.initial_state(v=v, on_penetration="ignore")
    touched = torch.inf
    now = [start, start]
    for _ in range(6):
        now[0], report = fast.step(now[0])
        now[1], other = slow.step(now[1])
        assert report.all_converged
        assert other.all_converged
        touched = min(touched, float(report.counts["min_gap"].min()))
        torch.testing.assert_close(now[0].q, now[1].q, atol=1e-9, rtol=0)
        torch.testing.assert_close(now[0].v, now[1].v, atol=1e-9 / 0.02, rtol=0)
    assert touched < 1e-5


def test_report_of_both_means_the_same(simulator: Callable[..., Simulator]) -> None:
    reports = []
    for backend in ("kernel", "reference"):
        sim = simulator(COLLISION, timestep=0.02, backend=backend)
        _, report = sim.step(sim.initial_state(on_penetration="ignore"))
        reports.append(report)
    assert torch.equal(reports[0].status, reports[1].status)
    for name in ("parts", "unverified"):
        assert torch.equal(reports[0].counts[name], reports[1].counts[name])
    gaps = [report.counts["min_gap"] for report in reports]
    torch.testing.assert_close(gaps[0], gaps[1], atol=1e-9, rtol=0)
