"""The report of a training: the same numbers in text, file and picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import physim
from physim.dynamics import LinearFeedback
from physim.learn.landscape import intrinsic_dimension, landscape_report
from solvers.core import SettingsError
from solvers.curvature import Objective, gauss_newton, hessian
from solvers.pinn import MLP, PINN, LagrangianPINN, problems


def objective(seed: int = 0) -> Objective:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(1, 6), nn.Tanh(), nn.Linear(6, 1)).double()
    x = torch.linspace(-1, 1, 12, dtype=torch.float64)[:, None]
    return Objective.of_module(net, residual=lambda f: (f(x) - torch.sin(3 * x)).reshape(-1))


def test_numbers_are_those_of_dense_matrices(tmp_path: Path) -> None:
    problem = objective()
    other = objective(1).start
    sweep = intrinsic_dimension(lambda d, seed: 1.0 if d is None else d / 10, [5, 9])
    report = landscape_report("fit", problem, others={"other": other}, intrinsic=sweep)
    values = torch.linalg.eigvalsh(hessian(problem).dense())
    top = float(torch.linalg.eigvalsh(gauss_newton(problem).dense())[-1])

    saved = json.loads(report.save(tmp_path / "fit.json").read_text())
    assert saved["parameters"] == 19
    assert saved["hessian"]["largest"][0] == pytest.approx(float(values[-1]), rel=1e-5)
    assert saved["hessian"]["smallest"] == pytest.approx(float(values[0]), rel=1e-2, abs=1e-4)
    assert saved["largest_stable_rate"]["0"] == pytest.approx(2 / top, rel=1e-5)
    assert saved["largest_stable_rate"]["1"] < saved["largest_stable_rate"]["0"]
    assert "16" not in saved["largest_stable_rate"]
    assert saved["barriers"]["other"]["height"] == report.barriers["other"].height
    assert saved["intrinsic_dimension"]["dimension"] == 9
    assert "barrier to other" in str(report)
    assert "intrinsic dimension 9" in str(report)

    pytest.importorskip("matplotlib")
    assert report.plot(tmp_path / "fit.png").stat().st_size > 20_000


def test_losses_that_differentiate_themselves_are_reported_in_reverse_mode() -> None:
    def loss(p: Tensor) -> Tensor:
        x = torch.linspace(0, 1, 5, dtype=torch.float64).requires_grad_()
        (slope,) = torch.autograd.grad((p[0] * x**2 + p[1] * x).sum(), x, create_graph=True)
        return slope.square().sum() + p[2] ** 2

    report = landscape_report(
        "slopes", Objective.of_loss(loss, torch.ones(3).double()), mode="reverse"
    )
    dense = torch.tensor([[15.0, 10.0, 0.0], [10.0, 10.0, 0.0], [0.0, 0.0, 2.0]]).double()
    assert report.spectrum.top.tolist() == pytest.approx(
        torch.linalg.eigvalsh(dense).flip(0).tolist(), rel=1e-5
    )


def test_losses_without_outputs_are_reported_too(tmp_path: Path) -> None:
    def loss(p: Tensor) -> Tensor:
        return (torch.cosh(p) - 1).sum()

    report = landscape_report("plain", Objective.of_loss(loss, torch.zeros(4).double()))
    assert report.sharpness is None
    assert report.rates == {0: pytest.approx(2.0)}
    assert json.loads(report.save(tmp_path / "plain.json").read_text())["gauss_newton"] is None
    with pytest.raises(SettingsError, match="does not exist"):
        report.save(tmp_path / "nowhere" / "a.json")


@pytest.mark.parametrize("name", ["field", "characteristics"])
def test_a_trained_pinn_is_reported_through_its_engine(name: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"points": 60, "backend": "sweep"}
    if name == "field":
        pinn = PINN(problems.Reaction(), MLP(6, 1), **options)
    else:
        pinn = LagrangianPINN(problems.Convection(), MLP(6, 1), **options).pinn
    theta = pinn.fit(steps=20, progress=False).network.theta.detach()
    report = landscape_report(name, Objective.of_source(pinn.collocation, theta))
    # Autograd through the torch engine, which the report does not use.
    traced = Objective.of_residual(pinn.collocation.residuals, theta)
    values = torch.linalg.eigvalsh(torch.func.hessian(traced.loss)(theta))
    assert report.loss == pytest.approx(float(traced.loss(theta)), rel=1e-9)
    assert float(report.spectrum.top[0]) == pytest.approx(float(values[-1]), rel=1e-5)
    assert report.spectrum.lowest == pytest.approx(float(values[0]), abs=1e-6 * float(values[-1]))
    j = torch.func.jacrev(traced.residual)(theta)
    top = float(torch.linalg.eigvalsh(j.T @ j)[-1])
    assert report.rates[0] == pytest.approx(2 / top, rel=1e-5)
    assert json.loads(report.save(tmp_path / "a.json").read_text())["parameters"] == len(theta)


@pytest.mark.slow
def test_a_policy_is_reported_through_the_compiled_rollout() -> None:
    sim = physim.Simulator(
        physim.load_model("""<mujoco><worldbody><body><joint name="rail" type="slide" axis="1 0 0"/>
        <geom size="0.1" mass="1" contype="0" conaffinity="0"/>
        <body><joint name="hinge" axis="0 1 0"/>
        <geom size="0.1" pos="0 0 1" mass="1" contype="0" conaffinity="0"/></body></body>
        </worldbody><actuator><motor joint="rail"/></actuator></mujoco>"""),
        timestep=0.05,
    )
    places = torch.tensor([[0.3, 0.2], [-0.2, 0.1]], dtype=torch.float64)
    start = sim.initial_state(q=places)
    goal = torch.tensor([1.0, 0.2, -0.3, 0.1], dtype=torch.float64)

    def cost(theta: Tensor) -> Tensor:
        motion = sim.rollout(start, LinearFeedback(sim.model, theta.view(1, 4)), steps=8)
        return motion.q.square().mean() + 0.01 * (theta - goal).square().sum()

    theta = torch.tensor([0.4, 0.1, 0.2, -0.1], dtype=torch.float64)
    report = landscape_report("policy", Objective.of_loss(cost, theta, mode="difference"))
    # Second differences of the loss alone, an independent route.
    h = 1e-2
    moves = h * torch.eye(4, dtype=torch.float64)
    corners = [[cost(theta + a + b) - cost(theta + a - b) for b in moves] for a in moves]
    opposite = [[cost(theta - a + b) - cost(theta - a - b) for b in moves] for a in moves]
    differences = torch.tensor(corners, dtype=torch.float64) - torch.tensor(
        opposite, dtype=torch.float64
    )
    expected = torch.linalg.eigvalsh(differences / (4 * h**2))
    assert float(report.spectrum.top[0]) == pytest.approx(float(expected[-1]), rel=1e-4)
    assert report.spectrum.lowest == pytest.approx(float(expected[0]), rel=1e-3)
    assert report.sharpness is None
