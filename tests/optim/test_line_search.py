"""Lengths that satisfy the Wolfe conditions, on curved, flat, kinked and broken lines."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from solvers.optim._line_search import wolfe_search

Line = Callable[[float], tuple[float, float]]


def rational(t: float) -> tuple[float, float]:
    return -t / (t * t + 2), (t * t - 2) / (t * t + 2) ** 2


def quintic(t: float) -> tuple[float, float]:
    s = t + 0.004
    return s**5 - 2 * s**4, 5 * s**4 - 8 * s**3


def wavy(t: float, beta: float = 0.01, waves: float = 39.0) -> tuple[float, float]:
    """A V with a rounded corner at one and waves upon it."""
    rate = waves * math.pi / 2
    wave = 2 * (1 - beta) / (waves * math.pi) * math.sin(rate * t)
    slope = (1 - beta) * math.cos(rate * t)
    if t <= 1 - beta:
        return 1 - t + wave, -1 + slope
    if t >= 1 + beta:
        return t - 1 + wave, 1 + slope
    return (t - 1) ** 2 / (2 * beta) + beta / 2 + wave, (t - 1) / beta + slope


def holds(line: Line, length: float, mu: float, eta: float) -> bool:
    value, slope = line(0.0)
    there, rise = line(length)
    return there <= value + mu * length * slope and abs(rise) <= eta * -slope


@pytest.mark.parametrize(
    ("line", "mu", "eta"), [(rational, 1e-3, 0.1), (quintic, 0.1, 0.1), (wavy, 0.1, 0.1)]
)
@pytest.mark.parametrize("first", [1e-3, 1e-1, 1e1, 1e3])
def test_lines_of_the_source_are_searched_from_any_first_length(
    line: Line, mu: float, eta: float, first: float
) -> None:
    calls = []

    def counted(t: float) -> tuple[float, float]:
        calls.append(t)
        return line(t)

    value, slope = line(0.0)
    length = wolfe_search(counted, value, slope, first, decrease=mu, curvature=eta)
    assert length == calls[-1]
    assert holds(line, length, mu, eta)
    assert len(calls) <= 16


@given(
    place=st.floats(0.01, 100), stiffness=st.floats(1e-3, 1e3), wave=st.floats(0, 0.5),
    first=st.floats(1e-3, 10),
)  # fmt: skip
def test_bowls_with_waves(place: float, stiffness: float, wave: float, first: float) -> None:
    def line(t: float) -> tuple[float, float]:
        s = t - place
        value = stiffness * (0.5 * s * s + wave * (1 - math.cos(s)))
        return value, stiffness * (s + wave * math.sin(s))

    value, slope = line(0.0)
    length = wolfe_search(line, value, slope, first, decrease=1e-4, curvature=0.9)
    assert length is not None
    assert holds(line, length, 1e-4, 0.9)


@given(wall=st.floats(0.02, 50), first=st.floats(0.1, 100))
def test_walls_are_stepped_back_from(wall: float, first: float) -> None:
    def line(t: float) -> tuple[float, float]:
        if t >= wall:
            return math.inf, math.nan
        return -math.log1p(t) - 0.01 * math.log(1 - t / wall), -1 / (1 + t) + 0.01 / (wall - t)

    if line(0.0)[1] >= 0:
        return
    length = wolfe_search(line, *line(0.0), first, decrease=1e-4, curvature=0.9)
    assert length is not None
    assert length < wall
    assert holds(line, length, 1e-4, 0.9)


def test_lines_without_such_a_length_end_in_none() -> None:
    def endless(t: float) -> tuple[float, float]:
        return -t, -1.0

    assert wolfe_search(endless, 0.0, -1.0, 1.0, decrease=1e-4, curvature=0.9) is None

    def broken(t: float) -> tuple[float, float]:
        return math.nan, math.nan

    assert wolfe_search(broken, 0.0, -1.0, 1.0, decrease=1e-4, curvature=0.9) is None

    def lying(t: float) -> tuple[float, float]:
        return t, -1.0

    assert wolfe_search(lying, 0.0, -1.0, 1.0, decrease=1e-4, curvature=0.9) is None
