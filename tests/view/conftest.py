"""One motion that all views show."""

from __future__ import annotations

import pytest
import torch

import physim

# A tumbling body with one shape of every kind, a swinging arm, and a hostile name.
MODEL = """<mujoco model="odd &lt;/script&gt;&lt;b&gt;"><worldbody>
  <geom type="plane" size="1 1 1"/>
  <body name="hull" pos="0 0 3"><freejoint/>
    <geom type="box" size="0.2 0.1 0.05"/>
    <geom type="sphere" size="0.1" pos="0.2 0 0"/>
    <geom type="cylinder" size="0.05 0.1" pos="-0.2 0 0" euler="0 90 0"/>
    <geom type="ellipsoid" size="0.1 0.05 0.04" pos="0 0 0.1"/>
    <body name="arm" pos="0 0.2 0"><joint type="hinge" axis="1 0 0"/>
      <geom type="capsule" fromto="0 0 0 0 0.4 0" size="0.04" rgba="0.1 0.2 0.9 1"/></body></body>
</worldbody></mujoco>"""


@pytest.fixture(scope="package")
def model_text() -> str:
    return MODEL


@pytest.fixture(scope="package")
def model(model_text: str) -> physim.Model:
    return physim.load_model(model_text)


@pytest.fixture(scope="package")
def motion(model: physim.Model) -> physim.Trajectory:
    # No step is needed to draw: a trajectory is data.
    steps, batch = 40, 3
    time = 0.02 * torch.arange(steps + 1, dtype=torch.float64)
    q = torch.zeros(steps + 1, batch, model.nq, dtype=torch.float64)
    q[..., 0] = time[:, None] * torch.arange(1, batch + 1)
    q[..., 2] = 3.0 - 4.905 * time[:, None] ** 2
    q[..., 3], q[..., 5] = torch.cos(2 * time)[:, None], torch.sin(2 * time)[:, None]
    q[..., 7] = torch.sin(3 * time)[:, None]
    ones = torch.ones(steps, batch, dtype=torch.int64)
    report = physim.Report(
        status=0 * ones,
        iterations=ones,
        residual=0.0 * ones,
        counts={"parts": ones, "rescues": 0 * ones, "unverified": 0 * ones, "min_gap": 1.0 * ones},
    )
    return physim.Trajectory(
        q=q,
        v=torch.zeros(steps + 1, batch, model.nv, dtype=torch.float64),
        interval=torch.full((steps + 1, batch), 0.02, dtype=torch.float64),
        control=torch.zeros(steps, batch, model.nu, dtype=torch.float64),
        report=report,
        timestep=0.02,
    )
