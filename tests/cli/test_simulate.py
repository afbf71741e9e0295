"""``physim simulate``: what it writes, how it fails, how it stops and resumes."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from physim.cli._app import app

ROOT = Path(__file__).resolve().parents[2]

# Two links: a slider and a pendulum on it, with one limited motor and a floor out of reach.
CART = """<mujoco model="cart"><worldbody><geom type="plane" size="1 1 1"/>
  <body name="cart" pos="0 0 1"><joint name="slide" type="slide" axis="1 0 0"/>
    <geom type="box" size="0.1 0.1 0.05" mass="1" contype="0" conaffinity="0"/>
    <body name="pole"><joint name="hinge" type="hinge" axis="0 1 0"/>
      <geom type="capsule" fromto="0 0 0 0 0 0.4" size="0.03" mass="0.3"/></body></body>
</worldbody><actuator><motor joint="slide" ctrlrange="-2 1" ctrllimited="true" gear="5"/></actuator>
</mujoco>"""
DROP = """<mujoco model="stick"><worldbody><geom name="floor" type="plane" size="1 1 1"/>
  <body pos="0 0 0.15"><freejoint/>
    <geom name="stick" type="capsule" fromto="-0.2 0 0 0.2 0 0" size="0.05" mass="1"/></body>
</worldbody></mujoco>"""


@pytest.fixture
def cart(tmp_path: Path) -> Path:
    path = tmp_path / "cart.xml"
    path.write_text(CART)
    return path


def run(*arguments: object, code: int = 0) -> tuple[str, str]:
    """Standard output and error of a command that must exit with a code."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.stdout, result.stderr


def test_record_and_trajectory_agree(cart: Path, tmp_path: Path) -> None:
    output, record = tmp_path / "out.npz", tmp_path / "out.json"
    arguments = ["--duration", 0.5, "--timestep", 0.01, "--controls", "random", "--batch", 3]
    run("simulate", cart, *arguments, "--output", output, "--json", record)
    written = json.loads(record.read_text())
    assert written["status"] == "complete"
    assert written["summary"]["steps"] == 50
    assert written["summary"]["item_steps"] == 150
    assert written["summary"]["status"] == {"CONVERGED": 150}
    assert written["summary"]["failures"] == 0
    assert {"half_steps", "rescues", "min_gap", "non_finite"} <= written["summary"].keys()
    assert written["settings"]["batch"] == 3
    assert written["versions"]["torch"] == torch.__version__
    assert written["model"]["nq"] == 2
    assert written["wall_time"] > 0
    with np.load(output) as arrays:
        assert arrays["q"].shape == (51, 3, 2)
        assert arrays["time"][-1] == pytest.approx(0.5)
        assert written["summary"]["max_speed"] == pytest.approx(np.abs(arrays["v"]).max())
        # The motor's range is -2 to 1 and it is used in full.
        assert -2.0 <= arrays["control"].min() < -1.0
        assert 0.5 < arrays["control"].max() <= 1.0


@pytest.mark.parametrize("ending", [".npz", ".h5"])
def test_sensors_are_saved_beside_the_motion(tmp_path: Path, ending: str) -> None:
    model, output = tmp_path / "cart.xml", tmp_path / f"out{ending}"
    read = '<sensor><jointpos name="arm/angle" joint="hinge"/><jointvel joint="slide"/></sensor>'
    model.write_text(CART.replace("</mujoco>", read + "</mujoco>"))
    run("simulate", model, "--duration", 0.05, "--batch", 2, "--sensors", "--output", output)
    if ending == ".npz":
        arrays = dict(np.load(output))
    else:
        h5py = pytest.importorskip("h5py")
        with h5py.File(output) as file:
            arrays = {"q": file["q"][()]}
            arrays |= {f"sensor/{name}": file["sensor"][name][()] for name in file["sensor"]}
    np.testing.assert_array_equal(arrays["sensor/arm|angle"], arrays["q"][:-1, :, 1:])
    assert arrays["sensor/jointvel_1"].shape == (len(arrays["q"]) - 1, 2, 1)
    _, error = run("simulate", model, "--sensors", code=2)
    assert "--output" in error


@pytest.mark.slow
def test_a_urdf_robot_falls_if_its_base_floats(tmp_path: Path) -> None:
    model, output = tmp_path / "stone.urdf", tmp_path / "out.npz"
    model.write_text(
        '<robot name="stone"><link name="stone"><inertial><mass value="2"/><inertia ixx="1" '
        'iyy="1" izz="1" ixy="0" ixz="0" iyz="0"/></inertial></link></robot>'
    )
    arguments = ["--timestep", 0.01, "--duration", 0.01, "--output", output]
    run("simulate", model, *arguments, "--floating-base")
    with np.load(output) as arrays:
        assert arrays["v"][1, 0, 2] == pytest.approx(-9.81 * 0.01)
    _, error = run("simulate", model, *arguments, code=2)
    assert "nothing can move" in error


def test_random_controls_are_held_and_depend_only_on_the_seed(cart: Path, tmp_path: Path) -> None:
    def controls(*more: object) -> np.ndarray:
        output = tmp_path / "out.npz"
        run("simulate", cart, "--controls", "random", "--output", output, *more)
        with np.load(output) as arrays:
            return arrays["control"][:, 0, 0]

    fine = controls("--duration", 0.6, "--timestep", 0.005, "--hold", 0.1)
    coarse = controls("--duration", 0.6, "--timestep", 0.01, "--hold", 0.1)
    longer = controls("--duration", 0.8, "--timestep", 0.01, "--hold", 0.1)
    other = controls("--duration", 0.6, "--timestep", 0.01, "--hold", 0.1, "--seed", 1)
    assert len(np.unique(fine)) == 6
    assert (np.diff(fine.reshape(6, 20)) == 0).all()
    assert (fine[::2] == coarse).all()
    assert (longer[:60] == coarse).all()
    assert (other != coarse).all()


def test_zero_amplitude_stays_in_the_middle_of_the_range(cart: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.npz"
    run("simulate", cart, "--controls", "random", "--amplitude", 0, "--duration", 0.1,
        "--timestep", 0.01, "--output", output)  # fmt: skip
    with np.load(output) as arrays:
        assert (arrays["control"] == -0.5).all()


def test_chunks_do_not_change_the_motion(cart: Path, tmp_path: Path) -> None:
    import physim

    output = tmp_path / "out.npz"
    run("simulate", cart, "--controls", "random", "--duration", 1.2, "--timestep", 0.01,
        "--output", output)  # fmt: skip
    sim = physim.Simulator(physim.load_model(cart), timestep=0.01)
    with np.load(output) as arrays:
        whole = sim.rollout(sim.initial_state(), torch.from_numpy(arrays["control"]))
        assert np.abs(whole.q.numpy() - arrays["q"]).max() < 1e-12


@pytest.mark.parametrize("ending", ["csv", "npz"])
def test_controls_from_a_file(cart: Path, tmp_path: Path, ending: str) -> None:
    source, output = tmp_path / f"controls.{ending}", tmp_path / "out.npz"
    wanted = np.linspace(-1, 1, 12)[:, None]
    if ending == "csv":
        np.savetxt(source, wanted, delimiter=",", header="force", comments="")
    else:
        np.savez(source, control=wanted)
    run("simulate", cart, "--controls", source, "--batch", 2, "--output", output)
    with np.load(output) as arrays:
        assert arrays["control"].shape == (12, 2, 1)
        assert np.abs(arrays["control"][:, 1] - wanted).max() < 1e-15


def test_height_lifts_the_start(tmp_path: Path) -> None:
    path, output = tmp_path / "drop.xml", tmp_path / "out.npz"
    path.write_text(DROP)
    run("simulate", path, "--height", 0.5, "--duration", 0.02, "--timestep", 0.01,
        "--output", output)  # fmt: skip
    with np.load(output) as arrays:
        assert arrays["q"][0, 0, 2] == pytest.approx(0.65)


def test_a_run_starts_from_a_key_frame_and_holds_its_control(cart: Path, tmp_path: Path) -> None:
    key = '<keyframe><key name="up" qpos="0.3 -1" qvel="0.1 0" ctrl="0.7"/></keyframe></mujoco>'
    cart.write_text(CART.replace("</mujoco>", key))
    output, record = tmp_path / "out.npz", tmp_path / "out.json"
    arguments = ["--timestep", 0.01, "--duration", 0.02, "--output", output]
    run("simulate", cart, *arguments, "--keyframe", "up", "--controls", "keyframe",
        "--batch", 2, "--json", record)  # fmt: skip
    with np.load(output) as arrays:
        assert arrays["q"][0].tolist() == [[0.3, -1.0]] * 2
        assert arrays["v"][0].tolist() == [[0.1, 0.0]] * 2
        assert (arrays["control"] == 0.7).all()
    assert json.loads(record.read_text())["settings"]["keyframe"] == "up"


@pytest.mark.parametrize("option", ["--mesh-directory", "--root"])
def test_meshes_of_a_robot_may_lie_elsewhere(tmp_path: Path, option: str) -> None:
    folder, meshes = tmp_path / "robot", tmp_path / "share" / "m" / "meshes"
    folder.mkdir()
    meshes.mkdir(parents=True)
    (meshes / "a.obj").write_text(
        "v 0 0 0\nv .1 0 0\nv 0 .1 0\nv 0 0 .1\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"
    )
    name = "package://m/meshes/a.obj" if "mesh" in option else "../share/m/meshes/a.obj"
    model = folder / "m.urdf"
    model.write_text(
        f'''<robot name="m"><link name="base"/><link name="l"><collision><geometry>
        <mesh filename="{name}"/></geometry></collision></link>
        <joint name="j" type="continuous"><parent link="base"/><child link="l"/></joint></robot>'''
    )
    place = tmp_path / "share" if "mesh" in option else tmp_path
    run("simulate", model, "--duration", 0.01, "--timestep", 0.01, option, place)
    _, error = run("simulate", model, "--duration", 0.01, "--timestep", 0.01, code=2)
    assert "a.obj" in error


def test_start_in_penetration_is_said_once(tmp_path: Path) -> None:
    path = tmp_path / "drop.xml"
    path.write_text(DROP)
    _, words = run("simulate", path, "--height", -0.12, "--duration", 0.02, "--timestep", 0.01)
    assert words.count("overlapping by 20 mm") == 1
    assert "'stick'" in words


def test_json_on_standard_output_is_only_json(cart: Path) -> None:
    words, table = run("simulate", cart, "--duration", 0.05, "--timestep", 0.01, "--json", "-")
    assert json.loads(words)["command"] == "simulate"
    assert "complete" in table


@pytest.mark.parametrize("model", ["cart", "stick"])
def test_resumed_run_equals_the_whole_run(model: str, tmp_path: Path) -> None:
    """Bit for bit, in contact too: the next solve starts from the impulses of the last."""
    file = tmp_path / f"{model}.xml"
    file.write_text(CART if model == "cart" else DROP)
    keep, output = tmp_path / "run.ckpt", tmp_path / "out.npz"
    arguments = ["simulate", file, "--controls", "random", "--timestep", 0.01, "--duration", 0.9]
    run(*arguments, "--output", output)
    with np.load(output) as arrays:
        whole = dict(arrays)

    # Stopped after 30 steps: the loop is cut by an interrupt as Ctrl-C would cut it.
    import physim
    from physim.cli import _simulation

    done = []
    original = physim.Simulator.rollout

    def rollout(*positional: object, **named: object) -> object:
        done.append(1)
        if len(done) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return original(*positional, **named)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_simulation.Simulator, "rollout", rollout)
        run(*arguments, "--checkpoint", keep, "--every", 15, "--output", output, code=130)
    with np.load(output) as arrays:
        assert len(arrays["q"]) == 31
    record = tmp_path / "out.json"
    run(*arguments, "--checkpoint", keep, "--every", 15, "--output", output, "--json", record)
    assert json.loads(record.read_text())["resumed_at"] == 30
    with np.load(output) as arrays:
        assert set(arrays) == set(whole)
        for name, array in whole.items():
            assert (arrays[name] == array).all(), name
    _, words = run(*arguments, "--timestep", 0.02, "--checkpoint", keep, code=2)
    assert "belongs to another run" in words


def test_ctrl_c_saves_what_is_done(tmp_path: Path, cart: Path) -> None:
    output = tmp_path / "out.npz"
    command = [sys.executable, "-c", "from physim.cli import main; main()", "simulate", str(cart)]
    command += ["--duration", "100000", "--timestep", "0.01", "--output", str(output)]
    command += ["--checkpoint", str(tmp_path / "run.ckpt"), "--every", "50"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (tmp_path / "run.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    with np.load(output) as arrays:
        assert len(arrays["q"]) > 50
        assert np.isfinite(arrays["q"]).all()


def test_failure_after_the_ladder_exits_with_1(
    cart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    import physim
    from physim.cli import _simulation
    from solvers.core import Report

    original = physim.Simulator.rollout

    def rollout(*positional: object, **named: object) -> object:
        motion = original(*positional, **named)  # type: ignore[arg-type]
        seen = motion.report
        status = seen.status.clone()
        status[3, 1] = int(physim.Status.STALLED)
        stalled = Report(
            status=status, iterations=seen.iterations, residual=seen.residual, counts=seen.counts
        )
        return replace(motion, report=stalled)

    monkeypatch.setattr(_simulation.Simulator, "rollout", rollout)
    record = tmp_path / "out.json"
    run("simulate", cart, "--batch", 2, "--duration", 0.1, "--timestep", 0.01,
        "--json", record, code=1)  # fmt: skip
    written = json.loads(record.read_text())
    assert written["summary"]["failures"] == 1
    assert written["first_failures"] == [[3, 1]]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--duration", "-1"], "--duration"),
        (["--duration", "nan"], "--duration"),
        (["--duration", "1e12"], "shorter --duration"),
        (["--duration", "1e300", "--timestep", "1e-300"], "shorter --duration"),
        (["--batch", str(10**10)], "smaller --batch"),
        (["--timestep", "0"], "timestep"),
        (["--controls", "nothing.csv"], "is no file"),
        (["--controls", "random", "--hold", "0"], "--hold"),
        (["--batch", "0"], "--batch"),
        (["--output", "out.txt"], ".npz"),
        (["--output", "no/such/folder/out.npz"], "does not exist"),
        (["--view", "out.mp4"], ".html"),
        (["--smoothing", "-1"], "smoothing"),
        (["--height", "inf"], "--height"),
        (["--height", "1"], "cannot be lifted"),
        (["--keyframe", "up"], "up"),
        (["--controls", "keyframe"], "--keyframe"),
        (["--mesh-directory", "."], "mesh_directory"),
    ],
)
def test_bad_options_exit_with_2_and_one_line(cart: Path, arguments: list[str], words: str) -> None:
    _, text = run("simulate", cart, *arguments, code=2)
    assert words in text
    assert "Traceback" not in text


def test_controls_of_a_wrong_shape(cart: Path, tmp_path: Path) -> None:
    source = tmp_path / "controls.csv"
    source.write_text("1,2\n3,4\n")
    _, text = run("simulate", cart, "--controls", source, code=2)
    assert "(2, 1, 2)" in text or "(2, 2)" in text
    source.write_text("one\ntwo\n")
    _, text = run("simulate", cart, "--controls", source, code=2)
    assert "no table of numbers" in text


@pytest.mark.parametrize(
    ("text", "words"),
    [("<mujoco><worldbody>", ""), ("no xml at all", ""), ("<mujoco/>", "no joints")],
)
def test_broken_models_exit_with_2(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "broken.xml"
    path.write_text(text)
    _, said = run("simulate", path, code=2)
    assert words in said
    assert "Traceback" not in said


def test_unknown_model_lists_the_known_ones() -> None:
    _, text = run("simulate", "hoper", code=2)
    assert "hopper" in text


@pytest.mark.slow
def test_gymnasium_model_by_name(tmp_path: Path) -> None:
    record = tmp_path / "out.json"
    run("simulate", "half-cheetah", "--controls", "random", "--duration", 0.5, "--timestep", 0.02,
        "--json", record)  # fmt: skip
    assert json.loads(record.read_text())["summary"]["failures"] == 0


def test_no_output_takes_the_place_of_another_file(cart: Path, tmp_path: Path) -> None:
    text, record = cart.read_text(), tmp_path / "record.npz"
    for options, word in (
        (["--json", str(cart)], "the file of the model too"),
        (["--output", str(record), "--json", str(record)], "the file of --output too"),
        (
            ["--view", f"{tmp_path}/a.html", "--json", f"{tmp_path}/../{tmp_path.name}/a.html"],
            "--view",
        ),
    ):
        result = CliRunner().invoke(app, ["simulate", str(cart), "--duration", "0.05", *options])
        assert result.exit_code == 2
        assert word in result.output
    assert cart.read_text() == text
    assert not record.exists()
    both = ["--json", "/dev/null", "--checkpoint", "/dev/null"]
    assert (
        "too, which would be lost" not in CliRunner().invoke(app, ["simulate", "x", *both]).output
    )


def test_a_file_that_may_not_be_written_is_one_line(
    cart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **settings: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "a.npz"))

    monkeypatch.setattr("physim.Trajectory.save", refuse)
    options = ["--duration", "0.05", "--output", str(tmp_path / "a.npz")]
    result = CliRunner().invoke(app, ["simulate", str(cart), *options])
    assert result.exit_code == 2
    assert "a.npz: Permission denied" in result.output


def test_a_seed_beyond_the_generator_is_refused(cart: Path) -> None:
    options = ["--duration", "0.05", "--controls", "random", "--seed", str(10**23)]
    result = CliRunner().invoke(app, ["simulate", str(cart), *options])
    assert result.exit_code == 2
    assert "seed" in result.output
