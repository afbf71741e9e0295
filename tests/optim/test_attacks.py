"""Attack operator, direct search and their hybrid."""

from __future__ import annotations

import importlib.util
import math
import statistics
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from solvers.core import NonFiniteError, SettingsError, Status
from solvers.optim import attack, householder_directions, maximize_through_surrogate


@pytest.fixture(scope="module")
def duffing() -> ModuleType:
    path = Path(__file__).with_name("duffing.py")
    spec = importlib.util.spec_from_file_location("duffing", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["duffing"] = module
    spec.loader.exec_module(module)
    return module


@given(seed=st.integers(0, 1000))
def test_sign_step_is_exact_on_affine_networks_and_a_class_target_is_not(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    j = torch.randn(6, 30, generator=g, dtype=torch.float64)
    u = torch.randn(6, generator=g, dtype=torch.float64)
    u = u - u.mean() + 1.0
    move = attack(lambda x: j @ x, torch.zeros(30, dtype=torch.float64), u, 0.3)
    assert torch.equal(move, 0.3 * torch.sign(j.T @ u))
    # Cross-entropy with target u has the gradient u less its mean at zero output.
    centred = 0.3 * torch.sign(j.T @ (u - u.mean()))
    assert float(u @ j @ centred) < float(u @ j @ move)


@given(
    seed=st.integers(0, 1000), radius=st.floats(1e-3, 2.0), method=st.sampled_from(["fgsm", "pgd"])
)
def test_moves_stay_in_radius_and_box(seed: int, radius: float, method: str) -> None:
    torch.manual_seed(seed)
    net = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
    x = 2 * torch.rand(5) - 1
    move = attack(net, x, torch.ones(2), radius, method=method, bounds=(-1.0, 1.0))  # type: ignore[arg-type]
    assert float(move.abs().max()) <= radius * (1 + 1e-6) + 1e-7
    assert float((x + move).abs().max()) <= 1.0 + 1e-6


@given(n=st.integers(1, 12), seed=st.integers(0, 100), poll=st.sampled_from(["2n", "n+1"]))
def test_polls_span_positively(n: int, seed: int, poll: str) -> None:
    g = torch.Generator().manual_seed(seed)
    rows = householder_directions(n, poll=poll, generator=g)  # type: ignore[arg-type]
    assert len(rows) == (2 * n if poll == "2n" else n + 1)
    for _ in range(20):
        target = torch.randn(n, generator=g, dtype=torch.float64)
        assert float((rows @ target).max()) > 0


def bowl(x: Tensor) -> Tensor:
    return -(x - 0.7).square().sum()


@pytest.mark.parametrize("method", ["hybrid", "attack", "cdsm", "rls", "lbfgsb", "cobyqa"])
def test_every_method_climbs_a_smooth_hill(method: str) -> None:
    found = maximize_through_surrogate(
        bowl, lambda x: x, torch.zeros(4, dtype=torch.float64), method=method, budget=3000,  # type: ignore[arg-type]
        bounds=(-1.0, 1.0),
    )  # fmt: skip
    assert found.score > -1e-6
    assert int(found.iterations) <= 3000
    scores = [score for _, score in found.history]
    assert scores == sorted(scores)
    assert found.best_at(int(found.iterations)) == found.score


def test_budget_is_kept_to_the_pass() -> None:
    calls = []

    def phi(x: Tensor) -> Tensor:
        calls.append(0)
        return x

    found = maximize_through_surrogate(bowl, phi, torch.zeros(6), budget=137)
    assert len(calls) <= 137
    assert int(found.status) == Status.MAX_ITERATIONS
    assert int(found.report.counts["forward"]) == len(calls)


def test_constraints_bind() -> None:
    found = maximize_through_surrogate(
        bowl, lambda x: x, torch.zeros(2, dtype=torch.float64), budget=6000,
        constraints=lambda x, y: 30 * (x[0] + x[1] - 1.0)[None],
    )  # fmt: skip
    assert float(found.value.sum()) == pytest.approx(1.0, abs=5e-3)
    assert found.value.tolist() == pytest.approx([0.5, 0.5], abs=0.02)


def test_the_true_objective_has_the_last_word() -> None:
    # The surrogate believes in a peak at x = 2 that does not exist.
    def surrogate(x: Tensor) -> Tensor:
        return x

    def believed(y: Tensor) -> Tensor:
        return y.sum()

    def true(x: Tensor) -> float:
        return -float((x - 0.3).square().sum())

    start = torch.zeros(2, dtype=torch.float64)
    plain = maximize_through_surrogate(believed, surrogate, start, bounds=(-2.0, 2.0))
    checked = maximize_through_surrogate(
        believed, surrogate, start, bounds=(-2.0, 2.0), true_objective=true
    )
    assert plain.value.tolist() == [2.0, 2.0]
    assert math.isnan(plain.true_score)
    assert true(checked.value) == checked.true_score
    assert checked.true_score > true(start)
    assert float(checked.value.max()) < 0.7
    assert int(checked.report.counts["refused"]) > 0


def test_plateaus_of_relu_networks_fall_through_to_direct_search() -> None:
    def phi(x: Tensor) -> Tensor:
        return torch.relu(x - 0.2)

    found = maximize_through_surrogate(lambda y: y.sum(), phi, torch.zeros(2), bounds=(-1.0, 1.0))
    assert int(found.report.counts["flat"]) >= 1
    assert found.score > 1.5
    stuck = maximize_through_surrogate(
        lambda y: y.sum(), phi, torch.zeros(2), bounds=(-1.0, 1.0), method="attack"
    )
    assert stuck.score == 0.0
    assert int(stuck.status) == Status.CONVERGED


def test_same_seed_same_design() -> None:
    first, second = (
        maximize_through_surrogate(bowl, lambda x: x, torch.zeros(3), seed=4) for _ in "ab"
    )
    assert torch.equal(first.value, second.value)


@pytest.mark.slow
def test_hybrid_is_early_on_a_smooth_objective(duffing: ModuleType) -> None:
    phi = duffing.train_surrogate(80, 4)
    errors = {}
    for method in ("hybrid", "cdsm"):
        scores = []
        for seed in range(6):
            g = torch.Generator().manual_seed(seed)
            start = 2 * torch.rand(80, generator=g) - 1
            found = maximize_through_surrogate(
                duffing.smooth, phi, start, bounds=(-2.0, 2.0), budget=100, method=method,  # type: ignore[arg-type]
                seed=seed,
            )  # fmt: skip
            scores.append(-found.score)
        errors[method] = statistics.mean(scores)
    assert errors["hybrid"] < 0.25 * errors["cdsm"], errors


@pytest.mark.slow
def test_attacks_alone_stall_on_kinks_where_the_hybrid_goes_on(duffing: ModuleType) -> None:
    phi = duffing.train_surrogate(20, 15)
    errors: dict[str, list[float]] = {}
    for method in ("hybrid", "attack"):
        for seed in range(12):
            g = torch.Generator().manual_seed(seed)
            start = 2 * torch.rand(20, generator=g) - 1
            found = maximize_through_surrogate(
                duffing.worst_of_four, phi, start, bounds=(-2.0, 2.0), budget=3000,
                method=method, seed=seed,  # type: ignore[arg-type]
            )  # fmt: skip
            errors.setdefault(method, []).append(-found.score)
    assert statistics.median(errors["attack"]) > 4 * statistics.median(errors["hybrid"]), errors
    assert sum(error < 0.3 for error in errors["hybrid"]) >= 9, errors


def test_bad_input() -> None:
    with pytest.raises(SettingsError, match="method"):
        maximize_through_surrogate(bowl, lambda x: x, torch.zeros(2), method="hybird")  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="radii"):
        maximize_through_surrogate(bowl, lambda x: x, torch.zeros(2), radius=3.0)
    with pytest.raises(NonFiniteError, match="start"):
        maximize_through_surrogate(lambda y: y.sum() / 0, lambda x: x, torch.ones(2))
    with pytest.raises(NonFiniteError, match="gradient of phi"):
        attack(lambda x: x.abs().sqrt(), torch.zeros(2), torch.ones(2), 0.1)
