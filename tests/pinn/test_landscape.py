"""Curvature of the loss against autograd, and how it grows with the speed in either frame."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from solvers.core import SettingsError, ShapeError
from solvers.pde import problems
from solvers.pinn import (
    MLP,
    PINN,
    LagrangianPINN,
    TwoBranchMLP,
    gauss_newton_operator,
    hessian_operator,
    loss_landscape,
)

RAW: dict[str, Any] = {"points": 60, "residual_scales": (1.0,), "backend": "sweep"}


@pytest.fixture(scope="module")
def solver() -> PINN:
    return PINN(problems.Convection(beta=3.0), MLP(width=5, depth=1), **RAW)


@pytest.fixture(scope="module")
def theta(solver: PINN) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn(solver.parameter_count, generator=generator, dtype=torch.float64)
    return solver.initial() + 0.1 * noise


def written_by_hand(solver: PINN, theta: Tensor) -> Tensor:
    """The loss by autograd on the field, nothing of the engine."""
    points = solver.collocation.state_dict()["points"].clone().requires_grad_()
    W, b, V, c = theta[:15].view(5, 3), theta[15:20], theta[20:25], theta[25]
    x, t = points.unbind(1)
    inputs = torch.stack([torch.cos(x), torch.sin(x), 2 * t - 1], 1)
    u = torch.sin(x) + t * (torch.tanh(inputs @ W.T + b) @ V + c)
    (slopes,) = torch.autograd.grad(u.sum(), points, create_graph=True)
    return 0.5 * (slopes[:, 1] + 3.0 * slopes[:, 0]).square().mean()


def test_hessian_products_are_those_of_autograd(solver: PINN, theta: Tensor) -> None:
    expected = torch.autograd.functional.hessian(lambda p: written_by_hand(solver, p), theta)
    got = hessian_operator(solver, theta).dense()
    assert (got - expected).abs().max() < 1e-9 * expected.abs().max()


def test_gauss_newton_is_the_hessian_of_the_linearised_residual(
    solver: PINN, theta: Tensor
) -> None:
    jacobian = solver.collocation.jacobian(theta)
    got = gauss_newton_operator(solver, theta).dense()
    assert torch.allclose(got, jacobian.T @ jacobian, rtol=1e-12, atol=1e-12)
    # where the residual vanishes both matrices are one: difference by second derivatives times r
    hessian = hessian_operator(solver, theta).dense()
    step = 1e-4
    r = solver.collocation.residuals(theta)
    unit = torch.eye(len(theta), dtype=torch.float64)
    bend = torch.stack(
        [
            (solver.collocation.jacobian(theta + step * e)
             - solver.collocation.jacobian(theta - step * e)).T @ r / (2 * step)
            for e in unit
        ]
    )  # fmt: skip
    assert torch.allclose(hessian - got, bend, atol=1e-6 * float(hessian.abs().max()))


def test_surface_is_a_parabola_near_the_centre(solver: PINN, theta: Tensor) -> None:
    seen = loss_landscape(solver, theta, count=3, reach=1e-3, resolution=5)
    middle = len(seen.offsets) // 2
    assert float(seen.surface[middle, middle]) == pytest.approx(seen.loss, rel=1e-13)
    assert torch.allclose(seen.directions.norm(dim=1), theta.norm().expand(2))
    _, slope = solver.collocation.loss_and_gradient(theta)
    curve = hessian_operator(solver, theta)
    for place, line in ((0, seen.surface[:, middle]), (1, seen.surface[middle])):
        d = seen.directions[place]
        expected = seen.loss + seen.offsets * (slope @ d)
        expected = expected + 0.5 * seen.offsets.square() * (d @ curve(d))
        assert torch.allclose(line, expected, rtol=1e-6)


def test_random_directions_have_rows_as_long_as_the_network() -> None:
    network = TwoBranchMLP(4, 1, 1)
    branches = LagrangianPINN(problems.Swirl(), network, points=20, backend="nested")
    seen = loss_landscape(branches, count=2, directions="random", reach=0.1, resolution=3)
    theta = branches.initial()
    for direction in seen.directions:
        assert direction.norm() == pytest.approx(float(theta.norm()))
        assert torch.allclose(
            direction[:12].view(4, 3).norm(dim=1), theta[:12].view(4, 3).norm(dim=1)
        )
        assert bool((direction[12:16] == 0).all())
    assert seen.surface.shape == (3, 3)


def largest(solver: PINN | LagrangianPINN) -> tuple[float, float]:
    seen = loss_landscape(solver, count=2, resolution=3, probes=1)
    return float(seen.gauss_newton.values[0]), float(seen.hessian.values[0].abs())


def test_curvature_grows_with_the_square_of_the_speed_or_not_at_all() -> None:
    network, speeds = MLP(width=8, depth=2), (30.0, 100.0, 300.0, 1000.0)
    fixed, moving = [], []
    for beta in speeds:
        problem = problems.Convection(beta=beta)
        fixed.append(largest(PINN(problem, network, **RAW)))
        moving.append(largest(LagrangianPINN(problem, network, points=60, backend="sweep")))
    x = torch.tensor([math.log(b) for b in speeds]).double()
    x = x - x.mean()
    for values, expected in ((fixed, 2.0), (moving, 0.0)):
        for matrix in zip(*values, strict=True):
            y = torch.tensor(matrix).double().log()
            assert float(x @ (y - y.mean()) / (x @ x)) == pytest.approx(expected, abs=0.15)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"directions": "steepest"}, SettingsError),
        ({"count": 1}, SettingsError),
        ({"resolution": 2}, SettingsError),
        ({"reach": 0.0}, SettingsError),
        ({"theta": torch.zeros(3)}, ShapeError),
    ],
)
def test_bad_settings_are_refused(solver: PINN, options: dict[str, Any], error: type) -> None:
    with pytest.raises(error):
        loss_landscape(solver, **options)
