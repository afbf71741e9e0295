"""Norms agree with their definition, and are differentiable where torch's are not."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from solvers.core import relative_error, safe_norm, scaled_max_norm
from solvers.core.testing import check_gradients


@given(st.lists(st.floats(-1e150, 1e150), min_size=1, max_size=6))
def test_safe_norm_is_the_euclidean_norm(numbers: list[float]) -> None:
    norm = safe_norm(torch.tensor(numbers, dtype=torch.float64))
    assert float(norm) == pytest.approx(math.hypot(*numbers), rel=1e-14, abs=0)


@pytest.mark.parametrize("size", [1e-300, 1e300])
def test_safe_norm_neither_underflows_nor_overflows(size: float) -> None:
    norm = safe_norm(torch.tensor([3 * size, 4 * size], dtype=torch.float64))
    assert float(norm) == pytest.approx(5 * size, rel=1e-14)


def test_safe_norm_axes_follow_torch() -> None:
    x = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    for dim in (-1, 0, (0, 2)):
        expected = torch.linalg.vector_norm(x, dim=dim)
        assert torch.allclose(safe_norm(x, dim=dim), expected)
        assert safe_norm(x, dim=dim, keepdim=True).ndim == 3


def test_safe_norm_has_zero_slope_of_first_and_second_order_at_zero() -> None:
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0]], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(safe_norm(x).sum(), x, create_graph=True)
    assert torch.allclose(slope, torch.tensor([[0.0, 0.0], [0.6, 0.8]], dtype=torch.float64))
    (curvature,) = torch.autograd.grad(slope.sum(), x)
    assert curvature[0].tolist() == [0.0, 0.0]
    assert curvature.isfinite().all()


def test_safe_norm_gradients_of_both_orders() -> None:
    x = torch.tensor([[0.3, -2.0, 0.5]], dtype=torch.float64)

    def slope(x: torch.Tensor) -> torch.Tensor:
        x = x if x.requires_grad else x.clone().requires_grad_()
        with torch.enable_grad():
            return torch.autograd.grad(safe_norm(x).sum(), x, create_graph=True)[0]

    check_gradients(safe_norm, [x])
    check_gradients(slope, [x])


def test_safe_norm_passes_nan_and_infinity_on() -> None:
    norm = safe_norm(torch.tensor([[math.nan, 1.0], [math.inf, 1.0]]))
    assert math.isnan(norm[0])
    assert math.isinf(norm[1])


def test_scaled_max_norm_is_one_at_the_tolerance() -> None:
    reference = torch.tensor([10.0, 0.0, -4.0], dtype=torch.float64)
    tolerance = 1e-6 + 1e-3 * reference.abs()
    options = {"reference": reference, "rtol": 1e-3, "atol": 1e-6}
    assert float(scaled_max_norm(-tolerance, **options)) == pytest.approx(1)
    assert float(scaled_max_norm(tolerance * torch.tensor([0.1, 2, 1]), **options)) == 2


def test_scaled_max_norm_with_zero_tolerance() -> None:
    zero = torch.zeros(2)
    options = {"reference": zero, "rtol": 1e-3, "atol": 0.0}
    assert float(scaled_max_norm(zero, **options)) == 0
    assert math.isinf(float(scaled_max_norm(torch.tensor([0.0, 1e-30]), **options)))


@given(st.floats(0.01, 100))
def test_relative_error_has_no_unit(scale: float) -> None:
    x = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    y = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    error = float(relative_error(scale * x, scale * y))
    assert error == pytest.approx(1 / math.sqrt(21))


def test_relative_error_per_item_and_with_zero_reference() -> None:
    value = torch.tensor([[3.0, 4.0], [2.0, 0.0]])
    reference = torch.tensor([[0.0, 0.0], [4.0, 0.0]])
    assert relative_error(value, reference, dim=-1).tolist() == [5.0, 0.5]
