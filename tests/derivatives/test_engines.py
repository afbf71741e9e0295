"""All engines give what nested differentiation gives, on residuals of every kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers.core import NonFiniteError, SettingsError, ShapeError
from solvers.derivatives import (
    CompiledEngine,
    Layers,
    ModuleLayers,
    NestedEngine,
    ResidualProgram,
    SweepEngine,
    residual_engine,
)
from solvers.derivatives._tiles import best_tile, strips
from solvers.kernels import scalar


@dataclass(frozen=True)
class Case:
    residual: Callable[..., Any]
    sizes: tuple[int, ...]
    fields: tuple[str, ...] = ("u",)
    coordinates: tuple[str, ...] = ("x", "t")
    coefficients: dict[str, float] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    activation: Any = "tanh"
    transform: Any = None
    embedding: Any = None

    def program(self) -> ResidualProgram:
        generator = torch.Generator().manual_seed(3)
        count = len(self.coordinates)
        return ResidualProgram(
            self.residual,
            Layers(self.sizes, self.activation),
            fields=self.fields,
            coordinates=self.coordinates,
            probe=torch.rand(12, count, generator=generator, dtype=torch.float64),
            coefficients=self.coefficients,
            unknown=self.unknown,
            transform=self.transform,
            embedding=self.embedding,
        )

    def theta(self, seed: int = 0) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        network = Layers(self.sizes, self.activation).initial(seed)
        network = network + 0.2 * torch.randn(
            len(network), generator=generator, dtype=torch.float64
        )
        guesses = [self.coefficients[name] for name in self.unknown]
        return torch.cat([network, torch.tensor(guesses, dtype=torch.float64)])

    def points(self, count: int, seed: int = 0) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.rand(count, len(self.coordinates), generator=generator, dtype=torch.float64)


def navier_stokes(f: Any, x: Any, c: Any) -> Any:
    u, v, p = f["u"], f["v"], f["p"]
    return (
        u.t + u * u.x + v * u.y + p.x - c["nu"] * (u.xx + u.yy),
        v.t + u * v.x + v * v.y + p.y - c["nu"] * (v.xx + v.yy),
        u.x + v.y,
    )


CASES = {
    "burgers": Case(
        lambda f, x, c: f["u"].t + f["u"] * f["u"].x - c["nu"] * f["u"].xx,
        (2, 20, 20, 1),
        coefficients={"nu": 0.1},
        transform=lambda x, n: [scalar.sin(3.0 * x[0]) + x[1] * (1.0 - x[0] * x[0]) * n[0]],
    ),
    "convection": Case(
        lambda f, x, c: f["u"].t + c["b"] * f["u"].x,
        (3, 8, 8, 1),
        coefficients={"b": 30.0},
        embedding=lambda x: [scalar.cos(x[0]), scalar.sin(x[0]), 2.0 * x[1] - 1.0],
    ),
    "korteweg": Case(
        lambda f, x, c: f["u"].t + 6.0 * f["u"] * f["u"].x + f["u"].xxx, (2, 17, 9, 1)
    ),
    "beam": Case(
        lambda f, x, c: f["u"].tt + c["k"] * f["u"].xxxx + f["u"] ** 3,
        (2, 6, 7, 1),
        coefficients={"k": 0.3},
        activation="sin",
    ),
    "inverse": Case(
        lambda f, x, c: f["u"].t + c["a"] * f["u"] * f["u"].x - c["nu"] * f["u"].xx,
        (2, 8, 8, 1),
        coefficients={"a": 1.0, "nu": 0.1},
        unknown=("a", "nu"),
    ),
    "flow": Case(
        navier_stokes,
        (3, 12, 12, 3),
        fields=("u", "v", "p"),
        coordinates=("x", "y", "t"),
        coefficients={"nu": 0.05},
    ),
    "cross": Case(
        lambda f, x, c: (
            scalar.sin(f["u"]) * f["v"].xy + scalar.exp(f["u"].z) / (1.0 + f["v"] * f["v"]),
            f["u"].xx + f["u"].yy + f["u"].zz + 2.0 * f["u"].xy - scalar.maximum(f["v"], x["x"]),
        ),
        (3, 7, 11, 2),
        fields=("u", "v"),
        coordinates=("x", "y", "z"),
    ),
}


def engines(case: Case, points: torch.Tensor) -> dict[str, Any]:
    program = case.program()
    return {
        "nested": NestedEngine(program, points),
        "sweep": SweepEngine(program, points, chunk=9),
        "compiled": CompiledEngine(program, points),
        "threads": CompiledEngine(program, points, threads=3),
    }


@pytest.mark.parametrize("name", CASES)
def test_engines_agree_with_autograd_to_rounding(name: str) -> None:
    case = CASES[name]
    theta = case.theta()
    made = engines(case, case.points(53))
    loss, gradient = made["nested"].loss_and_gradient(theta)
    jacobian, residuals = made["nested"].jacobian(theta), made["nested"].residuals(theta)
    for engine in made.values():
        value, slope = engine.loss_and_gradient(theta)
        assert abs(value - loss) <= 1e-12 * loss
        assert (slope - gradient).norm() <= 1e-12 * gradient.norm()
        assert (engine.jacobian(theta) - jacobian).abs().max() <= 1e-12 * jacobian.abs().max()
        assert (engine.residuals(theta) - residuals).abs().max() <= 1e-12 * residuals.abs().max()
        assert abs(engine.loss(theta) - loss) <= 1e-12 * loss


@pytest.mark.parametrize("name", ["burgers", "inverse", "flow"])
def test_gradient_is_the_jacobian_applied_to_the_residuals(name: str) -> None:
    case = CASES[name]
    theta = case.theta(1)
    engine = CompiledEngine(case.program(), case.points(40))
    _, gradient = engine.loss_and_gradient(theta)
    product = engine.jacobian(theta).T @ engine.residuals(theta).flatten()
    assert (product - gradient).norm() <= 1e-12 * gradient.norm()


def test_gradient_agrees_with_finite_differences() -> None:
    case = CASES["inverse"]
    engine = CompiledEngine(case.program(), case.points(40))
    theta = case.theta(2)
    _, gradient = engine.loss_and_gradient(theta)
    direction = torch.randn(
        len(theta), generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    step = 1e-5
    slope = (engine.loss(theta + step * direction) - engine.loss(theta - step * direction)) / (
        2 * step
    )
    assert slope == pytest.approx(float(gradient @ direction), rel=1e-7)


@given(count=st.integers(1, 70), threads=st.integers(1, 4))
@settings(max_examples=15)
def test_any_number_of_points_and_threads_gives_the_sum_over_points(
    count: int, threads: int
) -> None:
    case = CASES["burgers"]
    theta, points = case.theta(), case.points(count, seed=count)
    engine = CompiledEngine(case.program(), points, torch.ones(count), threads=threads)
    one = CompiledEngine(case.program(), points[:1], torch.ones(1))
    total = torch.zeros_like(theta)
    for k in range(count):
        one.set_points(points[k : k + 1], torch.ones(1))
        total += one.loss_and_gradient(theta)[1]
    gradient = engine.loss_and_gradient(theta)[1]
    assert (gradient - total).norm() <= 1e-12 * total.norm()
    assert engine.residuals(theta).shape == (1, count)


@given(count=st.integers(100, 3000), threads=st.integers(3, 6))
@settings(max_examples=8)
def test_any_number_of_threads_above_one_gives_the_same_bits(count: int, threads: int) -> None:
    case = CASES["burgers"]
    points = case.points(count)
    two = CompiledEngine(case.program(), points, threads=2)
    more = CompiledEngine(case.program(), points, threads=threads)
    one = CompiledEngine(case.program(), points)
    loss, gradient = two.loss_and_gradient(case.theta())
    for engine in (more, two):
        again = engine.loss_and_gradient(case.theta())
        assert again[0] == loss
        assert torch.equal(again[1], gradient)
    assert torch.equal(more.jacobian(case.theta()), one.jacobian(case.theta()))
    assert (one.loss_and_gradient(case.theta())[1] - gradient).norm() <= 1e-12 * gradient.norm()


def test_coefficients_change_without_building_again() -> None:
    case, points = CASES["burgers"], CASES["burgers"].points(30)
    program = case.program()
    engine = CompiledEngine(program, points)
    program.set_coefficients(nu=0.7)
    engine.set_points(points)
    other = Case(case.residual, case.sizes, coefficients={"nu": 0.7}, transform=case.transform)
    expected = NestedEngine(other.program(), points).loss_and_gradient(case.theta())[1]
    gradient = engine.loss_and_gradient(case.theta())[1]
    assert (gradient - expected).norm() <= 1e-12 * expected.norm()


def test_sums_of_derivatives_share_a_channel() -> None:
    def members(name: str) -> list[Any]:
        return [channel.members for channel in CASES[name].program().plan.channels]

    assert members("burgers") == [((),), ((0,),), ((1,), (0, 0))]
    assert members("convection") == [((),), ((0,), (1,))]
    # a coefficient that is to be found keeps its derivative apart
    assert members("inverse") == [((),), ((0,),), ((1,),), ((0, 0),)]
    assert members("flow")[-1] == ((2,), (0, 0), (1, 1))


def test_a_module_of_ones_own_goes_through_nested_differentiation() -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Linear(2, 9), torch.nn.Tanh(), torch.nn.Linear(9, 1)
    ).double()
    case, points = CASES["burgers"], CASES["burgers"].points(20)
    probe = points[:5]
    programs = [
        ResidualProgram(
            case.residual, layers, fields=["u"], coordinates=["x", "t"], probe=probe,
            coefficients={"nu": 0.1},
        )
        for layers in (ModuleLayers(module, 2, 1), Layers((2, 9, 1)))
    ]  # fmt: skip
    theta = programs[0].layers.initial(0)
    own, plain = (residual_engine(program, points) for program in programs)
    assert isinstance(own, NestedEngine)
    assert isinstance(plain, CompiledEngine)
    expected = plain.loss_and_gradient(theta)[1]
    assert (own.loss_and_gradient(theta)[1] - expected).norm() <= 1e-12 * expected.norm()


def test_layers_are_a_chain_of_linear_maps() -> None:
    torch.manual_seed(1)
    chain = torch.nn.Sequential(
        torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 4), torch.nn.Tanh(),
        torch.nn.Linear(4, 2),
    ).double()  # fmt: skip
    theta = torch.nn.utils.parameters_to_vector(chain.parameters()).detach()
    points = torch.rand(7, 3, dtype=torch.float64)
    assert torch.allclose(Layers((3, 5, 4, 2))(theta, points), chain(points), atol=1e-14)


def test_without_a_compiler_the_sweep_gives_the_same_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from solvers.core import PerformanceWarning
    from solvers.derivatives import _engine
    from solvers.kernels import KernelBuildError

    case, points = CASES["burgers"], CASES["burgers"].points(20)
    expected = residual_engine(case.program(), points).loss_and_gradient(case.theta())[1]

    def refuse(*_: Any, **__: Any) -> None:
        raise KernelBuildError("no compiler")

    monkeypatch.setattr(_engine, "_built", refuse)
    with pytest.warns(PerformanceWarning, match="torch sweep"):
        engine = residual_engine(case.program(), points)
    gradient = engine.loss_and_gradient(case.theta())[1]
    assert (gradient - expected).norm() <= 1e-12 * expected.norm()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"sizes": (2, 1)}, SettingsError, "hidden"),
        ({"sizes": (3, 8, 1)}, SettingsError, "3 inputs"),
        ({"activation": "relu"}, SettingsError, "tanh"),
        ({"unknown": ("kappa",)}, SettingsError, "kappa"),
        ({"residual": lambda f, x, c: 0.0 * f["u"].t + 1.0}, SettingsError, "everywhere"),
        ({"residual": lambda f, x, c: f["u"].z}, AttributeError, "coordinates"),
        ({"transform": lambda x, n: [n[0], n[0]]}, SettingsError, "2 values"),
    ],
)
def test_bad_programs_are_refused(change: dict[str, Any], error: type, words: str) -> None:
    settings_of = {
        "residual": lambda f, x, c: f["u"].t + f["u"].xx,
        "sizes": (2, 8, 1),
        **change,
    }
    with pytest.raises(error, match=words):
        Case(**settings_of).program()


def test_bad_points_are_refused() -> None:
    case = CASES["burgers"]
    program = case.program()
    engine = CompiledEngine(program, case.points(9))
    with pytest.raises(ShapeError, match="points"):
        engine.set_points(torch.zeros(4, 3, dtype=torch.float64))
    with pytest.raises(NonFiniteError, match="points"):
        engine.set_points(torch.full((4, 2), float("nan"), dtype=torch.float64))
    with pytest.raises(ShapeError, match="weights"):
        engine.set_points(case.points(4), torch.ones(3))
    with pytest.raises(ShapeError, match="theta"):
        engine.loss(torch.zeros(3, dtype=torch.float64))
    with pytest.raises(ShapeError, match="no point"):
        engine.set_points(case.points(4)[:0])


@pytest.mark.parametrize("registers", [16, 32])
@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 9))
def test_tiles_cover_a_layer_once_and_fit_the_registers(
    registers: int, rows: int, columns: int, least: int
) -> None:
    least = min(least, columns)
    for tile in (
        best_tile(rows, columns, registers),
        best_tile(rows, least, registers, least=least),
    ):
        assert tile[0] * tile[1] + tile[1] + 1 <= registers or tile == (1, least)
        for length, size in ((rows, tile[0]), (columns, tile[1])):
            places = [
                place
                for step, first, end in strips(length, size)
                for start in range(first, end, step)
                for place in range(start, start + step)
            ]
            assert places == list(range(length))
