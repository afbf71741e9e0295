"""One bad item of a batch must not spoil what the others say about parameters they all share."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from solvers.core import Solution
from solvers.ode import integrate, integrate_steps

TIMES = torch.linspace(0.0, 1.0, 9, dtype=torch.float64)
CALLS: list[tuple[Any, dict[str, Any]]] = [
    (integrate, {"method": "dopri5", "gradient": "steps"}),
    (integrate, {"method": "bosh3", "gradient": "states"}),
    (integrate, {"method": "radau5"}),
    (integrate_steps, {"method": "euler"}),
    (integrate_steps, {"method": "rk4"}),
]
# A tank that runs empty: the rate of one that is empty has no finite derivative, or is no number.
LEVELS = {"empties": 0.02, "is below zero": -1.0, "is no number": torch.nan}


def solve(call: Any, settings: dict[str, Any], start: Tensor, width: Tensor) -> Solution[Tensor]:
    def drain(t: Tensor, y: Tensor) -> Tensor:
        return -width * torch.sqrt(y) * (1 + t)

    solved: Solution[Tensor] = call(drain, start, TIMES, on_failure="mask", **settings)
    return solved


@pytest.mark.parametrize("level", LEVELS.values(), ids=LEVELS)
@pytest.mark.parametrize(("call", "settings"), CALLS)
def test_a_failed_item_passes_no_gradient_and_spoils_none(
    call: Any, settings: dict[str, Any], level: float
) -> None:
    width = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    start = torch.tensor([[3.0], [level], [2.0]], dtype=torch.float64, requires_grad=True)
    result = solve(call, settings, start, width)
    assert result.report.converged.tolist() == [True, False, True]
    found = torch.autograd.grad(result.value.nan_to_num().sum(), (width, start))
    good = start.detach()[[0, 2]].requires_grad_()
    alone = solve(call, settings, good, width)
    expected = torch.autograd.grad(alone.value.sum(), (width, good))
    torch.testing.assert_close(found[0], expected[0], rtol=1e-12, atol=0)
    torch.testing.assert_close(found[1][[0, 2]], expected[1], rtol=1e-12, atol=0)
    assert float(found[1][1]) == 0.0
    # The failed item does not move the others, with a graph or without.
    assert torch.equal(result.value[:, [0, 2]], alone.value)
    with torch.no_grad():
        again = solve(call, settings, start, width)
    torch.testing.assert_close(again.value, result.value, rtol=1e-9, atol=0, equal_nan=True)


@pytest.mark.parametrize(("call", "settings"), CALLS)
def test_where_all_items_fail_gradients_are_zero(call: Any, settings: dict[str, Any]) -> None:
    width = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    start = torch.tensor([[0.02], [0.03]], dtype=torch.float64)
    result = solve(call, settings, start, width)
    assert not bool(result.report.converged.any())
    (found,) = torch.autograd.grad(result.value.sum(), width)
    assert float(found) == 0.0


def test_an_event_beside_a_failed_item_keeps_its_gradient() -> None:
    width = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

    def arrive(start: list[list[float]]) -> Tensor:
        result = integrate(
            lambda t, y: -width * torch.sqrt(y),
            torch.tensor(start, dtype=torch.float64),
            [0.0, 9.0],
            method="dopri5",
            events=lambda t, y: y[:, 0] - 1.0,
            on_failure="mask",
        )
        (found,) = torch.autograd.grad(result.event_time[result.event >= 0].sum(), width)
        return found

    # From 4 to 1 in 2 / width, from 9 to 1 in 4 / width.
    expected = torch.tensor(-(2 + 4) / 0.7**2, dtype=torch.float64)
    torch.testing.assert_close(arrive([[4.0], [-1.0], [9.0]]), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(arrive([[4.0], [0.5], [9.0]]), expected, rtol=1e-6, atol=0)
