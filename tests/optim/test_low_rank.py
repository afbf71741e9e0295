"""Over-parameterised factors: how fast they descend, rebalancing, and the tail's diagnosis."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from solvers.core import SettingsError
from solvers.optim import (
    LowRankFactor,
    RebalanceOnce,
    diagnose_tail,
    predicted_rate,
    rebalance_,
)

N, RANK = 30, 3


def projector(seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    u = torch.linalg.qr(torch.randn(N, RANK, generator=g, dtype=torch.float64)).Q
    return u @ u.T


def descend(
    factor: LowRankFactor,
    error_of: Callable[[Tensor], Tensor],
    *,
    lr: float,
    steps: int,
    rebalance: bool = False,
    floor: float = 0.0,
) -> tuple[Tensor, RebalanceOnce | None]:
    """Squared errors of gradient descent on half of them."""
    optimizer = torch.optim.SGD(factor.parameters(), lr=lr)
    target = projector()

    def square() -> Tensor:
        return (factor() - target).square().sum()

    once = RebalanceOnce(optimizer, factor, square, level=1e-2) if rebalance else None
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = 0.5 * error_of(factor() - target).square().sum()
        loss.backward()
        losses.append(2 * float(loss.detach()))
        if losses[-1] < floor:
            break
        optimizer.step()
    return torch.tensor(losses, dtype=torch.float64), once


def identity(error: Tensor) -> Tensor:
    return error


def rate(losses: Tensor, share: float = 0.4) -> float:
    return diagnose_tail(losses, share=share).rate


def test_equal_factors_with_superfluous_columns_fall_as_one_over_t_squared() -> None:
    exact, _ = descend(
        LowRankFactor(N, N, RANK, is_symmetric=True, scale=0.3), identity, lr=0.1, steps=600
    )
    assert float(exact[-1]) < 1e-25
    over, _ = descend(
        LowRankFactor(N, N, 2 * RANK, is_symmetric=True, scale=0.3), identity, lr=0.1, steps=8000
    )
    found = diagnose_tail(over)
    assert found.kind == "power"
    assert found.exponent == pytest.approx(-1.993, abs=0.07)
    assert "rebalance" in found.advice


def test_balanced_factors_are_as_slow() -> None:
    g = torch.Generator().manual_seed(1)
    factor = LowRankFactor(N, N, 2 * RANK, scale=0.3, imbalance=1.0, generator=g)
    losses, _ = descend(factor, identity, lr=0.1, steps=6000)
    assert diagnose_tail(losses).exponent == pytest.approx(-1.96, abs=0.1)
    assert predicted_rate(LowRankFactor(N, N, 4, imbalance=1.0), 0.1) < 1e-12


@pytest.mark.parametrize(("alpha", "steps"), [(0.3, 5000), (0.4, 3500), (0.6, 2000)])
def test_unbalanced_factors_fall_at_the_predicted_rate(alpha: float, steps: int) -> None:
    factor = LowRankFactor(N, N, 2 * RANK, scale=alpha)
    expected = predicted_rate(factor, 0.1)
    assert expected == pytest.approx(2 * 0.1 * 8 / 9 * alpha**2, rel=1e-9)
    losses, _ = descend(factor, identity, lr=0.1, steps=steps, floor=1e-24)
    assert rate(losses) == pytest.approx(expected, rel=0.03)


def test_one_rebalancing_makes_the_rate_independent_of_the_start() -> None:
    rates = []
    for alpha in (0.05, 0.2, 0.4):
        factor = LowRankFactor(N, N, 2 * RANK, scale=alpha)
        losses, once = descend(factor, identity, lr=0.2, steps=3000, rebalance=True, floor=1e-24)
        assert once is not None
        assert once.fired_at is not None
        rates.append(diagnose_tail(losses[once.fired_at + 20 :], share=1.0).rate)
        assert len(losses) < 400
    assert max(rates) / min(rates) < 1.15


@pytest.mark.slow
def test_random_measurements_behave_as_the_identity_does() -> None:
    g = torch.Generator().manual_seed(0)
    a = torch.randn(1500, N * N, generator=g, dtype=torch.float64) / 1500**0.5

    def measure(error: Tensor) -> Tensor:
        return a @ error.reshape(-1)

    symmetric = LowRankFactor(N, N, 2 * RANK, is_symmetric=True, scale=0.3)
    losses, _ = descend(symmetric, measure, lr=0.1, steps=3000)
    assert -2.1 <= diagnose_tail(losses).exponent <= -1.7
    fast, once = descend(
        LowRankFactor(N, N, 2 * RANK), measure, lr=0.1, steps=1500, rebalance=True, floor=1e-20
    )
    assert once is not None
    assert float(fast[-1]) < 1e-20


@given(
    rows=st.integers(2, 12), columns=st.integers(2, 12), seed=st.integers(0, 99),
    beta=st.floats(0.1, 10.0),
)  # fmt: skip
def test_rebalancing_keeps_the_product(rows: int, columns: int, seed: int, beta: float) -> None:
    g = torch.Generator().manual_seed(seed)
    rank = min(rows, columns)
    factor = LowRankFactor(rows, columns, rank, generator=g)
    with torch.no_grad():
        factor.left += torch.randn(rows, rank, generator=g, dtype=torch.float64)
    before = factor().detach().clone()
    rebalance_(factor, beta)
    assert float((factor().detach() - before).abs().max()) < 1e-10
    gram = (factor.left.T @ factor.left).detach()
    assert torch.allclose(gram, beta**2 * torch.eye(rank, dtype=torch.float64), atol=1e-8 * beta**2)


def test_imbalance_is_conserved_by_small_steps() -> None:
    factor = LowRankFactor(N, N, 4)
    before = factor.imbalance()
    descend(factor, identity, lr=1e-4, steps=500)
    assert float((factor.imbalance() - before).abs().max()) < 1e-4 * 500 * 1e-3


def test_momentum_of_the_old_factors_is_dropped() -> None:
    factor = LowRankFactor(6, 6, 2)
    optimizer = torch.optim.Adam(factor.parameters())
    once = RebalanceOnce(optimizer, factor, lambda: 0.0, level=1.0)
    factor().square().sum().backward()
    optimizer.step()
    assert once.fired_at == 1
    assert not optimizer.state


def test_a_low_rank_operator_is_identified_from_its_motion() -> None:
    # x' = A x with A of rank 2, seen through states and rates.
    g = torch.Generator().manual_seed(3)
    left, right = torch.randn(2, 8, 2, generator=g, dtype=torch.float64)
    a = left @ right.T / 8
    x = torch.randn(200, 8, generator=g, dtype=torch.float64)
    rates = x @ a.T
    factor = LowRankFactor(8, 8, 4)
    optimizer = torch.optim.SGD(factor.parameters(), lr=0.2)

    def loss() -> Tensor:
        return 0.5 * (x @ factor().T - rates).square().sum() / len(x)

    RebalanceOnce(optimizer, factor, loss)
    for _ in range(1500):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert float((factor().detach() - a).abs().max()) < 1e-8
    assert int((torch.linalg.svdvals(factor().detach()) > 1e-8).sum()) == 2


def test_bad_input() -> None:
    with pytest.raises(SettingsError, match="rank"):
        LowRankFactor(3, 4, 5)
    with pytest.raises(SettingsError, match="symmetric"):
        rebalance_(LowRankFactor(3, 3, 2, is_symmetric=True))
    with pytest.raises(SettingsError, match="cut the curve"):
        diagnose_tail(torch.zeros(100))
