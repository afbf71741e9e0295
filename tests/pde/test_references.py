"""Classical solvers converge with their order to solutions that are known in closed form."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from solvers.core import NonFiniteError, SettingsError
from solvers.core.testing import check_order
from solvers.pde import problems, sample
from solvers.pde.references import (
    ChebyshevFunction,
    GridFunction,
    cole_hopf,
    lax_oleinik,
    solve_conservation_law,
    solve_elliptic,
    solve_periodic,
)


@pytest.mark.parametrize("degree", [3, 5, 8])
def test_interpolation_has_the_order_of_its_degree(degree: int) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0, 2 * np.pi, 200), rng.uniform(-1, 1, 200)

    def error(h: float) -> float:
        n = round(1 / h)
        gx, gy = 2 * np.pi * np.arange(4 * n) / (4 * n), np.linspace(-1, 1, n + 1)
        values = np.exp(np.sin(gx))[:, None] * np.cos(2 * gy)
        f = GridFunction((0, -1), (2 * np.pi, 1), values, (True, False), degree)
        return float(np.abs(f(x, y) - np.exp(np.sin(x)) * np.cos(2 * y)).max())

    check_order(error, [1 / 12, 1 / 16, 1 / 24, 1 / 32], order=degree + 1, tolerance=0.6)


def test_interpolation_gives_back_grid_values_and_wraps() -> None:
    x = np.arange(32) / 32
    f = GridFunction((0.0,), (1.0,), np.sin(2 * np.pi * x), (True,))
    np.testing.assert_array_equal(f(x), np.sin(2 * np.pi * x))
    np.testing.assert_allclose(f(x + 0.01), f(x - 0.99), atol=1e-13)
    with pytest.raises(SettingsError, match="more than the degree"):
        GridFunction((0.0,), (1.0,), x[:5], (True,))


def soliton(x: np.ndarray, t: float, mu: float = 0.03, height: float = 1.0) -> np.ndarray:
    """Periodic sum of the solitary wave of u_t + u u_x + mu^2 u_xxx = 0."""
    total = np.zeros_like(x)
    for shift in range(-3, 4):
        z = x - height * t / 3 + 2 * shift
        total += height / np.cosh(z * np.sqrt(height / 12) / mu) ** 2
    return total


def test_the_spectral_solver_is_of_fourth_order_in_time_on_a_soliton() -> None:
    x = np.linspace(-1, 1, 77)

    def error(h: float) -> float:
        f = solve_periodic(
            lambda x: soliton(x, 0.0),
            lambda d: -(0.03**2) * d**3,
            lambda u, d: -0.5 * d(u * u),
            bounds=(-1, 1),
            duration=0.5,
            modes=256,
            steps=round(0.5 / h),
        )
        return float(np.abs(f(x, 0.5) - soliton(x, 0.5)).max())

    check_order(error, [1 / 64, 1 / 96, 1 / 128, 1 / 192], order=4, tolerance=0.3)


def test_the_spectral_solver_converges_faster_than_any_power_in_space() -> None:
    nu = 0.05
    x = np.linspace(0, 2 * np.pi, 57)
    exact = cole_hopf(x, 1.0, nu=nu, initial=np.sin, potential=lambda y: -np.cos(y))

    def error(modes: int) -> float:
        f = solve_periodic(
            np.sin,
            lambda d: nu * d**2,
            lambda u, d: -0.5 * d(u * u),
            bounds=(0, 2 * np.pi),
            duration=1.0,
            modes=modes,
            steps=800,
        )
        return float(np.abs(f(x, 1.0) - exact).max())

    errors = [error(modes) for modes in (32, 64, 128, 256)]
    ratios = [a / b for a, b in pairwise(errors)]
    assert ratios[1] > 3 * ratios[0] > 30
    assert errors[-1] < 1e-10


def test_cole_hopf_agrees_with_the_spectral_solver_on_a_moving_front() -> None:
    problem = problems.MovingBurgers(speed=2.0, nu=0.05)
    f = solve_periodic(
        lambda x: 2.0 + np.sin(x),
        lambda d: 0.05 * d**2,
        lambda u, d: -0.5 * d(u * u),
        bounds=(0, 2 * np.pi),
        duration=1.0,
        modes=256,
        steps=1600,
    )
    points = sample(problem.domain, 200)
    x, t = points.numpy().T
    np.testing.assert_allclose(problem.reference_values(points)["u"].numpy(), f(x, t), atol=2e-9)


def test_blow_up_is_reported() -> None:
    with (
        np.errstate(all="ignore"),
        pytest.raises(NonFiniteError, match="more steps"),
    ):
        solve_periodic(
            lambda x: 5 + np.sin(x), lambda d: 0 * d, lambda u, _: 50 * u**2,
            bounds=(0, 2 * np.pi), duration=1.0, modes=32, steps=100,
        )  # fmt: skip


def test_entropy_solution_solves_the_implicit_equation_and_keeps_its_shock() -> None:
    rng = np.random.default_rng(0)
    x, t = rng.uniform(0, 2 * np.pi, 300), rng.uniform(0, 0.9, 300)
    u = lax_oleinik(x, t, initial=np.sin, potential=lambda y: -np.cos(y), reach=1.0)
    np.testing.assert_allclose(u, np.sin(x - u * t), atol=1e-12)
    # After breaking: a jump at pi, odd about it, with characteristics running into it.
    left, right = lax_oleinik(
        np.pi + np.array([-1e-6, 1e-6]),
        2.0,
        initial=np.sin,
        potential=lambda y: -np.cos(y),
        reach=1.0,
    )
    assert left > 0.5
    assert right == pytest.approx(-left, abs=1e-4)


def finite_volume_error(n: int, duration: float) -> float:
    """Mean error of cell averages against the exact solution."""

    def averages(t: float) -> np.ndarray:
        # By the midpoints of many sub-cells.
        fine = (np.arange(64 * n) + 0.5) * 2 * np.pi / (64 * n)
        u = lax_oleinik(
            fine,
            t,
            initial=lambda y: 0.3 + np.sin(y),
            potential=lambda y: 0.3 * y - np.cos(y),
            reach=1.3,
        )
        return u.reshape(n, 64).mean(1)

    after = solve_conservation_law(
        averages(0.0), lambda u: u * u / 2, lambda u: u, length=2 * np.pi, duration=duration
    )
    return float(np.abs(after - averages(duration)).mean())


def test_finite_volumes_are_of_second_order_on_smooth_solutions() -> None:
    check_order(
        lambda h: finite_volume_error(round(2 / h), 0.5),
        [1 / 16, 1 / 32, 1 / 64, 1 / 128],
        order=2,
        tolerance=0.35,
    )


def test_finite_volumes_are_at_least_of_first_order_with_a_moving_shock() -> None:
    errors = [finite_volume_error(n, 2.0) for n in (32, 64, 128, 256)]
    assert errors[-1] < 1.2 * errors[0] / 8


def test_finite_volumes_conserve_and_do_not_oscillate() -> None:
    rng = np.random.default_rng(1)
    start = rng.normal(size=200)
    after = solve_conservation_law(
        start, lambda u: u * u / 2, lambda u: u, length=1.0, duration=0.3
    )
    assert after.sum() == pytest.approx(start.sum(), abs=1e-12)
    assert after.max() <= start.max()
    assert after.min() >= start.min()
    variation = [np.abs(np.diff(v, append=v[0])).sum() for v in (start, after)]
    assert variation[1] < variation[0]
    # A transonic rarefaction opens; an entropy-violating scheme would keep the jump.
    step = np.where(np.arange(200) < 100, -1.0, 1.0)
    fan = solve_conservation_law(step, lambda u: u * u / 2, lambda u: u, length=2.0, duration=0.2)
    x = (np.arange(200) + 0.5) / 100 - 1
    middle = np.abs(x) < 0.15
    np.testing.assert_allclose(fan[middle], x[middle] / 0.2, atol=0.03)


def test_chebyshev_converges_geometrically_to_a_manufactured_solution() -> None:
    # u = exp(x) sin(2 y) with a = 1 + x y / 2, c = 3 on an uneven box
    def source(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        u, slope = np.exp(x) * np.sin(2 * y), 2 * np.exp(x) * np.cos(2 * y)
        a = 1 + x * y / 2
        return -(a * (u - 4 * u) + y / 2 * u + x / 2 * slope) + 3 * u

    rng = np.random.default_rng(0)
    x, y = rng.uniform(0, 1, 100), rng.uniform(-1, 2, 100)

    def error(count: int) -> float:
        f = solve_elliptic(
            lambda x, y: 1 + x * y / 2,
            source,
            bounds=((0, 1), (-1, 2)),
            boundary=lambda x, y: np.exp(x) * np.sin(2 * y),
            reaction=3.0,
            count=count,
        )
        return float(np.abs(f(x, y) - np.exp(x) * np.sin(2 * y)).max())

    errors = [error(count) for count in (6, 10, 14, 20)]
    assert errors[1] < 1e-2 * errors[0]
    assert errors[2] < 1e-2 * errors[1]
    assert errors[3] < 1e-11


def test_darcy_agrees_with_finite_volumes_of_second_order() -> None:
    import scipy.sparse as sp
    from scipy.sparse.linalg import spsolve

    problem = problems.Darcy()

    def error(h: float) -> float:
        n = round(1 / h)
        centre = (np.arange(n) + 0.5) / n
        face = np.arange(n + 1) / n

        def a(x: np.ndarray, y: np.ndarray) -> np.ndarray:
            return 1 + 0.8 * np.sin(2 * np.pi * x) * np.sin(2 * np.pi * y)

        first = a(face[:, None], centre[None])
        second = a(centre[:, None], face[None])
        first[[0, -1]] *= 2
        second[:, [0, -1]] *= 2
        diagonal = (first[1:] + first[:-1] + second[:, 1:] + second[:, :-1]).reshape(-1)
        right = np.pad(second[:, 1:-1], ((0, 0), (0, 1))).reshape(-1)[:-1]
        down = first[1:-1].reshape(-1)
        matrix = sp.diags_array(
            [diagonal, -right, -right, -down, -down], offsets=[0, 1, -1, n, -n]
        ).tocsc()
        u = spsolve(matrix * n**2, np.ones(n * n)).reshape(n, n)
        points = torch.tensor(np.stack(np.meshgrid(centre, centre, indexing="ij"), -1))
        exact = problem.reference_values(points.reshape(-1, 2))["u"].numpy()
        return float(np.sqrt(((u.reshape(-1) - exact) ** 2).mean()))

    check_order(error, [1 / 16, 1 / 32, 1 / 64, 1 / 128], order=2, tolerance=0.1)


def test_a_chebyshev_function_is_exact_for_polynomials_on_and_off_its_points() -> None:
    from solvers.pde.references._chebyshev import chebyshev_points

    x = chebyshev_points(6, (0.0, 2.0))
    f = ChebyshevFunction(((0.0, 2.0),), x**5 - x)
    at = np.concatenate([x, np.linspace(0, 2, 13)])
    np.testing.assert_allclose(f(at), at**5 - at, atol=1e-12)


def test_references_hold_their_stated_accuracy() -> None:
    # The same solver with other numbers of modes and steps.
    def compare(name: str, tolerance: float, after: float, **finer: object) -> None:
        from solvers.pde.problems import _reaction, _waves

        problem = problems.find_problem(name)
        points = sample(problem.domain, 400, seed=5)
        points = points[points[:, 1] > after]
        coarse = problem.reference_values(points)["u"].numpy()
        cached = {
            "korteweg-de-vries": _waves._korteweg_de_vries,
            "reaction-diffusion": _reaction._reaction_diffusion,
        }[name]
        arguments = problem.coefficients.values()
        original = solve_periodic
        module = _waves if name.startswith("kort") else _reaction
        try:
            module.solve_periodic = lambda *a, **k: original(*a, **(k | finer))
            better = cached.__wrapped__(*arguments)
        finally:
            module.solve_periodic = original
        x, t = points.numpy().T
        assert np.abs(better(x, t) - coarse).max() < tolerance

    compare("korteweg-de-vries", 1e-7, 0.0, steps=8000, modes=768)
    compare("reaction-diffusion", 2e-8, 0.01, steps=4000, modes=2048)
