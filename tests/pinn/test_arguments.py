"""What a user may hand in by mistake is refused by name, with what to do instead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from solvers.core import PhysimError, SettingsError, ShapeError
from solvers.parallel import RayExecutor
from solvers.pde import Box, Condition, Data, Dirichlet, Initial, Neumann, Problem
from solvers.pinn import (
    LOSS_WEIGHTS,
    MLP,
    PINN,
    XPINN,
    CausalWeights,
    Curriculum,
    DeepRitz,
    GradientNormWeights,
    LagrangianPINN,
    PINNResult,
    SobolevDescent,
    TimeMarching,
    UnrolledDescent,
    check_export,
    gauss_legendre,
    gauss_newton_operator,
    hessian_operator,
    load,
    loss_landscape,
    problems,
    quasi_monte_carlo,
)
from solvers.pinn._arguments import network_of, weights_of

NET = MLP(width=4, depth=1)
OPTIONS: dict[str, Any] = {"network": NET, "points": 20, "backend": "sweep"}


@pytest.mark.parametrize(
    "make",
    [
        PINN,
        DeepRitz,
        LagrangianPINN,
        TimeMarching,
        lambda problem: XPINN(problem, pieces={"t": 2}),
        lambda problem: Curriculum(problem, coefficient="beta", values=(1,)),
    ],
)
@pytest.mark.parametrize(
    ("problem", "words"), [("convection", "the text 'convection'"), (NET, "MLP"), (None, "None")]
)
def test_what_is_no_problem(make: Callable[[Any], object], problem: Any, words: str) -> None:
    with pytest.raises(SettingsError, match=f"problem: got {words}.*find_problem"):
        make(problem)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"network": MLP}, r"network: got the class MLP, expected MLP\(width=16"),
        ({"network": [20, 20]}, "network: got list"),
        ({"network": "mlp"}, "network: got the text 'mlp'"),
        ({"network": torch.zeros(3)}, "network: got Tensor"),
        ({"weights": "casual"}, "weights: got 'casual'.*did you mean 'causal'"),
        ({"weights": CausalWeights}, "weights: got the class CausalWeights"),
        ({"weights": [1.0, 2.0]}, "weights: got float"),
        ({"weights": 10.0}, "weights: got float.*gradient-norm"),
        ({"seed": "a"}, "seed: got 'a', expected a whole number"),
        ({"seed": 1.5}, "seed: got 1.5"),
        ({"seed": -1}, "seed: got -1, expected 0 or more"),
        ({"seed": 2**70}, "seed: got 1180591620717411303424, expected at most"),
        ({"condition_weight": float("inf")}, "condition_weight: got inf, expected a finite"),
        ({"residual_scales": 1.0}, "residual_scales: got 1.0, expected a number for each of"),
        ({"residual_scales": (0.0,)}, r"residual_scales\[0\]: got 0.0, expected more than zero"),
        ({"residual_scales": (float("nan"),)}, r"residual_scales\[0\]: got nan"),
        ({"network": nn.Linear(2, 1)}, r"points of shape \(N, 3\).*\.double\(\)"),
    ],
)
def test_what_is_no_network_and_no_weights(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        PINN(problems.Convection(), **{**OPTIONS, **settings})


def test_weights_by_name_are_those_with_their_defaults() -> None:
    by_name = weights_of(["causal", "tangent-kernel"])
    assert [each.settings for each in by_name] == [
        CausalWeights().settings,
        LOSS_WEIGHTS["tangent-kernel"]().settings,
    ]
    assert weights_of(()) == ()


def test_a_module_of_ones_own_is_a_network() -> None:
    module = nn.Linear(2, 1, dtype=torch.float64)
    assert getattr(network_of(module, NET), "module", None) is module
    assert network_of(None, NET) is NET


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"executor": "ray"}, "executor: got the text 'ray'.*around the call"),
        ({"executor": RayExecutor}, "executor: got the class RayExecutor"),
        ({"executor": 2}, "executor: got int"),
        ({"optimizer": torch.optim.Adam}, "optimizer: got <class.*Phase"),
        ({"optimizer": 3}, "optimizer: got 3"),
        ({"optimizer": ["adam", None]}, "optimizer: got None"),
        ({"optimizer": []}, "optimizer: got none"),
        ({"optimizer": "broyden"}, "did you mean 'self-scaled-broyden'"),
        ({"optimizer": "lfbgs"}, "did you mean 'lbfgs'"),
        ({"start": [1.0]}, "start: got list, expected a tensor of 21 parameters"),
        ({"checkpoint": "/nowhere/run.safetensors"}, "checkpoint: folder /nowhere does not exist"),
        ({"checkpoint": "."}, "checkpoint: . is a folder"),
        ({"checkpoint": "run.safetensors", "checkpoint_every": -1.0}, "checkpoint_every: got -1"),
        ({"checkpoint": 3}, "checkpoint: got int, expected a path"),
        ({"callback": 3}, "callback: got int, expected a function"),
        ({"measure": 3}, "measure: got int, expected True or False"),
    ],
)
def test_what_a_fit_cannot_take(options: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        PINN(problems.Convection(), **OPTIONS).fit(1, steps=1, **options)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("natural", "did you mean 'natural-gradient'"),
        ("broyden", "did you mean 'self-scaled-broyden'"),
        ("gns", "an energy is no sum of squares"),
        ("levenberg-marquardt", "an energy is no sum of squares"),
        (["adam", "lbfgs"], "expected one name"),
    ],
)
def test_energies_have_the_names_of_the_other_optimizers(name: Any, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        DeepRitz(problems.Poisson(1), **OPTIONS, optimizer=name)


ENDS = Dirichlet(axis="x", side="both", u=0.0)
MEASURED = Data({"x": torch.tensor([0.5])}, u=torch.tensor([0.125]))


@pytest.mark.parametrize(
    ("conditions", "is_determined"),
    [
        ([ENDS], False),
        ([ENDS, MEASURED], True),
        # a flux that was measured beside the value
        ([ENDS, Neumann(axis="x", side="upper", u=-0.5)], True),
        ([ENDS, Dirichlet(axis="x", side="lower", u=0.0)], True),
    ],
)
def test_a_coefficient_needs_more_than_its_equation_does(
    conditions: list[Condition], is_determined: bool
) -> None:
    rod = Problem(
        name="rod", domain=Box(x=(0, 1)), residual=lambda u, x, k: k * u.xx + 1.0,
        coefficients={"k": 2.0}, unknown=("k",), conditions=conditions,
    )  # fmt: skip
    if is_determined:
        assert PINN(rod, **OPTIONS).parameter_count == 14
        return
    with pytest.raises(SettingsError, match=r"nothing determines k.*Data\(points, u=values\)"):
        PINN(rod, **OPTIONS)


def test_a_second_equation_may_determine_a_coefficient() -> None:
    heat = Problem(
        name="heat", domain=Box(x=(0, 1), t=(0, 1)),
        residual=lambda u, x, t, k: (u.t - k * u.xx, u.t + u),
        coefficients={"k": 2.0}, unknown=("k",), conditions=[Initial(u=0.0), ENDS],
    )  # fmt: skip
    assert PINN(heat, **OPTIONS).problem is heat


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: Curriculum(problems.Convection(), coefficient="beta", values=3.0),  # type: ignore[arg-type]
            "values: got 3.0, expected numbers in a row",
        ),
        (
            lambda: Curriculum(problems.Convection(), coefficient="beta", values=("a",)),  # type: ignore[arg-type]
            r"values: got \('a',\), expected numbers",
        ),
        (
            lambda: XPINN(problems.Convection(), pieces=3),  # type: ignore[arg-type]
            r"pieces: got 3, expected .*{'t': 3}",
        ),
        (lambda: CausalWeights(tolerances=1.0), "tolerances: got 1.0, expected numbers in a row"),  # type: ignore[arg-type]
        (lambda: CausalWeights(tolerances=(float("nan"),)), "tolerances"),
        (lambda: GradientNormWeights(memory="x"), "memory: got 'x'"),  # type: ignore[arg-type]
        (lambda: LagrangianPINN(problems.Convection(), points=0), "points: got 0"),
        (lambda: DeepRitz(problems.Poisson(1), NET, points=3.5), "points: got 3.5"),  # type: ignore[arg-type]
        (lambda: DeepRitz(problems.Poisson(1), NET, panels=0), "panels: got 0"),
        (lambda: DeepRitz(problems.Poisson(1), NET, seed="a"), "seed: got 'a'"),  # type: ignore[arg-type]
        (lambda: loss_landscape(problems.Convection()), "solver: got Problem, expected PINN"),  # type: ignore[arg-type]
        (lambda: hessian_operator(3), "solver: got int, expected PINN"),  # type: ignore[arg-type]
        (
            lambda: gauss_newton_operator(PINN(problems.Convection(), **OPTIONS), 3),  # type: ignore[arg-type]
            "theta: got int, expected a tensor",
        ),
        (lambda: LagrangianPINN(problems.Convection(), labels=3), "labels: got int, expected ends"),  # type: ignore[arg-type]
        (
            lambda: LagrangianPINN(problems.Rotation(), labels={"x": "ab"}),  # type: ignore[dict-item]
            "labels: got x='ab', expected lower and upper end",
        ),
        (lambda: XPINN(problems.Convection(), pieces={"t": 2}, seed="a"), "seed: got 'a'"),  # type: ignore[arg-type]
        (lambda: SobolevDescent(3), "problem: got int"),  # type: ignore[arg-type]
        (lambda: SobolevDescent(problems.Poisson(1), modes=1.5), "modes: got 1.5"),  # type: ignore[arg-type]
        (
            lambda: SobolevDescent(problems.Poisson(1), modes=4).energy(torch.zeros(3)),
            r"coefficients: got shape \(3,\)",
        ),
        (lambda: UnrolledDescent(3), "problem: got int"),  # type: ignore[arg-type]
        (lambda: UnrolledDescent(problems.Poisson(1), rule=3), "rule: got int"),  # type: ignore[arg-type]
        (lambda: gauss_legendre(Box(x=(0, 1)), 1.5), "count: got 1.5"),  # type: ignore[arg-type]
        (lambda: quasi_monte_carlo("x", 8), "domain: got the text 'x'"),  # type: ignore[arg-type]
        (lambda: gauss_legendre(Box(x=(0, 1)), 3).integrate(1.0), "density: got float"),  # type: ignore[arg-type]
        (lambda: check_export("a.npz", 3), "problem: got int"),  # type: ignore[arg-type]
        (lambda: load(3, problems.Convection()), "path: got int, expected a path"),  # type: ignore[arg-type]
    ],
)
def test_what_classes_cannot_take(make: Callable[[], object], words: str) -> None:
    with pytest.raises((SettingsError, ShapeError), match=words):
        make()


def test_a_result_is_loaded_with_its_own_network_and_problem(tmp_path: Path) -> None:
    def module(width: int) -> nn.Module:
        return nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, 1)).double()

    problem = problems.Convection()
    own = module(4)
    result = PINN(problem, own, points=20).fit(5, steps=2)
    path = result.save(tmp_path / "own.safetensors")
    assert torch.equal(load(path, problem, own).network.theta, result.network.theta)
    with pytest.raises(SettingsError, match="module of your own.*network="):
        load(path, problem)
    with pytest.raises(SettingsError, match="holds 21 parameters, expected 26"):
        load(path, problem, module(5))
    with pytest.raises(SettingsError, match="problem: got the text 'convection'"):
        load(path, "convection")  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def convection() -> PINNResult:
    return PINN(problems.Convection(beta=1.0), **OPTIONS).fit(5, steps=1)


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda r: r("a", 0.5), "x: got the text 'a', expected a number or a tensor"),
        (lambda r: r(0.5, t=[[1.0], "b"]), "t: got list"),
        (lambda r: r(torch.zeros(3), torch.zeros(4)), r"x \(3,\), t \(4,\), expected shapes that"),
        (lambda r: r(0.5), "coordinates: got 1, expected"),
        (lambda r: r.network(3), "points: got int"),
        (lambda r: r.network(torch.zeros(4, 3)), r"points: got shape \(4, 3\)"),
        (lambda r: r.save(3), "path: got int, expected a path"),
        (lambda r: r.plot(3), "path: got int"),
        (lambda r: r.export(3), "path: got int"),
    ],
)
def test_what_a_result_cannot_take(
    convection: PINNResult, use: Callable[[PINNResult], object], words: str
) -> None:
    with pytest.raises(PhysimError, match=words):
        use(convection)


def test_no_points_have_no_values(convection: PINNResult) -> None:
    assert convection([], 0.5).shape == (0,)  # type: ignore[union-attr, arg-type]
    assert convection(torch.zeros(0, 3), 0.5).shape == (0, 3)  # type: ignore[union-attr]
    assert convection.network(torch.zeros(0, 2, dtype=torch.float64)).shape == (0, 1)
