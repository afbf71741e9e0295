"""Barriers, forks and alignment."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from torch import Tensor, nn

from physim.learn.landscape import (
    align,
    angle,
    barrier,
    fork_study,
    layerwise_barriers,
    predicted_barrier,
)
from solvers.core import NonFiniteError, SettingsError
from solvers.curvature import Objective
from solvers.optim import GNS


def quadratic(seed: int, n: int = 6) -> tuple[Objective, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    a, b, c = torch.randn(3, n, generator=g, dtype=torch.float64)
    h = torch.randn(n, n, generator=g, dtype=torch.float64)
    return Objective.of_loss(lambda p: 0.5 * p @ (h + h.T) @ p + c @ p, a), a, b


@given(seed=st.integers(0, 1000))
def test_prediction_is_exact_for_quadratics(seed: int) -> None:
    # The middle of a quadratic lies d'Hd / 8 below the chord; both ends' terms add up to that.
    objective, a, b = quadratic(seed)
    middle = objective.loss((a + b) / 2) - (objective.loss(a) + objective.loss(b)) / 2
    assert predicted_barrier(objective, a, b) == pytest.approx(float(middle), rel=1e-9, abs=1e-9)
    line = barrier(objective, a, b, points=21)
    assert line.height == pytest.approx(max(0.0, float(middle)), abs=1e-9)


def test_convex_losses_have_no_barrier_and_ends_do_not_matter() -> None:
    objective = Objective.of_loss(lambda p: p.exp().sum(), torch.zeros(3))
    a, b = torch.randn(2, 3)
    assert barrier(objective, a, b).height == 0.0
    bumpy = Objective.of_loss(lambda p: torch.cos(3 * p).sum() + 3.5, torch.zeros(3))
    forth, back = barrier(bumpy, a, b), barrier(bumpy, b, a)
    assert forth.height == pytest.approx(back.height, abs=1e-5)
    assert math.isfinite(forth.log_height)
    chunked = barrier(bumpy, a, b, chunk=8)
    assert torch.allclose(chunked.losses, forth.losses, atol=1e-5)


def test_angles() -> None:
    base = torch.ones(3, dtype=torch.float64)
    e = torch.eye(3, dtype=torch.float64)
    assert angle(base, base + e[0], base + 2 * e[0]) == pytest.approx(0.0, abs=1e-6)
    assert angle(base, base + e[0], base + e[1]) == pytest.approx(90.0)
    assert angle(base, base + e[0], base - e[0]) == pytest.approx(180.0)


def test_layers_move_one_at_a_time() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)).double()
    objective = Objective.of_module(net, loss=lambda f: f(torch.ones(2).double()).sum() ** 2)
    a = objective.start
    b = a + 1.0
    lines = layerwise_barriers(objective, a, b, points=5)
    assert list(lines) == ["0", "2"]
    last = a.clone()
    last[objective.space.mask(["2"])] += 1.0
    assert float(lines["2"].losses[-1]) == pytest.approx(float(objective.loss(last)))


@pytest.mark.slow
def test_runs_that_part_late_end_in_one_basin(
    digits: Callable[..., tuple[Tensor, Tensor]],
) -> None:
    x, y = digits(1400, shifted=0.3)
    g = torch.Generator().manual_seed(9)
    noisy = torch.rand(1400, generator=g) < 0.25
    y = torch.where(noisy, torch.randint(0, 10, (1400,), generator=g), y)
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)
    )
    objective = Objective.of_module(net, loss=lambda f: nn.functional.cross_entropy(f(x), y))
    space, steps = objective.space, 1400

    def train(theta: Tensor, first: int, last: int, seed: int) -> Tensor:
        named = {k: p.clone().requires_grad_() for k, p in space.unflatten(theta).items()}
        optimizer = torch.optim.SGD(named.values(), lr=0.2, momentum=0.9)
        batches = torch.Generator().manual_seed(seed)
        for step in range(first, last):
            optimizer.param_groups[0]["lr"] = 0.2 * (1 - step / steps)
            chosen = torch.randint(0, 1400, (32,), generator=batches)
            optimizer.zero_grad()
            outputs = torch.func.functional_call(net, named, (x[chosen],))
            nn.functional.cross_entropy(outputs, y[chosen]).backward()
            optimizer.step()
        return space.flatten({k: p.detach() for k, p in named.items()})

    def start(seed: int) -> Tensor:
        torch.manual_seed(seed)
        fresh = {
            name: nn.init.uniform_(
                torch.empty(shape), -(shape[-1] if len(shape) > 1 else 64) ** -0.5,
                (shape[-1] if len(shape) > 1 else 64) ** -0.5,
            )
            for name, shape in space.shapes.items()
        }  # fmt: skip
        return space.flatten(fresh)

    forks = [0, 60, 200, 500, 1000]
    records = fork_study(
        objective, train, steps=steps, forks=forks, start=start, seeds=[0, 1], points=11
    )

    def mean(values: Callable[[object], float]) -> list[float]:
        return [sum(values(r) for r in records if r.step == f) / 2 for f in forks]

    heights = mean(lambda r: r.barrier.height)  # type: ignore[attr-defined]
    angles = mean(lambda r: r.angle)  # type: ignore[attr-defined]
    predictions = mean(lambda r: r.predicted)  # type: ignore[attr-defined]
    assert heights[0] > 0.1, heights
    assert all(b <= a + 0.03 for a, b in pairwise(heights)), heights
    assert heights[-1] < 0.02 * heights[0], heights
    assert angles[-1] < angles[0] - 15, angles
    assert spearmanr(predictions, heights).statistic > 0.9, (predictions, heights)

    theta = start(0)
    a, b = train(theta, 0, steps, 1), train(theta, 0, steps, 2)
    whole = barrier(objective, a, b, points=11).height
    layers = layerwise_barriers(objective, a, b, points=11)
    assert max(line.height for line in layers.values()) < 0.02 * whole


def wave(seed: int) -> tuple[nn.Sequential, Objective]:
    """A tanh network trained on u'' = -9 pi^2 sin 3 pi x with zero ends."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1)
    ).double()
    with torch.no_grad():
        net[0].weight.mul_(3.0)
    x = torch.linspace(0, 1, 40, dtype=torch.float64)
    source = 9 * math.pi**2 * torch.sin(3 * math.pi * x)

    def residual(network: Callable[[Tensor], Tensor]) -> Tensor:
        def u(s: Tensor) -> Tensor:
            return network(s[None])[0]

        second = torch.func.vmap(torch.func.grad(torch.func.grad(u)))(x)
        ends = torch.stack([u(x[0]), u(x[-1])])
        return torch.cat([(second + source) / source.norm(), 3 * ends])

    objective = Objective.of_module(net, residual=residual)
    optimizer = GNS(net.parameters())
    for _ in range(60):
        optimizer.step(lambda: residual(net))
    return net, objective


@pytest.mark.slow
def test_signs_matter_for_odd_activations() -> None:
    first, objective = wave(0)
    second, _ = wave(11)
    x = torch.linspace(-1, 2, 50, dtype=torch.float64)[:, None]

    def height(net: nn.Sequential) -> tuple[float, float]:
        a, b = (
            objective.space.flatten({k: p.detach() for k, p in n.named_parameters()})
            for n in (first, net)
        )
        return barrier(objective, a, b).height, float((a - b).norm())

    permuted = align(first, second, symmetry="permute")
    signed = align(first, second)
    for net in (permuted, signed):
        assert float((net(x) - second(x)).detach().abs().max()) < 1e-12
    heights = [height(net) for net in (second, permuted, signed)]
    assert heights[2][0] < 0.5 * heights[1][0], heights
    assert heights[2][1] < heights[1][1] < heights[0][1], heights


@given(seed=st.integers(0, 200), depth=st.integers(1, 3))
def test_alignment_undoes_any_symmetry(seed: int, depth: int) -> None:
    torch.manual_seed(seed)
    layers: list[nn.Module] = [nn.Linear(3, 6), nn.Tanh()]
    for _ in range(depth - 1):
        layers += [nn.Linear(6, 6), nn.Tanh()]
    net = nn.Sequential(*layers, nn.Linear(6, 2)).double()
    moved = copy.deepcopy(net)
    linear = [m for m in moved if isinstance(m, nn.Linear)]
    with torch.no_grad():
        for inner, outer in pairwise(linear):
            order = torch.randperm(6)
            sign = torch.where(torch.rand(6) < 0.5, -1.0, 1.0).double()
            inner.weight.copy_(sign[:, None] * inner.weight[order])
            inner.bias.copy_(sign * inner.bias[order])
            outer.weight.copy_(outer.weight[:, order] * sign)
    x = torch.randn(10, 3, dtype=torch.float64)
    assert torch.allclose(moved(x), net(x), atol=1e-12)
    back = align(net, moved)
    assert torch.allclose(back(x), net(x), atol=1e-12)
    if depth == 1:
        assert torch.equal(back[0].weight, net[0].weight)


def test_bad_input() -> None:
    objective, a, b = quadratic(0)
    with pytest.raises(SettingsError, match="points"):
        barrier(objective, a, b, points=2)
    with pytest.raises(NonFiniteError):
        barrier(objective, a * torch.nan, b)
    relu = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    with pytest.raises(SettingsError, match="odd"):
        align(relu, relu, symmetry="permute+sign")
    with pytest.raises(SettingsError, match="BatchNorm1d"):
        align(relu, nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1)))
    with pytest.raises(SettingsError, match="layers"):
        align(relu, nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1)))
    with pytest.raises(SettingsError, match="forks"):
        fork_study(objective, lambda t, i, j, s: t, steps=5, forks=[5], start=lambda s: a)


def test_a_loss_that_differentiates_inside_has_a_barrier() -> None:
    x = torch.linspace(0, 1, 7, dtype=torch.float64)

    def residual(p: Tensor) -> Tensor:
        place = x.clone().requires_grad_()
        u = torch.tanh(p[0] * place + p[1])
        (slope,) = torch.autograd.grad(u.sum(), place, create_graph=True)
        return slope + u

    a, b = torch.tensor([[1.0, 0.2], [-2.0, 0.5]], dtype=torch.float64)
    found = barrier(Objective.of_residual(residual, a, mode="reverse"), a, b, points=5)
    for t, loss in zip(found.t, found.losses, strict=True):
        p = a + t * (b - a)
        u = torch.tanh(p[0] * x + p[1])
        torch.testing.assert_close(loss, 0.5 * (p[0] * (1 - u**2) + u).square().sum())


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("place", [0.5, 1.0])
def test_a_loss_that_is_not_finite_makes_heights_infinite(bad: float, place: float) -> None:
    lost = Objective.of_loss(
        lambda p: torch.where((p - place).abs() < 0.1, bad, 2.0).sum(), torch.zeros(1)
    )
    found = barrier(lost, torch.zeros(1), torch.ones(1))
    assert found.height == found.log_height == math.inf


def test_no_way_has_no_angle() -> None:
    base, other = torch.ones(3), torch.arange(3.0)
    assert math.isnan(angle(base, base, other))
    assert math.isnan(angle(base, other, other * torch.nan))
