"""Speed enters the residual of a Lagrangian formulation as a shift, so its curvature ignores it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.func import jacrev, vmap

from solvers.curvature import Objective, extreme_eigenpairs, gauss_newton

SPEEDS = (1.0, 10.0, 50.0)


def points() -> Tensor:
    g = torch.Generator().manual_seed(0)
    x, t = torch.rand(2, 64, generator=g, dtype=torch.float64)
    return torch.stack([2 * math.pi * x, t], 1)


def network(outputs: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, outputs)
    ).double()


def eulerian(speed: float) -> Objective:
    """u_t + c u_x = 0 on a period, u(x, 0) = sin x, as residuals of u(x, t)."""
    samples = points()
    start, period = torch.tensor([1.0, 0.0]).double(), torch.tensor([2 * math.pi, 0.0]).double()

    def residual(u: object) -> Tensor:
        def at(z: Tensor) -> Tensor:
            value = lambda p: u(p[None])[0, 0]  # type: ignore[operator]  # noqa: E731
            slope = jacrev(value)(z)
            left = z * torch.tensor([0.0, 1.0]).double()
            initial = value(z * start) - torch.sin(z[0])
            wrap = value(left) - value(left + period)
            return torch.stack([slope[1] + speed * slope[0], 10 * initial, 10 * wrap])

        return vmap(at)(samples) / 8

    return Objective.of_module(network(1), residual=residual)


def lagrangian(speed: float) -> Objective:
    """dx/dt = c along characteristics from s, value carried unchanged, as (x - s, w)(s, t)."""
    samples = points()

    def residual(flow: object) -> Tensor:
        def at(z: Tensor) -> Tensor:
            value = lambda p: flow(p[None])[0]  # type: ignore[operator]  # noqa: E731
            slope = jacrev(value)(z)
            first = value(z * torch.tensor([1.0, 0.0]).double())
            carried = 10 * (first[1] - torch.sin(z[0]))
            return torch.stack([slope[0, 1] - speed, slope[1, 1], 10 * first[0], carried])

        return vmap(at)(samples) / 8

    return Objective.of_module(network(2), residual=residual)


def test_lagrangian_curvature_does_not_depend_on_the_speed() -> None:
    reference = gauss_newton(lagrangian(SPEEDS[0])).dense()
    for speed in SPEEDS[1:]:
        other = gauss_newton(lagrangian(speed)).dense()
        assert float((other - reference).abs().max()) <= 1e-10 * float(reference.abs().max())


def test_eulerian_curvature_rises_with_the_speed() -> None:
    tops = [float(extreme_eigenpairs(gauss_newton(eulerian(c))).values[0]) for c in SPEEDS]
    assert tops == sorted(tops)
    assert tops[2] > 1.3 * tops[0]
