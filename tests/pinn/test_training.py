"""Training reaches the reference, and everything around it keeps its promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from solvers.core import CheckpointError, NumericalWarning, SettingsError, Status
from solvers.pde import Box, Data, Dirichlet, Initial, Neumann, Periodic, Problem
from solvers.pde.functions import exp, pi, sin
from solvers.pinn import MLP, PINN, ModifiedMLP, load


def poisson(waves: int = 1) -> Problem:
    return Problem(
        name="Poisson",
        domain=Box(x=(0, 1)),
        residual=lambda u, x, k: u.xx / (k * pi) ** 2 + sin(k * pi * x),
        coefficients={"k": float(waves)},
        conditions=[Dirichlet(axis="x", side="both", u=0.0)],
        reference=lambda x, k: sin(k * pi * x),
    )


def convection(speed: float) -> Problem:
    return Problem(
        name="convection",
        domain=Box(x=(0, 2 * pi), t=(0, 1)),
        residual=lambda u, x, t, beta: u.t + beta * u.x,
        coefficients={"beta": speed},
        conditions=[Initial(u=sin), Periodic(axis="x")],
        reference=lambda x, t, beta: sin(x - beta * t),
    )


SMALL: dict[str, Any] = {"network": MLP(width=8, depth=2), "points": 120}


def test_poisson_to_the_tolerance() -> None:
    result = PINN(poisson(2), **SMALL).fit(30, tolerance=1e-6)
    assert result.report.all_converged
    assert float(result.report.residual) < 1e-6
    assert result.relative_l2 < 1e-6


def test_convection_in_space_and_time() -> None:
    result = PINN(convection(3.0), MLP(width=10, depth=2), points=500).fit(30, target=1e-4)
    assert result.report.all_converged
    assert result.relative_l2 < 1e-4
    assert result.history[-1]["relative_l2"] == pytest.approx(result.relative_l2)


def test_terms_of_the_loss_are_in_the_history_and_add_up() -> None:
    places = torch.tensor([[0.2], [0.7]], dtype=torch.float64)
    rod = Problem(
        name="rod",
        domain=Box(x=(0, 1)),
        residual=lambda u, x, k: k * u.xx + 1.0,
        coefficients={"k": 1.5},
        unknown=("k",),
        conditions=[
            Dirichlet(axis="x", side="lower", u=0.0),
            Neumann(axis="x", side="upper", u=-0.5),
            Data(places, scale=0.1, u=torch.tensor([0.3, 0.4])),
            Data(places, scale=0.5, u=torch.tensor([0.2, 0.5])),
        ],
    )
    names = ("residual equation", "neumann x upper u", "data u", "data u 2")
    pinn = PINN(rod, **SMALL)
    assert pinn.collocation.names == names
    theta = pinn.initial()
    halves = pinn.collocation.held_out(theta) ** 2 - 2 * pinn.collocation._held_out.loss(theta)
    assert halves == pytest.approx(sum(pinn.collocation.terms(theta)[name] for name in names[1:]))
    for row in pinn.fit(10, steps=20).history:
        assert row["loss"] == pytest.approx(sum(row[name] for name in names), rel=1e-10)


def test_sine_networks_and_fourier_features_and_own_modules() -> None:
    for network in (
        MLP(width=8, depth=2, activation="sin"),
        MLP(width=8, depth=2, frequencies=4),
        ModifiedMLP(width=8, depth=2),
        torch.nn.Sequential(
            torch.nn.Linear(1, 12), torch.nn.Tanh(), torch.nn.Linear(12, 1)
        ).double(),
    ):
        result = PINN(poisson(), network, points=60).fit(20, target=1e-3)
        assert result.report.all_converged, network


def test_unknown_coefficient_is_found_from_noisy_data() -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(60, 2, generator=generator, dtype=torch.float64)
    points[:, 0] *= pi
    noise = 0.001 * torch.randn(60, generator=generator, dtype=torch.float64)
    values = torch.exp(-0.3 * points[:, 1]) * torch.sin(points[:, 0]) + noise
    problem = Problem(
        name="heat",
        domain=Box(x=(0, pi), t=(0, 1)),
        residual=lambda u, x, t, k: u.t - k * u.xx,
        coefficients={"k": 1.0},
        unknown=("k",),
        conditions=[
            Initial(u=sin),
            Dirichlet(axis="x", side="both", u=0.0),
            Data(points, u=values),
        ],
        reference=lambda x, t: exp(-0.3 * t) * sin(x),
    )
    result = PINN(problem, MLP(width=8, depth=2), points=300).fit(30, steps=300)
    assert result.coefficients["k"] == pytest.approx(0.3, abs=0.01)
    assert result.relative_l2 < 5e-3


@pytest.mark.parametrize("weight", [10.0, 1e-4])
def test_a_network_that_follows_the_noise_says_so(
    weight: float, recwarn: pytest.WarningsRecorder
) -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(60, 2, generator=generator, dtype=torch.float64)
    noise = 0.01 * torch.randn(60, generator=generator, dtype=torch.float64)
    values = torch.exp(-0.15 * pi**2 * points[:, 1]) * torch.sin(pi * points[:, 0]) + noise
    rod = Problem(
        name="rod", domain=Box(x=(0, 1), t=(0, 1)), residual=lambda u, k: u.t - k * u.xx,
        coefficients={"k": 0.5}, unknown=("k",),
        conditions=[
            Initial(u=lambda x: sin(pi * x)), Dirichlet(axis="x", side="both", u=0.0),
            Data(points, scale=0.01, u=values),
        ],
    )  # fmt: skip
    pinn = PINN(rod, MLP(width=8, depth=2), points=400, condition_weight=weight)
    found = pinn.fit(60, steps=1000, on_failure="mask").coefficients["k"]
    said = [str(w.message) for w in recwarn if issubclass(w.category, NumericalWarning)]
    is_right = found == pytest.approx(0.15, rel=0.02)
    assert is_right is (weight < 1)
    assert is_right is not any("condition_weight=1e-04" in words for words in said)


def test_backends_take_the_same_way() -> None:
    losses = []
    for backend in ("compiled", "sweep", "nested"):
        pinn = PINN(poisson(), **SMALL, backend=backend)
        losses.append(pinn.fit(60, steps=15).history[-1]["loss"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    assert losses[2] == pytest.approx(losses[0], rel=1e-6)


def test_a_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    options: dict[str, Any] = {**SMALL, "resample_every": 7}
    whole = PINN(poisson(), **options).fit(60, steps=30)
    file = tmp_path / "run.safetensors"
    PINN(poisson(), **options).fit(60, steps=12, checkpoint=file)
    rest = PINN(poisson(), **options).fit(60, steps=30, checkpoint=file)
    assert torch.equal(whole.network.theta, rest.network.theta)
    assert int(rest.report.iterations) == 30
    with pytest.raises(CheckpointError, match="points"):
        PINN(poisson(), **{**options, "points": 121}).fit(1, checkpoint=file)
    with pytest.raises(CheckpointError, match="coefficients"):
        PINN(poisson(2), **options).fit(1, checkpoint=file)


def test_a_nan_keeps_the_last_state_and_names_its_term(monkeypatch: pytest.MonkeyPatch) -> None:
    pinn = PINN(poisson(), **{**SMALL, "resample_every": 5})
    moves = []

    def spoil(theta: torch.Tensor) -> None:
        moves.append(theta)
        if len(moves) == 2:
            nan = torch.full((120,), float("nan"), dtype=torch.float64)
            pinn.collocation.engines[0].set_points(pinn.collocation.state_dict()["points"], nan)

    monkeypatch.setattr(pinn.collocation, "move", spoil)
    with pytest.warns(NumericalWarning, match="residual equation"):
        result = pinn.fit(20, steps=50)
    assert int(result.report.status) == Status.NON_FINITE
    assert int(result.report.iterations) == 10
    assert bool(torch.isfinite(result.network.theta).all())


def test_results_are_saved_and_loaded(tmp_path: Path) -> None:
    result = PINN(poisson(), MLP(width=6, depth=2, frequencies=3), points=60).fit(20, steps=40)
    path = result.save(tmp_path / "field.safetensors")
    again = load(path, poisson())
    x = torch.linspace(0, 1, 11, dtype=torch.float64)
    assert torch.equal(again(x), result(x))
    assert again.settings == result.settings
    with pytest.raises(CheckpointError, match="k"):
        load(path, poisson(2))


def test_fields_are_called_by_position_and_by_name() -> None:
    result = PINN(convection(1.0), MLP(width=4, depth=1), points=20).fit(5, steps=2)
    x = torch.linspace(0, 6, 5, dtype=torch.float64, requires_grad=True)
    values = result(x, t=0.5)
    assert isinstance(values, torch.Tensor)
    assert torch.equal(values, result(x, 0.5))
    assert result(x[:, None], x[None, :] / 6).shape == (5, 5)
    values.sum().backward()
    assert x.grad is not None
    with pytest.raises(SettingsError, match="x, t"):
        result(x)


def test_a_budget_that_is_spent_says_so() -> None:
    result = PINN(poisson(), **SMALL).fit(30, steps=3, tolerance=1e-12, on_failure="mask")
    assert int(result.report.status) == Status.MAX_ITERATIONS
    assert int(result.report.iterations) == 3


def test_rounding_ends_the_search_in_order() -> None:
    result = PINN(poisson(), MLP(width=4, depth=1), points=40).fit(
        40, steps=6000, tolerance=1e-15, on_failure="mask"
    )
    assert int(result.report.status) in (Status.STALLED, Status.MAX_ITERATIONS)
    assert bool(torch.isfinite(result.network.theta).all())


@pytest.mark.parametrize(
    "settings",
    [
        {"points": 0},
        {"sampling": "random"},
        {"exact": "none"},
        {"resample_every": 0},
        {"condition_weight": -1.0},
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        PINN(poisson(), **settings)


def test_a_network_that_does_not_fit_is_refused() -> None:
    with pytest.raises(SettingsError, match="shape"):
        PINN(poisson(), torch.nn.Linear(1, 3).double())
    with pytest.raises(SettingsError, match="float64"):
        PINN(poisson(), torch.nn.Linear(1, 1))


FEW: dict[str, Any] = {"network": MLP(width=8, depth=2), "points": 12, "resample_every": 60}


@pytest.mark.parametrize("sampling", ["adaptive", "even"])
def test_points_that_are_too_few_become_more(sampling: Any) -> None:
    """The residual vanishes at twelve points and not between them."""
    kept = PINN(convection(3.0), **FEW, sampling=sampling, most_points=12)
    grown = PINN(convection(3.0), **FEW, sampling=sampling)
    options: dict[str, Any] = {"steps": 400, "on_failure": "mask"}
    before, after = kept.fit(60, **options), grown.fit(60, **options)
    assert after.relative_l2 < 0.1 * before.relative_l2
    counts = [
        pinn.collocation.residuals(result.network.theta.detach()).numel()
        for pinn, result in ((kept, before), (grown, after))
    ]
    assert counts[0] == 12
    assert 48 <= counts[1] <= 1000


def test_grown_points_go_on_bit_for_bit(tmp_path: Path) -> None:
    whole = PINN(convection(3.0), **FEW).fit(60, steps=150)
    file = tmp_path / "run.safetensors"
    PINN(convection(3.0), **FEW).fit(60, steps=90, checkpoint=file)
    pinn = PINN(convection(3.0), **FEW)
    rest = pinn.fit(60, steps=150, checkpoint=file)
    assert torch.equal(rest.network.theta, whole.network.theta)
    with pytest.raises(CheckpointError, match="most_points"):
        PINN(convection(3.0), **FEW, most_points=12).fit(60, steps=200, checkpoint=file)


@pytest.mark.parametrize(("most", "words"), [(0, "most_points: got 0"), (11, "12 or more")])
def test_most_points_are_no_fewer_than_the_first(most: int, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        PINN(convection(3.0), **FEW, most_points=most)


def test_few_points_are_saved_and_loaded(tmp_path: Path) -> None:
    result = PINN(convection(3.0), **FEW, most_points=12).fit(60, steps=3)
    again = load(result.save(tmp_path / "few.safetensors"), convection(3.0))
    assert torch.equal(again.network.theta, result.network.theta)
    assert again.settings["most_points"] == 12
