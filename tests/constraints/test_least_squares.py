"""Layers that fit residuals: forms of input, failures, precision, and the exact gradient."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from constraints import GeneralLeastSquares, ImplicitLeastSquares, MixtureOfExperts
from constraints.experts import JetBasis, Partition, Rows
from solvers.core import NotConvergedError, NumericalWarning, SettingsError, ShapeError, Status
from solvers.core.testing import check_gradients
from solvers.kernels import scalar


def logistic(u: Any, du: Any, rate: Any) -> Any:
    return du - rate * u * (1.0 - u)


def start(u: Any) -> Any:
    return u - 0.1


def monomials(points: Tensor, count: int = 8) -> tuple[Tensor, Tensor]:
    n = torch.arange(count, dtype=torch.float64)
    t = points[:, None]
    return t**n, n * t ** (n - 1).clamp(min=0)


def features(items: int = 2) -> dict[str, Tensor]:
    value, slope = monomials(torch.linspace(0, 2, 60, dtype=torch.float64))
    return {
        "equation": torch.stack([value, slope], -2).expand(items, -1, -1, -1).contiguous(),
        "start": value[:1, None].expand(items, -1, -1, -1).contiguous(),
    }


RATES = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
RESIDUALS = {"equation": logistic, "start": start}


@pytest.mark.parametrize("backend", ["kernel", "reference", "auto"])
def test_the_field_is_the_closed_form(backend: Any) -> None:
    layer = ImplicitLeastSquares(RESIDUALS, backend=backend, weights={"start": 100.0})
    w, report = layer(features(), {"equation": [RATES]})
    assert report.all_converged
    t = torch.linspace(0, 2, 11, dtype=torch.float64)
    exact = 1 / (1 + 9 * torch.exp(-RATES * t))
    assert float((w @ monomials(t)[0].T - exact).abs().max()) < 1e-3


def test_a_gradient_in_a_coefficient_of_the_equation() -> None:
    layer = ImplicitLeastSquares(RESIDUALS, tolerance=1e-10)
    given = features()
    error = check_gradients(
        lambda rate, rows: layer({**given, "equation": rows}, {"equation": [rate]})[0],
        [RATES, given["equation"]],
        directions=4,
        eps=1e-5,
        rtol=1e-6,
    )
    assert error < 1e-6


def test_shared_data_get_the_sum_over_items() -> None:
    layer = ImplicitLeastSquares(RESIDUALS)
    shared = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    w, _ = layer(features(), {"equation": [shared]})
    w.sum().backward()
    each = torch.full((2, 1), 1.5, dtype=torch.float64, requires_grad=True)
    w, _ = layer(features(), {"equation": [each]})
    w.sum().backward()
    assert shared.grad is not None
    assert each.grad is not None
    assert torch.allclose(shared.grad, each.grad.sum())


def test_float32_in_and_out() -> None:
    layer = ImplicitLeastSquares(lambda u, goal: u - goal)
    phi = torch.randn(2, 9, 1, 3, generator=torch.Generator().manual_seed(0))
    goal = torch.ones(9)
    w, report = layer(phi.requires_grad_(), [goal])
    assert w.dtype == torch.float32
    assert report.all_converged
    w.sum().backward()
    assert phi.grad is not None
    assert phi.grad.dtype == torch.float32


def test_a_warm_start_is_found_to_be_done() -> None:
    layer = ImplicitLeastSquares(RESIDUALS)
    w, cold = layer(features(), {"equation": [RATES]})
    _, warm = layer(features(), {"equation": [RATES]}, start=w)
    assert warm.iterations.max() <= 1 < cold.iterations.min()


def test_failures_raise_warn_or_are_masked() -> None:
    short: dict[str, Any] = {"max_iterations": 3}
    with pytest.raises(NotConvergedError, match="ImplicitLeastSquares did not converge") as caught:
        ImplicitLeastSquares(RESIDUALS, **short)(features(), {"equation": [RATES]})
    assert caught.value.solution.value.shape == (2, 8)
    with pytest.warns(NumericalWarning, match="2 of 2"):
        ImplicitLeastSquares(RESIDUALS, on_failure="warn", **short)(
            features(), {"equation": [RATES]}
        )
    given = features()
    given["equation"].requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        w, report = ImplicitLeastSquares(RESIDUALS, on_failure="mask", **short)(
            given, {"equation": [RATES]}
        )
    assert (report.status == Status.MAX_ITERATIONS).all()
    cold = ImplicitLeastSquares(RESIDUALS).problem(features(), {"equation": [RATES]})
    at = cold.normal_equations(torch.zeros_like(w), torch.arange(2))
    assert (report.counts["cost"] <= at.cost).all()
    assert not torch.autograd.grad(w.sum(), given["equation"])[0].any()


def test_a_kink_is_named_not_hidden() -> None:
    phi = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    layer = ImplicitLeastSquares(lambda u: scalar.sqrt(scalar.absolute(u)), on_failure="mask")
    w, report = layer(phi, start=torch.ones(1, 1, dtype=torch.float64))
    assert not report.all_converged
    assert w.isfinite().all()


def test_general_residuals() -> None:
    """The circle through noisy points; its gradient by differences."""
    angle = torch.linspace(0, 5, 12, dtype=torch.float64)
    noise = 0.1 * torch.randn(2, 12, 2, generator=torch.Generator().manual_seed(0)).double()
    xy = torch.stack([2 + 3 * angle.cos(), 1 + 3 * angle.sin()], -1) + noise

    def distance(w: Tensor, xy: Tensor) -> Tensor:
        return torch.linalg.vector_norm(xy - w[:2], dim=-1) - w[2]

    layer = GeneralLeastSquares(distance, 3, tolerance=1e-10)
    first = torch.tensor([[1.0, 1.0, 1.0]], dtype=torch.float64).expand(2, -1)
    w, report = layer(xy, start=first)
    assert report.all_converged
    assert torch.allclose(w, torch.tensor([2.0, 1.0, 3.0], dtype=torch.float64), atol=0.1)
    error = check_gradients(lambda xy: layer(xy, start=first)[0], [xy], directions=4, eps=1e-5)
    assert error < 1e-6


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ImplicitLeastSquares(start, on_failure="project"), SettingsError, "project"),
        (lambda: ImplicitLeastSquares(start, backend="gpu"), SettingsError, "backend"),
        (lambda: ImplicitLeastSquares(start, tolerance=0.0), SettingsError, "tolerance"),
        (lambda: ImplicitLeastSquares(start, ridge=-1.0)(features()["start"]), SettingsError, "ri"),
        (lambda: ImplicitLeastSquares(start)(features()), SettingsError, "no mapping"),
        (lambda: ImplicitLeastSquares(RESIDUALS)(features()["start"]), SettingsError, "famil"),
        (lambda: ImplicitLeastSquares(start)(torch.ones(2, 3)), ShapeError, "E, m, k, N"),
        (lambda: ImplicitLeastSquares(RESIDUALS)(features()), SettingsError, "residual"),
        (lambda: ImplicitLeastSquares(torch.sinh, backend="kernel")(torch.ones(1, 1, 1, 1)),
         SettingsError, "cannot be traced"),
        (GeneralLeastSquares(start, 2), ShapeError, "parameters"),
        (lambda: GeneralLeastSquares(lambda w, a: w.sum() - a, 2)(torch.ones(3)), ShapeError, "M"),
        (lambda: ImplicitLeastSquares(start)(
            features()["start"], start=torch.full((2, 8), math.inf)), ArithmeticError, "start"),
    ],
)  # fmt: skip
def test_bad_input(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("backend", ["kernel", "reference"])
def test_a_first_guess_that_is_lost_is_the_matter_of_its_item(backend: Any) -> None:
    layer = ImplicitLeastSquares(RESIDUALS, backend=backend, on_failure="mask")
    rates = RATES.clone().requires_grad_()
    guess = torch.zeros(2, 8, dtype=torch.float64)
    good, _ = layer(features(), {"equation": [rates]}, start=guess)
    guess[0, 3] = math.nan
    w, report = layer(features(), {"equation": [rates]}, start=guess)
    assert report.status.tolist() == [Status.NON_FINITE, Status.CONVERGED]
    assert report.residual[0].isnan()
    assert not w[0].any()
    torch.testing.assert_close(w[1], good[1], atol=1e-12, rtol=0)
    (slope,) = torch.autograd.grad(w.sum(), rates)
    assert slope[0] == 0
    assert slope[1] != 0
    strict = ImplicitLeastSquares(RESIDUALS, backend=backend)
    with pytest.raises(ArithmeticError, match=r"start at index \(0, 3\) is nan"):
        strict(features(), {"equation": [rates]}, start=guess)


@pytest.mark.parametrize("backend", ["kernel", "reference"])
def test_lost_features_leave_nothing_known_of_the_fit(backend: Any) -> None:
    given = features()
    given["equation"][0, 2, 0, 1] = math.nan
    layer = ImplicitLeastSquares(RESIDUALS, backend=backend, on_failure="mask")
    _, report = layer(given, {"equation": [RATES]})
    assert report.status.tolist() == [Status.NON_FINITE, Status.CONVERGED]
    assert report.residual[0].isnan()


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_a_batch_without_a_solution_has_a_gradient_of_zero(backend: Any) -> None:
    phi = torch.ones(2, 3, 2, 1, dtype=torch.float64, requires_grad=True)
    for residual, ends in (
        (lambda u, v: torch.sqrt(u) + v - math.nan, Status.NON_FINITE),
        (lambda u, v: torch.atan2(u, v) - 1.0, Status.BREAKDOWN),  # no curvature at the origin
    ):
        layer = ImplicitLeastSquares(residual, backend=backend, on_failure="mask")
        w, report = layer(phi)
        assert report.status.tolist() == [ends, ends]
        assert torch.autograd.grad(w.sum(), phi)[0].eq(0).all()
    a = torch.full((2, 1), math.nan, dtype=torch.float64, requires_grad=True)
    w, report = GeneralLeastSquares(lambda w, a: w - a, 1, on_failure="mask")(a)
    assert not report.converged.any()
    assert torch.autograd.grad(w.sum(), a)[0].eq(0).all()


def test_a_residual_that_mixes_points_is_named_where_experts_are_held() -> None:
    s = torch.linspace(0, 1, 20, dtype=torch.float64)
    rows = {"fit": Rows(residual=lambda u, goal: u - u.mean() - goal, features=("u",))}
    mixture = MixtureOfExperts(
        JetBasis("x", 3, width=4), rows, Partition.boxes([0], [1], [2]), continuity={"x": ("u",)}
    )
    with pytest.raises(Exception, match="function of single points"):
        mixture({"fit": s[:, None]}, {"fit": [torch.sin(s)[None]]})


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_a_residual_that_mixes_points_is_named(backend: Any) -> None:
    phi = torch.rand(2, 5, 1, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for residual in (
        lambda u: u - u.mean(),
        lambda u: u + torch.rand_like(u),
        lambda u: u.flip(0),
    ):
        torch.manual_seed(0)
        with pytest.raises(SettingsError, match="function of single points"):
            ImplicitLeastSquares(residual, ridge=1e-3, backend=backend)(phi)


@pytest.mark.parametrize(
    ("residual", "error", "match"),
    [
        (lambda w: w, SettingsError, r"called with w of shape \(2,\) and 1 parameter.*takes 1"),
        (lambda w, a, b: w, SettingsError, "missing 1 required"),
        (lambda w, a: 3.0, SettingsError, "gave float"),
        (lambda w, a: (w, a), SettingsError, "gave tuple"),
        (lambda w, a: w[:, None] * a, ShapeError, r"gave shape \(2, 1\)"),
    ],
)
def test_a_general_residual_of_another_form_is_named(
    residual: Any, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        GeneralLeastSquares(residual, 2)(torch.ones(3, dtype=torch.float64))


def test_a_residual_that_gives_nothing_is_named() -> None:
    with pytest.raises(SettingsError, match="gave NoneType"):
        ImplicitLeastSquares(lambda u: None)(features()["start"])
