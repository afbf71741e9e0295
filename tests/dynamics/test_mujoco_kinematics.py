"""Kinematics, mass matrix and Jacobians of public models against MuJoCo's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mujoco
import numpy as np
import pytest
import torch

from physim import Simulator


def random_poses(model: mujoco.MjModel, count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(count):
        q = model.qpos0.copy()
        mujoco.mj_integratePos(model, q, rng.normal(size=model.nv), 1.0)
        rows.append(q)
    return np.array(rows)


def test_kinematics_and_mass_matrix_are_mujocos(
    simulator: Callable[..., Simulator], model_file: Path
) -> None:
    reference = mujoco.MjModel.from_xml_path(str(model_file))
    if reference.nv == 0:
        pytest.skip("nothing moves in it")
    sim = simulator(model_file, backend="reference", contact_shapes=[])
    poses = random_poses(reference, 3)
    state = sim.initial_state(q=torch.as_tensor(poses), on_penetration="ignore")
    found, mass = sim.forward_kinematics(state), sim.mass_matrix(state)
    data = mujoco.MjData(reference)
    for item, q in enumerate(poses):
        data.qpos[:] = q
        # Without tendons and equalities, whose inertia and drive are not the tree's.
        mujoco.mj_kinematics(reference, data)
        mujoco.mj_comPos(reference, data)
        mujoco.mj_makeM(reference, data)
        size = 1.0 + np.abs(data.xpos).max()
        np.testing.assert_allclose(found.position[item], data.xpos[1:], atol=1e-10 * size)
        turn = data.xmat[1:].reshape(-1, 3, 3)
        np.testing.assert_allclose(found.rotation[item], turn, atol=1e-10)
        np.testing.assert_allclose(found.center[item], data.xipos[1:], atol=1e-10 * size)
        dense = full_matrix(reference, data)
        np.testing.assert_allclose(mass[item], dense, atol=1e-10 * (1 + np.abs(dense).max()))


def full_matrix(model: mujoco.MjModel, data: mujoco.MjData) -> np.ndarray:
    dense = np.zeros((model.nv, model.nv))
    try:
        mujoco.mj_fullM(model, data, dense)
    except TypeError:
        mujoco.mj_fullM(model, dense, data.qM)
    return dense


def test_body_jacobians_are_mujocos(
    simulator: Callable[..., Simulator], locomotion_file: Path
) -> None:
    reference = mujoco.MjModel.from_xml_path(str(locomotion_file))
    sim = simulator(locomotion_file, backend="reference", contact_shapes=[])
    poses = random_poses(reference, 2)
    state = sim.initial_state(q=torch.as_tensor(poses), on_penetration="ignore")
    data = mujoco.MjData(reference)
    for body in sim.model.bodies:
        linear, angular = sim.jacobian(state, body.name)
        for item, q in enumerate(poses):
            data.qpos[:] = q
            mujoco.mj_kinematics(reference, data)
            mujoco.mj_comPos(reference, data)
            rows = np.zeros((2, 3, reference.nv))
            mujoco.mj_jacBodyCom(reference, data, rows[0], rows[1], body.index + 1)
            np.testing.assert_allclose(linear[item], rows[0], atol=1e-10)
            np.testing.assert_allclose(angular[item], rows[1], atol=1e-10)
