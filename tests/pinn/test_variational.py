"""Energies on networks: the laws of the energy, of its metric, and of what training finds."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from solvers.core import CheckpointError, NumericalWarning, SettingsError, Status
from solvers.derivatives import Layers
from solvers.pde import (
    Ball,
    Box,
    Dirichlet,
    Neumann,
    Periodic,
    Problem,
    Robin,
    problems,
    sample,
    variational_problem,
)
from solvers.pde._arguments import with_arguments
from solvers.pinn import MLP, DeepRitz, ModifiedMLP, RitzResult, gauss_legendre, load
from solvers.pinn._ansatz import make_ansatz
from solvers.pinn.variational._functional import Functional
from solvers.pinn.variational._natural import EnergyNaturalGradient
from solvers.pinn.variational._ritz import _Energy

SMALL = MLP(width=8, depth=1)
QUICK: dict[str, Any] = {"network": SMALL, "backend": "sweep"}
"""The torch engine: nothing to compile for so short a training."""


def least_energy(d: int) -> float:
    r"""Of NonlinearElliptic: every mean of :math:`\sin^2` is 1/2, of :math:`\sin^4` 3/8."""
    return -d * math.pi**2 / 2 * 0.5**d - 0.75 * 0.375**d


def on_square(density: Any, *conditions: Any, **settings: Any) -> Problem:
    return variational_problem(
        "test", domain=Box(x=(0, 1), y=(0, 1)), density=density, conditions=conditions, **settings
    )


ZERO = Dirichlet(u=0.0)


@pytest.fixture(scope="module")
def functional() -> Functional:
    problem = problems.NonlinearElliptic(2)
    return Functional(
        problem, make_ansatz(problem), Layers((2, 6, 1)), gauss_legendre(problem.domain, 24)
    )


@pytest.fixture(scope="module")
def theta() -> Tensor:
    return Layers((2, 6, 1)).initial(3)


class TestEnergy:
    def test_its_gradient_passes_gradcheck(self, functional: Functional, theta: Tensor) -> None:
        parameters = theta.clone().requires_grad_()
        assert torch.autograd.gradcheck(lambda p: _Energy.apply(p, functional), parameters)

    @pytest.mark.parametrize(("backend", "threads"), [("sweep", 1), ("nested", 1), ("auto", 2)])
    def test_engines_agree(
        self, functional: Functional, theta: Tensor, backend: Any, threads: int
    ) -> None:
        other = Functional(
            functional.problem, make_ansatz(functional.problem), Layers((2, 6, 1)),
            functional.rule, backend=backend, threads=threads,
        )  # fmt: skip
        for a, b in zip(
            functional.energy_and_gradient(theta), other.energy_and_gradient(theta), strict=True
        ):
            assert torch.allclose(torch.as_tensor(a), torch.as_tensor(b), rtol=1e-12, atol=1e-13)

    def test_both_forms_of_the_gradient_are_the_same_integral(
        self, functional: Functional, theta: Tensor
    ) -> None:
        weak, strong = (functional.gradient(theta, form) for form in ("weak", "strong"))
        assert torch.allclose(weak, strong, rtol=1e-9, atol=1e-10)

    def test_the_strong_form_has_no_sampling_error_at_the_solution(self) -> None:
        problem = problems.NonlinearElliptic(2)
        found = DeepRitz(problem, **QUICK).fit(10, steps=25)
        few = gauss_legendre(problem.domain, 5)
        coarse = Functional(problem, make_ansatz(problem), Layers((2, 8, 1)), few)
        at = found.network.theta.detach()
        weak, strong = (float(coarse.gradient(at, form).norm()) for form in ("weak", "strong"))
        assert strong < 0.1 * weak

    def test_derivatives_of_the_density_are_those_of_autograd(self) -> None:
        problem = problems.NonlinearDiffusion(2)
        density = Functional(
            problem, make_ansatz(problem), Layers((2, 4, 1)), gauss_legendre(problem.domain, 3)
        ).density
        points = sample(problem.domain, 7)
        jets = torch.randn(3, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        hessian = torch.func.hessian(lambda j: density(j, points).sum())(jets)
        slopes = torch.func.grad(lambda j: density(j, points).sum())(jets)
        assert torch.allclose(density.slopes(jets, points), slopes, atol=1e-13)
        each = torch.arange(7)
        own = hessian[:, each, :, each].movedim(0, -1)
        assert torch.allclose(density.curvature(jets, points), own, atol=1e-13)


class TestMetric:
    def test_gram_matrix_by_automatic_differentiation(
        self, functional: Functional, theta: Tensor
    ) -> None:
        rule, layers = functional.rule, Layers((2, 6, 1))

        def field(p: Tensor, x: Tensor) -> Tensor:
            walls = 16 * (x * (1 - x)).prod()
            return walls * layers(p, (2 * x - 1)[None])[0, 0]

        def jet(p: Tensor, x: Tensor) -> Tensor:
            return torch.cat([field(p, x)[None], torch.func.grad(field, 1)(p, x)])

        rows = torch.func.vmap(torch.func.jacrev(jet), (None, 0))(theta, rule.points)
        expected = torch.einsum("n,nep,neq->pq", rule.weights, rows, rows)
        assert torch.allclose(functional.gram(theta, "h1"), expected, rtol=1e-11, atol=1e-12)
        u = torch.func.vmap(field, (None, 0))(theta, rule.points)
        bend = torch.ones(len(u), 3, dtype=torch.float64)
        bend[:, 0] = 3 * u**2
        expected = torch.einsum("n,ne,nep,neq->pq", rule.weights, bend, rows, rows)
        assert torch.allclose(functional.gram(theta, "energy"), expected, rtol=1e-11, atol=1e-12)

    @pytest.mark.parametrize("metric", ["h1", "energy"])
    def test_conjugate_gradients_take_the_dense_step(
        self, functional: Functional, theta: Tensor, metric: Any
    ) -> None:
        first, falls = functional.energy(theta), []
        for solver in ("dense", "cg"):
            search = EnergyNaturalGradient(functional, theta, metric=metric, solver=solver)
            assert search.step()
            falls.append(first - search.loss)
        assert falls[1] == pytest.approx(falls[0], rel=1e-3)

    def test_a_step_follows_the_gradient_of_the_function_space(self) -> None:
        """With few undamped parameters the field moves by the H1 projection of the exact step."""
        problem = problems.Poisson(1)
        layers, rule = Layers((1, 3, 1)), gauss_legendre(problem.domain, 40)
        small = Functional(problem, make_ansatz(problem), layers, rule)
        theta = layers.initial(1)
        step = torch.linalg.solve(small.gram(theta, "h1"), small.gradient(theta, "weak"))
        (_, rows), *_ = small.tangent(theta)
        moved = torch.einsum("pen,p->en", rows, step)
        flux = small.density.slopes(small.jets(theta), rule.points)
        missed = torch.einsum("pen,en,n->p", rows, flux - moved, rule.weights)
        assert float(missed.abs().max()) < 1e-8


class TestTraining:
    def test_two_dimensions_to_1e_5(self) -> None:
        result = DeepRitz(problems.NonlinearElliptic(2)).fit(20, target=1e-5)
        assert result.report.all_converged
        assert result.relative_l2.value < 1e-5
        assert result.energy.value == pytest.approx(least_energy(2), abs=1e-7)

    def test_the_energy_stays_above_its_minimum_and_falls(self) -> None:
        solver = DeepRitz(problems.NonlinearElliptic(2), **QUICK)
        rows: list[float] = []
        result = solver.fit(5, steps=25, callback=lambda row: rows.append(row["energy"]))
        # the rule is exact to rounding for this field, so that no value lies below
        assert min(rows) > least_energy(2) - 1e-12
        assert all(b <= a for a, b in itertools.pairwise(rows))
        gap = result.energy.value - least_energy(2)
        assert 0 < gap < 1e-3

    def test_the_minimiser_satisfies_the_equation(self) -> None:
        problem = problems.NonlinearElliptic(2)
        result = DeepRitz(problem).fit(10, tolerance=3e-4)
        assert result.report.all_converged
        x = sample(problem.domain, 200).requires_grad_()
        u = result.network(x)[:, 0]
        (g,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        bent = sum(
            torch.autograd.grad(g[:, i].sum(), x, retain_graph=True)[0][:, i] for i in (0, 1)
        )
        exact = problem.reference_values(x)["u"]
        force = 2 * math.pi**2 * exact + exact**3
        residual = -bent + u**3 - force
        assert float((residual.norm() / force.norm()).detach()) < 1e-3

    @pytest.mark.parametrize(
        ("optimizer", "steps", "bound"),
        [
            ("self-scaled-broyden", 60, 1e-3),
            ("lbfgs", 4, 2e-2),
            ("adam", 120, 0.6),
            ("diffgrad", 120, 0.6),
        ],
    )
    def test_other_methods_lower_the_same_energy(
        self, optimizer: Any, steps: int, bound: float
    ) -> None:
        solver = DeepRitz(problems.NonlinearElliptic(2), **QUICK, optimizer=optimizer)
        result = solver.fit(10, steps=steps)
        assert result.relative_l2.value < bound

    def test_five_dimensions_with_an_error_bar(self) -> None:
        solver = DeepRitz(problems.NonlinearElliptic(5), SMALL, points=1024)
        result = solver.fit(20, target=2e-2, steps=40)
        assert result.report.all_converged
        assert 0 < result.relative_l2.error < 1e-3
        assert abs(result.energy.value - least_energy(5)) < 4 * result.energy.error + 1e-3

    @pytest.mark.slow
    def test_ten_dimensions_within_5_percent(self) -> None:
        solver = DeepRitz(problems.NonlinearElliptic(10), MLP(width=16, depth=1))
        result = solver.fit(120, target=0.025, steps=40)
        error = result.relative_l2
        assert error.value + 3 * error.error < 0.05
        assert abs(result.energy.value - least_energy(10)) < 4 * result.energy.error + 1e-4

    def test_given_values_and_a_slope_that_bends_the_energy(self) -> None:
        result = DeepRitz(problems.MinimalSurface(), MLP(10, 1), backend="sweep").fit(
            20, target=1e-4
        )
        assert result.report.all_converged

    def test_several_fields_and_periodicity(self) -> None:
        def density(u: Any, v: Any, x: Any) -> Any:
            from solvers.pde.functions import cos, pi, sin

            force = (4 * pi**2 + 1) * (sin(2 * pi * x) * u + cos(2 * pi * x) * v)
            return 0.5 * (u.x * u.x + v.x * v.x + u * u + v * v) - force

        problem = variational_problem(
            "ring", domain=Box(x=(0, 1)), fields=("u", "v"), density=density,
            conditions=[Periodic("x")],
            reference=lambda x: (torch.sin(2 * math.pi * x), torch.cos(2 * math.pi * x)),
        )  # fmt: skip
        result = DeepRitz(problem, **QUICK).fit(10, target=1e-4)
        assert result.report.all_converged
        assert set(result(0.3)) == {"u", "v"}

    @pytest.mark.slow
    def test_walls_that_no_construction_takes_are_paid_for(self) -> None:
        disc = variational_problem(
            "disc", domain=Ball(radius=1.0, x=0.0, y=0.0),
            conditions=[Dirichlet(u=lambda x: 0 * x)],
            density=lambda u, x, y: 0.5 * (u.x * u.x + u.y * u.y) - u,
            reference=lambda x, y: (1 - x * x - y * y) / 4,
        )  # fmt: skip
        result = DeepRitz(disc, **QUICK).fit(20, steps=120, on_failure="mask")
        # with a penalty b the field is 1/(2 b) larger than the quarter that it reaches
        assert result.relative_l2.value < 0.03

    @pytest.mark.parametrize("axes", [("x",), ("x", "y"), ("x", "y", "z")])
    def test_a_ball_holds_its_wall_by_construction(self, axes: tuple[str, ...]) -> None:
        count = len(axes)
        middle = dict.fromkeys(axes, 0.5)

        def square(*x: Any) -> Any:
            return sum((c - 0.5) * (c - 0.5) for c in x)

        def density(u: Any) -> Any:
            return 0.5 * sum(getattr(u, a) * getattr(u, a) for a in axes) - u

        ball = variational_problem(
            "ball", domain=Ball(radius=2.0, **middle), density=density,
            conditions=[Dirichlet(u=3.0)],
            reference=with_arguments(lambda *x: 3 + (4 - square(*x)) / (2 * count), axes),
        )  # fmt: skip
        # On one axis the default: fields wind between 12 points, fewer than parameters.
        solver = DeepRitz(ball, MLP(width=8, depth=1), points=None if count == 1 else 12)
        result = solver.fit(20, target=1e-5, steps=100)
        assert result.report.all_converged
        on_wall = torch.zeros(1, count, dtype=torch.float64) + 0.5
        on_wall[0, 0] += 2.0
        assert float(result.network(on_wall).detach()) == pytest.approx(3.0, abs=1e-14)

    def test_no_flux_is_natural(self) -> None:
        problem = variational_problem(
            "insulated", domain=Box(x=(0, 1)), conditions=[Neumann(u=0.0)],
            density=lambda u, x: 0.5 * (u.x * u.x + u * u) - x * u,
            reference=lambda x: (
                x - (torch.cosh(x) - torch.cosh(1 - x)) / math.sinh(1.0)
            ),
        )  # fmt: skip
        assert DeepRitz(problem, **QUICK).fit(10, target=1e-4).report.all_converged


class TestPromises:
    def test_an_interrupted_run_goes_on_with_the_same_numbers(self, tmp_path: Path) -> None:
        for problem, steps in ((problems.NonlinearElliptic(1), 8), (problems.Poisson(4), 4)):

            def make(problem: Problem = problem) -> DeepRitz:
                few = 30 if problem.domain.dimension < 4 else 256
                return DeepRitz(problem, **QUICK, points=few)

            whole = make().fit(10, steps=steps)
            file = tmp_path / f"{problem.domain.dimension}.run"
            make().fit(10, steps=steps // 2, checkpoint=file)
            resumed = make().fit(10, steps=steps, checkpoint=file)
            assert torch.equal(whole.network.theta, resumed.network.theta)
        with pytest.raises(CheckpointError, match="seed"):
            DeepRitz(problem, **QUICK, seed=1).fit(10, steps=steps, checkpoint=file)

    def test_results_are_saved(self, tmp_path: Path) -> None:
        solver = DeepRitz(problems.NonlinearElliptic(2), **QUICK)
        result = solver.fit(5, steps=5)
        again = solver.load(result.save(tmp_path / "u.safetensors"))
        assert torch.equal(again.network.theta, result.network.theta)
        assert again.energy == result.energy
        with pytest.raises(SettingsError, match="33 parameters"):
            DeepRitz(problems.NonlinearElliptic(2)).load(tmp_path / "u.safetensors")
        with pytest.raises(SettingsError, match="expected one for each of x, y"):
            result(0.5)
        found = load(tmp_path / "u.safetensors", solver.problem)
        assert isinstance(found, RitzResult)
        assert torch.equal(found(0.3, 0.4), result(0.3, 0.4))
        assert found.settings == result.settings

    def test_results_are_exported(self, tmp_path: Path) -> None:
        result = DeepRitz(problems.NonlinearElliptic(2), **QUICK).fit(5, steps=2)
        with np.load(result.export(tmp_path / "u.npz", points=5)) as arrays:
            assert arrays["u"].shape == arrays["u_reference"].shape == (5, 5)
            there = result(arrays["x"][1], arrays["y"][2]).item()
            assert arrays["u"][1, 2] == pytest.approx(there, rel=1e-12)

    @pytest.mark.parametrize("option", ["optimizer", "executor"])
    def test_what_a_fit_cannot_choose_is_refused(self, option: str) -> None:
        with pytest.raises(SettingsError, match=rf"{option}.*DeepRitz\("):
            DeepRitz(problems.Poisson(1), **QUICK).fit(1, **{option: "adam"})

    def test_own_networks(self) -> None:
        solver = DeepRitz(problems.Poisson(1), ModifiedMLP(width=6, depth=1), points=20)
        assert solver.fit(10, steps=10).relative_l2.value < 0.1


class TestRefused:
    @pytest.mark.parametrize(
        "density",
        [
            lambda u, x, y: 0.5 * (u.x * u.x + u.y * u.y) - 11 * u * u,
            lambda u, x, y: 0.5 * (u.x * u.x + u.y * u.y) + u * u * u,
            lambda u, x, y: -u.x * u.x - u.y * u.y - u,
        ],
        ids=["beyond the first eigenvalue", "cubic", "negative"],
    )
    def test_energies_without_bound(self, density: Any) -> None:
        with pytest.raises(SettingsError, match="falls without bound"):
            DeepRitz(on_square(density, ZERO), **QUICK)

    def test_energies_with_a_bound_are_not(self) -> None:
        # half the first eigenvalue of the square is pi^2
        DeepRitz(
            on_square(lambda u, x, y: 0.5 * (u.x * u.x + u.y * u.y) - 9.8 * u * u, ZERO), **QUICK
        )

    def test_a_constant_that_nothing_fixes(self) -> None:
        problem = on_square(
            lambda u, x, y: 0.5 * (u.x * u.x + u.y * u.y) - (x - 0.5) * u, Neumann(u=0.0)
        )
        with pytest.raises(SettingsError, match=r"no condition fixes u.*Dirichlet\(u="):
            DeepRitz(problem, **QUICK)

    def test_several_valleys_are_told(self) -> None:
        with pytest.warns(NumericalWarning, match="not convex"):
            DeepRitz(problems.DoubleWell(), **QUICK)

    def test_what_an_energy_cannot_say(self) -> None:
        square = on_square(lambda u, x, y: 0.5 * (u.x * u.x + u.y * u.y) - u, Robin(u=0.0))
        with pytest.raises(SettingsError, match="does not hold the condition 'robin boundary'"):
            DeepRitz(square, **QUICK)
        with pytest.raises(SettingsError, match="has no energy"):
            DeepRitz(problems.Helmholtz(), **QUICK)
        plate = on_square(lambda u, x, y: 0.5 * (u.xx + u.yy) * (u.xx + u.yy) - u, ZERO)
        with pytest.raises(SettingsError, match="order 2"):
            DeepRitz(plate, **QUICK)
        unknown = variational_problem(
            "k", domain=Box(x=(0, 1)), density=lambda u, x, k: 0.5 * k * u.x * u.x - u,
            coefficients={"k": 1.0}, unknown=("k",), conditions=[ZERO],
        )  # fmt: skip
        with pytest.raises(SettingsError, match="use PINN"):
            DeepRitz(unknown, **QUICK)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"optimizer": "newton"}, "optimizer"),
            ({"metric": "l2"}, "metric"),
            ({"rule": "simpson"}, "rule"),
            ({"points": 0}, "points"),
            ({"penalty": -1.0}, "penalty"),
        ],
    )
    def test_settings(self, settings: dict[str, Any], message: str) -> None:
        with pytest.raises(SettingsError, match=message):
            DeepRitz(problems.Poisson(1), **settings)

    def test_energies_that_are_not_finite(self) -> None:
        from solvers.core import NonFiniteError
        from solvers.pde.functions import sqrt

        rooted = on_square(lambda u, x, y: u.x * u.x + u.y * u.y + sqrt(u - 0.1), ZERO)
        with pytest.raises(NonFiniteError):
            DeepRitz(rooted, **QUICK).fit(5, steps=3)

    @pytest.mark.parametrize("where", ["everywhere", "at the trained points"])
    def test_running_away_is_reported(self, where: str) -> None:
        """A bound that only steeper fields break passes the check and is seen in training."""
        problem = on_square(lambda u, x, y: 0.5 * (u.x * u.x + u.y * u.y) - 400 * u * u, ZERO)
        solver = DeepRitz.__new__(DeepRitz)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("solvers.pinn.variational._ritz.check_energy", lambda *_: None)
            solver.__init__(problem, **QUICK)  # type: ignore[misc]
        if where != "everywhere":
            solver._watched.energy = lambda theta: 1.0  # type: ignore[method-assign]
        result = solver.fit(60, steps=40, on_failure="mask")
        assert int(result.report.status) == Status.UNBOUNDED
