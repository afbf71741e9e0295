"""Self-scaled Broyden: secant condition, finite termination, speed on bad scales, and its twin."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers.core import NonFiniteError, NotConvergedError, Status
from solvers.optim import FusedInverse, PlainInverse, SelfScaledBroyden, minimize_broyden


def rosenbrock(x: torch.Tensor) -> tuple[float, torch.Tensor]:
    z = x.clone().requires_grad_()
    value = (100 * (z[1:] - z[:-1] ** 2) ** 2 + (1 - z[:-1]) ** 2).sum()
    (gradient,) = torch.autograd.grad(value, z)
    return float(value.detach()), gradient


def quadratic(scale: torch.Tensor) -> Any:
    return lambda x: (float((scale * x * x).sum() / 2), scale * x)


@given(size=st.integers(1, 40), seed=st.integers(0, 1000))
@settings(max_examples=25)
def test_fused_pass_is_the_plain_formula(size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    fused, plain = FusedInverse(size), PlainInverse(size)
    for _ in range(4):
        h, s, g = rng.normal(size=(3, size))
        p, q = 0.3 * h + 0.2 * s, 0.2 * h + 0.7 * s
        for inverse in (fused, plain):
            inverse.change(0.9, h, p, s, q)
        a, b = fused.product(g), plain.product(g)
        assert np.abs(a - b).max() <= 1e-12 * np.abs(b).max()
    left, right = fused.state()["matrix"], plain.state()["matrix"]
    assert torch.allclose(left, right, rtol=1e-12, atol=1e-12)
    assert torch.allclose(left, left.T, rtol=1e-12, atol=1e-12)


def test_inverse_hessian_satisfies_the_secant_condition_and_stays_positive() -> None:
    inverse = PlainInverse(6)
    start = torch.full((6,), -1.2, dtype=torch.float64)
    search = SelfScaledBroyden(rosenbrock, start, inverse=inverse)
    for _ in range(30):
        x, g = search.point, rosenbrock(search.point)[1]
        assert search.step()
        s, y = search.point - x, rosenbrock(search.point)[1] - g
        state = inverse.state()
        h, p, v, q = state["change"]
        matrix = state["scale"] * state["matrix"] + torch.outer(h, p) + torch.outer(v, q)
        assert torch.allclose(matrix @ y, s, rtol=1e-6, atol=1e-9)
        assert torch.linalg.eigvalsh((matrix + matrix.T) / 2).min() > 0


@pytest.mark.parametrize("plain", [True, False])
def test_rosenbrock_is_solved_like_scipy_does(plain: bool) -> None:
    from scipy.optimize import minimize

    start = torch.full((10,), -1.2, dtype=torch.float64)
    inverse = PlainInverse(10) if plain else None
    search = SelfScaledBroyden(rosenbrock, start, inverse=inverse)
    while search.gradient_norm > 1e-8 and search.failures < 3:
        search.step()
    expected = minimize(
        lambda x: rosenbrock(torch.from_numpy(x))[0], start.numpy(), method="BFGS",
        jac=lambda x: rosenbrock(torch.from_numpy(x))[1].numpy(),
    )  # fmt: skip
    assert torch.allclose(search.point, torch.from_numpy(expected.x), atol=1e-4)
    assert search.loss < 1e-14
    assert search.evaluations < 3 * expected.nfev


@given(decades=st.floats(0, 6), size=st.integers(2, 12))
@settings(max_examples=20)
def test_badly_scaled_quadratics_end_at_the_minimum(decades: float, size: int) -> None:
    scale = torch.logspace(0, decades, size, dtype=torch.float64)
    start = torch.ones(size, dtype=torch.float64)
    solution = minimize_broyden(quadratic(scale), start, tolerance=1e-9, iterations=600)
    assert solution.report.all_converged
    assert solution.loss <= 1e-12 * float(scale.sum())


def test_loss_never_rises() -> None:
    losses = []
    search = SelfScaledBroyden(rosenbrock, torch.full((8,), -1.2, dtype=torch.float64))
    for _ in range(80):
        search.step()
        losses.append(search.loss)
    assert all(b <= a for a, b in itertools.pairwise(losses))


def test_a_saved_state_goes_on_bit_for_bit() -> None:
    start = torch.full((11,), -1.2, dtype=torch.float64)
    whole = SelfScaledBroyden(rosenbrock, start)
    for _ in range(10):
        whole.step()
    state = whole.state_dict()
    other = SelfScaledBroyden(rosenbrock, start)
    other.load_state_dict(state)
    for _ in range(25):
        whole.step()
        other.step()
    assert torch.equal(whole.point, other.point)
    assert whole.evaluations == other.evaluations


def test_a_start_that_is_not_finite_is_refused() -> None:
    with pytest.raises(NonFiniteError, match="initial parameters"):
        SelfScaledBroyden(lambda x: (float("nan"), x), torch.ones(2, dtype=torch.float64))


def test_infinite_trial_losses_are_stepped_around() -> None:
    def barrier(x: torch.Tensor) -> tuple[float, torch.Tensor]:
        if float(x[0]) <= 0:
            return float("inf"), torch.full_like(x, float("nan"))
        return float(x[0] - torch.log(x[0])), 1 - 1 / x

    start = torch.tensor([4.0], dtype=torch.float64)
    solution = minimize_broyden(barrier, start, tolerance=1e-8)
    assert float(solution.value) == pytest.approx(1.0, abs=1e-6)


def test_the_limit_of_steps_is_a_status() -> None:
    start = torch.full((8,), -1.2, dtype=torch.float64)
    with pytest.raises(NotConvergedError):
        minimize_broyden(rosenbrock, start, iterations=3)
    solution = minimize_broyden(rosenbrock, start, iterations=3, on_failure="mask")
    assert int(solution.report.status) == Status.MAX_ITERATIONS
    assert int(solution.report.iterations) == 3
