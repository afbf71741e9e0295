"""A network around a cylinder: three equations, a hole, conditions in the loss."""

from __future__ import annotations

import pytest
import torch

from solvers.pde import problems
from solvers.pinn import MLP, PINN


@pytest.mark.slow
def test_a_network_finds_the_eddies_behind_a_cylinder() -> None:
    problem = problems.CylinderFlow(reynolds=20.0)
    solver = PINN(problem, MLP(24, 3), points=2000)
    assert len(set(solver.collocation.names)) == 7
    result = solver.fit(300.0, cpu_budget=20.0, target=2e-3)
    assert result.relative_l2 < 2e-3
    # Fluid flows back over the first 0.9 diameters behind the cylinder, and no further.
    behind = torch.tensor([0.55, 0.8, 1.2, 1.6, 2.5], dtype=torch.float64)
    values = result(behind, 0.0)
    assert isinstance(values, dict)
    assert (values["u"] < 0).tolist() == [True, True, True, False, False]
