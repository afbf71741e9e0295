"""Networks of several branches: the compiled engine against nested differentiation."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from solvers.core import SettingsError
from solvers.derivatives import (
    Branches,
    CompiledEngine,
    Layers,
    NestedEngine,
    ResidualProgram,
    SweepEngine,
    residual_engine,
)


def residual(f: Any, x: Any, c: Any) -> Any:
    X, Y, W = f["X"], f["Y"], f["W"]
    return X.t - W * Y.xx * c["k"], Y.xy + W.x * X, W.t - W.yy * x["x"]


def program(branches: Branches) -> ResidualProgram:
    generator = torch.Generator().manual_seed(0)
    return ResidualProgram(
        residual, branches, fields=["X", "Y", "W"], coordinates=["x", "y", "t"],
        probe=torch.rand(8, 3, generator=generator, dtype=torch.float64),
        coefficients={"k": 0.3}, unknown=["k"],
    )  # fmt: skip


UNEVEN = Branches((Layers((3, 7, 2)), Layers((3, 9, 5, 1))))
THREE = Branches(tuple(Layers((3, 5, 1), "sin") for _ in range(3)))


@pytest.mark.parametrize(
    ("branches", "threads"),
    [(UNEVEN, 1), (UNEVEN, 2), pytest.param(THREE, 1, marks=pytest.mark.slow)],
)
def test_branches_have_the_numbers_of_nested_differentiation(
    branches: Branches, threads: int
) -> None:
    generator = torch.Generator().manual_seed(1)
    points = torch.rand(45, 3, generator=generator, dtype=torch.float64)
    made = program(branches)
    noise = torch.randn(made.parameter_count, generator=generator, dtype=torch.float64)
    theta = torch.cat([branches.initial(1), torch.tensor([0.4]).double()]) + 0.05 * noise
    compiled, nested = CompiledEngine(made, points, threads=threads), NestedEngine(made, points)
    loss, gradient = compiled.loss_and_gradient(theta)
    other, expected = nested.loss_and_gradient(theta)
    assert loss == pytest.approx(other, rel=1e-12)
    assert torch.allclose(gradient, expected, rtol=1e-11, atol=1e-14)
    assert torch.allclose(compiled.residuals(theta), nested.residuals(theta), atol=1e-13)
    assert torch.allclose(compiled.jacobian(theta), nested.jacobian(theta), atol=1e-13)


def test_branches_do_not_share_parameters() -> None:
    theta = UNEVEN.initial(0)
    points = torch.rand(6, 3, dtype=torch.float64)
    before = UNEVEN(theta, points)
    changed = theta.clone()
    changed[UNEVEN.starts()[1] :] += 1.0
    after = UNEVEN(changed, points)
    assert torch.equal(before[:, :2], after[:, :2])
    assert bool((before[:, 2] != after[:, 2]).all())


def test_the_engine_of_branches_is_compiled() -> None:
    points = torch.rand(10, 3, dtype=torch.float64)
    assert isinstance(residual_engine(program(UNEVEN), points), CompiledEngine)
    with pytest.raises(SettingsError, match="Branches"):
        SweepEngine(program(UNEVEN), points)


@pytest.mark.parametrize(
    "parts",
    [(), (Layers((2, 4, 1)), Layers((3, 4, 1))), (Layers((2, 4, 1)), Layers((2, 4, 1), "sin"))],
)
def test_branches_that_do_not_fit_are_refused(parts: tuple[Layers, ...]) -> None:
    with pytest.raises(SettingsError, match="parts"):
        Branches(parts)
