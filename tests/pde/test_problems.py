"""Every named problem's equation and conditions hold for its own reference solution."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from solvers.core import SettingsError
from solvers.pde import Box, FieldValues, MultiIndex, Problem, problems, sample

_REACH = 4


def stencil(order: int) -> np.ndarray:
    """Weights of a central difference of eighth order or more on nine points."""
    nodes = np.arange(-_REACH, _REACH + 1)
    right = np.zeros(len(nodes))
    right[order] = math.factorial(order)
    return np.linalg.solve(np.vander(nodes, increasing=True).T, right)


def differences(
    problem: Problem, points: Tensor, steps: Tensor, indices: dict[str, tuple[MultiIndex, ...]]
) -> dict[str, dict[MultiIndex, Tensor]]:
    """Derivatives of the reference by central differences."""
    result: dict[str, dict[MultiIndex, Tensor]] = {name: {} for name in indices}
    for index in {i for found in indices.values() for i in found}:
        rows = [
            list(
                zip(range(-_REACH, _REACH + 1), stencil(order) / float(step) ** order, strict=True)
            )
            if order
            else [(0, 1.0)]
            for order, step in zip(index, steps, strict=True)
        ]
        total: dict[str, Tensor] = {}
        for choice in product(*rows):
            weight = math.prod(w for _, w in choice)
            moved = points + steps * torch.tensor([k for k, _ in choice], dtype=torch.float64)
            for name, value in problem.reference_values(moved).items():
                total[name] = total.get(name, torch.zeros(len(points))) + weight * value
        for name, found in indices.items():
            if index in found:
                result[name][index] = total[name]
    return result


# Step over the length of each axis, and largest residual over the largest of its derivatives.
CASES = {
    "allen-cahn": (2e-3, 1e-5),
    "burgers": (1e-3, 1e-6),
    "cylinder-flow": (4e-3, 1e-4),
    "darcy": (4e-3, 1e-4),
    "inviscid-burgers": (4e-3, 1e-6),
    "korteweg-de-vries": (2e-3, 1e-5),
    "moving-burgers": (5e-5, 1e-5),
    "swirl": (4e-3, 1e-6),
    "reaction-diffusion": (5e-3, 1e-6),
}


@pytest.mark.parametrize("name", problems.problem_names())
def test_the_residual_vanishes_on_the_reference(name: str) -> None:
    problem = problems.find_problem(name)
    step, tolerance = CASES.get(name, (4e-3, 1e-8))
    domain = problem.domain
    lengths = domain.upper - domain.lower
    inner = Box(
        **{axis: (a + 0.05 * (b - a), b - 0.05 * (b - a)) for axis, (a, b) in domain.bounds.items()}
    )
    points = sample(inner, 64, seed=1)
    ends = _REACH * step * lengths
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 0.0, 1.0])] * domain.dimension)
    for corner in corners.double().view(-1, domain.dimension):
        # Differences need the reference on all sides.
        points = points[domain.contains(points + ends * corner)]
    if name == "burgers":
        # Away from the front, which is thinner than the differences.
        points = points[points[:, 0].abs() > 0.2]
    values = differences(problem, points, step * lengths, dict(problem.derivatives))
    terms = problem.residual_terms(values, domain.split(points))
    scale = max(float(v.abs().max()) for by_index in values.values() for v in by_index.values())
    for label, term in zip(problem.term_names, terms, strict=True):
        assert float(term.abs().max()) < tolerance * scale, label


@pytest.mark.parametrize("name", problems.problem_names())
def test_the_conditions_hold_for_the_reference(name: str) -> None:
    problem = problems.find_problem(name)
    zero = (0,) * problem.domain.dimension
    # Two references interpolate across a kink of the initial values.
    tolerance = 1e-6 if name in ("allen-cahn", "reaction-diffusion") else 1e-9

    def values(points: Tensor, indices: tuple[MultiIndex, ...]) -> FieldValues:
        known = problem.reference_values(points)
        return {
            field: dict.fromkeys(indices, known[field] * 0.0) | {zero: known[field]}
            for field in problem.fields
        }

    for condition in problem.conditions:
        where = problem.place_condition(condition, 48, seed=2)
        needed = condition.derivatives(problem.domain)
        partners = None if where.partners is None else values(where.partners, needed)
        at = values(where.points, needed)
        terms = problem.condition_terms(condition, where, at, partners=partners)
        for label, term in terms.items():
            if not label.endswith("_t"):
                assert float(term.abs().max()) < tolerance, label


@pytest.mark.parametrize("name", problems.problem_names())
def test_every_problem_compiles(name: str) -> None:
    assert problems.find_problem(name).is_traceable


@pytest.mark.parametrize("dimension", [1, 3, 7, 10])
def test_elliptic_problems_in_many_dimensions(dimension: int) -> None:
    # Second derivatives of a product of sines are known.
    for maker in (problems.Poisson, problems.NonlinearElliptic):
        problem = maker(dimension)
        points = sample(problem.domain, 16)
        u = problem.reference_values(points)["u"]
        zero = (0,) * dimension
        values = {"u": {i: u if i == zero else -(math.pi**2) * u for i in problem.derivatives["u"]}}
        (term,) = problem.residual_terms(values, problem.domain.split(points))
        assert float(term.abs().max()) < 1e-12 * dimension * math.pi**2


def test_the_energy_has_its_minimum_at_the_reference() -> None:
    # Gauss-Legendre quadrature of the energy along u + s w, w zero on the boundary.
    nodes, weights = np.polynomial.legendre.leggauss(24)
    line, weight = torch.tensor(0.5 * (nodes + 1)), torch.tensor(0.5 * weights)
    x, y = (g.reshape(-1) for g in torch.meshgrid(line, line, indexing="ij"))
    area = torch.outer(weight, weight).reshape(-1)
    w = {
        (0, 0): x * (1 - x) * y * y * (1 - y),
        (1, 0): (1 - 2 * x) * y * y * (1 - y),
        (0, 1): x * (1 - x) * (2 * y - 3 * y * y),
    }
    sx, sy, cx, cy = (f(math.pi * c) for f in (torch.sin, torch.cos) for c in (x, y))
    u = {(0, 0): sx * sy, (1, 0): math.pi * cx * sy, (0, 1): math.pi * sx * cy}
    for problem in (problems.Poisson(2), problems.NonlinearElliptic(2)):

        def energy(s: float, problem: Problem = problem) -> float:
            values = {"u": {index: u[index] + s * w[index] for index in u}}
            return float((area * problem.energy_density(values, {"x": x, "y": y})).sum())

        assert abs(energy(1e-4) - energy(-1e-4)) / 2e-4 < 1e-9
        assert energy(0.1) > energy(0.0) < energy(-0.1)


def test_names_are_forgiving_and_wrong_ones_get_the_nearest() -> None:
    for name in ("ConvectionDiffusion", "convection_diffusion", "Convection-Diffusion"):
        assert problems.find_problem(name, nu=0.5).coefficients["nu"] == 0.5
    with pytest.raises(SettingsError, match="did you mean 'burgers'"):
        problems.find_problem("burger")
    with pytest.raises(SettingsError, match="did you mean 'beta'"):
        problems.find_problem("convection", betta=3)
    assert problems.problem_settings("wave") == {"beta": 5.0, "speed": 2.0}


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("burgers", {"nu": -1.0}),
        ("convection-diffusion", {"nu": -1e-3}),
        ("heat", {"diffusivity": -1.0}),
        ("heat", {"dimension": 4}),
        ("darcy", {"contrast": 1.5}),
        ("variable-convection", {"modulation": 2.0}),
        ("wave", {"beta": 2.5}),
        ("taylor-green", {"nu": 0.0}),
        ("cylinder-flow", {"reynolds": 1000.0}),
        ("helmholtz", {"modes": (0, 1)}),
    ],
)
def test_ill_posed_settings_are_refused(name: str, settings: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match=next(iter(settings))):
        problems.find_problem(name, **settings)
