"""The equation of an energy is the one that calculus of variations gives by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from solvers.core import SettingsError
from solvers.pde import Box, Dirichlet, Problem, problems, sample, variational_problem
from solvers.pde.functions import sqrt


class Jets(dict[tuple[int, ...], Tensor]):
    """Random derivatives, drawn when they are asked for."""

    def __missing__(self, index: tuple[int, ...]) -> Tensor:
        self[index] = torch.randn(9, dtype=torch.float64)
        return self[index]


def compare(problem: Problem, by_hand: Any) -> None:
    torch.manual_seed(0)
    jets = {name: Jets() for name in problem.fields}
    points = problem.domain.split(sample(problem.domain, 9))
    found = problem.residual_terms(jets, points)
    expected = by_hand(*jets.values(), *points.values())
    for a, b in zip(found, expected if isinstance(expected, tuple) else (expected,), strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-12)


def test_the_named_nonlinear_energy_has_the_named_equation() -> None:
    by_hand = problems.NonlinearElliptic(2)
    assert by_hand.energy is not None
    derived = variational_problem(
        "same", domain=by_hand.domain, density=by_hand.energy, conditions=by_hand.conditions
    )
    assert derived.is_traceable
    compare(derived, lambda u, x, y: by_hand.residual_terms({"u": u}, {"x": x, "y": y})[0])


def test_second_derivatives_and_coefficients() -> None:
    beam = variational_problem(
        "beam on springs",
        domain=Box(x=(0, 1)),
        density=lambda u, x, stiff, spring: (
            0.5 * stiff * u.xx * u.xx + 0.5 * spring * x * u * u - u
        ),
        coefficients={"stiff": 2.0, "spring": 3.0},
        conditions=[Dirichlet(u=0.0)],
    )
    compare(beam, lambda u, x: 2.0 * u[(4,)] + 3.0 * x * u[(0,)] - 1.0)


def test_area_has_the_equation_of_mean_curvature() -> None:
    film = variational_problem(
        "film",
        domain=Box(x=(0, 1), y=(0, 1)),
        density=lambda u, x, y: sqrt(1 + u.x * u.x + u.y * u.y),
        conditions=[Dirichlet(u=0.0)],
    )

    def curvature(u: Any, x: Tensor, y: Tensor) -> Tensor:
        p, q = u[(1, 0)], u[(0, 1)]
        above = (1 + q * q) * u[(2, 0)] - 2 * p * q * u[(1, 1)] + (1 + p * p) * u[(0, 2)]
        return -above / (1 + p * p + q * q) ** 1.5

    compare(film, curvature)


def test_two_fields_have_an_equation_each() -> None:
    pair = variational_problem(
        "pair",
        domain=Box(x=(0, 1)),
        fields=("u", "v"),
        density=lambda u, v, x: 0.5 * (u.x * u.x + v.x * v.x) + u.x * v + u * u * v,
        conditions=[Dirichlet(u=0.0, v=0.0)],
    )
    compare(
        pair,
        lambda u, v, x: (
            -u[(2,)] - v[(1,)] + 2 * u[(0,)] * v[(0,)],
            -v[(2,)] + u[(1,)] + u[(0,)] ** 2,
        ),
    )


@pytest.mark.parametrize(
    "problem",
    [
        problems.NonlinearDiffusion(1),
        problems.NonlinearDiffusion(3, strength=2.0),
        problems.NonlinearDiffusion(10),
        problems.MinimalSurface(),
        problems.DoubleWell(),
    ],
    ids=str,
)
def test_references_of_named_energies_satisfy_their_equations(problem: Problem) -> None:
    assert problem.reference is not None
    x = [c.clone().requires_grad_() for c in sample(problem.domain, 20).T]
    known = {**problem.coefficients, **dict(zip(problem.domain.axes, x, strict=True))}
    names = problem.reference.__code__.co_varnames if problem.name != "nonlinear diffusion" else ()
    wanted = [n for n in names[: problem.reference.__code__.co_argcount] if n in known]
    u = problem.reference(**{n: known[n] for n in wanted or problem.domain.axes})
    axes = range(len(x))
    unit = torch.eye(len(x), dtype=torch.int64)
    slopes = torch.autograd.grad(u.sum(), x, create_graph=True)
    values = {(0,) * len(x): u, **{tuple(unit[i].tolist()): slopes[i] for i in axes}}
    for i in axes:
        second = torch.autograd.grad(slopes[i].sum(), x, retain_graph=True, materialize_grads=True)
        values.update({tuple((unit[i] + unit[j]).tolist()): second[j] for j in axes})
    (residual,) = problem.residual_terms(
        {"u": values}, dict(zip(problem.domain.axes, x, strict=False))
    )
    assert float(residual.detach().abs().max()) < 1e-12


def test_what_is_refused() -> None:
    box = Box(x=(0, 1))
    with pytest.raises(SettingsError, match="'z' is unknown"):
        variational_problem("a", domain=box, density=lambda u, z: u.x * u.x)
    with pytest.raises(SettingsError, match="cannot be recorded"):
        variational_problem(
            "a", domain=box, density=lambda u, x: torch.exp(u), conditions=[Dirichlet(u=0.0)]
        )
    with pytest.raises(SettingsError, match="no condition at its ends"):
        variational_problem("a", domain=box, density=lambda u, x: u.x * u.x + u * u)
