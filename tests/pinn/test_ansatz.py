"""Conditions that hold by construction hold for every network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers.pde import (
    Ball,
    Box,
    Data,
    Dirichlet,
    Initial,
    Neumann,
    Periodic,
    Problem,
    problems,
    sample,
)
from solvers.pde.functions import cos, exp, pi, sin
from solvers.pinn import MLP, PINN


def field(pinn: PINN, seed: int, points: torch.Tensor, column: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    theta = torch.randn(pinn.parameter_count, generator=generator, dtype=torch.float64)
    return pinn.field(theta)(points)[:, column]


def small(problem: Problem, **options: Any) -> PINN:
    return PINN(problem, MLP(width=5, depth=1), points=16, condition_points=8, **options)


HEAT = Problem(
    name="heat",
    domain=Box(x=(-1, 2), t=(0.5, 2)),
    residual=lambda u, x, t: u.t - u.xx,
    conditions=[
        Initial(u=lambda x: x * x),
        Dirichlet(axis="x", side="lower", u=lambda t: cos(t - 0.5)),
        Dirichlet(axis="x", side="upper", u=4.0),
    ],
)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=15)
def test_initial_and_boundary_values_are_exact(seed: int) -> None:
    pinn = small(HEAT)
    assert pinn.collocation.names == ("residual equation",)
    points = sample(HEAT.domain, 50, seed=seed)
    start, left, right = points.clone(), points.clone(), points.clone()
    start[:, 1], left[:, 0], right[:, 0] = 0.5, -1.0, 2.0
    assert (field(pinn, seed, start) - start[:, 0] ** 2).abs().max() < 1e-13
    assert (field(pinn, seed, left) - torch.cos(left[:, 1] - 0.5)).abs().max() < 1e-13
    assert (field(pinn, seed, right) - 4.0).abs().max() < 1e-13
    inside = field(pinn, seed, points)
    assert (inside - field(pinn, seed + 1, points)).abs().max() > 1e-3


@given(seed=st.integers(0, 10**6))
@settings(max_examples=10)
def test_four_faces_of_a_square_are_exact(seed: int) -> None:
    problem = Problem(
        name="harmonic",
        domain=Box(x=(0, 1), y=(0, 2)),
        residual=lambda u, x, y: u.xx + u.yy,
        conditions=[Dirichlet(u=lambda x, y: exp(x) * cos(y))],
    )
    pinn = small(problem)
    points = sample(problem.domain, 40, seed=seed)
    for axis, end in ((0, 0.0), (0, 1.0), (1, 0.0), (1, 2.0)):
        face = points.clone()
        face[:, axis] = end
        expected = torch.exp(face[:, 0]) * torch.cos(face[:, 1])
        assert (field(pinn, seed, face) - expected).abs().max() < 1e-12


def test_periodic_fields_repeat_with_all_derivatives() -> None:
    problem = Problem(
        name="wave",
        domain=Box(x=(1, 3), t=(0, 1)),
        residual=lambda u, x, t: u.tt - u.xx,
        conditions=[Initial(u=lambda x: sin(pi * x), u_t=0.5), Periodic(axis="x")],
    )
    pinn = small(problem)
    t = torch.linspace(0, 1, 9, dtype=torch.float64)
    ends = [torch.stack([torch.full_like(t, x), t], 1).requires_grad_() for x in (1.0, 3.0)]
    values = [field(pinn, 4, points) for points in ends]
    slopes = [torch.autograd.grad(v.sum(), p)[0] for v, p in zip(values, ends, strict=True)]
    assert torch.allclose(values[0], values[1], atol=1e-13)
    assert torch.allclose(slopes[0], slopes[1], atol=1e-12)
    # the rate at the start is given too
    assert float(slopes[0][0, 1].detach()) == pytest.approx(0.5, abs=1e-12)


def test_other_conditions_become_terms_of_the_loss() -> None:
    points = torch.tensor([[0.2], [0.7]], dtype=torch.float64)
    problem = Problem(
        name="rod",
        domain=Box(x=(0, 1)),
        residual=lambda u, x, k: k * u.xx + 1.0,
        coefficients={"k": 1.0},
        unknown=("k",),
        conditions=[
            Dirichlet(axis="x", side="lower", u=0.0),
            Neumann(axis="x", side="upper", u=-0.5),
            Data(points, scale=0.1, u=torch.tensor([0.3, 0.4])),
        ],
    )
    pinn = small(problem, condition_weight=4.0)
    names = pinn.collocation.names
    assert names == ("residual equation", "neumann x upper u", "data u")
    theta = pinn.initial()
    network = pinn.field(theta)
    end = torch.ones(1, 1, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(network(end).sum(), end)
    terms = pinn.collocation.terms(theta)
    assert terms["neumann x upper u"] == pytest.approx(4 * float(slope + 0.5) ** 2)
    misfit = (network(points)[:, 0].detach() - torch.tensor([0.3, 0.4])) / 0.1
    assert terms["data u"] == pytest.approx(4 * float(misfit.square().mean()))


def test_choice_of_exact_conditions() -> None:
    def names(exact: Any) -> list[str]:
        return [n.split()[0] for n in small(HEAT, exact=exact).collocation.names]

    assert names("boundary") == ["residual", "initial"]
    assert names("periodic") == ["residual", "initial", "dirichlet", "dirichlet"]


def test_total_gradient_is_that_of_all_terms() -> None:
    pinn = small(HEAT, exact="periodic")
    theta = pinn.initial() + 0.1
    loss, gradient = pinn.collocation.loss_and_gradient(theta)
    residuals, jacobian = pinn.collocation.residuals(theta), pinn.collocation.jacobian(theta)
    assert loss == pytest.approx(0.5 * float(residuals.square().sum()), rel=1e-12)
    assert loss == pytest.approx(0.5 * sum(pinn.collocation.terms(theta).values()), rel=1e-12)
    assert torch.allclose(jacobian.T @ residuals, gradient, rtol=1e-10, atol=1e-12)


def torch_only(x: Any) -> Any:
    return torch.special.bessel_j0(x)


def test_a_start_that_cannot_be_recorded_is_a_term_beside_a_rate_that_can() -> None:
    string = Problem(
        name="string", domain=Box(x=(0, 1), t=(0, 1)), residual=lambda u, x, t: u.tt - u.xx,
        conditions=[
            Initial(u=torch_only, u_t=0.0),
            Neumann(axis="x", u=0.0),
        ],
    )  # fmt: skip
    pinn = small(string, backend="sweep")
    assert "initial u" in pinn.collocation.names
    assert "initial u_t" in pinn.collocation.names


@pytest.mark.parametrize(
    ("value", "is_exact"), [(2.0, True), (lambda x: 1 / x, False), (lambda k: k, False)]
)
def test_numbers_on_the_surface_of_a_ball_hold_by_construction(value: Any, is_exact: bool) -> None:
    disc = Problem(
        name="disc", domain=Ball(radius=0.5, x=1.0, y=2.0), coefficients={"k": 2.0},
        residual=lambda u, k: u.xx + u.yy + k, conditions=[Dirichlet(u=value)],
    )  # fmt: skip
    pinn = small(disc)
    assert ("dirichlet boundary u" not in pinn.collocation.names) is is_exact
    angle = torch.linspace(0, 6, 7, dtype=torch.float64)
    rim = torch.stack([1 + 0.5 * angle.cos(), 2 + 0.5 * angle.sin()], -1)
    held = (pinn.field(pinn.initial())(rim) - 2.0).abs().max() < 1e-14
    assert bool(held) is is_exact
    assert len(small(disc, exact="periodic").collocation.names) == 2


def test_the_default_network_follows_the_order_of_the_equation() -> None:
    for problem, network in (
        (problems.Heat(), MLP()),
        (problems.Poisson(2), MLP()),
        (problems.Wave(), MLP(activation="sin")),
        (problems.KortewegDeVries(), MLP(width=24)),
    ):
        assert PINN(problem).network == network
