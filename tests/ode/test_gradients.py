"""Gradients of states, parameters, stiff solves and event times."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor

from solvers.core.testing import check_gradients
from solvers.ode import compare_gradients, integrate

TIMES = [0.0, 0.4, 1.3]


def make_rate(matrix: Tensor):  # type: ignore[no-untyped-def]
    def rate(t: Tensor, y: Tensor) -> Tensor:
        return torch.tanh(y @ matrix) - y * torch.sin(t)

    return rate


def inputs() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "start": torch.randn(3, 2, generator=generator, dtype=torch.float64),
        "matrix": torch.randn(2, 2, generator=generator, dtype=torch.float64),
    }


@pytest.mark.parametrize("gradient", ["steps", "states"])
@pytest.mark.parametrize("method", ["dopri5", "bosh3", "radau5"])
def test_gradients_agree_with_differences(method: str, gradient: str) -> None:
    # Steps change with the inputs, which moves the result by about the tolerance.
    is_precise = method == "dopri5"
    times = TIMES[:2] if method == "radau5" else TIMES
    rtol, eps = (1e-10, 1e-4) if is_precise else (1e-7, 1e-3)
    check_gradients(
        lambda start, matrix: integrate(
            make_rate(matrix), start, times, method=method, gradient=gradient, rtol=rtol,
            atol=1e-2 * rtol,
        ).value,
        inputs(), eps=eps, rtol=1e-6 if is_precise else 1e-4, directions=2,
    )  # fmt: skip


def test_values_do_not_depend_on_whether_a_gradient_is_wanted() -> None:
    given = inputs()
    times = torch.linspace(0, 2, 9, dtype=torch.float64)
    for events in ((), (lambda t, y: y[:, 0] - y[:, 0].new_tensor([0.0, 5.0, 0.5]),)):
        plain = integrate(make_rate(given["matrix"]), given["start"], times, events=events)
        start = given["start"].clone().requires_grad_()
        graph = integrate(make_rate(given["matrix"]), start, times, events=events)
        assert graph.value.requires_grad
        assert torch.equal(plain.value, graph.value.detach())
        assert torch.equal(plain.event_time, graph.event_time.detach())


def test_both_ways_give_the_same_gradient_and_one_keeps_less() -> None:
    results = []
    for gradient in ("steps", "states"):
        given = {name: value.clone().requires_grad_() for name, value in inputs().items()}
        value = integrate(
            make_rate(given["matrix"]), given["start"], TIMES, gradient=gradient
        ).value
        value.square().sum().backward()
        results.append([v.grad for v in given.values()])
    for first, second in zip(*results, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-13, atol=1e-13)
    steps, states = compare_gradients(make_rate(inputs()["matrix"]), inputs()["start"], [0.0, 9.0])
    assert states.saved_bytes < 0.5 * steps.saved_bytes
    assert min(steps.backward_seconds, states.backward_seconds) > 0


def test_a_stiff_problem_has_the_gradient_of_its_slow_limit() -> None:
    # y follows p cos t within 1e-6, so dy/dp = cos t.
    p = torch.tensor([[0.7]], dtype=torch.float64, requires_grad=True)
    result = integrate(
        lambda t, y: -1e6 * (y - p * torch.cos(t)), torch.zeros(1, 1).double(), [0.0, 1.0],
        rtol=1e-8, atol=1e-10,
    )  # fmt: skip
    (slope,) = torch.autograd.grad(result.value[-1].sum(), p)
    assert float(slope) == pytest.approx(float(torch.cos(torch.tensor(1.0))), abs=1e-5)


def test_auto_differentiates_across_the_change_of_method() -> None:
    def final(mu: Tensor, start: Tensor) -> Tensor:
        def rate(t: Tensor, y: Tensor) -> Tensor:
            x, v = y.unbind(-1)
            return torch.stack([v, mu * (1 - x * x) * v - x], -1)

        return integrate(rate, start, [0.0, 1.0], rtol=1e-8, atol=1e-10).value[-1]

    mu = torch.tensor([1.0, 100.0], dtype=torch.float64)
    start = torch.tensor([[2.0, 0.0], [2.0, -0.02]], dtype=torch.float64)
    check_gradients(final, {"mu": mu, "start": start}, eps=1e-4, rtol=1e-3)


def test_a_failed_item_leaves_the_gradients_of_the_others_clean() -> None:
    k = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    start = torch.tensor([[1.0], [1.0]], dtype=torch.float64)

    def rate(t: Tensor, y: Tensor) -> Tensor:
        # The root is not finite beyond t = 0.5 in the second item.
        wall = torch.tensor([[10.0], [0.5]], dtype=torch.float64)
        return -k * y * torch.sqrt(wall - t) / torch.sqrt(wall)

    result = integrate(rate, start, [0.0, 1.0], on_failure="mask")
    assert result.converged.tolist() == [True, False]
    (slope,) = torch.autograd.grad(result.value[-1, result.converged].sum(), k)
    alone = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    good = integrate(
        lambda t, y: -alone * y * torch.sqrt(10 - t) / 10**0.5, start[:1], [0.0, 1.0]
    ).value[-1]
    (expected,) = torch.autograd.grad(good.sum(), alone)
    torch.testing.assert_close(slope, expected, rtol=1e-12, atol=0)


def test_second_derivatives_of_explicit_steps() -> None:
    start = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    value = integrate(
        lambda t, y: -y * y, start, [0.0, 1.0], method="dopri5", rtol=1e-11, atol=1e-13
    ).value[-1]
    # y = a / (1 + a t): dy/da = (1 + a)^-2, second derivative -2 (1 + a)^-3
    (first,) = torch.autograd.grad(value.sum(), start, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), start)
    assert first.item() == pytest.approx(1.3**-2, rel=1e-8)
    assert second.item() == pytest.approx(-2 * 1.3**-3, rel=1e-7)


@pytest.mark.parametrize("gradient", ["steps", "states"])
@pytest.mark.parametrize("case", ["radau5", "event"])
def test_second_derivatives_that_would_be_wrong_are_refused(
    case: str, gradient: Literal["steps", "states"]
) -> None:
    start = torch.tensor([[0.3]], dtype=torch.float64, requires_grad=True)
    result = integrate(
        lambda t, y: -y * y, start, [0.0, 1.0], gradient=gradient,
        method="radau5" if case == "radau5" else "dopri5",
        events=(lambda t, y: y[:, 0] - 0.25) if case == "event" else (),
    )  # fmt: skip
    asked = result.value[-1] if case == "radau5" else result.event_time
    (first,) = torch.autograd.grad(asked.sum(), start, create_graph=True)
    assert bool(torch.isfinite(first).all())
    with pytest.raises(RuntimeError, match="second derivatives through"):
        torch.autograd.grad(first.sum(), start)


def fall(height: Tensor, gravity: Tensor, method: str):  # type: ignore[no-untyped-def]
    """Balls dropped from heights until they meet the floor at 0.1."""
    start = torch.stack([height, torch.zeros_like(height)], -1)
    return integrate(
        lambda t, y: torch.stack([y[:, 1], -gravity * torch.ones_like(y[:, 0])], -1),
        start, [0.0, 0.2, 5.0], method=method, events=lambda t, y: y[:, 0] - 0.1,
        rtol=1e-9, atol=1e-11,
    )  # fmt: skip


@pytest.mark.parametrize("method", ["dopri5", "radau5"])
def test_events_are_found_per_item_and_their_times_have_gradients(method: str) -> None:
    height = torch.tensor([1.1, 3.0, 200.0], dtype=torch.float64, requires_grad=True)
    gravity = torch.tensor(9.81, dtype=torch.float64, requires_grad=True)
    result = fall(height, gravity, method)
    assert result.event.tolist() == [0, 0, -1]
    assert result.all_converged
    exact = (2 * (height - 0.1) / gravity).sqrt()
    torch.testing.assert_close(result.event_time[:2], exact[:2], rtol=1e-9, atol=0)
    assert torch.isinf(result.event_time[2])
    # States after the event are those of the event.
    assert result.value[-1, :2, 0].tolist() == pytest.approx([0.1, 0.1], abs=1e-9)
    torch.testing.assert_close(
        result.value[1, :, 0], height - 0.5 * gravity * 0.04, rtol=1e-8, atol=0
    )
    ours = torch.autograd.grad(result.event_time[:2].sum(), (height, gravity), retain_graph=True)
    theirs = torch.autograd.grad(exact[:2].sum(), (height, gravity))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-12)
    # The speed at the floor: v = -sqrt(2 g (h - 0.1)); the height there does not move.
    speed = torch.autograd.grad(result.last_state[0, 1], height, retain_graph=True)[0][0]
    assert float(speed) == pytest.approx(-float((9.81 / 2) ** 0.5), rel=1e-7)
    still = torch.autograd.grad(result.last_state[0, 0], height)[0][0]
    assert abs(float(still)) < 1e-7


@pytest.mark.parametrize("method", ["dopri5", "radau5"])
def test_an_event_alone_may_hold_what_wants_a_gradient(method: Literal["dopri5", "radau5"]) -> None:
    """Growth exp(t) reaches a level at its logarithm."""
    level = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    start = torch.ones(1, 1, dtype=torch.float64)
    result = integrate(
        lambda t, y: y, start, [0.0, 1.0], events=lambda t, y: y[:, 0] - level, method=method
    )
    by_time, by_state = (
        torch.autograd.grad(y.sum(), level, retain_graph=True)[0]
        for y in (result.event_time, result.last_state)
    )
    assert float(by_time) == pytest.approx(0.5, rel=1e-6)
    assert float(by_state) == pytest.approx(1.0, rel=1e-6)


def test_the_first_of_several_events_counts() -> None:
    start = torch.tensor([[0.0], [0.0], [0.0]], dtype=torch.float64)
    speed = torch.tensor([[1.0], [-2.0], [0.1]], dtype=torch.float64)
    result = integrate(
        lambda t, y: speed * torch.ones_like(y), start, [0.0, 1.0],
        events=[lambda t, y: y[:, 0] - 0.5, lambda t, y: y[:, 0] + 0.5,
                lambda t, y: t[:, 0] - 0.75],
    )  # fmt: skip
    assert result.event.tolist() == [0, 1, 2]
    torch.testing.assert_close(
        result.event_time, torch.tensor([0.5, 0.25, 0.75], dtype=torch.float64)
    )
