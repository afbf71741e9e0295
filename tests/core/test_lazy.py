"""Names load at first use and wrong names are told."""

import importlib
import inspect

import pytest

import solvers
from solvers.core import lazy_exports


@pytest.mark.parametrize("package", ["solvers", "constraints", "solvers.core", "physim"])
def test_every_public_name_of_core_loads(package: str) -> None:
    module = importlib.import_module(package)
    core = importlib.import_module("solvers.core")
    for name in set(module.__all__) & set(core.__all__):
        assert getattr(module, name) is getattr(core, name)
        assert name in dir(module)


@pytest.mark.parametrize("package", ["solvers", "constraints", "physim"])
def test_three_packages_share_status_reports_and_errors(package: str) -> None:
    module = importlib.import_module(package)
    core = importlib.import_module("solvers.core")
    shared = {
        name
        for name in core.__all__
        if inspect.isclass(getattr(core, name)) and issubclass(getattr(core, name), Exception)
    }
    assert {"Status", "Report", "Solution"} | shared <= set(module.__all__)


def test_unknown_name_is_an_attribute_error_with_a_place_to_look() -> None:
    with pytest.raises(AttributeError, match="'solvers' has no attribute 'Repotr'") as caught:
        solvers.Repotr  # noqa: B018
    assert caught.value.obj is solvers


def test_a_loaded_name_is_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(vars(solvers), "Status", raising=False)
    load, names = lazy_exports("solvers", {"Status": "solvers.core"})
    assert vars(solvers)["Status"] if load("Status") else False
    assert "Status" in names()
