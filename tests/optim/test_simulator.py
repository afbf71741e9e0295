"""Objectives through the simulator: identification, curvature, and designs that it must confirm."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import physim
from solvers.curvature import Objective, gauss_newton, hessian
from solvers.optim import GNS, maximize_through_surrogate

BOX = """<mujoco><default><geom friction="0.5"/></default><worldbody>
  <geom type="plane" size="1 1 1"/>
  <body pos="0 0 0.05"><freejoint/><geom type="box" size="0.2 0.2 0.05" mass="1"/></body>
</worldbody></mujoco>"""
TRUE = torch.tensor([2.0, 1.0], dtype=torch.float64)


def simulator(backend: str = "auto") -> physim.Simulator:
    return physim.Simulator(physim.load_model(BOX), timestep=0.02, backend=backend)


def path(sim: physim.Simulator, push: Tensor, steps: int = 30) -> Tensor:
    """Places of a box that slides after a push, every fifth step."""
    velocity = torch.cat([push, push.new_zeros(4)])[None]
    return sim.rollout(sim.initial_state(v=velocity), steps=steps).q[::5, 0, :2]


def test_a_push_is_identified_through_friction() -> None:
    sim = simulator()
    with torch.no_grad():
        data = path(sim, TRUE)
    push = torch.tensor([1.0, 0.2], dtype=torch.float64, requires_grad=True)
    optimizer = GNS([push])
    for _ in range(9):
        optimizer.step(lambda: (path(sim, push) - data).reshape(-1))
    assert torch.allclose(push.detach(), TRUE, atol=1e-9)


def test_curvature_through_the_step() -> None:
    start = torch.tensor([1.5, 0.7], dtype=torch.float64)
    with torch.no_grad():
        data = path(simulator(), TRUE, 10)

    def objective(sim: physim.Simulator) -> Objective:
        return Objective.of_residual(lambda p: (path(sim, p, 10) - data).reshape(-1), start)

    compiled = objective(simulator())
    matrix = gauss_newton(compiled).dense()
    j = torch.autograd.functional.jacobian(compiled.residual, start)
    assert torch.allclose(matrix, j.T @ j, rtol=1e-7, atol=1e-10)

    reference = objective(simulator("reference"))
    exact = hessian(reference, mode="reverse").dense()

    def slope(p: Tensor) -> Tensor:
        p = p.clone().requires_grad_()
        (g,) = torch.autograd.grad(reference.loss(p), p)
        return g

    moves = 1e-5 * torch.eye(2, dtype=torch.float64)
    columns = [(slope(start + h) - slope(start - h)) / 2e-5 for h in moves]
    assert torch.allclose(exact, torch.stack(columns), rtol=1e-3, atol=1e-6)


@pytest.mark.slow
def test_designs_are_confirmed_by_the_simulator() -> None:
    sim = simulator()
    goal = torch.tensor([0.5, 0.3], dtype=torch.float64)

    def end(pushes: Tensor) -> Tensor:
        velocity = torch.cat([pushes, pushes.new_zeros(len(pushes), 4)], 1)
        with torch.no_grad():
            return sim.rollout(sim.initial_state(v=velocity), steps=40).q[-1, :, :2]

    g = torch.Generator().manual_seed(0)
    pushes = 6 * torch.rand(60, 2, generator=g, dtype=torch.float64) - 3
    places = end(pushes)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 24), nn.ReLU(), nn.Linear(24, 2)).double()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(400):
        optimizer.zero_grad()
        (net(pushes) - places).square().mean().backward()
        optimizer.step()
    net.requires_grad_(False)

    def true(push: Tensor) -> float:
        return -float((end(push[None])[0] - goal).norm())

    start = torch.zeros(2, dtype=torch.float64)
    found = maximize_through_surrogate(
        lambda y: -(y - goal).norm(), net, start, bounds=(-3.0, 3.0), budget=400,
        true_objective=true,
    )  # fmt: skip
    assert found.true_score == pytest.approx(true(found.value), abs=1e-9)
    assert found.true_score > 0.3 * true(start)
    assert 0 < int(found.report.counts["true"]) < 400
