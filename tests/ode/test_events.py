"""Events at their edges: starts on the surface, touches, dips between two steps, many bounces."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from solvers.ode import integrate

GRAVITY = 9.81
METHODS = ["dopri5", "bosh3", "radau5"]


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def falls(t: Tensor, y: Tensor) -> Tensor:
    return torch.stack([y[:, 1], torch.full_like(y[:, 0], -GRAVITY)], -1)


def ground(t: Tensor, y: Tensor) -> Tensor:
    return y[:, 0]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("height", "slowest"), [(0.0, 1e-6), (1e-17, 0.1), (-1e-17, 0.1)])
def test_a_start_on_the_surface_is_no_event_and_the_return_is_one(
    method: str, height: float, slowest: float
) -> None:
    speeds = double(3.0, 1.0, slowest)
    start = torch.stack([torch.full_like(speeds, height), speeds], -1)
    flight = integrate(falls, start, [0.0, 2.0], events=ground, method=method)  # type: ignore[arg-type]
    assert flight.event.tolist() == [0, 0, 0]
    torch.testing.assert_close(flight.event_time, 2 * speeds / GRAVITY, rtol=1e-8, atol=0)


@pytest.mark.parametrize("level", [0.0, 1000.0])
def test_bounces_are_neither_lost_nor_doubled(level: float) -> None:
    restitution, start = 0.7, double(level + 1.0, 0.0)[None]
    speed = math.sqrt(2 * GRAVITY)
    time, expected = 0.0, speed / GRAVITY
    for _ in range(20):
        flight = integrate(
            falls, start, [time, time + 10.0], events=lambda t, y: y[:, 0] - level, rtol=1e-9
        )
        assert int(flight.event) == 0
        time = float(flight.event_time)
        assert time == pytest.approx(expected, abs=1e-6)
        speed *= restitution
        expected += 2 * speed / GRAVITY
        start = flight.last_state * double(1.0, -restitution)


def test_what_leaves_the_surface_for_good_has_no_event() -> None:
    start = double(0.0, 0.0, 0.0, -1.0, 0.0, 1.0).reshape(3, 2)
    flight = integrate(
        lambda t, y: torch.stack([y[:, 1], y[:, 1]], -1), start, [0.0, 1.0], events=ground
    )
    assert flight.event.tolist() == [-1, -1, -1]
    assert bool(flight.all_converged)


@pytest.mark.parametrize("method", ["dopri5", "radau5"])
@pytest.mark.parametrize("end", [3.9, -3.9])
def test_a_dip_between_two_steps_is_found_and_a_near_miss_is_none(method: str, end: float) -> None:
    depths = double(1e-2, 1e-4, -1e-4, -1e-2)
    start = double(1.0, 0.0).expand(4, 2)
    swing = integrate(
        lambda t, y: torch.stack([y[:, 1], -y[:, 0]], -1), start, [0.0, end],
        events=lambda t, y: y[:, 0] + 1.0 - depths, method=method, rtol=1e-8, atol=1e-10,  # type: ignore[arg-type]
    )  # fmt: skip
    assert swing.event.tolist() == [0, 0, -1, -1]
    exact = math.copysign(1.0, end) * torch.acos(depths[:2] - 1.0)
    torch.testing.assert_close(swing.event_time[:2], exact, rtol=1e-5, atol=0)


def test_events_are_found_where_no_gradient_is_recorded() -> None:
    with torch.inference_mode():
        flight = integrate(falls, double(1.0, 0.0)[None], [0.0, 2.0], events=ground)
        assert float(flight.event_time) == pytest.approx(math.sqrt(2 / GRAVITY), rel=1e-8)
