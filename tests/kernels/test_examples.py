"""The examples in the docstrings run as written."""

from __future__ import annotations

import doctest
import importlib

import pytest

MODULES = (
    "",
    ".algebra",
    ".build",
    ".cuda",
    ".emit",
    ".layout",
    ".scalar",
    ".trace",
    "._evaluate",
    "._reverse",
    "._symbol",
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_docstrings(name: str) -> None:
    failures, _ = doctest.testmod(importlib.import_module(f"solvers.kernels{name}"))
    assert failures == 0


def test_there_are_examples() -> None:
    assert doctest.testmod(importlib.import_module("solvers.kernels")).attempted > 0
