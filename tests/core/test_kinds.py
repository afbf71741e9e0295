"""Arguments of a wrong kind are refused by name, with what was got and what was expected."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from solvers.core import (
    SettingsError,
    check_callable,
    check_kind,
    check_names,
    check_number,
    describe,
    load_checkpoint,
    save_checkpoint,
)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (int, "the class int"),
        ("a", "the text 'a'"),
        (None, "NoneType"),
        ([1], "list"),
        (torch.zeros(2), "Tensor"),
    ],
)
def test_a_description_is_short_and_says_what_it_is(value: object, words: str) -> None:
    assert describe(value) == words
    with pytest.raises(SettingsError, match=f"thing: got {words}, expected a dict"):
        check_kind("thing", value, dict, "a dict")


@pytest.mark.parametrize("value", [2, 2.0, torch.tensor(2.0), torch.tensor([2])])
def test_one_number_in_any_form_is_a_number(value: Any) -> None:
    assert check_number("radius", value) == 2.0


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("3", "the text '3'"),
        (True, "True"),
        (None, "NoneType"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (torch.zeros(2), "Tensor"),
        (1j, "complex"),
    ],
)
def test_anything_else_is_none(value: Any, words: str) -> None:
    with pytest.raises(SettingsError, match=f"radius: got {words}, expected one finite number"):
        check_number("radius", value)


@pytest.mark.parametrize(
    ("value", "words"),
    [("u", r"as in \('u',\)"), (3, "got int"), ((1, 2), "got int among them")],
)
def test_names_are_texts_in_a_row(value: Any, words: str) -> None:
    assert check_names("fields", ["u", "v"]) == ("u", "v")
    with pytest.raises(SettingsError, match=words):
        check_names("fields", value)


def test_functions_and_paths() -> None:
    check_callable("function", len, "a function")
    with pytest.raises(SettingsError, match="function: got int, expected a function"):
        check_callable("function", 3, "a function")
    with pytest.raises(SettingsError, match="path: got int, expected a path"):
        save_checkpoint(3, {}, kind="x")  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="path: got NoneType, expected a path"):
        load_checkpoint(None, kind="x")  # type: ignore[arg-type]
