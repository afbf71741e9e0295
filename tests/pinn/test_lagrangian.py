"""Labels that move: what transports becomes easy, and the published equations are biased."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from solvers.core import NotConvergedError, SettingsError
from solvers.pde import Box, Dirichlet, Initial, Periodic, Problem
from solvers.pde.functions import exp, pi, sin
from solvers.pinn import MLP, PINN, LagrangianPINN, load

NODES, WEIGHTS = map(torch.from_numpy, np.polynomial.hermite.hermgauss(200))


def cole_hopf(x: torch.Tensor, t: torch.Tensor, nu: float, drift: float) -> torch.Tensor:
    """Burgers with initial state ``drift + sin x``, by the heat equation it hides."""
    shape = x.shape
    x, t = (y.reshape(-1, 1) for y in torch.broadcast_tensors(x, t))
    y = x - drift * t - torch.sqrt(4 * nu * t) * NODES
    weight = WEIGHTS * torch.exp((torch.cos(y) - 1) / (2 * nu))
    return (drift + (weight * torch.sin(y)).sum(1) / weight.sum(1)).reshape(shape)


def moving_burgers(drift: float, nu: float = 0.05) -> Problem:
    return Problem(
        name="moving Burgers",
        domain=Box(x=(0, 2 * pi), t=(0, 1)),
        residual=lambda u, x, t, nu: u.t + u * u.x - nu * u.xx,
        coefficients={"nu": nu},
        conditions=[Initial(u=lambda x: drift + sin(x)), Periodic("x")],
        reference=lambda x, t, nu: cole_hopf(x, t, nu, drift),
    )


def convection(speed: float, nu: float = 0.0) -> Problem:
    def residual(u: Any, x: Any, t: Any) -> Any:
        return u.t + speed * u.x - (nu * u.xx if nu else 0.0)

    return Problem(
        name="convection",
        domain=Box(x=(0, 2 * pi), t=(0, 1)),
        residual=residual,
        conditions=[Initial(u=sin), Periodic("x")],
        reference=lambda x, t: exp(-nu * t) * sin(x - speed * t),
    )


@pytest.mark.parametrize(("speed", "nu"), [(30.0, 0.0), (1000.0, 0.0), (50.0, 0.01)])
def test_speed_costs_nothing(speed: float, nu: float) -> None:
    result = LagrangianPINN(convection(speed, nu)).fit(20, target=1e-5)
    assert result.report.all_converged
    assert result.relative_l2 < 1e-4
    assert int(result.report.iterations) < 400


def test_corrected_equations_are_right_and_the_published_ones_are_not() -> None:
    network, errors = MLP(width=12, depth=2), {}
    for formulation in ("viscous", "lagrangian", "published"):
        pinn = LagrangianPINN(moving_burgers(50.0), network, points=800, formulation=formulation)
        result = pinn.fit(40, steps=700)
        errors[formulation] = result.relative_l2
        assert result.history[-1]["held_out"] < 1e-2
    assert errors["viscous"] < 2e-3
    assert errors["lagrangian"] < 2e-3
    # 4.1e-2 by the closed form of its solution at this viscosity, root mean square over time
    assert 2e-2 < errors["published"] < 8e-2


def test_easy_transport_is_the_same_in_both_frames() -> None:
    problem = convection(1.0, 0.1)
    x = torch.linspace(0, 6, 30, dtype=torch.float64)
    moving = LagrangianPINN(problem, MLP(width=10, depth=2), points=400).fit(20, target=1e-4)
    fixed = PINN(problem, MLP(width=10, depth=2), points=400).fit(20, target=1e-4)
    exact = torch.exp(torch.tensor(-0.07)) * torch.sin(x - 0.7)
    with torch.no_grad():
        assert (moving(x, 0.7) - exact).abs().max() < 2e-3
        assert (fixed(x, 0.7) - exact).abs().max() < 2e-3


def test_labels_are_where_their_positions_say(tmp_path: Path) -> None:
    result = LagrangianPINN(moving_burgers(5.0, 0.1), MLP(width=10, depth=2), points=400).fit(
        20, steps=150
    )
    generator = torch.Generator().manual_seed(0)
    x, t = 6 * torch.rand(2, 60, generator=generator, dtype=torch.float64)
    t = t / 6
    labels = result.labels(x, t).value
    positions = result.network(torch.cat([labels, t[:, None]], 1))[:, 0]
    assert (positions - x).abs().max() < 1e-10
    assert result.smallest_jacobian > 0
    again = load(result.save(tmp_path / "labels.safetensors"), result.problem)
    with torch.no_grad():
        assert torch.equal(again(x, t), result(x, t))


def test_walls_keep_their_labels() -> None:
    problem = Problem(
        name="Burgers",
        domain=Box(x=(-1, 1), t=(0, 0.3)),
        residual=lambda u, x, t: u.t + u * u.x - 0.05 * u.xx,
        conditions=[
            Initial(u=lambda x: -sin(pi * x)),
            Dirichlet(axis="x", side="both", u=0.0),
        ],
    )
    result = LagrangianPINN(problem, MLP(width=8, depth=2), points=200).fit(10, steps=50)
    t = torch.linspace(0, 0.3, 5, dtype=torch.float64)
    for end in (-1.0, 1.0):
        there = result.network(torch.stack([torch.full_like(t, end), t], 1))
        assert (there[:, 0] - end).abs().max() < 1e-13
        assert there[:, 1].abs().max() < 1e-13


@pytest.mark.parametrize(
    ("residual", "words"),
    [
        (lambda u, x, t: u.tt - u.xx, "lacks"),
        (lambda u, x, t: u.t + u.x * u.x, "form"),
        (lambda u, x, t: 2.0 * u.t + u.x, "form"),
    ],
)
def test_other_equations_are_refused(residual: Any, words: str) -> None:
    rate = {"u_t": 0.0} if words == "lacks" else {}
    problem = Problem(
        name="other",
        domain=Box(x=(0, 1), t=(0, 1)),
        residual=residual,
        conditions=[Initial(u=lambda x: sin(2 * pi * x), **rate), Periodic("x")],
    )
    with pytest.raises(SettingsError, match=words):
        LagrangianPINN(problem)


def test_flow_through_a_boundary_is_refused() -> None:
    problem = Problem(
        name="inflow",
        domain=Box(x=(0, 1), t=(0, 1)),
        residual=lambda u, x, t: u.t + 2.0 * u.x,
        conditions=[Initial(u=0.0), Dirichlet(axis="x", side="lower", u=1.0)],
    )
    with pytest.raises(SettingsError, match="flows through"):
        LagrangianPINN(problem)


def test_speed_stiffens_the_fixed_frame_and_leaves_labels_alone() -> None:
    def largest(solver: PINN) -> float:
        jacobian = solver.collocation.jacobian(solver.initial())
        return float(torch.linalg.matrix_norm(jacobian, 2)) ** 2

    network, speeds = MLP(width=8, depth=2), (20.0, 40.0, 80.0)
    fixed, moving = [], []
    for speed in speeds:
        problem = convection(speed)
        options: dict[str, Any] = {"points": 300, "residual_scales": (1.0,), "exact": "boundary"}
        fixed.append(largest(PINN(problem, network, **options)))
        moving.append(largest(LagrangianPINN(problem, network, points=300).pinn))
    # largest eigenvalue of the Gauss-Newton matrix: as the square of the speed, or not at all
    assert 3.5 < fixed[1] / fixed[0] < 4.5
    assert 3.5 < fixed[2] / fixed[1] < 4.5
    assert moving == pytest.approx([moving[0]] * 3, rel=1e-12)


def test_an_error_that_cannot_be_measured_is_infinite() -> None:
    solver = LagrangianPINN(convection(1.0), MLP(width=1, depth=1), points=20, backend="sweep")
    theta = torch.zeros(solver.pinn.parameter_count, dtype=torch.float64)
    # X = xi - 8 t tanh(cos xi): slopes downward near 3 pi / 2
    theta[0], theta[4] = 1.0, -8.0
    start = solver.fit(5, steps=1, start=theta, on_failure="mask")
    result = replace(start, network=solver.pinn.field(theta))
    assert result.smallest_jacobian < 0
    assert result.relative_l2 == math.inf
    with pytest.raises(NotConvergedError, match="labels have crossed at 1 of 1 points"):
        result(1.0, 1.0)
