"""Exported grids hold the fields where other programs look for them."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from solvers.core import MissingExtraError, SettingsError
from solvers.pde import Ball, Box, Dirichlet, Initial, Periodic, Problem
from solvers.pde.functions import exp, pi, sin
from solvers.pinn import MLP, PINN, LagrangianPINN, PINNResult

RING = Problem(
    name="ring",
    domain=Box(x=(-1, 1), y=(-1, 1)) - Ball(0.5, x=0, y=0),
    fields=("u", "w"),
    residual=lambda u, w: (u.xx + u.yy, w.xx + w.yy - u),
    conditions=[Dirichlet(u=0.0, w=lambda x, y: x * y)],
)
CONVECTION = Problem(
    name="convection",
    domain=Box(x=(0, 2 * pi), t=(0, 1)),
    residual=lambda u, x, t: u.t + u.x,
    conditions=[Initial(u=sin), Periodic("x")],
    reference=lambda x, t: sin(x - t),
)
CUBE = Problem(
    name="cube",
    domain=Box(x=(0, 1), y=(0, 2), z=(0, 3)),
    residual=lambda u: u.xx + u.yy + u.zz + 1.0,
    conditions=[Dirichlet(u=0.0)],
)


def trained(problem: Problem) -> PINNResult:
    # Three steps are not worth a compilation.
    network = MLP(width=4, depth=1)
    solver = PINN(problem, network, points=40, condition_points=20, backend="sweep")
    return solver.fit(10, steps=3)


@pytest.fixture(scope="module")
def ring() -> PINNResult:
    return trained(RING)


def test_a_steady_grid_leaves_the_hole_out_and_tiles_the_rest(
    ring: PINNResult, tmp_path: Path
) -> None:
    meshio = pytest.importorskip("meshio")
    path = ring.export(tmp_path / "ring.vtu", points=41)
    mesh = meshio.read(path)
    x, y = mesh.points[:, 0], mesh.points[:, 1]
    assert np.hypot(x, y).min() >= 0.5 - 1e-9
    expected = ring(torch.tensor(x), torch.tensor(y))
    assert isinstance(expected, dict)
    for name, values in expected.items():
        np.testing.assert_allclose(mesh.point_data[name], values.detach().numpy(), atol=1e-14)
    (block,) = mesh.cells
    corners = mesh.points[block.data][:, :, :2]
    after = np.roll(corners, -1, 1)
    cross = corners[..., 0] * after[..., 1] - corners[..., 1] * after[..., 0]
    areas = 0.5 * cross.sum(1)
    # All turned the same way; together the square without the disc but for a stair of cells.
    np.testing.assert_allclose(areas, 0.05**2, rtol=1e-12)
    assert areas.sum() == pytest.approx(4 - pi / 4, abs=0.05 * pi)
    assert list(tmp_path.iterdir()) == [path]


def test_cells_in_space_are_hexahedra_of_positive_volume(tmp_path: Path) -> None:
    meshio = pytest.importorskip("meshio")
    mesh = meshio.read(trained(CUBE).export(tmp_path / "cube.vtu", points=4))
    (block,) = mesh.cells
    assert block.type == "hexahedron"
    corners = mesh.points[block.data]
    edges = corners[:, [1, 3, 4]] - corners[:, [0]]
    np.testing.assert_allclose(np.linalg.det(edges), 6 / 27, rtol=1e-12)
    np.testing.assert_allclose(corners[:, 6] - corners[:, 0], edges.sum(1), atol=1e-12)


@pytest.mark.parametrize("frame", [PINN, LagrangianPINN])
def test_a_series_has_one_grid_for_each_time(frame: Any, tmp_path: Path) -> None:
    meshio = pytest.importorskip("meshio")
    result = frame(CONVECTION, MLP(width=6, depth=1), points=60).fit(10, steps=60)
    path = result.export(tmp_path / "wave.pvd", points=17, times=3)
    sets = ElementTree.parse(path).getroot().findall("Collection/DataSet")
    assert [float(each.attrib["timestep"]) for each in sets] == [0.0, 0.5, 1.0]
    for each in sets:
        mesh = meshio.read(tmp_path / each.attrib["file"])
        x, t = torch.tensor(mesh.points[:, 0]), float(each.attrib["timestep"])
        np.testing.assert_allclose(mesh.point_data["u"], result(x, t).detach().numpy(), atol=1e-12)
        np.testing.assert_allclose(
            mesh.point_data["u_reference"], torch.sin(x - t).numpy(), atol=1e-14
        )


def test_an_archive_has_axes_and_fields_with_nothing_in_the_hole(
    ring: PINNResult, tmp_path: Path
) -> None:
    with np.load(ring.export(tmp_path / "ring.npz", points=21)) as found:
        x, y, u = found["x"], found["y"], found["u"]
    assert u.shape == (21, 21)
    is_hole = np.hypot(x[:, None], y) < 0.5 - 1e-9
    assert (np.isnan(u) == is_hole).all()
    value = ring(float(x[3]), float(y[17]))
    assert isinstance(value, dict)
    assert u[3, 17] == pytest.approx(value["u"].item(), abs=1e-14)


def test_an_export_says_how_far_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained(CONVECTION).export(tmp_path / "wave.npz", points=5, times=3, progress=True)
    assert "export wave.npz 3/3" in capsys.readouterr().err
    trained(CONVECTION).export(tmp_path / "wave.npz", points=5, times=3)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ring.vtk", "expected one of .vtu, .pvd, .npz"),
        ("ring.pvd", "is steady; end it in .vtu"),
        ("nowhere/ring.npz", "create it first"),
    ],
)
def test_bad_files_are_refused(ring: PINNResult, tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        ring.export(tmp_path / name)
    with pytest.raises(SettingsError, match="points: got 1, expected 2 or more"):
        ring.export(tmp_path / "ring.npz", points=1)


def test_a_grid_of_a_problem_in_time_is_a_series(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="end it in .pvd"):
        trained(CONVECTION).export(tmp_path / "wave.vtu")


def test_without_meshio_the_command_that_installs_it_is_named(
    ring: PINNResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "meshio", None)
    with pytest.raises(MissingExtraError, match=r"physim\[fields\]"):
        ring.export(tmp_path / "ring.vtu")
    assert ring.export(tmp_path / "ring.npz", points=5).exists()


DECAY = Problem(
    name="decay",
    domain=Box(t=(0, 2)),
    fields=("u", "w"),
    residual=lambda u, w: (u.t + u, w.t - u),
    conditions=[Initial(u=1.0, w=0.0)],
    reference=lambda t: (exp(-t), 1.0 - exp(-t)),
)


@pytest.fixture(scope="module")
def decay() -> PINNResult:
    return trained(DECAY)


def test_a_field_over_time_alone_is_one_line(decay: PINNResult, tmp_path: Path) -> None:
    path = decay.export(tmp_path / "decay.npz", times=11)
    arrays = np.load(path)
    times = torch.linspace(0, 2, 11, dtype=torch.float64)
    np.testing.assert_allclose(arrays["t"], times.numpy(), atol=1e-15)
    values = decay(times)
    assert isinstance(values, dict)
    np.testing.assert_allclose(arrays["w"], values["w"].detach().numpy(), atol=1e-14)
    np.testing.assert_allclose(arrays["u_reference"], np.exp(-arrays["t"]), atol=1e-14)
    meshio = pytest.importorskip("meshio")
    mesh = meshio.read(decay.export(tmp_path / "decay.vtu"))
    (block,) = mesh.cells
    assert (block.type, len(block.data), len(mesh.points)) == ("line", 400, 401)
    expected = decay(torch.tensor(mesh.points[:, 0]))
    assert isinstance(expected, dict)
    np.testing.assert_allclose(mesh.point_data["u"], expected["u"].detach().numpy(), atol=1e-14)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("decay.pvd", {}, "decay is one line along time; end it in .vtu"),
        ("decay.npz", {"points": 5}, "points: got 5, but decay lives in time alone.*give times"),
        ("decay.npz", {"times": 1}, "times: got 1, expected 2 or more"),
    ],
)
def test_what_a_field_over_time_alone_is_not(
    decay: PINNResult, tmp_path: Path, name: str, options: dict[str, int], words: str
) -> None:
    with pytest.raises(SettingsError, match=words):
        decay.export(tmp_path / name, **options)


def test_a_field_over_time_alone_is_drawn(decay: PINNResult, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert decay.plot(tmp_path / "decay.png").stat().st_size > 1000
