"""Argument checks accept what fits and name what does not."""

import math

import numpy as np
import pytest
import torch

from solvers.core import (
    NonFiniteError,
    SettingsError,
    ShapeError,
    check_choice,
    check_count,
    check_finite,
    check_positive,
    check_same_kind,
    check_shape,
)


def test_shape_learns_and_enforces_axes() -> None:
    sizes = check_shape("A", torch.zeros(5, 3, 2), "b m n")
    assert sizes == {"b": 5, "m": 3, "n": 2}
    assert check_shape("x", torch.zeros(5, 2, 9), "b n k", sizes=sizes)["k"] == 9
    with pytest.raises(ShapeError, match=r"b: got shape \(4, 3\).* b = 5, got 4"):
        check_shape("b", torch.zeros(4, 3), "b m", sizes=sizes)


def test_shape_with_numbers_wildcards_and_leading_axes() -> None:
    check_shape("v", torch.zeros(7, 8, 3), "... 3")
    check_shape("v", torch.zeros(3), "... 3")
    check_shape("v", torch.zeros(2, 4), "_ _")
    check_shape("scalar", torch.tensor(1.0), "")
    with pytest.raises(ShapeError, match="3 = 3, got 4"):
        check_shape("v", torch.zeros(7, 4), "... 3")
    with pytest.raises(ShapeError, match="2 axes, expected .* with 3;"):
        check_shape("v", torch.zeros(7, 3), "b c 3")
    with pytest.raises(ShapeError, match="1 axes, expected .* with at least 2;"):
        check_shape("v", torch.zeros(3), "... c 3")


def test_same_axis_twice_means_square() -> None:
    check_shape("M", torch.zeros(3, 3), "n n")
    with pytest.raises(ShapeError, match="n = 3, got 2"):
        check_shape("M", torch.zeros(3, 2), "n n")


def test_shape_refuses_what_is_no_tensor() -> None:
    with pytest.raises(ShapeError, match="torch.as_tensor"):
        check_shape("x", [1.0], "n")


def test_finite_names_the_first_bad_entry() -> None:
    tensor = torch.zeros(4, 3)
    check_finite("q", tensor)
    tensor[2, 1] = math.nan
    tensor[3, 0] = math.inf
    with pytest.raises(NonFiniteError, match=r"q at index \(2, 1\) at step 9 is nan.*2 of 12") as e:
        check_finite("q", tensor, step=9)
    assert (e.value.name, e.value.index, e.value.step) == ("q", (2, 1), 9)
    with pytest.raises(NonFiniteError, match="loss is inf"):
        check_finite("loss", torch.tensor(math.inf))


def test_same_kind() -> None:
    x, y = torch.zeros(2, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    assert check_same_kind(x=x, y=y) == (torch.float64, torch.device("cpu"))
    with pytest.raises(SettingsError, match=r"y: got torch.float32.*y.to\(x\)"):
        check_same_kind(x=x, y=y.float())
    with pytest.raises(SettingsError, match="floating-point"):
        check_same_kind(x=torch.arange(3))
    with pytest.raises(SettingsError, match="no tensor"):
        check_same_kind()


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan])
def test_positive_refuses(bad: float) -> None:
    with pytest.raises(SettingsError, match="timestep"):
        check_positive("timestep", bad)
    with pytest.raises(SettingsError, match=r"at index \(1,\)"):
        check_positive("mass", torch.tensor([1.0, bad]))


def test_positive_accepts() -> None:
    check_positive("rtol", 0.0, allow_zero=True)
    check_positive("mass", torch.tensor([0.0, 2.0]), allow_zero=True)
    check_positive("iterations", 3)
    with pytest.raises(SettingsError, match="zero or more"):
        check_positive("rtol", -1e-9, allow_zero=True)


def test_choice_suggests_the_nearest() -> None:
    check_choice("backend", "auto", ("auto", "kernel"))
    with pytest.raises(SettingsError, match=r"got 'kernal', expected one of .* mean 'kernel'\?"):
        check_choice("backend", "kernal", ("auto", "kernel"))


def test_counts_are_whole_and_large_enough() -> None:
    check_count("windows", 3)
    check_count("windows", np.int64(3))
    check_count("steps", 0, least=0)
    for value in (1.5, 3.0, "a", None, True, math.nan):
        with pytest.raises(SettingsError, match=r"windows: got .*, expected a whole number, 1 or"):
            check_count("windows", value)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="windows: got 2, expected 3 or more"):
        check_count("windows", 2, least=3)


@pytest.mark.parametrize("value", ["x", None, [1.0], True])
def test_positive_refuses_what_is_no_number(value: object) -> None:
    with pytest.raises(SettingsError, match="budget: got .*, expected a number more than zero"):
        check_positive("budget", value)  # type: ignore[arg-type]
