"""Bulk and outliers: data sets the outliers, width the bulk."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from physim.learn.landscape import barrier, find_outliers, spectrum
from solvers.core import SettingsError
from solvers.curvature import Objective, gauss_newton, hessian


def clusters(k: int, width: float, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Points around k centres, their labels, and labels of which 15 percent are random."""
    g = torch.Generator().manual_seed(seed)
    centres = torch.randn(k, 20, generator=g)
    centres = 3 * centres / centres.norm(dim=1, keepdim=True)
    y = torch.randint(0, k, (400,), generator=g)
    x = centres[y] + width * torch.randn(400, 20, generator=g)
    g = torch.Generator().manual_seed(seed + 99)
    changed = torch.rand(400, generator=g) < 0.15
    return x, y, torch.where(changed, torch.randint(0, k, (400,), generator=g), y)


def trained(
    x: Tensor, y: Tensor, k: int, width: int, *, steps: int = 600, lr: float = 0.3, seed: int = 0
) -> nn.Module:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(20, width), nn.Tanh(), nn.Linear(width, k))
    descend(net, x, y, steps=steps, lr=lr)
    return net


def descend(
    net: nn.Module, x: Tensor, y: Tensor, *, steps: int, lr: float, batch: int | None = None,
    seed: int = 0,
) -> None:  # fmt: skip
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    g = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        rows = slice(None) if batch is None else torch.randint(0, len(x), (batch,), generator=g)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
        optimizer.step()


def objective_of(net: nn.Module, x: Tensor, y: Tensor) -> Objective:
    return Objective.of_module(
        net.double(),
        outputs=lambda f: f(x.double()),
        output_loss=lambda z: nn.functional.cross_entropy(z, y),
    )


@pytest.mark.slow
@pytest.mark.parametrize(("k", "width"), [(2, 12), (3, 12), (4, 6), (4, 24)])
def test_outliers_of_tight_clusters_are_k_times_k_less_one(k: int, width: int) -> None:
    x, _, noisy = clusters(k, 0.05)
    objective = objective_of(trained(x, noisy, k, width), x, noisy)
    values = torch.linalg.eigvalsh(gauss_newton(objective).dense()).flip(0)
    found = find_outliers(values, at_most=2 * k * (k - 1))
    assert found.count == k * (k - 1)
    by_products = spectrum(objective, kind="gauss_newton", count=k * (k - 1) + 2)
    size = min(len(by_products.top), k * (k - 1))
    assert torch.allclose(by_products.top[:size], values[:size], rtol=1e-4)
    assert find_outliers(by_products.top).count == k * (k - 1)


def test_wide_clusters_have_no_gap_to_count() -> None:
    x, _, noisy = clusters(3, 1.0)
    objective = objective_of(trained(x, noisy, 3, 8, steps=200), x, noisy)
    values = torch.linalg.eigvalsh(gauss_newton(objective).dense()).flip(0)
    found = find_outliers(values, at_most=12)
    assert found.count is None
    assert found.gap_ratio < 3.0


def test_spectrum_by_products_equals_the_dense_one() -> None:
    x, _, noisy = clusters(3, 0.3)
    objective = objective_of(trained(x, noisy, 3, 6, steps=100), x, noisy)
    values = torch.linalg.eigvalsh(hessian(objective).dense())
    found = spectrum(objective, count=6, probes=10)
    assert torch.allclose(found.top, values.flip(0)[:6], rtol=1e-4, atol=1e-6)
    assert found.lowest == pytest.approx(float(values[0]), rel=1e-2, abs=1e-5)
    assert found.trace == pytest.approx(float(values.sum()), rel=0.05)
    near_zero = float((values.abs() < 0.01 * values[-1]).double().mean())
    edge = 0.01 * float(values[-1])
    assert found.density.share(-edge, edge) == pytest.approx(near_zero, abs=0.08)


@pytest.mark.slow
def test_small_batches_go_on_in_the_basin_of_large_ones() -> None:
    x, y, _ = clusters(5, 1.0, 1)
    net = trained(x, y, 5, 40, steps=1500, lr=0.5, seed=1)
    flat = objective_of(net, x, y).space.flatten

    def vector(module: nn.Module) -> Tensor:
        return flat({k: p.detach().clone() for k, p in module.named_parameters()})

    large = vector(net)
    net.float()
    descend(net, x, y, steps=3000, lr=0.5, batch=8, seed=2)
    net.double()
    small = vector(net)
    other = trained(x, y, 5, 40, steps=0, seed=7)
    descend(other, x, y, steps=3000, lr=0.5, batch=8, seed=3)
    independent = vector(other.double())
    objective = objective_of(net, x, y)
    assert barrier(objective, large, small).height < 1e-3
    assert barrier(objective, small, independent).height > 0.03


def test_bad_input() -> None:
    with pytest.raises(SettingsError, match="three or more"):
        find_outliers(torch.tensor([1.0, 0.5]))
    with pytest.raises(SettingsError, match="kind"):
        spectrum(Objective.of_loss(lambda p: p.sum(), torch.ones(2)), kind="hessien")  # type: ignore[arg-type]
