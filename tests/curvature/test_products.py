"""Products with Hessians and Gauss-Newton matrices against dense ones, and bad objectives."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from solvers.core import NonFiniteError, SettingsError, ShapeError
from solvers.curvature import (
    Objective,
    ParameterSpace,
    SymmetricOperator,
    gauss_newton,
    hessian,
    jacobian,
)


def tanh_net(seed: int, *sizes: int) -> nn.Sequential:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for first, second in itertools.pairwise(sizes):
        layers += [nn.Linear(first, second), nn.Tanh()]
    return nn.Sequential(*layers[:-1]).double()


def poisson(net: nn.Module) -> Objective:
    x = torch.linspace(0, 1, 12, dtype=torch.float64)

    def residual(network: object) -> Tensor:
        u = lambda s: network(s[None])[0]  # type: ignore[operator]  # noqa: E731
        second = torch.func.vmap(torch.func.grad(torch.func.grad(u)))(x)
        ends = torch.stack([u(x[0]), u(x[-1])])
        return torch.cat([second + math.pi**2 * torch.sin(math.pi * x), 10 * ends])

    return Objective.of_module(net, residual=residual)


def classifier(net: nn.Module, k: int) -> Objective:
    g = torch.Generator().manual_seed(3)
    x = torch.randn(30, 4, generator=g, dtype=torch.float64)
    y = torch.randint(0, k, (30,), generator=g)
    return Objective.of_module(
        net,
        outputs=lambda network: network(x),
        output_loss=lambda z: nn.functional.cross_entropy(z, y),
    )


def test_hessian_of_a_pinn_equals_the_dense_one() -> None:
    objective = poisson(tanh_net(0, 1, 6, 1))
    dense = torch.func.hessian(objective.loss)(objective.start)
    ours = hessian(objective, chunk=5).dense()
    assert torch.allclose(ours, dense, rtol=1e-10, atol=1e-10 * float(dense.abs().max()))


def test_gauss_newton_of_a_pinn_is_the_jacobians_square() -> None:
    objective = poisson(tanh_net(1, 1, 6, 1))
    j = torch.func.jacfwd(objective.residual)(objective.start)
    ours = gauss_newton(objective).dense()
    assert torch.allclose(ours, j.T @ j, rtol=1e-10, atol=1e-10 * float(ours.abs().max()))
    assert torch.allclose(jacobian(objective), j, rtol=1e-10, atol=1e-12)


def test_gauss_newton_of_a_softmax_by_explicit_blocks() -> None:
    objective = classifier(tanh_net(2, 4, 5, 3), 3)
    assert objective.outputs is not None
    j = torch.func.jacrev(objective.outputs)(objective.start)
    p = torch.softmax(objective.outputs(objective.start), 1)
    s = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    dense = torch.einsum("nkp,nkl,nlq->pq", j, s, j) / len(p)
    ours = gauss_newton(objective).dense()
    assert torch.allclose(ours, dense, atol=1e-12)
    assert float(torch.linalg.eigvalsh(ours)[0]) > -1e-12


def test_reverse_mode_takes_losses_that_differentiate_themselves() -> None:
    net = tanh_net(5, 1, 5, 1)
    x = torch.linspace(0, 1, 9, dtype=torch.float64)[:, None]

    def loss(u: Callable[[Tensor], Tensor]) -> Tensor:
        at = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(u(at).sum(), at, create_graph=True)
        return (slope - torch.cos(at)).square().sum()

    classical = Objective.of_module(net, loss=loss)
    functional = Objective.of_module(
        net,
        loss=lambda u: (
            torch.func.vmap(torch.func.grad(lambda s: u(s[None])[0]))(x[:, 0]) - torch.cos(x[:, 0])
        ).square().sum(),
    )  # fmt: skip
    ours = hessian(classical, mode="reverse").dense()
    assert torch.allclose(ours, hessian(functional).dense(), rtol=1e-9, atol=1e-9)


def test_hessian_splits_into_gauss_newton_and_curved_outputs() -> None:
    objective = poisson(tanh_net(4, 1, 5, 1))
    r = objective.residual(objective.start)
    curved = torch.func.hessian(lambda p: objective.residual(p) @ r)(objective.start)
    total = gauss_newton(objective).dense() + curved
    assert torch.allclose(hessian(objective).dense(), total, rtol=1e-9, atol=1e-8)


def test_rows_equal_vectors_one_by_one() -> None:
    operator = hessian(poisson(tanh_net(0, 1, 4, 1)), chunk=2)
    v = torch.randn(5, operator.size, dtype=torch.float64)
    one_by_one = torch.stack([operator(row) for row in v])
    assert torch.allclose(operator(v), one_by_one, rtol=1e-12, atol=1e-9)


def test_float32_follows_float64() -> None:
    net = tanh_net(0, 4, 5, 3)
    double = gauss_newton(classifier(net, 3)).dense()
    x = classifier(net, 3)
    start = x.start.float()
    single = Objective.of_loss(lambda p: x.loss(p.double()).float(), start)
    assert torch.allclose(hessian(single).dense().double(), hessian(x).dense(), atol=1e-5)
    assert double.dtype == torch.float64


def test_space_round_trip_layers_and_mask() -> None:
    net = tanh_net(0, 2, 3, 1)
    net[0].bias.requires_grad_(False)
    space, start = ParameterSpace.of(net)
    assert list(space.shapes) == ["0.weight", "2.weight", "2.bias"]
    named = space.unflatten(start)
    assert torch.equal(named["2.bias"], net[2].bias)
    assert torch.equal(space.flatten(named), start)
    assert space.layers == {"0": ("0.weight",), "2": ("2.weight", "2.bias")}
    assert int(space.mask(["2"]).sum()) == 4


def test_bad_objectives_are_named() -> None:
    frozen = nn.Linear(2, 1).requires_grad_(False)
    with pytest.raises(SettingsError, match="requires_grad_"):
        Objective.of_module(frozen, loss=lambda network: network(torch.ones(2)).sum())
    noisy = Objective.of_loss(lambda p: (p * torch.randn(2)).sum(), torch.ones(2))
    with pytest.raises(SettingsError, match="same point"):
        hessian(noisy)
    infinite = Objective.of_loss(lambda p: p.sum() / 0.0, torch.ones(2))
    with pytest.raises(NonFiniteError, match="loss is inf"):
        hessian(infinite)
    plain = Objective.of_loss(lambda p: p.square().sum(), torch.ones(2))
    with pytest.raises(SettingsError, match="no outputs"):
        gauss_newton(plain)
    with pytest.raises(SettingsError, match="exactly one"):
        Objective.of_module(nn.Linear(1, 1))
    with pytest.raises(ShapeError, match="expected"):
        SymmetricOperator.of_matrix(torch.ones(2, 3))
    with pytest.raises(ShapeError, match="expected"):
        hessian(plain)(torch.ones(3))
