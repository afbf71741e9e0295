"""Langevin dynamics: stationary laws, and what averages find where last iterates do not."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor
from torchdiffeq import odeint

from solvers.core import NonFiniteError, SettingsError
from solvers.optim import (
    SGLD,
    IterateAverage,
    SphericalLangevin,
    equator_ratio,
    langevin_average,
)


@pytest.mark.parametrize(("stiffness", "temperature"), [(1.0, 1.0), (4.0, 0.5)])
def test_flat_dynamics_has_the_variance_of_its_discrete_law(
    stiffness: float, temperature: float
) -> None:
    # x <- (1 - h k) x + sqrt(2 h T) xi has the variance T / (k (1 - h k / 2)) exactly.
    x = torch.zeros(40_000, dtype=torch.float64, requires_grad=True)
    sampler = SGLD([x], lr=0.2, temperature=temperature)
    for _ in range(60):
        x.grad = stiffness * x.detach()
        sampler.step()
    expected = temperature / (stiffness * (1 - 0.1 * stiffness))
    assert float(x.detach().var()) == pytest.approx(expected, rel=0.03)


def test_preconditioner_changes_the_path_and_not_the_law() -> None:
    x = torch.zeros(20_000, 2, dtype=torch.float64, requires_grad=True)
    stiffness = torch.tensor([1.0, 100.0], dtype=torch.float64)
    sampler = SGLD([x], lr=0.05, preconditioner=[(1 / stiffness).expand(20_000, 2)])
    for _ in range(150):
        x.grad = stiffness * x.detach()
        sampler.step()
    expected = 1 / (stiffness * (1 - 0.025))
    assert torch.allclose(x.detach().var(0), expected, rtol=0.05)


def test_zero_temperature_is_gradient_descent() -> None:
    x = torch.ones(3, dtype=torch.float64, requires_grad=True)
    sampler = SGLD([x], lr=0.1, temperature=0.0)
    x.grad = torch.ones_like(x)
    sampler.step()
    assert torch.equal(x.detach(), torch.full((3,), 0.9, dtype=torch.float64))


def test_sphere_without_drift_is_uniform_and_stays_a_sphere() -> None:
    moments = langevin_average(torch.zeros_like, 12, chains=2000, steps=200, beta=0.0)
    assert float((moments.last.norm(dim=1) - 1).abs().max()) < 1e-12
    assert float((moments.second - torch.eye(12) / 12).abs().max()) < 0.01
    assert float(moments.mean.norm()) < 4 * moments.standard_error


def test_sphere_with_a_linear_drift_has_the_von_mises_fisher_mean() -> None:
    # Stationary density exp(2 beta k.x) on the circle: mean I1(2 beta) / I0(2 beta).
    from scipy.special import i0, i1

    pull = torch.tensor([1.0, 0.0], dtype=torch.float64)
    moments = langevin_average(
        pull.expand_as, 2, chains=4000, steps=1500, beta=0.8, timestep=0.01,
        burn_in=700,
    )  # fmt: skip
    assert float(moments.mean[0]) == pytest.approx(i1(1.6) / i0(1.6), abs=0.02)


def test_optimizer_and_function_are_the_same_dynamics() -> None:
    pull = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)
    moments = langevin_average(
        pull.expand_as, 3, chains=4, steps=30, beta=0.7, timestep=0.1, burn_in=0,
        generator=torch.Generator().manual_seed(5),
    )  # fmt: skip
    g = torch.Generator().manual_seed(5)
    x = torch.randn(4, 3, generator=g, dtype=torch.float64)
    x = (x / x.norm(dim=1, keepdim=True)).requires_grad_()
    sampler = SphericalLangevin([x], lr=0.1, beta=0.7, generator=g)
    average = IterateAverage([x], second_moment=True)
    for _ in range(30):
        sampler.zero_grad()
        (-(x @ pull)).sum().backward()
        sampler.step()
        average.update()
    assert torch.allclose(x.detach(), moments.last, atol=1e-14)
    assert torch.allclose(average.mean().view(4, 3).mean(0), moments.mean, atol=1e-14)


def symmetrised(tensor: Tensor) -> Tensor:
    orders = list(itertools.permutations(range(tensor.ndim)))
    return sum((tensor.permute(order) for order in orders), torch.zeros_like(tensor)) / len(orders)


def unit(d: int, g: torch.Generator) -> Tensor:
    x = torch.randn(d, generator=g)
    return x / x.norm()


@pytest.mark.slow
def test_average_finds_a_cubic_spike_from_the_equator() -> None:
    d = 40
    g = torch.Generator().manual_seed(0)
    spike = unit(d, g)
    found = {}
    for share in (0.25, 4.0):
        strength = math.sqrt(share) * d
        y = strength * torch.einsum("i,j,k->ijk", spike, spike, spike)
        y = symmetrised(y + torch.randn(d, d, d, generator=g))
        flat = y.reshape(d, d * d)

        def drift(x: Tensor, flat: Tensor = flat) -> Tensor:
            return 3 * (x[:, :, None] * x[:, None, :]).reshape(len(x), -1) @ flat.T

        moments = langevin_average(
            drift, d, chains=2000, steps=400, beta=0.1, burn_in=100, generator=g,
            dtype=torch.float32,
        )  # fmt: skip
        trace = torch.einsum("iij->j", y)
        direction = moments.direction()
        found[share] = float(direction @ spike)
        assert abs(found[share] - float(trace @ spike / trace.norm())) < 0.05
        assert equator_ratio(moments.last, spike) < 1.3
    assert found[4.0] == pytest.approx(0.96, abs=0.05)
    assert found[4.0] > found[0.25]

    hot = langevin_average(
        drift, d, chains=500, steps=400, beta=0.3, burn_in=100, generator=g, dtype=torch.float32
    )
    # A stronger drift leaves the equator: that is optimisation and no longer this method.
    assert equator_ratio(hot.last, spike) > 2.0


@pytest.mark.slow
def test_even_spikes_need_the_second_moment() -> None:
    d = 24
    g = torch.Generator().manual_seed(0)
    spike = unit(d, g)
    y = 2 * d * torch.einsum("i,j,k,l->ijkl", spike, spike, spike, spike)
    flat = symmetrised(y + torch.randn(d, d, d, d, generator=g)).reshape(d * d, d * d)

    def drift(x: Tensor) -> Tensor:
        pairs = (x[:, :, None] * x[:, None, :]).reshape(len(x), -1)
        return 4 * torch.einsum("cij,cj->ci", (pairs @ flat.T).reshape(-1, d, d), x)

    moments = langevin_average(
        drift, d, chains=1500, steps=300, beta=0.06, burn_in=80, generator=g, dtype=torch.float32
    )
    assert abs(float(moments.direction() @ spike)) < 0.5
    assert abs(float(moments.axis() @ spike)) > 0.95


@pytest.mark.slow
def test_average_halves_the_error_of_an_identification() -> None:
    # Stiffness and damping of an oscillator from 30 noisy positions; a posterior sample has twice
    # the mean square error of the posterior mean.
    times = torch.linspace(0, 8, 30, dtype=torch.float64)
    true = torch.tensor([2.0, 0.3], dtype=torch.float64)
    noise, sets, chains = 0.1, 12, 4

    def positions(theta: Tensor) -> Tensor:
        def rates(t: Tensor, z: Tensor) -> Tensor:
            return torch.stack([z[1], -theta[:, 0] * z[0] - theta[:, 1] * z[1]])

        first = torch.stack([torch.ones(len(theta)), torch.zeros(len(theta))]).double()
        path: Tensor = odeint(rates, first, times, method="rk4")
        return path[:, 0]

    g = torch.Generator().manual_seed(0)
    clean = positions(true[None])
    data = clean + noise * torch.randn(30, sets, generator=g, dtype=torch.float64)
    data = data.repeat_interleave(chains, 1)
    start = true + 0.1 * torch.randn(sets * chains, 2, generator=g, dtype=torch.float64)
    theta = start.requires_grad_()
    sampler = SGLD([theta], lr=3e-4, generator=g)
    average = IterateAverage([theta], burn_in=60)
    last = []
    for k in range(260):
        sampler.zero_grad()
        ((positions(theta) - data).square().sum() / (2 * noise**2)).backward()
        sampler.step()
        average.update()
        if k >= 60 and k % 20 == 0:
            last.append((theta.detach() - true).square().sum(1).mean())
    mean = average.mean().view(sets, chains, 2).mean(1)
    averaged = float((mean - true).square().sum(1).mean())
    ratio = float(torch.stack(last).mean()) / averaged
    assert 1.4 <= ratio <= 2.6, ratio


def test_average_is_the_mean_of_what_counts() -> None:
    x = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    average = IterateAverage([x], second_moment=True, burn_in=2, every=2)
    values = torch.randn(9, 2, dtype=torch.float64)
    for value in values:
        x.data.copy_(value)
        average.update()
    kept = values[2::2]
    assert average.count == len(kept)
    assert torch.allclose(average.mean(), kept.mean(0))
    assert torch.allclose(average.second_moment(), kept.T @ kept / len(kept))
    top = average.top_eigenvector()
    assert torch.allclose(
        average.second_moment() @ top, top * (top @ average.second_moment() @ top)
    )


def test_applied_restores_after_an_error() -> None:
    x = torch.ones(3, requires_grad=True)
    average = IterateAverage([x])
    average.update()
    x.data.fill_(5.0)

    def fail_inside() -> None:
        with average.applied():
            assert float(x.detach()[0]) == 1.0
            raise KeyError

    with pytest.raises(KeyError):
        fail_inside()
    assert float(x.detach()[0]) == 5.0


def test_bad_input() -> None:
    x = torch.ones(3, requires_grad=True)
    with pytest.raises(SettingsError, match="divide by the norm"):
        SphericalLangevin([x], lr=0.1, beta=1.0)
    with pytest.raises(SettingsError, match="preconditioner"):
        SGLD([x], lr=0.1, preconditioner=[x.detach(), x.detach()])
    with pytest.raises(SettingsError, match="holds nothing"):
        IterateAverage([x]).mean()
    with pytest.raises(SettingsError, match="squared"):
        IterateAverage([torch.zeros(5000)], second_moment=True)
    with pytest.raises(NonFiniteError, match="drift"):
        langevin_average(lambda t: t / 0, 3, chains=2, steps=2, beta=1.0, burn_in=0)


def test_the_state_of_another_optimizer_is_refused() -> None:
    x = torch.zeros(3, requires_grad=True)
    with pytest.raises(SettingsError, match="state_dict: holds"):
        SGLD([x], lr=0.1).load_state_dict(torch.optim.SGD([x], lr=0.1).state_dict())
