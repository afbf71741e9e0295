"""Probability paths: energies, the kinetic optimal path, flow matching and sampling."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from physim.learn.flows import (
    ConditionalOT,
    GaussianPath,
    KineticOptimalPath,
    Trigonometric,
    VariancePreserving,
    data_separation,
    estimate_gamma,
    flow_matching_loss,
    kinetic_energy,
    kinetic_optimal_path,
    marginal_velocity,
    normalize_data,
    posterior_mean,
    sample,
    sliced_wasserstein,
)
from solvers.core import NotConvergedError, SettingsError, ShapeError, Status

THETA = torch.linspace(0, math.pi / 2, 81, dtype=torch.float64)
TIMES = torch.linspace(0, 1, 41, dtype=torch.float64)


def two_points() -> Tensor:
    return torch.tensor([[-1.0], [1.0]], dtype=torch.float64)


def checkerboard(n: int, seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    points = 4 * torch.rand(4 * n, 2, generator=g, dtype=torch.float64) - 2
    dark = points.floor().sum(1) % 2 == 0
    return normalize_data(points[dark][:n])


PATHS: dict[str, Callable[[], GaussianPath]] = {
    "conditional": ConditionalOT,
    "trigonometric": Trigonometric,
    "variance preserving": VariancePreserving,
    "kinetic": lambda: kinetic_optimal_path(checkerboard(200, 0), draws=300),
}


@pytest.mark.parametrize("name", PATHS)
def test_paths_begin_at_noise_end_at_data_and_know_their_rates(name: str) -> None:
    path = PATHS[name]()
    ends = path.coefficients(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert float(ends.alpha[0]) == pytest.approx(0.0, abs=0.01)
    assert float(ends.alpha[1]) == pytest.approx(1.0)
    assert float(ends.sigma[0]) == pytest.approx(1.0, abs=1e-4)
    assert float(ends.sigma[1]) == pytest.approx(0.0, abs=1e-12)
    t = torch.linspace(0.1, 0.9, 17, dtype=torch.float64)
    h = 1e-6
    ahead, behind, at = (path.coefficients(t + s) for s in (h, -h, 0.0))
    for value in ("alpha", "sigma"):
        difference = (getattr(ahead, value) - getattr(behind, value)) / (2 * h)
        assert torch.allclose(getattr(at, f"d_{value}"), difference, rtol=1e-4, atol=1e-5)


def test_separate_points_have_straight_lines_as_their_optimal_path() -> None:
    path = KineticOptimalPath(THETA, torch.ones_like(THETA))
    at = path.coefficients(TIMES)
    assert float((at.alpha - TIMES).abs().max()) < 1e-12
    assert float((at.sigma - (1 - TIMES)).abs().max()) < 1e-12
    assert path.energy == pytest.approx(2.0, abs=1e-12)
    assert kinetic_energy(ConditionalOT(), THETA, torch.ones_like(THETA)) == pytest.approx(2.0)


@settings(max_examples=20)
@given(power=st.floats(0.5, 4.0), low=st.floats(0.2, 1.0), waves=st.integers(0, 3))
def test_no_path_has_less_energy_than_the_optimal_one(power: float, low: float, waves: int) -> None:
    theta = torch.linspace(0, math.pi / 2, 801, dtype=torch.float64)
    gamma = torch.sin(theta) ** power * (low + (1 - low) * torch.cos(waves * theta) ** 2)
    path = KineticOptimalPath(theta, gamma)
    assert path.span <= math.pi / 2 + 1e-9
    for other in (ConditionalOT(), Trigonometric(), VariancePreserving()):
        assert kinetic_energy(other, theta, gamma) >= path.energy * (1 - 1e-4)
    # Its own energy by quadrature in time, where the angle leaves zero at an infinite rate.
    assert kinetic_energy(path, theta, gamma) == pytest.approx(path.energy, rel=0.02)


@pytest.mark.slow
def test_energy_formula_equals_the_energy_of_the_marginal_field() -> None:
    data = two_points()
    fine = torch.linspace(0, math.pi / 2, 121, dtype=torch.float64)
    # Posterior mean of two points is tanh(s^2 x): quadrature instead of sampling.
    z = torch.linspace(-8, 8, 2001, dtype=torch.float64)
    weight = torch.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    gamma = torch.ones_like(fine)
    gamma[0] = 0.0
    for k in range(1, len(fine) - 1):
        sine, cosine = float(torch.sin(fine[k])), float(torch.cos(fine[k]))
        y = sine + cosine * z
        excess = torch.tanh(sine * y / cosine**2) - sine * y
        gamma[k] = torch.trapezoid(excess**2 * weight, z) / cosine**2
    sampled = estimate_gamma(data, fine[10:110:20], draws=20_000)
    assert torch.allclose(sampled, gamma[10:110:20], rtol=0.05, atol=5e-3)

    g = torch.Generator().manual_seed(1)
    optimal = KineticOptimalPath(fine, gamma)
    expected = {"conditional": 0.982, "trigonometric": 0.870, "kinetic": 0.459}
    paths = {"conditional": ConditionalOT(), "trigonometric": Trigonometric(), "kinetic": optimal}
    for name, path in paths.items():
        field = marginal_velocity(path, data)
        total, count = 0.0, 200
        for k in range(count):
            t = torch.tensor((k + 0.5) / count, dtype=torch.float64)
            x1 = data[torch.randint(0, 2, (4000,), generator=g)]
            noise = torch.randn(4000, 1, generator=g, dtype=torch.float64)
            at = path.coefficients(t)
            total += float(field(t, at.alpha * x1 + at.sigma * noise).square().mean()) / count
        formula = kinetic_energy(path, fine, gamma)
        assert formula == pytest.approx(expected[name], rel=0.02)
        assert total == pytest.approx(formula, rel=0.02)
    assert optimal.energy == pytest.approx(0.459, rel=0.02)


@pytest.mark.slow
def test_separation_integral_falls_with_the_root_of_the_dimension() -> None:
    constants = []
    for d in (64, 256, 1024, 4096):
        g = torch.Generator().manual_seed(d)
        data = normalize_data(torch.randn(4, d, generator=g, dtype=torch.float64))
        angles = torch.linspace(1e-4, math.pi / 2 - 1e-3, 400, dtype=torch.float64)
        missing = 1 - data_separation(data, torch.tan(angles), draws=200, generator=g)
        integral = float(torch.trapezoid(missing / torch.cos(angles) ** 2, angles))
        constants.append(integral * math.sqrt(d))
        assert integral <= 3 * 4 / math.sqrt(d)
    assert max(constants) / min(constants) < 1.03, constants


def test_normal_data_separate_as_theory_says() -> None:
    g = torch.Generator().manual_seed(0)
    data = normalize_data(torch.randn(8000, 1, generator=g, dtype=torch.float64))
    s = torch.tensor([0.3, 1.0, 3.0], dtype=torch.float64)
    found = data_separation(data, s, draws=4000)
    assert torch.allclose(found, s**2 / (1 + s**2), atol=0.03)
    assert float(estimate_gamma(data, torch.tensor([0.6], dtype=torch.float64))) < 0.01


def test_posterior_mean_is_a_softmax_over_data() -> None:
    data = two_points()
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    assert torch.allclose(posterior_mean(x, data, 1.5), torch.tanh(2.25 * x), atol=1e-12)
    small = posterior_mean(x, data, 1.5, chunk=2)
    assert torch.equal(small, posterior_mean(x, data, 1.5))


@pytest.mark.slow
def test_low_energy_paths_sample_better_in_few_steps() -> None:
    data = checkerboard(1500, 0)
    gamma = estimate_gamma(data, THETA)
    paths = {
        "kinetic": KineticOptimalPath(THETA, gamma),
        "trigonometric": Trigonometric(),
        "conditional": ConditionalOT(),
    }
    energy = {name: kinetic_energy(path, THETA, gamma) for name, path in paths.items()}
    assert energy["kinetic"] < energy["trigonometric"] < energy["conditional"], energy
    g = torch.Generator().manual_seed(5)
    noise = torch.randn(6000, 2, generator=g, dtype=torch.float64)
    for steps in (2, 4, 8):
        distance = {
            name: sliced_wasserstein(
                sample(marginal_velocity(path, data), noise, steps=steps).value, data
            )
            for name, path in paths.items()
        }
        assert distance["kinetic"] < 0.4 * distance["conditional"], (steps, distance)


def test_exact_field_carries_noise_onto_the_data_along_any_path() -> None:
    data = normalize_data(torch.tensor([[0.0, 1.0], [2.0, -1.0], [-1.0, 0.5]], dtype=torch.float64))
    g = torch.Generator().manual_seed(0)
    noise = torch.randn(60, 2, generator=g, dtype=torch.float64)
    for name, make in PATHS.items():
        path = make()
        found = sample(marginal_velocity(path, data), noise, steps=200, method="rk4")
        nearest = torch.cdist(found.value, data).min(1).values
        # In equal steps the variance-preserving path ends far too fast.
        assert float(nearest.median()) < (0.2 if name == "variance preserving" else 1e-2), name
        assert int(found.iterations[0]) == 800


@pytest.mark.slow
def test_a_network_trained_by_flow_matching_samples_two_clusters() -> None:
    torch.manual_seed(0)
    data = normalize_data(
        0.1 * torch.randn(2000, 1) + torch.tensor([-1.0, 1.0]).repeat(1000)[:, None]
    )
    net = nn.Sequential(nn.Linear(2, 48), nn.SiLU(), nn.Linear(48, 48), nn.SiLU(), nn.Linear(48, 1))

    def velocity(t: Tensor, x: Tensor) -> Tensor:
        time: Tensor = net(torch.cat([x, t.expand(len(x))[:, None]], 1))
        return time

    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    g = torch.Generator().manual_seed(0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 2000)
    for _ in range(2000):
        batch = data[torch.randint(0, 2000, (256,), generator=g)]
        optimizer.zero_grad()
        flow_matching_loss(velocity, batch, Trigonometric(), generator=g).backward()
        optimizer.step()
        schedule.step()
    found = sample(velocity, torch.randn(2000, 1, generator=g), steps=30).value
    # Two clusters of equal mass; their distance from the data is all in that balance.
    assert float((found > 0).float().mean()) == pytest.approx(0.5, abs=0.05)
    assert float(found.abs().mean()) == pytest.approx(float(data.abs().mean()), rel=0.05)
    assert float((found.abs() < 0.4).float().mean()) < 0.05


def test_loss_of_the_exact_field_is_least() -> None:
    data = checkerboard(300, 1)
    exact = marginal_velocity(ConditionalOT(), data)

    def loss(field: Callable[[Tensor, Tensor], Tensor]) -> float:
        g = torch.Generator().manual_seed(0)
        return float(flow_matching_loss(field, data, ConditionalOT(), generator=g))

    least = loss(exact)
    assert least > 0.05
    for factor in (0.9, 1.1):
        assert loss(lambda t, x, factor=factor: factor * exact(t, x)) > least  # type: ignore[misc]


def test_distance_is_a_distance() -> None:
    g = torch.Generator().manual_seed(0)
    a = torch.randn(500, 3, generator=g, dtype=torch.float64)
    shift = torch.tensor([0.3, -0.4, 0.0], dtype=torch.float64)
    assert sliced_wasserstein(a, a[torch.randperm(500, generator=g)]) < 1e-12
    # A shift moves every projection by its component: a third of its square on average.
    moved = sliced_wasserstein(a, a + shift, directions=4000)
    assert moved == pytest.approx(0.5 / math.sqrt(3), rel=0.03)


def test_adaptive_samples_have_steps_and_a_status_of_their_own() -> None:
    # Rates that differ by item: x' = -k x ends at exp(-k); the last one has no end.
    k = torch.tensor([[0.1], [20.0], [1.0]], dtype=torch.float64)

    def field(t: Tensor, x: Tensor) -> Tensor:
        assert t.shape == (3,)
        broken = (t[:, None] > 0.5) & (k == 1.0)
        return torch.where(broken, torch.nan, -k * x)

    noise = torch.ones(3, 1, dtype=torch.float64)
    found = sample(field, noise, method="dopri5", rtol=1e-9, atol=1e-12, on_failure="mask")
    assert torch.allclose(found.value[:2], torch.exp(-k[:2]), rtol=1e-6)
    assert found.status.tolist() == [Status.CONVERGED, Status.CONVERGED, Status.NON_FINITE]
    assert int(found.iterations[1]) > 2 * int(found.iterations[0])


def test_samples_that_leave_are_reported_one_by_one() -> None:
    def field(t: Tensor, x: Tensor) -> Tensor:
        return torch.where(x > 1.0, torch.inf, -x)

    noise = torch.tensor([[0.5], [2.0]])
    with pytest.raises(NotConvergedError):
        sample(field, noise)
    found = sample(field, noise, on_failure="mask")
    assert found.status.tolist() == [Status.CONVERGED, Status.NON_FINITE]
    assert float(found.value[0]) == pytest.approx(0.5 * (1 - 1 / 8) ** 8, rel=1e-5)


def test_bad_input() -> None:
    with pytest.raises(SettingsError, match="normalize_data"):
        estimate_gamma(3 * two_points(), THETA)
    with pytest.raises(SettingsError, match="same"):
        normalize_data(torch.ones(3, 2))
    with pytest.raises(SettingsError, match="pi/2"):
        KineticOptimalPath(THETA / 2, torch.ones(81))
    with pytest.raises(SettingsError, match="gamma"):
        KineticOptimalPath(THETA, torch.zeros(81))
    with pytest.raises(SettingsError, match="beta_max"):
        VariancePreserving(2.0, 1.0)


@pytest.fixture
def data() -> Tensor:
    g = torch.Generator().manual_seed(0)
    return normalize_data(torch.randn(50, 2, generator=g, dtype=torch.float64))


def test_rates_are_the_derivatives_of_the_coefficients(data: Tensor) -> None:
    t = torch.tensor([0.1, 0.5, 0.83], dtype=torch.float64, requires_grad=True)
    for path in (
        kinetic_optimal_path(data, angles=21, draws=200),
        ConditionalOT(),
        Trigonometric(),
        VariancePreserving(),
    ):
        at = path.coefficients(t)
        for value, rate in ((at.alpha, at.d_alpha), (at.sigma, at.d_sigma)):
            (slope,) = torch.autograd.grad(value.sum(), t, retain_graph=True)
            torch.testing.assert_close(slope, rate.detach(), rtol=1e-10, atol=1e-12)


def test_a_field_of_another_shape_is_refused(data: Tensor) -> None:
    for wrong in (lambda t, x: x[:, :1], lambda t, x: t, lambda t, x: None):
        with pytest.raises(ShapeError, match="velocity: gave"):
            flow_matching_loss(wrong, data, ConditionalOT())
    with pytest.raises(SettingsError, match="margin"):
        flow_matching_loss(lambda t, x: x, data, ConditionalOT(), margin=0.5)
    with pytest.raises(SettingsError, match="data: got torch.int64"):
        flow_matching_loss(lambda t, x: x, data.long(), ConditionalOT())
    with pytest.raises(ShapeError, match="at least one point"):
        flow_matching_loss(lambda t, x: x, data[:0], ConditionalOT())
    with pytest.raises(SettingsError, match="steps"):
        sample(lambda t, x: x, data, steps=1.5)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="s: got -1"):
        data_separation(data, torch.tensor([1.0, -1.0], dtype=torch.float64))


def test_posterior_mean_does_not_depend_on_the_origin(data: Tensor) -> None:
    moved = (data + 1000).float()
    found = posterior_mean(moved, moved, 1e4)
    torch.testing.assert_close(found, moved, rtol=0, atol=1e-3)
