"""Rules integrate what theory says, and say how far off they are."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from solvers.core import SettingsError, ShapeError
from solvers.pde import Ball, Box, Mesh, Polygon
from solvers.pinn import Quadrature, gauss_legendre, quasi_monte_carlo


@pytest.mark.parametrize("count", [1, 2, 5])
def test_gauss_points_are_exact_to_their_degree_and_not_beyond(count: int) -> None:
    rule = gauss_legendre(Box(x=(-1, 2), y=(0, 1)), count)
    for degree in (2 * count - 1, 2 * count):
        exact = (2.0 ** (degree + 1) - (-1.0) ** (degree + 1)) / (degree + 1)
        found = float(rule.integrate(rule.points[:, 0] ** degree))
        assert (abs(found - exact) < 1e-12 * abs(exact)) == (degree < 2 * count)


def test_panels_converge_at_twice_the_points() -> None:
    exact = math.e - 1
    errors, sizes = [], [1 / 4, 1 / 8, 1 / 16, 1 / 32]
    for size in sizes:
        rule = gauss_legendre(Box(x=(0, 1)), 2, panels=round(1 / size))
        errors.append(abs(float(rule.integrate(rule.points[:, 0].exp())) - exact))
    slopes = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert all(abs(slope - 4) < 0.15 for slope in slopes)


def test_error_bars_hold_the_integral() -> None:
    """Over many draws: errors in units of the bar scatter like Student's t of seven degrees."""
    cube = Box(**{f"x{k}": (0, 1) for k in range(6)})
    exact = (2 / math.pi) ** 6
    scores = []
    for seed in range(40):
        rule = quasi_monte_carlo(
            cube, 1024, replicates=8, concentration=0.6,
            generator=torch.Generator().manual_seed(seed),
        )  # fmt: skip
        estimate = rule.estimate((math.pi * rule.points).sin().prod(1))
        scores.append((estimate.value - exact) / estimate.error)
    within = sum(abs(score) < 2.36 for score in scores) / len(scores)
    assert within > 0.8  # 95 % of t_7
    assert max(map(abs, scores)) < 8


def test_low_discrepancy_beats_the_square_root() -> None:
    box = Box(x=(0, 1), y=(0, 1), z=(0, 1), s=(0, 1))
    errors = []
    for count in (2**7, 2**9, 2**11, 2**13):
        squares = []
        for seed in range(16):
            rule = quasi_monte_carlo(
                box, count, generator=torch.Generator().manual_seed(seed)
            )  # fmt: skip
            squares.append(
                (float(rule.integrate(rule.points.exp().prod(1))) - (math.e - 1) ** 4) ** 2
            )
        errors.append(math.sqrt(sum(squares) / len(squares)))
    slope = math.log2(errors[0] / errors[-1]) / 6
    assert slope > 0.85


def test_denser_points_lower_the_error_of_a_field_between_walls() -> None:
    cube = Box(**{f"x{k}": (0, 1) for k in range(10)})
    bars = []
    for concentration in (0.0, 0.8):
        rule = quasi_monte_carlo(cube, 2**13, replicates=8, concentration=concentration)
        estimate = rule.estimate((math.pi * rule.points).sin().square().prod(1))
        assert abs(estimate.value - 0.5**10) < 6 * estimate.error
        bars.append(estimate.error)
    assert bars[1] < bars[0] / 3


def test_volumes() -> None:
    for rule in (
        gauss_legendre(Box(x=(0, 2), y=(-1, 3)), 4, panels=3),
        quasi_monte_carlo(Box(x=(0, 2), y=(-1, 3)), 4096, concentration=0.8),
    ):
        assert float(rule.weights.sum()) == pytest.approx(8.0, rel=2e-3)
    disc = quasi_monte_carlo(Ball(radius=1.0, x=0.0, y=0.0), 100)
    assert float(disc.weights.sum()) == pytest.approx(math.pi, rel=1e-3)


@pytest.mark.parametrize("panels", [1, 2])
@pytest.mark.parametrize("axes", ["x", "xy", "xyz"])
def test_moments_of_a_ball(axes: str, panels: int) -> None:
    d, radius = len(axes), 1.5
    middle = torch.arange(1.0, d + 1, dtype=torch.float64) / 3
    ball = Ball(radius, **dict(zip(axes, middle.tolist(), strict=True)))
    rule = gauss_legendre(ball, 12, panels=panels)
    from_middle = rule.points - middle
    first, last = from_middle[:, 0], from_middle[:, -1]
    volume = (2 * radius, math.pi * radius**2, 4 / 3 * math.pi * radius**3)[d - 1]
    fourth = volume * radius**4 / ((d + 2) * (d + 4))
    assert bool(ball.contains(rule.points).all())
    for found, expected in (
        (torch.ones_like(first), volume),
        (first**2, volume * radius**2 / (d + 2)),
        (last**4, 3 * fourth),
        (first**2 * last**2, 3 * fourth if d == 1 else fourth),
        (first**9, 0.0),
    ):
        assert float(rule.integrate(found)) == pytest.approx(expected, rel=1e-13, abs=1e-12)


def test_what_is_refused() -> None:
    box = Box(x=(0, 1), y=(0, 1))
    with pytest.raises(SettingsError, match="is no box or ball"):
        gauss_legendre(box - Ball(radius=0.5, x=0.5, y=0.5), 3)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="two million|2000000 or fewer"):
        gauss_legendre(Box(**{f"x{k}": (0, 1) for k in range(8)}), 10)
    with pytest.raises(SettingsError, match="concentration"):
        quasi_monte_carlo(box, 10, concentration=1.0)
    with pytest.raises(ShapeError, match="replicates"):
        Quadrature(torch.zeros(10, 2), torch.zeros(10), replicates=3)
    with pytest.raises(ShapeError, match="weights"):
        Quadrature(torch.zeros(10, 2), torch.zeros(9))


def test_weights_in_a_polygon_or_a_mesh_sum_to_its_area() -> None:
    corner = Polygon([(0, 0), (1, 0), (1, 0.3), (0.3, 0.3), (0.3, 1), (0, 1)])
    assert float(quasi_monte_carlo(corner, 256).weights.sum()) == pytest.approx(0.51, rel=1e-13)
    vertices = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    triangle = Mesh(vertices, torch.tensor([[0, 1, 2]]))
    assert float(quasi_monte_carlo(triangle, 256).weights.sum()) == pytest.approx(1.0, rel=1e-13)
