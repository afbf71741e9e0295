"""Projections: their fixed points are complementary pairs, their Newton steps derivatives."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from solvers.nonlinear.projections import disc_newton, orthant_newton, smooth_radius

CAP = 1e12
sizes = st.floats(-6.0, 3.0).map(lambda x: 10.0**x)
signed = st.floats(-1e3, 1e3)
angles = st.floats(0.0, 2 * math.pi)


def scalar(x: float) -> Tensor:
    return torch.tensor(x, dtype=torch.float64)


@given(x=sizes, rho=sizes)
def test_complementary_pairs_are_fixed_points(x: float, rho: float) -> None:
    for primal, dual in ((x, 0.0), (0.0, x), (0.0, 0.0)):
        assert float(orthant_newton(scalar(primal), scalar(dual), rho, CAP).residual) == 0.0


@given(x=signed, s=signed, rho=sizes)
def test_what_is_not_complementary_is_no_fixed_point(x: float, s: float, rho: float) -> None:
    residual = abs(float(orthant_newton(scalar(x), scalar(s), rho, CAP).residual))
    assert residual == pytest.approx(abs(min(x, rho * s)), rel=1e-9, abs=1e-12)


@given(kappa=sizes, s=sizes, rho=sizes)
def test_smoothed_fixed_points_have_the_asked_product(kappa: float, s: float, rho: float) -> None:
    x = kappa / s
    pair = orthant_newton(scalar(x), scalar(s), rho, CAP, scalar(kappa))
    assert abs(float(pair.residual)) <= 1e-12 * (x + rho * s)


@given(x=signed, s=signed, rho=sizes, kappa=sizes)
def test_smoothed_projection_falls_to_the_exact_one(
    x: float, s: float, rho: float, kappa: float
) -> None:
    exact = float(orthant_newton(scalar(x), scalar(s), rho, CAP).value)
    soft = float(orthant_newton(scalar(x), scalar(s), rho, CAP, scalar(kappa)).value)
    assert exact <= soft * (1 + 1e-12)
    assert soft - exact <= math.sqrt(rho * kappa) * (1 + 1e-9) + 1e-12 * abs(exact)


@given(bound=sizes, speed=sizes, angle=angles, rho=sizes)
def test_sliding_friction_is_a_fixed_point(
    bound: float, speed: float, angle: float, rho: float
) -> None:
    """Opposed to the slip and on its bound; any smaller friction without slip as well."""
    way = [math.cos(angle), math.sin(angle)]
    b, y = [scalar(-bound * w) for w in way], [scalar(speed * w) for w in way]
    sliding = disc_newton(b, y, scalar(bound), rho, CAP)
    scale = bound + rho * speed
    assert max(abs(float(r)) for r in sliding.residual) <= 1e-12 * scale
    sticking = disc_newton([0.7 * x for x in b], [scalar(0.0)] * 2, scalar(bound), rho, CAP)
    assert max(abs(float(r)) for r in sticking.residual) == 0.0
    wrong = disc_newton([-x for x in b], y, scalar(bound), rho, CAP)
    assert max(abs(float(r)) for r in wrong.residual) > 0.1 * min(bound, rho * speed)


@given(bound=sizes, share=st.floats(0.01, 0.99), angle=angles, rho=sizes, kappa=sizes)
def test_smoothed_friction_is_the_central_path(
    bound: float, share: float, angle: float, rho: float, kappa: float
) -> None:
    """With ``e`` the multiplier: ``p e + b.y = kappa`` and ``p y + e b = 0``."""
    way = [math.cos(angle), math.sin(angle)]
    b = [share * bound * w for w in way]
    e = kappa * bound / (bound**2 - (share * bound) ** 2)
    y = [-e * x / bound for x in b]
    pair = disc_newton(
        [scalar(x) for x in b], [scalar(x) for x in y], scalar(bound), rho, CAP, scalar(kappa)
    )
    scale = bound + rho * math.hypot(*y)
    assert max(abs(float(r)) for r in pair.residual) <= 1e-9 * scale


@given(length=sizes, bound=sizes, spread=sizes)
def test_smoothed_radius_solves_its_equation(length: float, bound: float, spread: float) -> None:
    beta = float(smooth_radius(length, bound, spread).value)
    assert 0.0 < beta < bound * (1 + 1e-15)
    assert beta <= length
    room = (bound - beta) * (bound + beta)
    if room > 1e-9 * bound**2:
        assert beta + spread * beta / room == pytest.approx(length, rel=1e-5)


@given(
    ratio=st.floats(1e-6, 1e6) | st.floats(0.9, 1.1), gamma=st.floats(-16, 6).map(lambda x: 10**x)
)
def test_smoothed_radius_is_right_to_eleven_digits(ratio: float, gamma: float) -> None:
    """Beside the same root by bisection in 40 digits; rounding of the ratio is not ours."""
    excess = float(smooth_radius(scalar(ratio), scalar(1.0), scalar(gamma)).excess)
    with localcontext() as context:
        context.prec = 40
        r, g = Decimal(ratio), Decimal(gamma)
        low, high = Decimal(0), r + 2 * g + g.sqrt() + 1
        for _ in range(120):
            e = (low + high) / 2
            if e * ((1 + e) ** 2 - r * r) < g * (1 + e) ** 2:
                low = e
            else:
                high = e
    assert abs(excess - float(low)) <= 4e-12 * float(low) + 1e-14 * min(ratio, 1.0)


@pytest.mark.parametrize("kappa", [None, 1e-3, 1.0])
def test_increments_are_derivatives(kappa: float | None) -> None:
    """Moving the dual moves the fixed point as the linearisation says, to first order."""
    generator = torch.Generator().manual_seed(0)
    draw = torch.rand(200, 6, generator=generator, dtype=torch.float64)
    bound, rho = 0.5 + draw[:, 0], 0.5 + draw[:, 1]
    # Sliding pairs: away from the switch, where the derivative exists.
    y = [2.0 + draw[:, 3], draw[:, 4] - 0.5]
    parameter = None if kappa is None else torch.full_like(bound, kappa)

    def solve(y0: Tensor, bound: Tensor) -> list[Tensor]:
        b = [torch.zeros_like(bound), torch.zeros_like(bound)]
        for _ in range(60):
            step = disc_newton(b, [y0, y[1]], bound, rho, 1e3, parameter)
            b = [x + dx for x, dx in zip(b, step.offset, strict=True)]
        assert max(float(r.abs().max()) for r in step.residual) < 1e-12
        return b

    b = solve(y[0], bound)
    law = disc_newton(b, y, bound, rho, 1e9, parameter)
    eps = 1e-6
    for slopes, high, low in (
        ([-law.b_y[0][0], -law.b_y[1][0]], solve(y[0] + eps, bound), solve(y[0] - eps, bound)),
        (law.b_p, solve(y[0], bound + eps), solve(y[0], bound - eps)),
    ):
        for slope, h, low_value in zip(slopes, high, low, strict=True):
            difference = (h - low_value) / (2 * eps)
            assert float((slope - difference).abs().max()) < 1e-7


@given(b=signed, y=signed, bound=sizes, rho=sizes, kappa=st.none() | sizes)
def test_one_component_is_two_along_an_axis(
    b: float, y: float, bound: float, rho: float, kappa: float | None
) -> None:
    parameter = None if kappa is None else scalar(kappa)
    one = disc_newton([scalar(b)], [scalar(y)], scalar(bound), rho, 1e3, parameter)
    two = disc_newton(
        [scalar(b), scalar(0.0)], [scalar(y), scalar(0.0)], scalar(bound), rho, 1e3, parameter
    )
    size = abs(b) + rho * abs(y) + bound
    for ours, theirs, unit in (
        (one.offset[0], two.offset[0], 1e3 * size),
        (one.residual[0], two.residual[0], size),
        (one.b_y[0][0], two.b_y[0][0], 1e3 * rho),
        (one.b_p[0], two.b_p[0], 1e3),
    ):
        assert abs(float(ours) - float(theirs)) <= 1e-11 * unit
