"""Error bounds of the lane functions, against 80-bit arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from solvers.kernels import aligned_empty, build_kernel, pack, unpack
from solvers.kernels.emit import LANE_COUNTS

pytestmark = pytest.mark.skipif(
    np.finfo(np.longdouble).eps > 1e-18, reason="needs a long double wider than double"
)


def apply(function: str, x: np.ndarray, lanes: int) -> np.ndarray:
    kernel = build_kernel(
        f"test_{function}",
        f"y[block] = {function}(x[block]);",
        [("x", "V*"), ("y", "V*")],
        lanes=lanes,
    )
    points = pack(torch.from_numpy(x), lanes)
    values = aligned_empty(*points.shape)
    kernel(len(points), points, values)
    return unpack(values, len(x))[:, 0].numpy()


def worst_ulp(value: np.ndarray, exact: np.ndarray) -> float:
    return float(np.max(np.abs(value - exact) / np.spacing(np.abs(exact.astype(float)))))


@pytest.mark.parametrize("lanes", LANE_COUNTS)
@pytest.mark.parametrize(("function", "exact"), [("vsin", np.sin), ("vcos", np.cos)])
def test_sine_and_cosine(function: str, exact: np.ufunc, lanes: int) -> None:
    rng = np.random.default_rng(3)
    turns = np.arange(1, 6366) * (np.pi / 2)  # next to a zero the reduction must not lose digits
    x = np.concatenate(
        [rng.uniform(-b, b, 30_000) for b in (1.0, 10.0, 1e4, 1e6)]
        + [turns, np.nextafter(turns, 0), -np.nextafter(turns, 1e9), [0.0, 1e-300]]
    )
    assert worst_ulp(apply(function, x, lanes), exact(x.astype(np.longdouble))) < 2.5


@pytest.mark.parametrize("lanes", LANE_COUNTS)
def test_exponential(lanes: int) -> None:
    rng = np.random.default_rng(4)
    x = np.concatenate([rng.uniform(-1, 1, 30_000), rng.uniform(-745.1, 709.78, 60_000)])
    assert worst_ulp(apply("vexp", x, lanes), np.exp(x.astype(np.longdouble))) <= 1.0
    ends = np.array([-746.0, -1e300, -math.inf, 709.79, 1e300, math.inf, 0.0, math.nan])
    np.testing.assert_array_equal(
        apply("vexp", ends, lanes), [0, 0, 0, math.inf, math.inf, math.inf, 1, math.nan]
    )


@pytest.mark.parametrize("lanes", LANE_COUNTS)
def test_logarithm(lanes: int) -> None:
    rng = np.random.default_rng(7)
    x = np.concatenate(
        [
            rng.uniform(0.5, 2.0, 30_000),
            1.0 + rng.uniform(-1e-6, 1e-6, 999),
            10.0 ** rng.uniform(-307, 308, 30_000),
            10.0 ** rng.uniform(-320, -307, 999),
            [1.0, np.nextafter(1.0, 0.0), np.nextafter(1.0, 2.0), 5e-324, 1.7e308],
        ]
    )
    exact = np.log(x.astype(np.longdouble))
    value = apply("vlog", x, lanes)
    assert worst_ulp(value[exact != 0], exact[exact != 0]) <= 1.0
    ends = np.array([0.0, -0.0, -1.0, -math.inf, math.inf, math.nan, 1.0])
    np.testing.assert_array_equal(
        apply("vlog", ends, lanes),
        [-math.inf, -math.inf, math.nan, math.nan, math.inf, math.nan, 0.0],
    )


@pytest.mark.parametrize("lanes", LANE_COUNTS)
def test_hyperbolic_tangent(lanes: int) -> None:
    rng = np.random.default_rng(5)
    x = np.concatenate(
        [
            rng.uniform(-1, 1, 30_000),
            rng.uniform(-25, 25, 30_000),
            10.0 ** rng.uniform(-300, 0, 999),
        ]
    )
    assert worst_ulp(apply("vtanh", x, lanes), np.tanh(x.astype(np.longdouble))) < 1.5
    ends = np.array([-math.inf, -1e9, 0.0, 1e9, math.inf, math.nan])
    np.testing.assert_array_equal(apply("vtanh", ends, lanes), [-1, -1, 0, 1, 1, math.nan])


@pytest.mark.parametrize("lanes", LANE_COUNTS)
def test_square_root_is_correctly_rounded(lanes: int) -> None:
    x = 10.0 ** np.random.default_rng(6).uniform(-300, 300, 20_000)
    np.testing.assert_array_equal(apply("vsqrt", x, lanes), np.sqrt(x))


@pytest.mark.parametrize("lanes", LANE_COUNTS)
def test_reductions_over_lanes(lanes: int) -> None:
    body = """
      const M m = x[block] > 0.0;
      some[block] = vany(m); every[block] = vall(m); total[block] = vsum(x[block]);
      first[block] = vlane(x[block], 0);
    """
    arguments = [
        ("x", "V*"),
        ("some", "int*"),
        ("every", "int*"),
        ("total", "double*"),
        ("first", "double*"),
    ]
    kernel = build_kernel("test_reductions", body, arguments, lanes=lanes)
    x = np.random.default_rng(7).normal(size=(64, lanes)) + 0.5
    x[0], x[1] = 1.0, -1.0
    aligned = aligned_empty(64, lanes).numpy()
    aligned[:] = x
    some, every = np.zeros(64, np.int32), np.zeros(64, np.int32)
    total, first = np.zeros(64), np.zeros(64)
    kernel(64, aligned, some, every, total, first)
    np.testing.assert_array_equal(some, (x > 0).any(1))
    np.testing.assert_array_equal(every, (x > 0).all(1))
    np.testing.assert_allclose(total, x.sum(1), atol=1e-14)
    np.testing.assert_array_equal(first, x[:, 0])
