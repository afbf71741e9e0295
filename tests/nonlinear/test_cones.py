"""Laws of the cone pairs: central path, linear response, step to the boundary."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from solvers.nonlinear import cones

FINITE = st.floats(-3.0, 3.0)
POSITIVE = st.floats(1e-3, 1e3)
KAPPA = st.floats(1e-8, 1e-1)


def interior(vector: list[float], margin: float) -> float:
    return math.hypot(*vector) + margin


@given(s=POSITIVE, kappa=KAPPA)
def test_orthant_central_point_has_product_kappa(s: float, kappa: float) -> None:
    assert math.isclose(cones.orthant_central(s, kappa) * s, kappa, rel_tol=1e-14)


@given(p=POSITIVE, y=st.lists(FINITE, min_size=2, max_size=2), kappa=KAPPA)
def test_second_order_central_point_has_jordan_product_kappa(
    p: float, y: list[float], kappa: float
) -> None:
    e, b = cones.second_order_central(p, y, kappa)
    scalar, vector = cones.second_order_product(p, b, e, y)
    # p e cancels against b . y, so the product is right to rounding of its largest term.
    assert abs(scalar - kappa) <= 1e-14 * p * e + 1e-12 * kappa
    assert max(abs(x) for x in vector) <= 1e-13 * p * e
    assert e >= math.hypot(*y)
    assert math.hypot(*b) <= p


def test_friction_opposes_slip_and_tends_to_coulombs_bound() -> None:
    slips = [1e-6, 1e-3, 1.0]
    pulls = []
    for slip in slips:
        _, b = cones.second_order_central(2.0, [slip, 0.0], 1e-7)
        assert b[0] < 0.0
        assert b[1] == 0.0
        pulls.append(-b[0])
    assert pulls == sorted(pulls)
    assert math.isclose(pulls[-1], 2.0, rel_tol=1e-7)


@settings(max_examples=50)
@given(
    b=st.lists(FINITE, min_size=2, max_size=2),
    y=st.lists(FINITE, min_size=2, max_size=2),
    margins=st.tuples(st.floats(0.05, 2.0), st.floats(0.05, 2.0)),
    change=st.lists(FINITE, min_size=3, max_size=3),
)
def test_second_order_response_satisfies_the_linearised_pair(
    b: list[float], y: list[float], margins: tuple[float, float], change: list[float]
) -> None:
    p, e = interior(b, margins[0]), interior(y, margins[1])
    kappa, dp, dy = 0.3, change[0], change[1:]
    response = cones.second_order_response(p, b, e, y, kappa)
    de, db = response.increments(dp, dy)

    def products(values: Tensor) -> Tensor:
        scalar, vector = cones.second_order_product(
            values[0], list(values[1:3]), values[3], list(values[4:6])
        )
        return torch.stack([scalar, *vector])

    point = torch.tensor([p, *b, e, *y], dtype=torch.float64)
    move = torch.tensor([dp, *db, de, *dy], dtype=torch.float64)
    value, slope = torch.func.jvp(products, (point,), (move,))
    target = torch.tensor([kappa, 0.0, 0.0], dtype=torch.float64)
    scale = float(1 + slope.abs().max() + move.abs().max())
    assert float((value + slope - target).abs().max()) <= 1e-9 * scale


@given(x=POSITIVE, s=POSITIVE, kappa=KAPPA, ds=FINITE)
def test_orthant_response_satisfies_the_linearised_pair(
    x: float, s: float, kappa: float, ds: float
) -> None:
    dx = cones.orthant_response(x, s, kappa).increment(ds)
    assert math.isclose(x * s + x * ds + s * dx, kappa, rel_tol=1e-9, abs_tol=1e-9 * x * s)


@settings(max_examples=60)
@given(
    b=st.lists(FINITE, min_size=2, max_size=2),
    margin=st.floats(0.1, 2.0),
    move=st.lists(FINITE, min_size=3, max_size=3),
)
def test_longest_step_ends_on_the_boundary_and_no_earlier(
    b: list[float], margin: float, move: list[float]
) -> None:
    p = interior(b, margin)
    determinant = cones.second_order_determinant(p, b)
    inverse = cones.second_order_inverse_step(p, b, move[0], move[1:], 1.0 / determinant)

    def slack(step: float) -> float:
        moved = [x + step * d for x, d in zip(b, move[1:], strict=True)]
        return p + step * move[0] - math.hypot(*moved)

    if inverse <= 1e-9:
        assert slack(1e3) >= -1e-6 * (1 + 1e3 * math.hypot(*move))
        return
    longest = 1.0 / inverse
    size = 1.0 + longest * math.hypot(*move)
    assert abs(slack(longest)) <= 1e-6 * size
    assert all(slack(share * longest) >= -1e-9 * size for share in (0.1, 0.5, 0.9))


def test_pairs_of_a_batch_equal_pairs_one_by_one() -> None:
    generator = torch.Generator().manual_seed(0)
    b = torch.randn(2, 5, generator=generator, dtype=torch.float64)
    y = torch.randn(2, 5, generator=generator, dtype=torch.float64)
    p, e = b.norm(dim=0) + 0.3, y.norm(dim=0) + 0.2
    batch = cones.second_order_response(p, list(b), e, list(y), 0.1)
    for i in range(5):
        own = cones.second_order_response(
            float(p[i]), b[:, i].tolist(), float(e[i]), y[:, i].tolist(), 0.1
        )
        assert math.isclose(float(batch.e_offset[i]), own.e_offset, rel_tol=1e-12)
        assert math.isclose(float(batch.b_y[0][1][i]), own.b_y[0][1], rel_tol=1e-10)
