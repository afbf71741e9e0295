"""The film is one page that needs nothing else, and its viewer draws."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import physim
from physim.view import film

ROOM = Path(physim.__file__).parent / "view"

# Draws one frame with a canvas that only counts, and prints what a page would show.
PROBE = """
const fs = require("fs");
const { Viewer } = require(process.argv[1]);
const page = fs.readFileSync(process.argv[2], "utf8");
const scene = JSON.parse(page.match(/<script id="scene"[^>]*>(.*?)<\\/script>/s)[1]);
const shown = [];
let path = [];
const context = {
  beginPath() { path = []; }, moveTo(x, y) { path.push([x, y]); },
  lineTo(x, y) { path.push([x, y]); },
  closePath() {}, stroke() {}, clearRect() {}, fillRect() {},
  fill() { shown.push({ path, color: this.fillStyle }); },
  createLinearGradient() { return { addColorStop() {} }; },
};
const viewer = new Viewer(context, scene, 800, 600);
viewer.item = 1;
const pose = viewer.pose(0.41);
viewer.draw(0.41);
console.log(JSON.stringify({ pose, shown, duration: viewer.duration }));
"""


def scene_of(page: str) -> dict[str, object]:
    (text,) = re.findall(r'<script id="scene"[^>]*>(.*?)</script>', page, flags=re.S)
    scene: dict[str, object] = json.loads(text)
    return scene


def numbers(text: object) -> np.ndarray:
    return np.frombuffer(base64.b64decode(str(text)), dtype="<f4")


def test_page_is_self_contained(
    model: physim.Model, motion: physim.Trajectory, tmp_path: Path
) -> None:
    page = film(model, motion, tmp_path / "film.html").read_text()
    assert not re.search(r"https?:|\bsrc=|\bhref=|\bimport\b|@[A-Z]+@", page)
    assert "default-src 'none'" in page
    # A model's name can neither end the data nor add markup.
    assert page.count("</script>") == 2
    assert "<b>&" not in page
    assert "&lt;/script&gt;" in page
    scene = scene_of(page)
    assert scene["name"] == model.name
    assert scene["items"] == [0, 1, 2]
    position = numbers(scene["position"]).reshape(-1, 3, len(model.bodies), 3)
    assert np.allclose(position[:, :, 0], motion.q[..., :3].numpy(), atol=1e-6)


def test_quaternions_do_not_jump(
    model: physim.Model, motion: physim.Trajectory, tmp_path: Path
) -> None:
    scene = scene_of(film(model, motion, tmp_path / "film.html").read_text())
    turns = numbers(scene["quaternion"]).reshape(-1, 3 * len(model.bodies), 4)
    assert (turns[1:] * turns[:-1]).sum(-1).min() > 0.99


def test_five_seconds_stay_small(
    model: physim.Model, motion: physim.Trajectory, tmp_path: Path
) -> None:
    long = replace(
        motion,
        q=motion.q.repeat(13, 1, 1)[:501],
        timestep=0.01,
    )
    assert film(model, long, tmp_path / "film.html").stat().st_size < 500_000


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_viewer_draws_what_the_data_say(
    model: physim.Model, motion: physim.Trajectory, tmp_path: Path
) -> None:
    path = film(model, motion, tmp_path / "film.html")
    result = subprocess.run(
        ["node", "-e", PROBE, str(ROOM / "viewer.js"), str(path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["duration"] == pytest.approx(0.8)
    # Between the frames at 0.40 and 0.42 s.
    middle = motion.q[20:22, 1, :3].mean(0).numpy()
    assert np.allclose(found["pose"]["position"][0], middle, atol=1e-5)
    corners = np.array([point for entry in found["shown"] for point in entry["path"]])
    assert np.isfinite(corners).all()
    faces = [np.array(entry["path"]) for entry in found["shown"] if ",0.16)" not in entry["color"]]
    # Half of a closed surface faces the camera, and the model is in the middle of the page.
    assert 100 < len(faces) < 3000
    center = np.concatenate(faces).mean(0)
    assert abs(center[0] - 400) < 200
    assert abs(center[1] - 300) < 200
    channels = [entry["color"].split("(")[1].split(",") for entry in found["shown"]]
    assert any(int(blue) > 2 * int(red) for red, _, blue, _ in channels)


def test_bad_paths(model: physim.Model, motion: physim.Trajectory, tmp_path: Path) -> None:
    with pytest.raises(physim.SettingsError, match=".html"):
        film(model, motion, tmp_path / "film.mp4")
    with pytest.raises(physim.SettingsError, match="does not exist"):
        film(model, motion, tmp_path / "none" / "film.html")
    assert not list(tmp_path.iterdir())
