"""``physim solve``: what it reads, what it writes, how it fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
import scipy.sparse
import torch
from typer.testing import CliRunner

from physim.cli._app import app

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: object, code: int = 0) -> tuple[str, str]:
    """Standard output and error of a command that must exit with a code."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.stdout, result.stderr


def run_alone(*arguments: object) -> dict[str, Any]:
    """The record of a command that has its own process, as Ray wants it."""
    command = [sys.executable, "-c", "from physim.cli import main; main()", "solve"]
    done = subprocess.run(
        [*command, *map(str, arguments), "--json", "-"], cwd=ROOT, check=False,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record: dict[str, Any] = json.loads(done.stdout)
    return record


def solved(*arguments: object, code: int = 0) -> dict[str, Any]:
    words, _ = run("solve", *arguments, "--json", "-", code=code)
    record: dict[str, Any] = json.loads(words)
    return record


def laplacian(n: int) -> scipy.sparse.csr_array:
    """The five-point matrix of a square of known values."""
    line = scipy.sparse.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(n, n))
    one = scipy.sparse.eye_array(n)
    return (scipy.sparse.kron(line, one) + scipy.sparse.kron(one, line)).tocsr()


@pytest.fixture
def matrix() -> scipy.sparse.csr_array:
    return laplacian(13)


@pytest.fixture
def market(matrix: scipy.sparse.csr_array, tmp_path: Path) -> Path:
    path = tmp_path / "a.mtx"
    scipy.io.mmwrite(path, matrix)
    return path


@pytest.mark.parametrize("method", ["auto", "cg", "amg", "direct"])
def test_a_matrix_market_file(
    matrix: scipy.sparse.csr_array, market: Path, tmp_path: Path, method: str
) -> None:
    if method == "amg":
        pytest.importorskip("pyamg")
    b = np.random.default_rng(0).normal(size=matrix.shape[0])
    right, output = tmp_path / "b.npy", tmp_path / "x.npz"
    np.save(right, b)
    record = solved(market, "--rhs", right, "--method", method, "--output", output)
    assert record["summary"]["status"] == {"CONVERGED": 1}
    assert record["system"]["nonzeros"] == matrix.nnz
    assert record["output"] == str(output)
    with np.load(output) as arrays:
        residual = np.linalg.norm(b - matrix @ arrays["x"]) / np.linalg.norm(b)
        assert residual <= 1e-8
        assert residual == pytest.approx(record["items"][0]["residual"], rel=1e-3, abs=1e-14)


def test_matrices_of_scipy_and_of_matrix_market_are_the_same(
    matrix: scipy.sparse.csr_array, market: Path, tmp_path: Path
) -> None:
    stored = tmp_path / "a.npz"
    scipy.sparse.save_npz(stored, matrix)
    answers = []
    for path in (market, stored):
        output = tmp_path / "x.npy"
        run("solve", path, "--rhs", "random", "--output", output)
        answers.append(np.load(output))
    assert np.abs(answers[0] - answers[1]).max() < 1e-14


@pytest.mark.parametrize("ending", ["npz", "h5"])
@pytest.mark.parametrize("method", ["auto", "multigrid", "aggregation", "cg", "direct"])
def test_cells_with_sources(tmp_path: Path, ending: str, method: str) -> None:
    rng = np.random.default_rng(0)
    cells = np.zeros((9, 12), dtype=np.int8)
    cells[3:5, 4:8] = 1
    cells[:, -1] = 2
    fields = {
        "cells": cells,
        "source": rng.normal(size=cells.shape),
        "values": np.float64(0.7),
        "density": rng.uniform(1, 3, size=cells.shape),
        "spacing": np.array([0.5, 0.25]),
    }
    path, output = tmp_path / f"scene.{ending}", tmp_path / "x.npz"
    if ending == "npz":
        np.savez(path, **fields)
    else:
        with h5py.File(path, "w") as file:
            for name, array in fields.items():
                file[name] = array
    record = solved(path, "--method", method, "--output", output, "--rtol", 1e-10)
    assert record["system"] == {
        "kind": "cells", "shape": [9, 12], "unknowns": int((cells == 0).sum()),
        "symmetric": True, "periodic": [False, False],
    }  # fmt: skip

    from solvers.linear import PoissonOperator

    A = PoissonOperator.from_cells(
        cells, density=torch.from_numpy(fields["density"]), values=0.7, spacing=(0.5, 0.25)
    )
    b = A.mask(torch.from_numpy(fields["source"]) + A.source)
    with np.load(output) as arrays:
        residual = b - A @ torch.from_numpy(arrays["x"])
    assert float(residual.norm() / b.norm()) <= 1e-10


@pytest.mark.parametrize("ending", ["npy", "NPY", "npz", "mtx", "h5"])
def test_columns_are_items_and_every_format_holds_them(
    matrix: scipy.sparse.csr_array, market: Path, tmp_path: Path, ending: str
) -> None:
    b = np.random.default_rng(1).normal(size=(matrix.shape[0], 3))
    right, output = tmp_path / "b.mtx", tmp_path / f"x.{ending}"
    scipy.io.mmwrite(right, b)
    record = solved(market, "--rhs", right, "--output", output)
    assert record["summary"]["items"] == len(record["items"]) == 3
    if ending == "mtx":
        x = scipy.io.mmread(output)
    elif ending == "h5":
        with h5py.File(output) as file:
            x = np.asarray(file["x"]).T
    else:
        x = np.load(output)
        x = (x if ending.lower() == "npy" else x["x"]).T
    assert np.abs(matrix @ x - b).max() < 1e-7


def test_a_failed_item_is_said_and_its_iterate_kept(market: Path, tmp_path: Path) -> None:
    output = tmp_path / "x.npy"
    arguments = [market, "--rhs", "random", "--method", "cg", "--iterations", 12]
    record = solved(*arguments, "--output", output, code=1)
    assert record["items"][0]["status"] == "MAX_ITERATIONS"
    assert "Raise the limit" in record["items"][0]["advice"]
    assert 0 < record["items"][0]["residual"] < 1
    assert np.isfinite(np.load(output)).all()


def test_a_limit_ends_the_choice_of_a_method_too(tmp_path: Path) -> None:
    path = tmp_path / "box.npz"
    np.savez(path, cells=np.zeros((20, 20), int), source=np.eye(20), outside=2)
    record = solved(path, "--iterations", 2, code=1)
    assert record["items"][0]["iterations"] == 2


def test_walls_all_round_need_sources_that_add_up_to_nothing(tmp_path: Path) -> None:
    path = tmp_path / "box.npz"
    source = np.zeros((8, 8))
    source[0, 0], source[5, 5] = 1.0, -1.0
    np.savez(path, cells=np.zeros((8, 8), int), source=source)
    assert solved(path)["summary"]["converged"] == 1
    np.savez(path, cells=np.zeros((8, 8), int), source=source + 0.1)
    item = solved(path, code=1)["items"][0]
    assert item["status"] == "INFEASIBLE"
    assert "add up to zero" in item["advice"]


def test_an_indefinite_matrix_breaks_conjugate_gradients_down(tmp_path: Path) -> None:
    path, right = tmp_path / "a.mtx", tmp_path / "b.npy"
    scipy.io.mmwrite(path, scipy.sparse.csr_array([[1.0, 2.0], [2.0, 1.0]]))
    np.save(right, np.array([1.0, -1.0]))
    options = ["--rhs", right]
    record = solved(path, *options, "--method", "cg", code=1)
    assert record["items"][0]["status"] == "BREAKDOWN"
    assert solved(path, *options, "--method", "direct")["summary"]["converged"] == 1


@pytest.fixture
def broken(tmp_path: Path) -> dict[str, Path]:
    """Files with something wrong, by what it is."""
    eye = scipy.sparse.eye_array(4)
    files = {name: tmp_path / f"{name}.npz" for name in (
        "nan", "complex", "rectangular", "unsymmetric", "nothing", "fractions", "seven",
        "solid", "no_source", "shape", "negative", "objects", "indices", "lists", "rows", "sides",
        "part_of_a_side", "cycles", "dense",
    )}  # fmt: skip
    files["text"] = tmp_path / "text.mtx"
    files["text"].write_text("not a matrix\n")
    files["cut"] = tmp_path / "cut.npz"
    files["ending"] = tmp_path / "a.txt"
    files["ending"].write_text("1")
    scipy.sparse.save_npz(files["nan"], eye * np.nan)
    scipy.sparse.save_npz(files["complex"], eye * 1j)
    scipy.sparse.save_npz(files["rectangular"], scipy.sparse.eye_array(4, 3))
    shift = scipy.sparse.eye_array(4, k=1)
    scipy.sparse.save_npz(files["unsymmetric"], (eye * 2 + shift).tocsr())
    files["cut"].write_bytes(files["unsymmetric"].read_bytes()[:100])
    cells, source = np.zeros((4, 4), int), np.ones((4, 4))
    np.savez(files["nothing"], matrix=cells)
    np.savez(files["fractions"], cells=cells + 0.5, source=source)
    np.savez(files["seven"], cells=cells + 7, source=source)
    np.savez(files["solid"], cells=cells + 1, source=source)
    np.savez(files["no_source"], cells=cells)
    np.savez(files["shape"], cells=cells, source=np.ones((3, 4)))
    np.savez(files["negative"], cells=cells, source=source, coefficient=-source, outside=2)
    np.savez(files["objects"], cells=np.array([[None]]), source=source)
    entries = {"data": np.ones(2), "indices": np.array([0, 9]), "indptr": np.array([0, 1, 2])}
    np.savez(files["indices"], format=b"csr", shape=(2, 2), **entries)
    np.savez(files["rows"], format=b"csr", shape=(2, 2), **{**entries, "indptr": [0, 2, 1]})
    np.savez(files["lists"], format=b"lil", shape=(2, 2), **entries)
    np.savez(files["sides"], cells=cells, source=source, outside=[1, 2])
    np.savez(files["part_of_a_side"], cells=cells, source=source, outside=1.5)
    np.savez(files["cycles"], cells=cells, source=source, periodic=np.ones((2, 2)))
    np.savez(files["dense"], cells=cells, source=source, density=cells.astype(float), outside=2)
    files["large"] = tmp_path / "large.mtx"
    head = "%%MatrixMarket matrix coordinate integer general"
    files["large"].write_text(f"{head}\n2 2 2\n1 1 99999999999999999999\n2 2 1\n")
    files["nowhere"] = tmp_path / "nowhere.h5"
    with h5py.File(files["nowhere"], "w") as file:
        file["cells"] = h5py.Empty("f")
    files["folder"] = tmp_path / "folder.npz"
    files["folder"].mkdir()
    return files


@pytest.mark.parametrize(
    ("what", "options", "message"),
    [
        ("missing", [], "no such file"),
        ("ending", [], "ends in '.txt', expected .mtx"),
        ("text", [], "is no readable Matrix Market file"),
        ("cut", [], "is no readable archive"),
        ("nan", [], "holds NaN"),
        ("complex", [], "complex128, expected real"),
        ("rectangular", [], "4 x 3, expected a square one"),
        ("unsymmetric", ["--method", "cg"], "is not symmetric"),
        ("unsymmetric", ["--method", "multigrid"], "needs a grid"),
        ("unsymmetric", ["--rhs", "nowhere.npy"], "is no file"),
        ("nothing", [], "holds matrix, expected an array 'cells'"),
        ("fractions", [], "holds fractions"),
        ("seven", [], "expected 0 fluid, 1 solid, 2 air"),
        ("solid", [], "there is no fluid"),
        ("no_source", [], "no 'source'"),
        ("shape", [], r"holds 3 x 4 numbers, expected 4 x 4 as cells"),
        ("negative", [], "expected zero or more"),
        ("objects", [], "is no readable archive"),
        ("indices", [], "is no readable sparse matrix of SciPy"),
        ("rows", [], "is no readable sparse matrix of SciPy"),
        ("lists", [], "is no readable sparse matrix of SciPy"),
        ("large", [], "out of range"),
        ("nowhere", [], "expected an array 'cells'"),
        ("folder", [], "is a folder, expected a file"),
        ("sides", [], "outside: got [1, 2], expected 1 (solid) or 2 (air), or a pair"),
        ("part_of_a_side", [], "outside: got 1.5, expected 1 (solid) or 2 (air)"),
        ("cycles", [], "periodic: got [[1.0, 1.0], [1.0, 1.0]], expected 0 or 1"),
        ("dense", [], "density: got 0.0 at index (0, 0), expected more than zero"),
        ("complex", [], "solve [[Re, -Im], [Im, Re]]"),
        ("unsymmetric", ["--rtol", "0"], "rtol"),
        ("unsymmetric", ["--output", "x.txt"], "expected one of .npz"),
        ("unsymmetric", ["--output", "nowhere/x.npz"], "does not exist"),
    ],
)
def test_bad_input_is_one_line_and_exits_with_2(
    broken: dict[str, Path], what: str, options: list[str], message: str
) -> None:
    path = broken.get(what, Path("missing.mtx"))
    _, words = run("solve", path, *options, code=2)
    assert message in words
    assert words.startswith("physim: ")
    assert "Traceback" not in words


def test_the_residual_is_shown_while_it_falls(
    market: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from physim.cli import _solve_run

    seen: list[float] = []

    class Record:
        def update(self, step: int, *, residual: float) -> None:
            assert step >= 0
            seen.append(residual)

        def __enter__(self) -> Record:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(_solve_run, "open_progress", lambda *_, **__: Record())
    run("solve", market, "--method", "cg", "--rhs", "random")
    assert seen[0] == pytest.approx(1.0)
    assert seen[-1] <= 1e-8
    assert len(seen) > 10


def test_ctrl_c_exits_with_130(market: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from solvers.linear import SparseOperator

    original = SparseOperator.apply

    def apply(operator: SparseOperator, x: torch.Tensor) -> torch.Tensor:
        os.kill(os.getpid(), signal.SIGINT)
        return original(operator, x)

    monkeypatch.setattr(SparseOperator, "apply", apply)
    _, words = run("solve", market, "--method", "cg", code=130)
    assert words == "physim: interrupted\n"


@pytest.mark.slow
def test_items_in_processes(matrix: scipy.sparse.csr_array, market: Path, tmp_path: Path) -> None:
    b = np.random.default_rng(2).normal(size=(matrix.shape[0], 5))
    right, output = tmp_path / "b.npy", tmp_path / "x.npy"
    np.save(right, b)
    options = ["--executor", "ray", "--workers", 2]
    record = run_alone(market, "--rhs", right, "--output", output, *options)
    assert record["summary"]["converged"] == 5
    assert record["settings"]["workers"] == 2
    assert np.abs(matrix @ np.load(output).T - b).max() < 1e-7


@pytest.mark.slow
def test_one_grid_in_processes_gives_the_serial_answer(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    cells = (rng.random((40, 24, 20)) < 0.1).astype(int)
    path = tmp_path / "scene.npz"
    np.savez(path, cells=cells, source=rng.normal(size=cells.shape), outside=2)
    answers = {}
    for executor in ("serial", "ray"):
        output = tmp_path / f"{executor}.npy"
        options = ["--rtol", 1e-12, "--method", "multigrid", "--executor", executor]
        record = run_alone(path, *options, "--output", output)
        answers[executor] = np.load(output)
    assert "on slabs (2 workers)" in record["solver"]
    error = np.abs(answers["ray"] - answers["serial"]).max()
    assert error <= 1e-10 * np.abs(answers["serial"]).max()


def test_deep_conjugate_directions(tmp_path: Path) -> None:
    path = tmp_path / "box.npz"
    np.savez(path, cells=np.zeros((16, 16, 16), dtype=np.int8), outside=2)
    record = solved(path, "--method", "dcdm", "--rhs", "random", "--rtol", 1e-3)
    assert "DeepConjugateDirection" in str(record)
    assert record["summary"]["converged"] == 1


def test_a_matrix_of_zeros_and_no_right_hand_side_are_refused(tmp_path: Path) -> None:
    scipy.sparse.save_npz(tmp_path / "zero.npz", scipy.sparse.csr_array((4, 4)))
    assert "the matrix is zero" in run("solve", tmp_path / "zero.npz", code=2)[1]
    scipy.sparse.save_npz(tmp_path / "eye.npz", scipy.sparse.eye_array(4, format="csr"))
    np.save(tmp_path / "none.npy", np.ones((0, 4)))
    options = ("--rhs", tmp_path / "none.npy")
    assert "holds 0 x 4 numbers" in run("solve", tmp_path / "eye.npz", *options, code=2)[1]


def test_what_is_not_read_is_said(tmp_path: Path) -> None:
    path = tmp_path / "scene.npz"
    fields = {"cells": np.zeros((4, 4), int), "source": np.ones((4, 4)), "outside": 2}
    _, words = run("solve", write(path, **fields, densty=np.ones((4, 4)), b=np.ones((4, 4))))
    assert "warning" in words
    assert "b, densty of this file is not read" in words
    _, words = run("solve", write(path, **fields))
    assert not words


def write(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def test_a_contradiction_is_told_in_the_words_of_the_system(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    scipy.sparse.save_npz(path, scipy.sparse.csr_array(np.diag([2.0, 0.0, 1.0])))
    item = solved(path, code=1)["items"][0]
    assert item["status"] == "INFEASIBLE"
    assert "empty rows" in item["advice"]
    assert "wall" not in item["advice"]


def test_contrasts_beyond_single_precision_are_solved_by_factors(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    density = 10.0 ** rng.uniform(-10, 10, size=(12, 12, 12))
    fields = {"cells": np.zeros((12, 12, 12), int), "density": density, "outside": 2}
    path = write(tmp_path / "scene.npz", **fields, source=rng.normal(size=(12, 12, 12)))
    record = solved(path)
    assert record["summary"]["converged"] == 1
    assert "SparseLU" in record["solver"]


def test_a_full_disk_is_one_line(market: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    _, words = run("solve", market, "--json", "/dev/full", code=2)
    assert words == "physim: No space left on device\n"


def test_deep_directions_on_one_layer_of_cells(tmp_path: Path) -> None:
    fields = {"cells": np.zeros((9, 1, 6), int), "outside": 2}
    path = write(tmp_path / "layer.npz", **fields)
    options = ["--method", "dcdm", "--rhs", "random", "--rtol", 0.1]
    assert solved(path, *options)["summary"]["converged"] == 1


@pytest.mark.slow
def test_a_grid_that_closes_on_itself_is_solved_in_one_process(tmp_path: Path) -> None:
    source = np.random.default_rng(0).normal(size=(12, 10))
    fields = {"cells": np.zeros((12, 10), int), "source": source - source.mean(), "periodic": 1}
    path = write(tmp_path / "torus.npz", **fields)
    record = run_alone(path, "--executor", "ray", "--workers", 2)
    assert record["summary"]["converged"] == 1
