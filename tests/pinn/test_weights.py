"""Adaptive weights: closed forms, dense autograd beside them, and what they do to a loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from solvers.core import SettingsError
from solvers.pde import Box, Dirichlet, Initial, Problem
from solvers.pde.functions import exp, pi, sin
from solvers.pinn import (
    MLP,
    PINN,
    CausalWeights,
    GradientNormWeights,
    TangentKernelWeights,
)


def heat() -> Problem:
    return Problem(
        name="heat",
        domain=Box(x=(0, 1), t=(0, 1)),
        residual=lambda u, x, t, k: u.t - k * u.xx,
        coefficients={"k": 0.1},
        conditions=[Initial(u=lambda x: sin(pi * x)), Dirichlet(axis="x", side="both", u=0.0)],
        reference=lambda x, t, k: exp(-k * pi**2 * t) * sin(pi * x),
    )


def soft(**options: Any) -> PINN:
    settings: dict[str, Any] = {
        "points": 60, "condition_points": 20, "exact": "periodic", "condition_weight": 3.0,
        "sampling": "even", **options,
    }  # fmt: skip
    return PINN(heat(), MLP(width=5, depth=2), **settings)


@pytest.fixture(scope="module")
def dense() -> dict[str, Tensor]:
    """Jacobians of the residuals of each term at the first parameters, through autograd alone."""
    pinn = soft()
    theta = pinn.initial()
    x, t = pinn.collocation.state_dict()["points"].T

    def field(theta: Tensor, x: Tensor, t: Tensor) -> Tensor:
        return pinn.field(theta)._program.layers(theta, torch.stack([2 * x - 1, 2 * t - 1], 1))[
            :, 0
        ]

    def equation(theta: Tensor) -> Tensor:
        a, b = x.clone().requires_grad_(), t.clone().requires_grad_()
        u = field(theta, a, b)
        slope = {"create_graph": True}
        (u_x,) = torch.autograd.grad(u.sum(), a, **slope)
        (u_t,) = torch.autograd.grad(u.sum(), b, **slope)
        (u_xx,) = torch.autograd.grad(u_x.sum(), a, **slope)
        return u_t - 0.1 * u_xx

    leaf = theta.clone().requires_grad_()
    residuals = equation(leaf)
    rows = [torch.autograd.grad(r, leaf, retain_graph=True)[0] for r in residuals]
    return {"jacobian": torch.stack(rows), "residuals": residuals.detach()}


def test_the_equation_has_the_jacobian_of_dense_autograd(dense: dict[str, Tensor]) -> None:
    pinn = soft(weights=TangentKernelWeights())
    (term,) = [t for t in pinn.collocation.linear_terms(pinn.initial()) if t.is_equation]
    scale = term.residuals / dense["residuals"]
    torch.testing.assert_close(scale, scale[:1].expand_as(scale))
    torch.testing.assert_close(term.jacobian, scale[0] * dense["jacobian"], rtol=1e-9, atol=1e-12)


def test_tangent_kernel_weights_are_ratios_of_traces(dense: dict[str, Tensor]) -> None:
    pinn = soft(weights=TangentKernelWeights())
    collocation, theta = pinn.collocation, pinn.initial()
    terms = {term.name: term for term in collocation.linear_terms(theta)}
    kernels = {name: term.jacobian @ term.jacobian.T for name, term in terms.items()}
    total = sum(float(kernel.trace()) for kernel in kernels.values())
    collocation.reweight(theta)
    for name, kernel in kernels.items():
        assert collocation.factor(name) == pytest.approx(total / float(kernel.trace()))
    # Afterwards every term falls at the same mean rate.
    rates = []
    for engine in collocation.engines:
        shape = engine.residuals(theta).shape
        rows = engine.jacobian(theta).reshape(*shape, -1)
        rates += rows.square().sum((1, 2)).tolist()
    assert rates == pytest.approx([rates[0]] * len(rates), rel=1e-9)


def test_gradient_norm_weights_bring_slopes_together() -> None:
    pinn = soft(weights=GradientNormWeights(memory=0.0))
    collocation, theta = pinn.collocation, pinn.initial()
    interior = collocation.engines[0].loss_and_gradient(theta)[1]
    collocation.reweight(theta)
    torch.testing.assert_close(collocation.engines[0].loss_and_gradient(theta)[1], interior)
    slopes = {t.name: t.jacobian.T @ t.residuals for t in collocation.linear_terms(theta)}
    for name, slope in slopes.items():
        if not name.startswith("residual"):
            weighted = collocation.factor(name) * slope.abs().mean()
            assert float(weighted) == pytest.approx(float(interior.abs().max()))


def test_weights_remember(monkeypatch: pytest.MonkeyPatch) -> None:
    weights, pinn = GradientNormWeights(memory=0.75), soft()
    for wanted in (8.0, 4.0):
        monkeypatch.setattr(weights, "wanted", lambda terms, wanted=wanted: {"term": wanted})
        weights.update(pinn.collocation, pinn.initial())
    assert weights.of_term("term") == pytest.approx(0.75 * 8.0 + 0.25 * 4.0)
    assert weights.of_term("another") == 1.0


def test_causal_weights_fall_in_time_and_have_their_closed_form() -> None:
    weights = CausalWeights(tolerances=(2.0,), slices=5)
    pinn = soft(weights=weights, points=400)
    collocation, theta = pinn.collocation, pinn.initial()
    points, squares, conditions = collocation.plain_squares(theta)
    collocation.reweight(theta)
    times = torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    found = collocation._weights[0].at(torch.stack([times, times], 1))
    assert bool((found.diff() < 0).all())
    slot = (points[:, 1] * 5).long()
    means = torch.stack([squares[slot == k].mean() for k in range(5)])
    start = conditions["initial u"]
    expected = [float(torch.exp(-2.0 * (means[:k].sum() + start))) for k in range(5)]
    assert found.tolist() == pytest.approx(expected)
    # A square at a point counts by the weight of its time.
    weighted = collocation.engines[0].residuals(theta)[0].square() * len(points)
    torch.testing.assert_close(weighted, squares * found[slot])


def test_causal_weights_go_on_to_the_next_tolerance_when_all_count() -> None:
    pinn = soft(weights=CausalWeights(tolerances=(1e-9, 1e-8, 50.0), slices=4))
    (weights,) = pinn.collocation._weights
    assert isinstance(weights, CausalWeights)
    for expected in (1e-8, 50.0, 50.0):
        pinn.collocation.reweight(pinn.initial())
        assert weights.tolerance == expected
    assert float(weights.factors.min()) < 0.99


def test_the_held_out_residual_knows_no_weights() -> None:
    pinn = soft(weights=[CausalWeights(), TangentKernelWeights()])
    theta = pinn.initial()
    before = pinn.collocation.held_out(theta)
    pinn.collocation.reweight(theta)
    assert pinn.collocation.held_out(theta) == pytest.approx(before)
    assert pinn.collocation.loss_and_gradient(theta)[0] != pytest.approx(before**2 / 2)


@pytest.mark.parametrize("optimizer", ["self-scaled-broyden", "adam"])
def test_a_weighted_run_goes_on_bit_for_bit(optimizer: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "weights": [CausalWeights(slices=4), GradientNormWeights()],
        "reweight_every": 3, "resample_every": 7, "sampling": "adaptive",
    }  # fmt: skip
    whole = soft(**options).fit(30, steps=17, optimizer=optimizer)
    file = tmp_path / "run.safetensors"
    soft(**options).fit(30, steps=10, optimizer=optimizer, checkpoint=file)
    rest = soft(**options).fit(30, steps=17, optimizer=optimizer, checkpoint=file)
    assert torch.equal(whole.network.theta, rest.network.theta)


def test_refinement_adds_the_largest_residuals_up_to_twice_the_points() -> None:
    pinn = soft(sampling="refined", points=40)
    collocation, theta = pinn.collocation, pinn.initial()
    first = collocation.state_dict()["points"]
    collocation.move(theta)
    points = collocation.state_dict()["points"]
    assert torch.equal(points[:40], first)
    assert len(points) == 42
    old, new = collocation.plain_squares(theta)[1].split([40, 2])
    assert float(new.min()) > float(old.median())
    for _ in range(30):
        collocation.move(theta)
    assert len(collocation.state_dict()["points"]) == 80


def test_weights_that_do_not_fit_are_refused() -> None:
    still = Problem(
        name="still", domain=Box(x=(0, 1)), residual=lambda u, x: u.xx,
        conditions=[Dirichlet(axis="x", side="both", u=0.0)],
    )  # fmt: skip
    with pytest.raises(SettingsError, match="need time"):
        PINN(still, MLP(width=4, depth=1), points=20, weights=CausalWeights())
    with pytest.raises(SettingsError, match="grow"):
        CausalWeights(tolerances=(1.0, 0.5))
    with pytest.raises(SettingsError, match="memory"):
        TangentKernelWeights(memory=1.0)
    with pytest.raises(SettingsError, match="reweight_every"):
        soft(weights=TangentKernelWeights(), reweight_every=0)
