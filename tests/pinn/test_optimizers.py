"""Every optimizer falls, on the engine's own derivatives, and agrees with a dense step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from solvers.core import NonFiniteError, SettingsError
from solvers.optim import GaussNewton
from solvers.pde import Box, Dirichlet, Problem
from solvers.pde.functions import pi, sin
from solvers.pinn import MLP, PINN, LagrangianPINN, problems
from solvers.training import FirstOrder, Phase

NAMES = (
    "self-scaled-broyden",
    "levenberg-marquardt",
    "gns",
    "natural-gradient",
    "lbfgs",
    "adam",
    "diffgrad",
)
SECOND_ORDER = ("levenberg-marquardt", "gns", "natural-gradient")


def poisson() -> Problem:
    return Problem(
        name="Poisson",
        domain=Box(x=(0, 1)),
        residual=lambda u, x: u.xx / pi**2 + sin(pi * x),
        conditions=[Dirichlet(axis="x", side="both", u=0.0)],
        reference=lambda x: sin(pi * x),
    )


def small(**options: object) -> PINN:
    return PINN(poisson(), MLP(width=6, depth=2), points=40, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
def test_each_optimizer_lowers_the_loss(name: str) -> None:
    pinn = small()
    before, _ = pinn.collocation.loss_and_gradient(pinn.initial())
    result = pinn.fit(30, steps=20, optimizer=name)
    after, _ = pinn.collocation.loss_and_gradient(result.network.theta.detach())
    assert int(result.report.iterations) == 20
    assert after < before


@pytest.mark.parametrize("name", SECOND_ORDER)
def test_second_order_methods_reach_the_reference(name: str) -> None:
    result = small().fit(30, steps=60, target=1e-4, optimizer=name)
    assert result.report.all_converged
    assert result.relative_l2 < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_a_run_goes_on_bit_for_bit(name: str, tmp_path: Path) -> None:
    whole = small(resample_every=4).fit(30, steps=9, optimizer=name)
    file = tmp_path / "run.safetensors"
    small(resample_every=4).fit(30, steps=5, optimizer=name, checkpoint=file)
    rest = small(resample_every=4).fit(30, steps=9, optimizer=name, checkpoint=file)
    assert torch.equal(whole.network.theta, rest.network.theta)


def test_adam_takes_the_step_of_its_formula() -> None:
    pinn = small()
    theta = pinn.initial()
    _, gradient = pinn.collocation.loss_and_gradient(theta)
    result = pinn.fit(30, steps=1, optimizer="adam")
    expected = theta - 1e-3 * gradient / (gradient.abs() + 1e-8)
    torch.testing.assert_close(result.network.theta.detach(), expected, rtol=0, atol=1e-12)


@pytest.fixture(scope="module")
def bent() -> tuple[Tensor, Tensor, Tensor]:
    """Matrix, right-hand side and start of 30 residuals tanh(A x) - b in 8 unknowns."""
    generator = torch.Generator().manual_seed(1)
    a = torch.randn(30, 8, generator=generator, dtype=torch.float64)
    b = torch.rand(30, generator=generator, dtype=torch.float64)
    return a, b, 0.3 * torch.randn(8, generator=generator, dtype=torch.float64)


def search(bent: tuple[Tensor, Tensor, Tensor], blocks: int = 1, **options: object) -> GaussNewton:
    a, b, start = bent

    def linearize(x: Tensor) -> list[tuple[Tensor, Tensor]]:
        y = torch.tanh(a @ x)
        rows = (1 - y * y)[:, None] * a
        return list(zip((y - b).chunk(blocks), rows.chunk(blocks), strict=True))

    def objective(x: Tensor) -> tuple[float, Tensor]:
        parts = linearize(x)
        loss = sum(0.5 * float(r.square().sum()) for r, _ in parts)
        return loss, sum((rows.T @ r for r, rows in parts), torch.zeros_like(x))

    return GaussNewton(objective, start, linearize=linearize, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("solver", ["dense", "cg"])
@pytest.mark.parametrize("damping", ["nielsen", "gain", "progress", "natural"])
def test_a_step_solves_the_damped_normal_equations(
    bent: tuple[Tensor, Tensor, Tensor], damping: str, solver: str
) -> None:
    a, b, start = bent
    method = search(bent, blocks=3, damping=damping, solver=solver)
    before = method.loss
    assert method.step()
    y = torch.tanh(a @ start)
    jacobian, residuals = (1 - y * y)[:, None] * a, y - b
    assert method.report is not None
    damped = jacobian.T @ jacobian + method.report.damping * torch.eye(8, dtype=torch.float64)
    direction = -torch.linalg.solve(damped, jacobian.T @ residuals)
    length = method.report.gamma if damping == "natural" else 1.0
    torch.testing.assert_close(method.point, start + length * direction, rtol=0, atol=1e-5)
    assert method.loss < before


def test_products_and_factors_end_at_the_same_minimum(
    bent: tuple[Tensor, Tensor, Tensor],
) -> None:
    ends = []
    for solver in ("dense", "cg"):
        method = search(bent, damping="nielsen", solver=solver)
        for _ in range(60):
            if not method.step():
                break
        ends.append(method.point)
    torch.testing.assert_close(ends[1], ends[0], rtol=0, atol=1e-5)


def test_blocks_that_do_not_fit_are_taken_anew(
    bent: tuple[Tensor, Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = search(bent, blocks=5, damping="gain", solver="cg")
    kept.step()
    monkeypatch.setattr("solvers.optim._gauss_newton._KEPT", 50)
    again = search(bent, blocks=5, damping="gain", solver="cg")
    again.step()
    torch.testing.assert_close(again.point, kept.point, rtol=1e-12, atol=1e-12)


def test_fewer_residuals_than_parameters_give_the_same_step() -> None:
    generator = torch.Generator().manual_seed(2)
    a = torch.randn(4, 9, generator=generator, dtype=torch.float64)
    b = torch.ones(4, dtype=torch.float64)
    start = torch.zeros(9, dtype=torch.float64)
    method = GaussNewton(
        lambda x: (0.5 * float((a @ x - b).square().sum()), a.T @ (a @ x - b)),
        start,
        linearize=lambda x: [(a @ x - b, a)],
        damping="nielsen",
    )
    assert method.step()
    damped = a.T @ a + torch.eye(9, dtype=torch.float64)
    torch.testing.assert_close(method.point, torch.linalg.solve(damped, a.T @ b))


def test_a_loss_that_is_not_finite_is_refused_at_the_start() -> None:
    nan = torch.full((2,), torch.nan, dtype=torch.float64)
    with pytest.raises(NonFiniteError, match="nan"):
        GaussNewton(lambda x: (torch.nan, x), nan, linearize=lambda x: [])


def test_phases_follow_one_another_and_may_be_ones_own() -> None:
    own = Phase(name="warm-up", method=lambda o: FirstOrder(o, torch.optim.RMSprop), steps=5)
    seen = []
    pinn = small()
    pinn.fit(30, steps=12, optimizer=[own, "gns"], callback=lambda row: seen.append(row["step"]))
    assert seen[-1] == 12


def test_moving_labels_take_an_optimizer_too() -> None:
    result = LagrangianPINN(problems.Convection(beta=5.0), points=200).fit(
        30, steps=40, target=1e-3, optimizer="levenberg-marquardt"
    )
    assert result.report.all_converged


def test_an_unknown_optimizer_is_refused_with_the_nearest() -> None:
    with pytest.raises(SettingsError, match="did you mean 'adam'"):
        small().fit(1, optimizer="adamm")
    with pytest.raises(SettingsError, match="at least one"):
        small().fit(1, optimizer=[])


def test_first_parameters_of_another_network_are_refused() -> None:
    with pytest.raises(SettingsError, match="start"):
        small().fit(1, start=torch.zeros(3))
