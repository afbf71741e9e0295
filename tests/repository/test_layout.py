"""The house itself: sizes, names, rooms, and where heavy packages may be imported."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("solvers", "constraints", "physim")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
PYTHON = [
    *SOURCES,
    *(
        path
        for folder in ("tests", "examples", "benchmarks", "docs")
        for path in sorted((ROOT / folder).rglob("*.py"))
    ),
]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

# Heavy package to the only room that may import it.
OWNERS = {
    "warp": "solvers/kernels",
    "ray": "solvers/parallel",
    "matplotlib": "solvers/figures",
    "mujoco": "physim/model",
}
# Imported inside functions only, wherever they are used.
AT_FIRST_USE = {*OWNERS, "cvxpy", "cvxpylayers", "h5py", "meshio", "pyamg", "viser", "dm_control"}
IMPORTERS = {"import_module", "require_extra", "__import__"}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported_by(node: ast.AST) -> list[str]:
    """Root names of the packages that one node imports, by statement or by call."""
    if isinstance(node, ast.Import):
        return [alias.name.split(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [node.module.split(".")[0]]
    if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        if ast.unparse(node.func).split(".")[-1] in IMPORTERS:
            return [str(node.args[0].value).split(".")[0]]
    return []


def run_at_import(tree: ast.Module) -> Iterator[ast.AST]:
    """Statements that run when the module is imported, function bodies and typing blocks aside."""
    pending: list[ast.AST] = list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
            continue
        yield node
        pending += ast.iter_child_nodes(node)


@pytest.mark.parametrize("path", PYTHON, ids=name_of)
def test_a_file_has_at_most_500_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 500


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_heavy_packages_stay_in_their_room_and_wait_for_first_use(path: Path) -> None:
    tree = ast.parse(path.read_text())
    for package in {name for node in ast.walk(tree) for name in imported_by(node)} & OWNERS.keys():
        assert name_of(path).startswith(f"{OWNERS[package]}/"), (
            f"{name_of(path)} imports {package}, which only {OWNERS[package]} may"
        )
    early = {name for node in run_at_import(tree) for name in imported_by(node)} & AT_FIRST_USE
    assert not early, f"import {early} inside the function that uses it"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_file_is_a_drawer_for_odds_and_ends(path: Path) -> None:
    assert path.stem.strip("_") not in {"utils", "util", "helpers", "misc", "common"}


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_global_switches(path: Path) -> None:
    source = path.read_text()
    for switch in ("set_default_dtype", "set_default_device", "np.random.seed"):
        assert switch not in source


@pytest.mark.parametrize("path", [p for p in SOURCES if p.name == "__init__.py"], ids=name_of)
def test_packages_list_their_public_names(path: Path) -> None:
    tree = ast.parse(path.read_text())
    lists = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    if not any(isinstance(node, ast.Import | ast.ImportFrom) for node in tree.body):
        return
    assert len(lists) == 1, "one explicit __all__ is expected"
    names = ast.literal_eval(lists[0])
    assert len(names) == len(set(names))
    assert [n for n in names if n.startswith("_")] in ([], ["__version__"])


def test_every_room_is_in_the_order_of_rooms() -> None:
    (order,) = (c for c in PROJECT["tool"]["importlinter"]["contracts"] if c["type"] == "layers")
    known = {layer.strip("()") for layer in order["layers"]}
    rooms = {
        f"{package}.{path.stem}"
        for package in PACKAGES
        for path in (ROOT / package).iterdir()
        if (path.is_dir() and any(path.glob("*.py"))) or path.suffix == ".py"
        if not path.name.startswith("__") and path.name != "_ownership.py"
    }
    assert rooms <= known


def test_contracts_and_this_test_name_the_same_owners() -> None:
    contracts = {
        contract["forbidden_modules"][0]: contract["ignore_imports"]
        for contract in PROJECT["tool"]["importlinter"]["contracts"]
        if contract["type"] == "forbidden"
    }
    assert contracts == {
        package: [f"{owner.replace('/', '.')}.** -> {package}"] for package, owner in OWNERS.items()
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_types_are_published(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()
