"""The same products and eigenvalues as independent packages give, where those are installed."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from solvers.curvature import Objective, extreme_eigenpairs, gauss_newton, hessian


class Problem:
    def __init__(self) -> None:
        torch.manual_seed(0)
        sizes = (3, 8, 8, 2)
        layers = [nn.Sequential(nn.Linear(a, b), nn.Tanh()) for a, b in pairwise(sizes)]
        self.net = nn.Sequential(*layers[:-1], layers[-1][0]).double()
        self.x = torch.randn(25, 3, dtype=torch.float64)
        self.y = torch.randn(25, 2, dtype=torch.float64)
        # Mean squared error is half the square of this residual.
        scale = (2.0 / self.y.numel()) ** 0.5
        self.objective = Objective.of_module(
            self.net, residual=lambda network: scale * (network(self.x) - self.y)
        )


def test_curvlinops_multiplies_alike() -> None:
    curvlinops = pytest.importorskip("curvlinops")
    p = Problem()
    arguments = (p.net, nn.MSELoss(), list(p.net.parameters()), [(p.x, p.y)])
    v = torch.randn(p.objective.space.size, dtype=torch.float64)
    for ours, theirs in (
        (hessian(p.objective), curvlinops.HessianLinearOperator(*arguments)),
        (gauss_newton(p.objective), curvlinops.GGNLinearOperator(*arguments)),
    ):
        expected = theirs @ v
        assert float((ours(v) - expected).norm()) < 1e-8 * float(expected.norm())


def test_eigenthings_finds_the_same_extreme_eigenvalues() -> None:
    peer = pytest.importorskip("hessian_eigenthings")
    p = Problem()
    theirs = peer.HessianOperator(p.net, [(p.x, p.y)], peer.supervised_loss(nn.MSELoss()))
    found = peer.lanczos(theirs, k=3, max_iter=80, tol=1e-12, reorthogonalize=True, which="LA")
    expected = sorted((float(e) for e in found.eigenvalues), reverse=True)
    ours = extreme_eigenpairs(hessian(p.objective), 3, tolerance=1e-10).values.tolist()
    assert ours == pytest.approx(expected, rel=1e-8)
