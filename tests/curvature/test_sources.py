"""Objectives whose derivatives are computed elsewhere: differences against autograd."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from solvers.core import SettingsError
from solvers.curvature import Objective, gauss_newton, hessian, jacobian
from solvers.pinn import MLP, PINN, LagrangianPINN, problems


@pytest.fixture(scope="module", params=["field", "characteristics"])
def pinn(request: pytest.FixtureRequest) -> PINN:
    # The torch engine, because autograd can look into it.
    options = {"points": 60, "backend": "sweep"}
    if request.param == "field":
        return PINN(problems.Reaction(), MLP(6, 1), **options)
    return LagrangianPINN(problems.Convection(), MLP(6, 1), **options).pinn


def both(pinn: PINN) -> tuple[Objective, Objective]:
    theta = pinn.initial()
    ours = Objective.of_source(pinn.collocation, theta)
    return ours, Objective.of_residual(pinn.collocation.residuals, theta)


def test_a_pinn_has_the_derivatives_of_autograd(pinn: PINN) -> None:
    ours, traced = both(pinn)
    assert float(ours.loss(ours.start)) == pytest.approx(float(traced.loss(traced.start)))
    assert torch.allclose(ours.gradient(), traced.gradient(), rtol=1e-10, atol=1e-12)
    j = torch.func.jacrev(traced.residual)(traced.start)
    assert torch.allclose(jacobian(ours), j, rtol=1e-10, atol=1e-12)
    matrix = gauss_newton(ours).dense()
    assert float((matrix - j.T @ j).norm() / matrix.norm()) < 1e-12


def test_differences_of_gradients_are_the_hessian(pinn: PINN) -> None:
    ours, traced = both(pinn)
    dense = torch.func.hessian(traced.loss)(traced.start)
    assert float((hessian(ours).dense() - dense).norm() / dense.norm()) < 1e-7
    v = torch.linspace(-1, 1, len(dense), dtype=torch.float64)
    one, thousand = hessian(ours)(v), hessian(ours)(1e3 * v)
    assert torch.allclose(thousand, 1e3 * one, rtol=1e-12)
    assert not hessian(ours)(torch.zeros_like(v)).any()


@pytest.mark.parametrize("mode", ["forward", "reverse", "difference"])
def test_every_mode_gives_gradient_and_hessian(mode: str) -> None:
    # Diagonal Hessian of a sum of cosh: cosh itself.
    point = torch.linspace(-2, 2, 5, dtype=torch.float64)
    objective = Objective.of_loss(lambda p: torch.cosh(p).sum(), point, mode=mode)  # type: ignore[arg-type]
    assert torch.allclose(objective.gradient(), torch.sinh(point), rtol=1e-12)
    matrix = hessian(objective).dense()
    assert torch.allclose(matrix, torch.diag(torch.cosh(point)), rtol=1e-8, atol=1e-8)


def test_modes_that_cannot_work_are_named(pinn: PINN) -> None:
    ours, _ = both(pinn)
    with pytest.raises(SettingsError, match="expected 'difference'"):
        hessian(ours, mode="forward")

    def loss(p: Tensor) -> Tensor:
        return p.sum()

    with pytest.raises(SettingsError, match="mode"):
        Objective.of_loss(loss, torch.ones(2), mode="backward")  # type: ignore[arg-type]
