"""Sweeps of trainings: the same numbers on every executor, and edges where theory puts them."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from physim.learn.landscape import (
    fork_study,
    intrinsic_dimension,
    random_projection,
    stability_threshold,
    subspace_objective,
    sweep_rates,
)
from solvers.core import SettingsError
from solvers.curvature import Objective
from solvers.optim import minimize_gns
from solvers.parallel import Executor, RayExecutor, SerialExecutor, ThreadExecutor
from solvers.pinn import MLP, PINN, problems


@pytest.fixture(params=["serial", "threads", pytest.param("ray", marks=pytest.mark.slow)])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    kinds = {"serial": SerialExecutor, "threads": ThreadExecutor, "ray": RayExecutor}
    with kinds[request.param](2) as made:
        yield made


ROWS = torch.linspace(-1, 1, 48, dtype=torch.float64).view(8, 6).sin()


def regression() -> Objective:
    return Objective.of_residual(lambda p: ROWS @ torch.tanh(p) - 0.1, torch.ones(6).double())


def decades(dimension: int | None, seed: int) -> float:
    objective = regression()
    if dimension is not None:
        objective = subspace_objective(objective, dimension, seed=seed)
    first = objective.loss(objective.start)
    end = minimize_gns(objective, iterations=10, on_failure="mask").value
    return math.log(float(first / objective.loss(end)))


def sgd(theta: Tensor, first: int, last: int, seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    for _ in range(first, last):
        row = ROWS[int(torch.randint(8, (1,), generator=g))]
        theta = theta - 0.1 * (row @ theta - 0.1) * row
    return theta


def distance_after(rate: float, batch: int, seed: int) -> float:
    """Distance from the minimum of a noiseless least-squares problem after SGD."""
    g = torch.Generator().manual_seed(seed)
    rows = torch.eye(6, dtype=torch.float64)[:4]
    theta = torch.ones(6, dtype=torch.float64)
    for _ in range(1500):
        chosen = rows[torch.randint(4, (batch,), generator=g)]
        theta = theta - rate / batch * chosen.T @ (chosen @ theta)
    return float((rows @ theta).norm())


def test_executors_give_the_same_sweeps(executor: Executor) -> None:
    here = intrinsic_dimension(decades, [1, 3], seeds=(0, 1))
    there = intrinsic_dimension(decades, [1, 3], seeds=(0, 1), executor=executor)
    assert there == here

    study = {"steps": 20, "forks": [5, 0], "start": lambda seed: seed + torch.ones(6).double()}
    forks = [
        fork_study(regression(), sgd, seeds=[0, 1], points=5, executor=where, **study)  # type: ignore[arg-type]
        for where in (None, executor)
    ]
    assert [(f.seed, f.step) for f in forks[0]] == [(0, 0), (0, 5), (1, 0), (1, 5)]
    for a, b in zip(*forks, strict=True):
        assert torch.equal(a.barrier.losses, b.barrier.losses)
        assert (a.predicted, a.angle, a.loss) == (b.predicted, b.angle, b.loss)

    rates = [0.5, 3.0]
    assert sweep_rates(distance_after, rates, [1, 2], executor=executor) == sweep_rates(
        distance_after, rates, [1, 2]
    )


@pytest.mark.parametrize("batch", [1, 2])
def test_edge_of_a_rate_sweep_is_the_stability_threshold(batch: int) -> None:
    # Orthogonal rows of length one, four of them: 2 / tr H = 2 for batch one.
    edge = stability_threshold(torch.eye(4, dtype=torch.float64), batch)
    if batch == 1:
        assert edge == pytest.approx(2.0, abs=1e-6)
    rates = [0.5 * edge, 0.9 * edge, 1.3 * edge, 1.8 * edge]
    found = sweep_rates(distance_after, rates, [batch], seeds=(0, 1, 2))
    stable = found.largest_stable(batch, 1e-3)
    assert stable is not None
    assert rates[1] <= stable <= rates[2]
    assert found.best(batch) < edge


def test_rates_that_diverge_are_no_best_rates() -> None:
    found = sweep_rates(lambda rate, *_: math.nan if rate > 1 else 1 / rate, [2.0, 0.5, 1.0], [4])
    assert found.best(4) == 1.0
    assert found.largest_stable(4, 3.0) == 1.0
    assert found.largest_stable(4, 0.1) is None
    with pytest.raises(SettingsError, match="batch"):
        found.best(8)
    with pytest.raises(SettingsError, match="at least one"):
        sweep_rates(distance_after, [], [1])
    with pytest.raises(SettingsError, match="rates"):
        sweep_rates(distance_after, [-1.0], [1])


def test_subspace_of_a_pinn_is_the_pinn_along_the_columns() -> None:
    pinn = PINN(problems.Reaction(), MLP(6, 1), points=40, backend="sweep")
    theta = pinn.initial()
    whole = Objective.of_source(pinn.collocation, theta)
    ours = subspace_objective(whole, 5, seed=3)
    project = random_projection(len(theta), 5, kind="dense", seed=3)
    z = torch.linspace(-1, 1, 5, dtype=torch.float64)
    traced = Objective.of_residual(lambda c: pinn.collocation.residuals(theta + project(c)), z)
    assert float(ours.loss(z)) == pytest.approx(float(traced.loss(z)), rel=1e-12)
    assert torch.allclose(ours.gradient(z), traced.gradient(z), rtol=1e-9)
    with pytest.raises(SettingsError, match="dimension"):
        subspace_objective(whole, len(theta) + 1)
