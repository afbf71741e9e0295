"""Contact-free motion of public robots against MuJoCo's Runge-Kutta at a small time step.

Damping, armature, springs and constant controls act; joint limits and contacts do not.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import mujoco
import numpy as np
import pytest
import torch

from physim import Simulator

DURATION = 0.4
TIMESTEPS = (0.02, 0.01, 0.005, 0.0025)


def without_limits(path: Path) -> str:
    """The model's text with every joint free to turn."""
    spec = mujoco.MjSpec.from_file(str(path))
    for joint in spec.joints:
        joint.limited = mujoco.mjtLimited.mjLIMITED_FALSE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spec.compile()
        return str(spec.to_xml())


def reference_motion(
    text: str, v: np.ndarray, control: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    model = mujoco.MjModel.from_xml_string(text)
    model.opt.integrator = mujoco.mjtIntegrator.mjINT_RK4
    model.opt.timestep = 1e-4
    model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_CONTACT)
    data = mujoco.MjData(model)
    data.qvel[:] = v
    data.ctrl[:] = control
    for _ in range(round(DURATION / 1e-4)):
        mujoco.mj_step(model, data)
    return data.qpos.copy(), data.qvel.copy()


def test_motion_converges_to_mujocos_with_second_order(
    simulator: Callable[..., Simulator], locomotion_file: Path
) -> None:
    text = without_limits(locomotion_file)
    sim = simulator(text, timestep=0.01, contact_shapes=[])
    rng = np.random.default_rng(0)
    v = torch.as_tensor(rng.normal(scale=0.5, size=sim.model.nv))
    lower, upper = (sim.parameters()[f"control_{side}"].numpy() for side in ("lower", "upper"))
    control = torch.as_tensor(rng.uniform(0.05 * lower, 0.05 * upper))
    errors = []
    for timestep in TIMESTEPS:
        sim = simulator(text, timestep=timestep, contact_shapes=[])
        start = sim.initial_state(v=v)
        steps = round(DURATION / timestep)
        end = sim.rollout(start, control.expand(steps, -1)).state(-1)
        # MuJoCo starts from the velocity that ours has at the node, half a kick later.
        node = sim.node_velocity(start, control)[0]
        expected_q, expected_v = reference_motion(text, node.numpy(), control.numpy())
        velocity = sim.node_velocity(end, control)[0].numpy()
        errors.append(
            [np.abs(end.q[0].numpy() - expected_q).max(), np.abs(velocity - expected_v).max()]
        )
    slopes = np.polyfit(np.log(TIMESTEPS), np.log(errors), 1)[0]
    print(f"errors {np.array2string(np.array(errors), precision=2)}, orders {slopes}")
    assert slopes == pytest.approx([2.0, 2.0], abs=0.15)
    assert errors[-1][0] <= 2e-3
