"""Flow past a cylinder: published drag and eddies, laws of momentum, order of convergence."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

import solvers.pde.references._cylinder as cylinder
from solvers.core import NotConvergedError, SettingsError
from solvers.core.testing import check_order
from solvers.pde.references import CylinderSolution, solve_cylinder


@cache
def flow(reynolds: float) -> CylinderSolution:
    return solve_cylinder(reynolds, rings=64, rays=48)


# B. Fornberg (1980), steady flow with the outer boundary far away: drag, wake in diameters.
@pytest.mark.parametrize(("reynolds", "drag", "wake"), [(20.0, 2.000, 0.91), (40.0, 1.498, 2.24)])
def test_drag_and_eddies_are_the_published_ones(reynolds: float, drag: float, wake: float) -> None:
    assert flow(reynolds).drag == pytest.approx(drag, rel=6e-3)
    assert flow(reynolds).wake_length == pytest.approx(wake, rel=6e-3)
    assert flow(reynolds).residual < 1e-8


def test_the_flow_does_not_separate_below_seven() -> None:
    assert solve_cylinder(5.0, rings=40, rays=32).wake_length == 0.0


@pytest.mark.parametrize("radius", [0.8, 2.0])
def test_momentum_through_a_circle_is_the_drag(radius: float) -> None:
    f, h = flow(20.0), 1e-3
    angle = 2 * np.pi * np.arange(400) / 400
    nx, ny = np.cos(angle), np.sin(angle)
    x, y = radius * nx, radius * ny
    u, v, p = f(x, y)

    def slope(dx: float, dy: float) -> tuple[np.ndarray, np.ndarray]:
        ahead, behind = f(x + dx, y + dy), f(x - dx, y - dy)
        return tuple((a - b) / (2 * h) for a, b in zip(ahead[:2], behind[:2], strict=True))

    (u_x, v_x), (u_y, v_y) = slope(h, 0.0), slope(0.0, h)
    np.testing.assert_allclose(u_x + v_y, 0.0, atol=2e-3)
    stress = -p * nx + (2 * u_x * nx + (u_y + v_x) * ny) / 20.0
    force = 2 * np.pi * radius * (stress - u * (u * nx + v * ny)).mean()
    assert 2 * force == pytest.approx(f.drag, rel=3e-3)
    assert abs((u * nx + v * ny).mean()) < 1e-9


def test_the_cylinder_holds_the_fluid_and_both_sides_are_alike() -> None:
    f = flow(20.0)
    angle = np.linspace(0, 2 * np.pi, 90)
    u, v, _ = f(0.5 * np.cos(angle), 0.5 * np.sin(angle))
    assert max(np.abs(u).max(), np.abs(v).max()) < 1e-12
    x, y = np.array([-3.0, 0.2, 1.0, 4.0]), np.array([0.5, 0.8, 0.1, 2.0])
    above, below = f(x, y), f(x, -y)
    for one, other, sign in zip(above, below, (1, -1, 1), strict=True):
        np.testing.assert_allclose(one, sign * other, atol=1e-12)
    assert np.isnan(f(0.1, 0.2)).all()
    assert np.isnan(f(90.0, 0.0)).all()


def test_the_discrete_equations_are_consistent_of_sixth_order() -> None:
    # psi = sin 2z sin theta and omega = cos z sin 2 theta, z the logarithm of the radius, solve
    # nothing; what they leave in the equations is known.
    def error(h: float) -> float:
        rings = round(1 / h)
        equations = cylinder._Flow(20.0, rings, rings, 4.0)
        z = np.repeat(equations.depth, equations.rays)
        a = np.tile(equations.angle[1 : equations.rays + 1], equations.rings)
        psi, omega = np.sin(2 * z) * np.sin(a), np.cos(z) * np.sin(2 * a)
        left = equations.residual(psi, omega, 0.0)
        first, second, drag = left[0:-1:2], left[1:-1:2], left[-1]
        transport = -np.sin(2 * z) * np.cos(a) * np.sin(z) * np.sin(2 * a)
        transport -= 4 * np.cos(2 * z) * np.sin(a) * np.cos(z) * np.cos(2 * a)
        inside, wall = equations.is_inside, equations.is_wall
        # The vorticity is orthogonal to the sine that weighs it, and so gives no drag.
        return max(
            np.abs(first - (np.exp(2 * z) * omega - 5 * psi))[inside].max(),
            np.abs(second - (transport + omega / 4))[inside].max(),
            np.abs(second - 2 * np.cos(2 * z) * np.sin(a))[wall].max(),
            abs(drag),
        )

    check_order(error, [1 / 24, 1 / 32, 1 / 48, 1 / 64], order=6, tolerance=0.3)


def test_bad_numbers_are_refused_and_failure_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="reynolds: got 200"):
        solve_cylinder(200.0)
    with pytest.raises(SettingsError, match="more than 10 intervals"):
        solve_cylinder(20.0, rings=4)
    monkeypatch.setattr(cylinder, "_MOST_ITERATIONS", 2)
    with pytest.raises(NotConvergedError, match="reynolds=20 was not found in 2"):
        solve_cylinder(20.0, rings=24, rays=24)
