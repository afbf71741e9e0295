"""The scene shows what the simulator says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import physim
from physim.view import read_trajectory
from physim.view._scene import build_scene, rotation_matrices


def test_poses_are_those_of_mujoco(
    model_text: str, model: physim.Model, motion: physim.Trajectory
) -> None:
    mujoco = pytest.importorskip("mujoco")
    reference = mujoco.MjModel.from_xml_string(model_text)
    data = mujoco.MjData(reference)
    scene = build_scene(model, motion, items=(1,), frames_per_second=1000)
    for frame in (0, 17, 40):
        data.qpos[:] = motion.q[frame, 1].numpy()
        mujoco.mj_kinematics(reference, data)
        mujoco.mj_comPos(reference, data)
        assert np.abs(scene.position[frame, 0] - data.xpos[1:]).max() < 1e-12
        turned = rotation_matrices(scene.quaternion[frame, 0])
        assert np.abs(turned - data.xmat[1:].reshape(-1, 3, 3)).max() < 1e-12
        assert np.abs(scene.center[frame, 0] - data.subtree_com[0]).max() < 1e-12


def test_frames_are_thinned_and_the_last_one_kept(
    model: physim.Model, motion: physim.Trajectory
) -> None:
    scene = build_scene(model, motion, frames_per_second=15)
    assert np.allclose(scene.time, [*np.arange(0, 0.8, 0.06), 0.8])
    assert scene.floor == 0.0


def test_motion_ends_before_the_first_number_that_is_not_finite(
    model: physim.Model, motion: physim.Trajectory
) -> None:
    q = motion.q.clone()
    q[10:, 0] = torch.nan
    broken = replace(motion, q=q)
    assert build_scene(model, broken).time[-1] == pytest.approx(0.18)
    assert build_scene(model, broken, items=(1,)).time[-1] == pytest.approx(0.8)
    q[:, 0] = torch.nan
    with pytest.raises(physim.SettingsError, match="no finite state"):
        build_scene(model, broken)


def test_grey_shapes_get_a_colour_and_others_keep_theirs(
    model: physim.Model, motion: physim.Trajectory
) -> None:
    colors = [shape.color for shape in build_scene(model, motion).shapes if shape.body >= 0]
    assert colors[-1] == pytest.approx((0.1, 0.2, 0.9, 1.0), abs=1e-6)
    assert all(max(color[:3]) - min(color[:3]) > 0.1 for color in colors)


def test_bad_requests(model: physim.Model, motion: physim.Trajectory) -> None:
    with pytest.raises(physim.SettingsError, match="0 to 2"):
        build_scene(model, motion, items=(3,))
    other = physim.load_model(
        "<mujoco><worldbody><body><joint/><geom size='.1'/></body></worldbody></mujoco>"
    )
    with pytest.raises(physim.ShapeError, match="give the model that made it"):
        build_scene(other, motion)


@pytest.mark.parametrize("ending", [".npz", ".NPZ", ".h5"])
def test_saved_trajectory_comes_back(
    motion: physim.Trajectory, tmp_path: Path, ending: str
) -> None:
    again = read_trajectory(motion.save(tmp_path / f"run{ending}"))
    assert (again.q == motion.q).all()
    assert again.timestep == pytest.approx(motion.timestep, rel=1e-12)
    assert again.summary() == motion.summary() | {"timestep": again.timestep}


def test_files_that_hold_no_trajectory(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", x=np.ones(3))
    (tmp_path / "text.npz").write_text("not a zip file")
    for name, words in (("other", "q, v"), ("text", "damaged"), ("none", "no trajectory file")):
        with pytest.raises(physim.SettingsError, match=words):
            read_trajectory(tmp_path / f"{name}.npz")
