"""Descent in H1 contracts as theory says, on sines and with networks for iterates."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import solve_bvp

from solvers.core import NotConvergedError, SettingsError, Status
from solvers.pde import Box, Dirichlet, Neumann, Problem, problems, sample, variational_problem
from solvers.pde.functions import pi, sin, sqrt
from solvers.pinn import SobolevDescent, UnrolledDescent, gauss_legendre


def linear(a: float, c: float) -> Problem:
    """A quadratic energy, whose modes do not meet."""
    return variational_problem(
        "linear",
        domain=Box(x=(0, 1), y=(0, 2)),
        density=lambda u, x, y, a, c: (
            0.5 * a * (u.x * u.x + u.y * u.y) + 0.5 * c * u * u - sin(pi * x) * sin(pi * y) * u
        ),
        coefficients={"a": a, "c": c},
        conditions=[Dirichlet(u=0.0)],
    )


class TestRate:
    @pytest.mark.parametrize(("a", "c"), [(3.0, 0.0), (0.5, 20.0)])
    def test_each_mode_of_a_linear_problem_has_its_own(self, a: float, c: float) -> None:
        descent = SobolevDescent(linear(a, c), modes=4, step=0.1)
        start = torch.randn(4, 4, generator=torch.Generator().manual_seed(0)).double()
        found = descent.solve(iterations=3, start=start, on_failure="mask").value
        n = torch.arange(1, 5).double() * math.pi
        squares = n[:, None] ** 2 + (n[None] / 2) ** 2
        curvature = (a * squares + c) / (1 + squares)
        force = torch.zeros(4, 4).double()
        force[0, 1] = math.sqrt(0.5)  # the force in sines of unit norm on the area 2
        exact = force / (a * squares + c)
        expected = exact + (1 - 0.1 * curvature) ** 3 * (start - exact)
        assert torch.allclose(found, expected, atol=1e-12)
        assert descent.curvature_bounds(start) == pytest.approx(
            (float(curvature.min()), float(curvature.max())), rel=1e-9
        )

    @pytest.mark.parametrize("dimension", [1, 2])
    @pytest.mark.parametrize("step", [None, 0.15])
    def test_nonlinear_energies_decrease_geometrically(self, dimension: int, step: Any) -> None:
        kappa = 4.0
        problem = problems.NonlinearDiffusion(dimension, strength=kappa)
        found = SobolevDescent(problem, modes=8, step=step).solve()
        assert found.all_converged
        assert found.rate == pytest.approx(found.contraction, rel=0.03)
        # curvature by the slope between 1 and 1 + kappa, constant of Poincare 1/(d pi^2)
        low, high = found.bounds
        assert 1 / (1 + 1 / (dimension * math.pi**2)) <= low < high <= 1 + kappa
        gaps = found.energies - found.energies[-1]
        assert bool((gaps.diff()[:-1] <= 1e-13).all())
        above = gaps[gaps > 1e-9 * gaps[0]]
        steps = (above[1:] / above[:-1])[len(above) // 2 :]
        assert float(steps.mean()) == pytest.approx(found.contraction**2, rel=0.1)

    def test_it_does_not_depend_on_the_resolution(self) -> None:
        problem = problems.NonlinearDiffusion(2)
        rates = [SobolevDescent(problem, modes=m, step=0.2).solve().rate for m in (6, 9, 14)]
        assert max(rates) - min(rates) < 0.02

    def test_worst_case_of_the_theory_bounds_the_energy(self) -> None:
        problem = problems.NonlinearDiffusion(2, strength=2.0)
        low, high = 1 / (1 + 1 / (2 * math.pi**2)), 3.0
        found = SobolevDescent(problem, modes=8, step=2 / (low + high)).solve()
        bound = ((high - low) / (high + low)) ** torch.arange(len(found.energies)).double()
        errors = found.energies - found.energies[-1]
        # E_k - E* <= M/2 |u_k - u*|^2 <= M/m rho^2k (E_0 - E*)
        for k, error in enumerate(errors[:-1].tolist()):
            assert error <= high / low * float(bound[k]) ** 2 * float(errors[0]) + 1e-12


class TestSolution:
    def test_closed_form(self) -> None:
        problem = problems.NonlinearDiffusion(2)
        found = SobolevDescent(problem, modes=8).solve()
        points = sample(problem.domain, 100)
        assert torch.allclose(found(points), problem.reference_values(points)["u"], atol=1e-6)

    def test_against_a_boundary_value_solver(self) -> None:
        """Area with a force that vanishes at walls of different height."""
        problem = variational_problem(
            "film", domain=Box(x=(0, 1)),
            density=lambda u, x: sqrt(1 + u.x * u.x) - 2 * sin(pi * x) * u,
            conditions=[Dirichlet(u=lambda x: 0.5 * x)],
        )  # fmt: skip
        found = SobolevDescent(problem, modes=24).solve(iterations=400)
        grid = np.linspace(0, 1, 21)

        def system(x: Any, y: Any) -> Any:
            return np.stack([y[1], -2 * np.sin(np.pi * x) * (1 + y[1] ** 2) ** 1.5])

        def ends(left: Any, right: Any) -> Any:
            return np.array([left[0], right[0] - 0.5])

        guess = np.stack([0.5 * grid, 0.5 + 0 * grid])
        reference = solve_bvp(system, ends, grid, guess, tol=1e-6)
        assert reference.success
        expected = torch.from_numpy(reference.sol(grid)[0])
        assert torch.allclose(found(torch.from_numpy(grid)[:, None]), expected, atol=1e-5)

    def test_limits_and_refusals(self) -> None:
        descent = SobolevDescent(problems.NonlinearDiffusion(1), modes=4)
        with pytest.raises(NotConvergedError):
            descent.solve(iterations=3)
        assert descent.solve(iterations=3, on_failure="mask").status == Status.MAX_ITERATIONS
        wild = SobolevDescent(problems.NonlinearElliptic(1), modes=4, step=9.0)
        found = wild.solve(on_failure="mask")
        assert found.status == Status.NON_FINITE
        assert bool(found.value.isfinite().all())
        free = variational_problem(
            "free", domain=Box(x=(0, 1)), conditions=[Neumann(u=0.0)],
            density=lambda u, x: u.x * u.x + u * u,
        )  # fmt: skip
        for bad in (free, problems.Poisson(4)):
            with pytest.raises(SettingsError, match="walls of a box of up to three axes"):
                SobolevDescent(bad)
        with pytest.raises(SettingsError, match="has no energy"):
            SobolevDescent(problems.Helmholtz())


@pytest.fixture(scope="module")
def problem() -> Problem:
    return problems.NonlinearDiffusion(2)


@pytest.fixture(scope="module")
def runs(problem: Problem) -> dict[int, Any]:
    rule = gauss_legendre(problem.domain, 24)
    return {
        width: UnrolledDescent(problem, width=width, step=0.2, rule=rule).run(14)
        for width in (12, 48)
    }


class TestUnrolled:
    def test_networks_follow_the_exact_iteration(self, problem: Problem, runs: Any) -> None:
        exact = SobolevDescent(problem, modes=8, step=0.2).solve(iterations=14, on_failure="mask")
        ratios = runs[48].gradient_norms[:8] / exact.gradient_norms[:8]
        assert bool(((ratios - 1).abs() < 0.05).all())
        gaps = runs[48].energies - exact.energies
        assert float(gaps.abs().max()) < 1e-3 * float(exact.energies[0] - exact.energies[-1])

    def test_energies_fall_and_wider_blocks_go_further(self, runs: Any) -> None:
        for run in runs.values():
            assert bool((run.energies.diff() <= 0).all())
        ends = [float(run.energies[-1]) for run in runs.values()]
        assert ends[1] < ends[0]

    def test_the_network_is_the_iterate(self, problem: Problem, runs: Any) -> None:
        run, rule = runs[48], gauss_legendre(problem.domain, 24)
        x = rule.points.clone().requires_grad_()
        u = run.network(x)[:, 0]
        (slope,) = torch.autograd.grad(u.sum(), x)
        assert problem.energy is not None
        values = {(0, 0): u.detach(), (1, 0): slope[:, 0], (0, 1): slope[:, 1]}
        density = problem.energy_density({"u": values}, problem.domain.split(rule.points))
        assert float(rule.integrate(density)) == pytest.approx(float(run.energies[-1]), abs=1e-9)
        assert run.widths[-1] == 14 * 48 == len(run.network.theta) // 4

    def test_barron_norm_grows_by_the_blocks(self, runs: Any) -> None:
        assert bool((runs[48].barron_norms.diff() > 0).all())

    def test_what_is_refused(self) -> None:
        with pytest.raises(SettingsError, match="width"):
            UnrolledDescent(problems.Poisson(1), width=0)
        wild = UnrolledDescent(problems.NonlinearElliptic(1), width=8, step=9.0)
        found = wild.run(50, on_failure="mask")
        assert found.status == Status.NON_FINITE
        assert bool(found.value.isfinite().all())
        free = variational_problem(
            "free", domain=Box(x=(0, 1)), conditions=[Neumann(u=0.0)],
            density=lambda u, x: u.x * u.x + u * u,
        )  # fmt: skip
        with pytest.raises(SettingsError, match="neumann"):
            UnrolledDescent(free)
