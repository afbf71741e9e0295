"""The public checkers accept what is right and refuse what is slightly wrong."""

import math

import pytest
import torch

from solvers.core import SettingsError, ShapeError
from solvers.core.testing import (
    assert_close_report,
    check_adjoint,
    check_conservation,
    check_gradients,
    check_order,
)


class WrongSine(torch.autograd.Function):
    """sin(x) whose backward pass is off by a factor."""

    factor = 1.001

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return WrongSine.factor * gradient * x.cos()


@pytest.fixture
def x() -> torch.Tensor:
    return torch.tensor([[0.3, -0.7], [1.1, 40.0]], dtype=torch.float64)


@pytest.mark.parametrize("directions", [None, 4])
def test_gradients_accept_autograd(x: torch.Tensor, directions: int | None) -> None:
    def function(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return a.sin() @ b, (a * b).sum()

    assert check_gradients(function, {"b": x.T, "a": x}, directions=directions) < 1e-6
    assert check_gradients(function, [x, x.T], directions=directions) < 1e-6


@pytest.mark.parametrize("directions", [None, 4])
def test_gradients_refuse_a_slightly_wrong_backward(
    x: torch.Tensor, directions: int | None
) -> None:
    with pytest.raises(AssertionError, match=r"by 0\.00\d+ relative"):
        check_gradients(WrongSine.apply, [x], directions=directions)
    assert check_gradients(WrongSine.apply, [x], directions=directions, rtol=0.01) > 1e-4


def test_gradients_name_the_input_and_entry(x: torch.Tensor) -> None:
    def function(good: torch.Tensor, bad: torch.Tensor) -> torch.Tensor:
        return good.sin() + bad.sin() + bad[1, 0].detach() ** 2

    with pytest.raises(AssertionError) as caught:
        check_gradients(function, {"good": x, "bad": x})
    assert caught.value.args[0].splitlines()[2].split()[:3] == ["bad", "(1,", "0)"]


def test_gradients_notice_a_cut_graph_nan_and_float32(x: torch.Tensor) -> None:
    with pytest.raises(AssertionError, match="cut off"):
        check_gradients(lambda x: x.detach(), [x])
    with pytest.raises(AssertionError, match="inf relative"):
        check_gradients(lambda x: (x - 100).sqrt(), [x])
    with pytest.raises(SettingsError, match="float32"):
        check_gradients(torch.sin, [x.float()])
    with pytest.raises(SettingsError, match="positive"):
        check_gradients(torch.sin, [x], eps=0.0)


def test_gradients_accept_an_input_without_influence(x: torch.Tensor) -> None:
    assert check_gradients(lambda a, b: a.sin(), [x, x]) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_adjoint(dtype: torch.dtype) -> None:
    A = torch.randn(4, 3, dtype=dtype, generator=torch.Generator().manual_seed(0))
    x, y = torch.zeros(3, dtype=dtype), torch.zeros(4, dtype=dtype)
    assert check_adjoint(lambda x: A @ x, lambda y: A.mH @ y, x, y) < 1e-14
    with pytest.raises(AssertionError, match="not adjoint"):
        check_adjoint(lambda x: A @ x, lambda y: -A.mH @ y, x, y)
    with pytest.raises(AssertionError, match="not adjoint"):
        check_adjoint(lambda x: A @ x, lambda y: 1.0001 * (A.mH @ y), x, y)
    with pytest.raises(AssertionError, match="expected"):
        check_adjoint(lambda x: A @ x, lambda y: y, x, y)
    with pytest.raises(AssertionError, match="nan"):
        check_adjoint(lambda x: A @ x * math.nan, lambda y: A.mH @ y, x, y)


def test_complex_adjoint_needs_the_conjugate() -> None:
    A = torch.randn(4, 3, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    with pytest.raises(AssertionError, match="not adjoint"):
        check_adjoint(lambda x: A @ x, lambda y: A.mT @ y, A[0], A[:, 0])


STEPS = [0.2, 0.1, 0.05, 0.025]


def test_order_of_a_difference_quotient() -> None:
    def error(h: float) -> float:
        return abs((math.sin(1 + h) - math.sin(1 - h)) / (2 * h) - math.cos(1))

    assert check_order(error, STEPS, order=2) == pytest.approx(2, abs=0.01)
    for wrong in (1, 3):
        with pytest.raises(AssertionError, match=r"fitted order 1\.99"):
            check_order(error, STEPS, order=wrong)


def test_order_refuses_too_little_evidence() -> None:
    with pytest.raises(SettingsError, match="at least 4"):
        check_order(lambda h: h, [0.1, 0.1, 0.05, 0.025], order=1)
    with pytest.raises(SettingsError, match="positive"):
        check_order(lambda h: h, [0.1, 0.05, 0.025, 0.0], order=1)
    with pytest.raises(AssertionError, match="solved exactly"):
        check_order(lambda h: 0.0, STEPS, order=1)


def test_conservation_finds_slow_drift_and_its_item() -> None:
    momentum = torch.ones(100, 3, dtype=torch.float64)
    momentum[:, 1] += 1e-6 * torch.arange(100)
    assert check_conservation(momentum, rtol=1e-3) == pytest.approx(99e-6)
    with pytest.raises(AssertionError, match="momentum is not constant") as caught:
        check_conservation(momentum, rtol=1e-6, name="momentum")
    assert caught.value.args[0].splitlines()[2].split()[:2] == ["99", "(1,)"]


def test_energy_may_fall_but_not_grow() -> None:
    energy = torch.tensor([3.0, 2.0, 2.0, 1.0], dtype=torch.float64)
    assert check_conservation(energy, law="non-increasing") == 0
    with pytest.raises(AssertionError, match="not constant"):
        check_conservation(energy)
    energy[2] = 2.1
    with pytest.raises(AssertionError, match="not non-increasing at 1 of 3"):
        check_conservation(energy, law="non-increasing", rtol=1e-6)


def test_conservation_of_nan_or_of_one_time_is_refused() -> None:
    with pytest.raises(AssertionError):
        check_conservation(torch.tensor([1.0, math.nan]), rtol=1.0)
    with pytest.raises(ShapeError, match="T >= 2"):
        check_conservation(torch.tensor([1.0]))
    with pytest.raises(SettingsError, match="law"):
        check_conservation(torch.ones(3), law="growing")


def test_close_report_shows_the_worst_entry_first() -> None:
    expected = torch.arange(12.0, dtype=torch.float64).reshape(3, 4)
    actual = expected.clone()
    actual[2, 1] += 1e-3
    actual[1, 0] += 1e-5
    assert assert_close_report(actual, expected, rtol=0, atol=0.01) == pytest.approx(1e-3)
    with pytest.raises(AssertionError, match="pose: 2 of 12 entries") as caught:
        assert_close_report(actual, expected, rtol=1e-9, name="pose")
    assert caught.value.args[0].splitlines()[2].startswith("  (2, 1)")


def test_close_report_on_numbers_infinities_and_nan() -> None:
    assert assert_close_report(1.0, 1.0, rtol=0) == 0
    assert assert_close_report([math.inf, -math.inf], [math.inf, -math.inf], rtol=0) == 0
    assert assert_close_report([], [], rtol=0) == 0
    for actual, expected in ((math.nan, math.nan), (math.inf, 1.0), (1.0, math.inf)):
        with pytest.raises(AssertionError):
            assert_close_report([actual], [expected], rtol=1e-3)
    with pytest.raises(AssertionError, match="shape"):
        assert_close_report([1.0], [1.0, 2.0], rtol=1)
