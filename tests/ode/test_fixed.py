"""Steps of given length: their orders, an independent integrator, and items that fail."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torchdiffeq import odeint

from solvers.core import NotConvergedError, SettingsError, ShapeError, Status
from solvers.core.testing import check_gradients
from solvers.ode import integrate_steps


def swing(t: Tensor, y: Tensor) -> Tensor:
    return torch.stack([y[:, 1], -torch.sin(y[:, 0]) + torch.cos(3 * t[:, 0])], 1)


START = torch.tensor([[0.3, 0.0], [2.0, -1.0]], dtype=torch.float64)


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("midpoint", 2), ("rk4", 4)])
def test_error_falls_with_the_order(method: str, order: int) -> None:
    exact = integrate_steps(swing, START, torch.linspace(0, 2, 2049)).value[-1]
    errors = []
    for steps in (32, 64, 128, 256):
        found = integrate_steps(
            swing,
            START,
            torch.linspace(0, 2, steps + 1, dtype=torch.float64),
            method=method,  # type: ignore[arg-type]
        )
        assert found.report.counts["evaluations"].tolist() == [order * steps] * 2
        errors.append(float((found.value[-1] - exact).norm()))
    slope = math.log2(errors[0] / errors[-1]) / 3
    assert slope == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("method", ["euler", "midpoint"])
def test_steps_are_those_of_another_integrator(method: str) -> None:
    times = torch.tensor([0.0, 0.1, 0.4, 0.5, 1.2], dtype=torch.float64)
    ours = integrate_steps(swing, START, times, method=method).value  # type: ignore[arg-type]

    def unbatched(t: Tensor, y: Tensor) -> Tensor:
        return swing(t.expand(2, 1), y)

    theirs = odeint(unbatched, START, times, method=method)
    assert torch.allclose(ours, theirs, rtol=1e-13, atol=1e-13)
    backward = integrate_steps(swing, ours[-1], times.flip(0), method="rk4").value
    assert backward.shape == ours.shape


def test_gradients_by_differences() -> None:
    times = torch.linspace(0, 1, 5, dtype=torch.float64)
    check_gradients(lambda y: integrate_steps(swing, y, times).value, [START])


def test_a_failed_item_keeps_its_last_good_state_and_harms_nobody() -> None:
    def rate(t: Tensor, y: Tensor) -> Tensor:
        return torch.where((y > 1.5) & (t >= 0.5), torch.inf, torch.ones_like(y))

    y0 = torch.tensor([[0.0], [1.2]], dtype=torch.float64)
    times = [0.0, 0.25, 0.5, 0.75, 1.0]
    with pytest.raises(NotConvergedError):
        integrate_steps(rate, y0, times, method="euler")
    found = integrate_steps(rate, y0, times, method="euler", on_failure="mask")
    assert found.status.tolist() == [Status.CONVERGED, Status.NON_FINITE]
    assert found.value[-1].tolist() == [[1.0], [1.7]]
    assert found.iterations.tolist() == [4, 2]
    assert found.residual_norm.tolist() == [0.0, 0.5]


def test_bad_input() -> None:
    with pytest.raises(SettingsError, match="method"):
        integrate_steps(swing, START, [0.0, 1.0], method="heun")  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="times"):
        integrate_steps(swing, START, [0.0])
    with pytest.raises(ShapeError, match="same shape"):
        integrate_steps(lambda t, y: y[:, :1], START, [0.0, 1.0])


def test_the_part_left_is_of_the_way_that_times_make() -> None:
    # There and back the states are those of the start, for a field that depends on time alone.
    result = integrate_steps(lambda t, y: t.expand_as(y), START, [0.0, 2.0, 0.0])
    torch.testing.assert_close(result.value[-1], START)
    assert result.report.residual.tolist() == [0.0, 0.0]
    assert integrate_steps(swing, START, [1.0, 1.0]).report.residual.tolist() == [0.0, 0.0]
    lost = integrate_steps(
        lambda t, y: torch.where(t > 0.9, torch.nan, -y),
        START,
        [0, 0.5, 2.0, 0.5],
        on_failure="mask",
    )
    torch.testing.assert_close(lost.report.residual, torch.full((2,), 3.0 / 3.5).double())


def test_an_empty_batch_stays_empty() -> None:
    assert integrate_steps(swing, START[:0], [0.0, 1.0]).value.shape == (2, 0, 2)


def test_what_is_no_batch_is_refused() -> None:
    for wrong in (torch.tensor(1.0), [1.0]):
        with pytest.raises(ShapeError, match="y0: got"):
            integrate_steps(swing, wrong, [0.0, 1.0])  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="function: gave NoneType"):
        integrate_steps(lambda t, y: None, START, [0.0, 1.0])  # type: ignore[arg-type,return-value]
    with pytest.raises(SettingsError, match="inside vmap"):
        torch.vmap(lambda y: integrate_steps(swing, y[None], [0.0, 1.0]).value)(START)
